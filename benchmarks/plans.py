"""What `holdfast check` expects of the monitor, beside what it shows when nothing is wrong.

Rows of real tables are shuffled, so that their batches differ by chance alone; each shuffle is a
reference of ten blocks and the batches after it, judged in their order.
"""

from functools import partial
from typing import Any, Final

import numpy as np
from scipy import stats

from benchmarks.batches import histories
from benchmarks.harness.command import Result, at_most, options, run
from benchmarks.harness.processes import side_by_side
from pipeline.columns import infer_columns
from pipeline.monitoring.drift import compare
from pipeline.monitoring.plan import plan
from pipeline.reference import Reference
from pipeline.reference.summaries import Summary

ALPHA: Final = 0.05
BROKEN: Final = 0.01
PERSISTENCE: Final = 3
BLOCKS: Final = 10
BATCHES: Final = 15
TABLES: Final = {
    "bank_marketing": 500,
    "bike_hourly": 500,
    "elec2": 1_000,
    "nannyml_california": 500,
    "uci_credit_default": 1_000,
}
"""Sets, and the rows of a batch of each."""


def main() -> int:
    parser = options("plans", __doc__, quick="one shuffle of the flights")
    return run(parser, measure)


def measure(seed: int, *, quick: bool) -> Result:
    names = [] if quick else [name for name in TABLES if histories.available(name)]
    shuffles = 1 if quick else 4
    figures: dict[str, Any] = {"left out": sorted({*TABLES} - {*names})}
    goals = []
    for name in ("flights", *names):
        found = side_by_side(partial(_shuffled, name), range(seed, seed + shuffles))
        judged = [one for _, batches in found for one in batches]
        figures[name] = {"batches": len(judged)}
        for place, what in enumerate(("alarms", "persisted", "broken")):
            expected = float(np.mean([limits[place] for limits, _ in found]))
            shown = float(np.mean([one[place] for one in judged]))
            most = stats.binom.ppf(0.995, len(judged), min(expected, 1)) / len(judged)
            figures[name] |= {what: shown, f"{what}_expected_at_most": expected}
            goals.append(at_most(f"{what} of sound batches: {name}", shown, float(most)))
    return figures, goals


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
