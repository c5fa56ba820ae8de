"""Slices of which one moves, or none does: is the right one named, and how often in vain?"""

from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.batches import histories
from benchmarks.harness.command import Result, at_least, at_most
from benchmarks.harness.processes import side_by_side
from pipeline.columns import infer_columns
from pipeline.monitoring.slice_drift import most_drifted
from pipeline.monitoring.slice_tests import compare_slices
from pipeline.monitoring.slices import cuts_of, slices_of
from pipeline.monitoring.usual_slices import UsualSlices
from pipeline.reference import Reference

ALPHA: Final = 0.05
SHARES: Final = (0.05, 0.05, 0.1, 0.2, 0.25, 0.35)
"""Shares of the rows of the slices."""
ROWS, COLUMNS, BLOCKS = 2_000, 10, 10
SHOCKS: Final = {
    "nothing": (0.0, 0.0),
    "shocks of 0.3 sd of all rows": (0.3, 0.0),
    "the same, and shocks of 0.05 sd of each slice": (0.3, 0.05),
    "the same, and shocks of 0.1 sd of each slice": (0.3, 0.1),
    "the same, and shocks of 0.3 sd of each slice": (0.3, 0.3),
}
"""What blocks and batches differ by: standard deviations of what all rows and each slice share."""
BATCHES, MOVED, REFERENCES = 10, 2, 24
"""Batches of a reference in which nothing moved, and in which a slice did; references of a cell."""
TABLES: Final = {
    "chicago_taxi_tfx": (500, "timestamp", ["payment_type", "trip_start_hour", "company"]),
    "bank_marketing": (1_500, "seq", ["contact", "job", "marital", "age"]),
    "hotel_bookings": (
        3_000,
        "booking_date",
        ["hotel", "market_segment", "customer_type", "lead_time"],
    ),
    "uci_credit_default": (1_000, "ID", ["SEX", "EDUCATION", "MARRIAGE", "AGE"]),
    "evidently_adult": (1_000, "", ["sex", "race"]),
}
"""Rows of a batch, the order of the rows, and the columns to slice by."""
OF_THE_ORDER: Final = ["date", "month", "year", "timestamp", "seq", "ID"]
"""Parts of the names of columns that say when a row came."""
ORDERS: Final = 10


def slices(seed: int, *, quick: bool) -> Result:
    """A slice of 5% of the rows moves by 1 sd in one column, or nothing moves: what is named?"""
    figures: dict[str, Any] = {}
    goals = []
    cells = dict(list(SHOCKS.items())[:2]) if quick else SHOCKS
    for name, shocks in cells.items():
        seeds = range(seed, seed + (2 if quick else REFERENCES))
        found = side_by_side(partial(_trial, shocks), seeds)
        vain, right = (np.concatenate([one[k] for one in found]) for k in (0, 1))
        figures[name] = {
            "batches": len(vain),
            "named_in_vain": float(vain.mean()),
            "right_one_named": float(right.mean()),
        }
        limit = float(stats.binom.ppf(0.995, len(vain), ALPHA) / len(vain))
        goals.append(at_most(f"slices in vain: {name}", float(vain.mean()), limit))
        if shocks[1] == 0:
            goals.append(at_least(f"right slice: {name}", float(right.mean()), 0.9))
    tables = [name for name in TABLES if histories.available(name) and not quick]
    for name in tables:
        hits = np.concatenate(
            list(side_by_side(partial(_stretches, name), range(seed, seed + ORDERS)))
        )
        figures[name] = {"batches": len(hits), "named": int(hits.sum())}
    return figures, goals


def _draw(
    random: np.random.Generator, levels: np.ndarray, shocks: tuple[float, float]
) -> pd.DataFrame:
    """A batch: normal columns, one of them rounded, one skewed, one rare, and labels."""
    of = random.choice(len(SHARES), ROWS, p=SHARES)
    values = random.normal(0, 1, (ROWS, COLUMNS)) + shocks[0] * random.normal(0, 1, COLUMNS)
    values += (levels + shocks[1] * random.normal(0, 1, levels.shape))[of]
    found = pd.DataFrame(values, columns=[f"x{i}" for i in range(COLUMNS)])
    gaps = random.random(ROWS) < 0.03
    return found.assign(
        x6=found["x6"].mask(gaps),
        x7=found["x7"].round(),
        x8=np.exp(2 * found["x8"]),
        x9=(found["x9"] > 1.5).astype(float),
        kind=np.array(list("abcdefg"))[np.minimum(random.geometric(0.4, ROWS) - 1, 6)],
        group=np.array(list("ABCDEF"))[of],
        noise=random.normal(size=ROWS),
    )


def _trial(shocks: tuple[float, float], seed: int) -> tuple[list[bool], list[bool]]:
    """Whether a slice is named of batches where none moved, and the right one where one did."""
    random = np.random.default_rng([seed, 17])
    levels = random.normal(0, 0.5, (len(SHARES), COLUMNS))
    before = [_draw(random, levels, shocks) for _ in range(BLOCKS)]
    judge = _judge(before, ["group", "noise"])
    vain = [judge(_draw(random, levels, shocks)) is not None for _ in range(BATCHES)]
    right = []
    for _ in range(MOVED):
        now = _draw(random, levels, shocks)
        found = judge(now.assign(x1=now["x1"] + (now["group"] == "A")))
        right.append(found is not None and (found.name, found.columns[0]) == ("group = A", "x1"))
    return vain, right


def _stretches(name: str, seed: int) -> list[bool]:
    """Whether a slice is named of stretches of a real table, which come in a random order.

    So batches differ from the reference as its blocks do from one another.
    """
    rows, time, by = TABLES[name]
    table = histories.table(name)
    table = table.sort_values(time, kind="stable") if time else table
    names = [str(one) for one in table]
    kept = [one for one in names if not any(part in one for part in OF_THE_ORDER)]
    parts = [table[kept][i * rows : (i + 1) * rows] for i in range(len(table) // rows)]
    parts = [parts[i] for i in np.random.default_rng(seed).permutation(len(parts))]
    half = max(BLOCKS, len(parts) // 2)
    judge = _judge(parts[:half], by)
    return [judge(one) is not None for one in parts[half : half + 15]]


def _judge(blocks: list[pd.DataFrame], by: list[str]) -> Any:
    """Judges batches by a reference of some blocks: the slice that moved the most, or None."""
    rows = pd.concat(blocks, ignore_index=True)
    columns = infer_columns(rows)
    reference = Reference.fit(rows, columns)
    cuts = cuts_of(rows, {name: columns[name] for name in by})
    usual = UsualSlices.fit(
        reference,
        rows,
        slices_of(rows, cuts),
        blocks=np.split(np.arange(len(rows)), np.cumsum([len(one) for one in blocks])[:-1]),
        fewest=200,
        importance={},
    )

    def judge(now: pd.DataFrame) -> Any:
        found = compare_slices(
            reference=reference,
            usual=usual,
            current=now,
            slices=slices_of(now, cuts),
            alpha=ALPHA,
        )
        return most_drifted(found)

    return judge
