"""Slices whose loss rises: is the right one named, and how often is one named in vain?"""

from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.harness.command import Result, at_least, at_most
from benchmarks.harness.processes import side_by_side
from pipeline.monitoring.slices import judge_slices, slice_baselines, worst_slice

START: Final = pd.Timestamp("2026-01-05")
WEEK: Final = pd.Timedelta("7D")
ROWS, BATCHES, TRAINED = 2_000, 3, 10
"""Rows of a batch, batches that are judged one after the other, and batches of training."""
SLICES: Final = (5, 10, 20)
SHARE, FACTOR = 0.1, 1.5
"""Share of the rows in the slice whose loss rises, and by what the loss is multiplied."""
ALLOWED, ALPHA, FEWEST = 0.05, 0.05, 200
LEVEL: Final = 0.95
"""Confidence of the bounds of a share."""


def slices(seed: int, *, quick: bool) -> Result:
    """One slice of 10% of the rows with 1.5 times its loss among 5, 10 and 20: is it named?"""
    trials = 20 if quick else 150
    # What the loss of the faulty slice is multiplied by, and that of every row.
    kinds = {"faulty": (FACTOR, 1.0), "calm": (1.0, 1.0), "edge": (1.0, 1 + ALLOWED)}
    asked = [(count, *kind) for count in SLICES for kind in kinds.values()]
    seeds = range(seed, seed + trials)
    found: Any = iter(side_by_side(_trial, [(*one, own) for one in asked for own in seeds]))
    figures: dict[str, Any] = {}
    goals = []
    for count in SLICES:
        right: dict[str, Any] = {}
        false: dict[str, Any] = {}
        for kind in kinds:
            trial: Any = [next(found) for _ in seeds]
            right[kind], false[kind] = (np.array([one[k] for one in trial]) for k in (0, 1))
        own: dict[str, Any] = {
            "named_in_batch": [_share(right["faulty"][:, batch]) for batch in range(BATCHES)],
            "false_beside_the_fault": _share(false["faulty"][:, -1]),
            "false_nothing_wrong": _share(false["calm"][:, -1]),
            "false_all_5%_worse": _share(false["edge"][:, -1]),
        }
        figures[f"{count} slices"] = own
        named = own["named_in_batch"][-1]["share"]
        vain, edge = (own[f"false_{kind}"]["share"] for kind in ("nothing_wrong", "all_5%_worse"))
        goals += [
            at_least(f"{count} slices: right one named by batch {BATCHES}", named, 0.9),
            at_most(f"{count} slices: false ones, nothing wrong", vain, ALPHA),
            at_most(f"{count} slices: false ones, all 5% worse", edge, ALPHA),
        ]
    return figures, goals


def _share(hits: Any) -> dict[str, float]:
    """A share with the ends of its interval (Clopper and Pearson 1934)."""
    test = stats.binomtest(int(hits.sum()), hits.size)
    ends = test.proportion_ci(LEVEL)
    return {"share": float(hits.mean()), "low": float(ends.low), "high": float(ends.high)}


def _trial(asked: tuple[int, float, float, int]) -> tuple[list[bool], list[bool]]:
    """Whether each batch names the faulty slice as the worst, and whether it names another.

    Log-losses of a calibrated model differ by slice; the first slice is the faulty one.
    """
    count, factor, everywhere, seed = asked
    random = np.random.default_rng([seed, count, 13])
    shares = np.append(SHARE, np.full(count - 1, (1 - SHARE) / (count - 1)))
    hard = random.uniform(0.5, 2.0, count)

    def draw(
        rows: int, start: pd.Timestamp, length: pd.Timedelta
    ) -> tuple[Any, pd.Series, pd.DataFrame]:
        own = random.choice(count, rows, p=shares)
        score = random.normal(0, 2, rows) / hard[own]
        won = random.random(rows) < 1 / (1 + np.exp(-score))
        losses = np.logaddexp(0, np.where(won, -score, score))
        at = pd.date_range(start, periods=rows, freq=length / rows)
        names = pd.DataFrame({"of": np.char.add("of = ", own.astype(str))})
        return own, pd.Series(losses, index=at), names

    _, before, names = draw(TRAINED * ROWS, START, TRAINED * WEEK)
    baselines = slice_baselines(before, names, WEEK, heavy=False, fewest=FEWEST)
    judged: list[Any] = []
    right, false = [], []
    for batch in range(BATCHES):
        own, losses, names = draw(ROWS, START + (TRAINED + batch) * WEEK, WEEK)
        losses = losses * everywhere * np.where(own == 0, factor, 1.0)
        found = judge_slices(
            losses,
            names,
            baselines,
            length=WEEK,
            allowed=ALLOWED,
            alpha=ALPHA,
            fewest=FEWEST,
            earlier=judged,
        )
        judged.append(found)
        worst = worst_slice(found)
        right.append(worst is not None and worst.name == "of = 0")
        wrong = {one.name for one in found if one.worse} - ({"of = 0"} if factor > 1 else set())
        false.append(bool(wrong))
    return right, false
