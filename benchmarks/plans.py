"""What `holdfast check` expects of the monitor, beside what it shows when nothing is wrong.

Rows of real tables are shuffled, so that their batches differ by chance alone; each shuffle is a
reference of ten blocks and the batches after it, judged in their order.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.batches import histories
from benchmarks.harness.command import Result, at_least, at_most, options, run
from benchmarks.harness.processes import side_by_side
from pipeline.columns import infer_columns
from pipeline.monitoring.drift import compare
from pipeline.monitoring.plan import USED, plan
from pipeline.reference import Reference
from pipeline.reference.summaries import Summary

ALPHA: Final = 0.05
BROKEN: Final = 0.01
PERSISTENCE: Final = 3
BLOCKS: Final = 10
BATCHES: Final = 15
SHUFFLES: Final = 14
TABLES: Final = {
    "bank_marketing": 500,
    "bike_hourly": 500,
    "chicago_taxi_tfx": 500,
    "elec2": 1_000,
    "evidently_adult": 500,
    "hotel_bookings": 500,
    "nannyml_california": 500,
    "noaa_weather": 500,
    "uci_credit_default": 1_000,
}
"""Sets, and the rows of a batch of each."""
Counted = tuple[int, NDArray[Any], NDArray[Any]]
"""Batches of a table, the bound of each kind of error, and how many batches showed each."""
BAND: Final = (0.025, 0.975)
"""Quantiles of the counts that a rate within a factor of two of an expected one may show."""


def main() -> int:
    parser = options("plans", __doc__, quick="one shuffle of the flights")
    return run(parser, measure)


def measure(seed: int, *, quick: bool) -> Result:
    names = ["flights"]
    names += [] if quick else [name for name in TABLES if histories.available(name)]
    figures: dict[str, Any] = {"left out": sorted({*TABLES} - {*names})}
    goals, counts = [], {}
    for name in names:
        shuffles = range(seed, seed + (1 if quick else SHUFFLES))
        found = side_by_side(partial(_shuffled, name), shuffles)
        judged = np.array([one for _, batches in found for one in batches])
        bounds = np.mean([limits for limits, _ in found], axis=0)
        counts[name] = (len(judged), bounds, judged.sum(axis=0))
        figures[name] = {"batches": len(judged)}
        for place, what in enumerate(USED):
            shown, bound = judged[:, place].mean(), float(bounds[place])
            figures[name] |= {what: float(shown), f"{what}_at_most": bound}
            most = stats.binom.ppf(0.995, len(judged), min(bound, 1)) / len(judged)
            goals.append(at_most(f"{what} of sound batches: {name}", float(shown), float(most)))
    for place, what in enumerate(USED):
        figures[f"{what}: share of the bound"] = _used(counts.values(), place)
        if len(counts) > 1:
            within = _held_out(counts, place, what, figures)
            goals.append(at_least(f"tables within a factor of two: {what}", within, 0.8))
    return figures, goals


def _used(counts: Iterable[Counted], place: int) -> float:
    """What tables show of a bound, in all; half an event is added, as for a rate (Jeffreys)."""
    shown, most = np.sum([(seen[place], n * bound[place]) for n, bound, seen in counts], axis=0)
    return float((shown + 0.5) / most)


def _held_out(counts: dict[str, Counted], place: int, what: str, figures: dict[str, Any]) -> float:
    """Share of tables that show what all others let expect, within a factor of two."""
    within = []
    for name, (n, bound, seen) in counts.items():
        others = [one for other, one in counts.items() if other != name]
        rate = float(_used(others, place) * bound[place])
        least = stats.binom.ppf(BAND[0], n, rate / 2)
        most = stats.binom.ppf(BAND[1], n, min(2 * rate, 1))
        within.append(bool(least <= seen[place] <= most))
        figures[name][f"{what}_expected"] = rate
        figures[name][f"{what}_within_a_factor_of_two"] = within[-1]
    return float(np.mean(within))


def _shuffled(name: str, seed: int) -> tuple[list[float], list[tuple[bool, bool, bool]]]:
    """Expected chances of alarm, persistence and a broken batch, and what batches showed."""
    rows, size = (
        (histories.flight_rows()[0], 1_000)
        if name == "flights"
        else (histories.table(name), TABLES[name])
    )
    rows = rows.sample(min(len(rows), size * (BLOCKS + BATCHES)), random_state=seed)
    rows = rows.reset_index(drop=True)
    before = rows.iloc[: size * BLOCKS]
    reference = Reference.fit(before, infer_columns(before), block=size)
    parts = [
        rows.iloc[start : start + size]
        for start in range(size * BLOCKS, len(rows) - size + 1, size)
    ]
    foreseen = plan(reference, parts[0], alpha=ALPHA, persistence=PERSISTENCE)
    recent: list[Summary] = []
    shown = []
    for part in parts:
        report = compare(
            reference=reference,
            current=part,
            recent=recent,
            alpha=ALPHA,
            persistence=PERSISTENCE,
            broken_alpha=BROKEN,
        )
        recent.append(report.summary)
        shown.append((report.alarm, bool(report.persisted), bool(report.causes)))
    return [foreseen.alarm, foreseen.persisted, BROKEN], shown


if __name__ == "__main__":
    raise SystemExit(main())
