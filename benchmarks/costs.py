"""What decisions cost on later rows: at the threshold of the costs, and at one chosen on rows.

A threshold that is chosen is the cheapest one on the held-out rows, by the predictions of a fit
that has not seen them. Both decide the rows after the training window, by the version that would
serve. Costs are in units of a false positive.
"""

import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.adoption import TABLES
from benchmarks.harness.command import Figures, Goal, Result, at_least, name_some, options, run
from benchmarks.harness.processes import ChildError, holdfast
from benchmarks.harness.windows import labelled_rows
from pipeline.columns import Floats
from pipeline.config import Costs, Settings
from pipeline.training import fitting

NAMES: Final = (
    *("hotel_bookings", "bank_marketing", "uci_credit_default", "evidently_adult"),
    *("noaa_weather", "elec2", "chicago_taxi_tfx"),
)
"""Tables that are read from the folder that `HOLDFAST_BENCH_DATA` names."""
MISSES: Final = (1, 5, 20)
"""What a false negative costs, in false positives."""
CUTS: Final = 200
"""Thresholds that are tried: quantiles of the predictions."""


def main() -> int:
    parser = options("costs", __doc__, quick="one table")
    name_some(parser, "tables", NAMES)
    return run(parser, measure)


def measure(seed: int, *, quick: bool, tables: list[str]) -> Result:
    """Mean cost of a later row, of each table and each ratio of costs; nothing is random."""
    del seed
    data = os.environ.get("HOLDFAST_BENCH_DATA")
    if data is None:
        message = "HOLDFAST_BENCH_DATA must name the folder of the tables."
        raise ChildError(message, "")
    figures: Figures = {}
    for name in ["uci_credit_default"] if quick else tables or list(NAMES):
        with tempfile.TemporaryDirectory() as folder:
            file = (Path(data) / f"{name}.parquet").resolve()
            figures[name] = _costs(drafted(file, TABLES[name].target, Path(folder)))
        print(f"{name}: {figures[name]}", flush=True)
    return figures, _goals(figures)


def drafted(file: Path, target: str, folder: Path) -> Settings:
    """What `holdfast init` makes of a table."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        holdfast("init", file, "--target", target, folder=folder, PYTHONPATH=str(before))
        return Settings.load(f"conf/{file.stem.replace('_', '-')}.yaml")
    finally:
        os.chdir(before)


def _costs(settings: Settings) -> dict[str, Any]:
    data, training, task = settings.data, settings.training, settings.task
    rows = labelled_rows(settings, None, training.until)
    older, heldout = fitting.split(rows, data, training)
    known = heldout[data.target].to_numpy(dtype=np.float64)
    judged = fitting.fit(older, data, training, task).predict(heldout)
    later = labelled_rows(settings, training.until, None)
    truth = later[data.target].to_numpy(dtype=np.float64)
    always = np.ones(len(truth), dtype=bool)
    predicted = fitting.fit(rows, data, training, task).predict(later)
    found: dict[str, Any] = {"heldout": len(heldout), "later": len(later)}
    for missed in MISSES:
        stated = Costs(false_positive=1, false_negative=missed)
        chosen = _chosen(known, judged, missed)
        found[f"a miss costs {missed}"] = {
            "threshold": round(stated.threshold, 3),
            "cost": _cost(missed, truth, predicted >= stated.threshold),
            "chosen": round(chosen, 3),
            "cost of chosen": _cost(missed, truth, predicted >= chosen),
            "one decision for all": min(_cost(missed, truth, one) for one in (always, ~always)),
        }
    return found


def _cost(missed: float, target: Floats, decided: NDArray[np.bool_]) -> float:
    return round(float(np.where(target == 1, missed * ~decided, decided).mean()), 4)


def _chosen(target: Floats, predicted: Floats, missed: float) -> float:
    """The cheapest threshold on some rows."""
    cuts = np.unique(np.quantile(predicted, np.linspace(0, 1, CUTS)))
    return float(min(cuts, key=lambda cut: _cost(missed, target, predicted >= cut)))


def _goals(figures: Figures) -> list[Goal]:
    pairs = [
        (one["cost"], one["cost of chosen"])
        for table in figures.values()
        for one in table.values()
        if isinstance(one, dict)
    ]
    cheaper = sum(stated <= chosen for stated, chosen in pairs)
    return [
        at_least(
            "tables and costs for which the stated threshold costs no more than a chosen one",
            cheaper,
            len(pairs) // 2 + 1,
        )
    ]


if __name__ == "__main__":
    raise SystemExit(main())
