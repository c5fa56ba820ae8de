"""How many targets intervals and sets of classes hold, in time order and drawn at random.

`random` draws halves of the held-out rows, of which one makes margins or sets and one is counted:
exchangeable rows, for which the theory holds. `newer` counts the newer half by those of the
older, and `later` the rows after the training window by the version that would serve.
"""

import importlib
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.adoption import TABLES as ADOPTED
from benchmarks.harness.command import Figures, Goal, Result, at_least, at_most, options, run
from benchmarks.harness.processes import holdfast
from benchmarks.harness.windows import labelled_rows
from pipeline.config import Settings
from pipeline.training import fitting
from pipeline.training.intervals import Margins, Promise, Sets

COVERAGE: Final = 0.9
OFF: Final = 0.02
"""How far from the coverage that was asked for the share may be."""
SPLITS: Final = 200
TABLES: Final = {
    "bike_hourly": "cnt",
    "hotel_bookings": "adr",
    **{name: ADOPTED[name].target for name in ("noaa_weather", "uci_credit_default", "elec2")},
}
"""Tables that are read from the folder that `HOLDFAST_BENCH_DATA` names, and their targets."""


def main() -> int:
    return run(options("intervals", __doc__, quick="one small table"), measure)


def measure(seed: int, *, quick: bool) -> Result:
    """Shares of targets that intervals or sets hold, of each table."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for table, file in _files(folder, quick=quick).items():
            target = TABLES.get(table, "target")
            figures[table] = _covered(_drafted(file, target, folder), seed)
            print(f"{table}: {figures[table]}", flush=True)
        if not quick:
            figures["delays"] = _covered(Settings.load("conf/delays.yaml"), seed)
    return figures, _goals(figures)


def _files(folder: Path, *, quick: bool) -> dict[str, Path]:
    toy = folder / "diabetes.csv"
    datasets = importlib.import_module("sklearn.datasets")
    datasets.load_diabetes(as_frame=True).frame.to_csv(toy, index=False)
    data = os.environ.get("HOLDFAST_BENCH_DATA")
    if data is None or quick:
        return {"diabetes": toy}
    return {"diabetes": toy} | {name: Path(data, f"{name}.parquet").resolve() for name in TABLES}


def _drafted(file: Path, target: str, folder: Path) -> Settings:
    before = Path.cwd()
    os.chdir(folder)
    try:
        holdfast("init", file, "--target", target, folder=folder, PYTHONPATH=str(before))
        return Settings.load(f"conf/{file.stem.replace('_', '-')}.yaml")
    finally:
        os.chdir(before)


def _covered(settings: Settings, seed: int) -> dict[str, Any]:
    data, training, task = settings.data, settings.training, settings.task
    rows = labelled_rows(settings, None, training.until)
    older, heldout = fitting.split(rows, data, training)
    heldout = heldout.sort_values(data.time, kind="stable")
    target = heldout[data.target].to_numpy(dtype=np.float64)
    predicted = fitting.fit(older, data, training, task).predict(heldout)
    kind: type[Promise] = Sets if task == "classification" else Margins
    promise = kind.of(target, predicted, COVERAGE)
    later = labelled_rows(settings, training.until, None)
    served = fitting.fit(rows, data, training, task)
    truth = later[data.target].to_numpy(dtype=np.float64)
    half, random, found = len(target) // 2, np.random.default_rng(seed), []
    for _ in range(SPLITS):
        order = random.permutation(len(target))
        own, other = order[:half], order[half:]
        drawn = kind.of(target[own], predicted[own], COVERAGE)
        found.append(drawn.covered(target[other], predicted[other]))
    newest = kind.of(target[:half], predicted[:half], COVERAGE)
    spread = pd.Series(truth).quantile([0.05, 0.95]).diff().iloc[-1]
    return {
        "kind": kind.KEY,
        "rows": len(target),
        "random": round(float(np.mean(found)), 4),
        "newer": round(newest.covered(target[half:], predicted[half:]), 4),
        "later": round(promise.covered(truth, served.predict(later)), 4),
        "later_rows": len(later),
        "size": round(promise.size(predicted), 4),
        "of": data.class_count if kind is Sets else round(float(spread), 4),
    }


def _goals(figures: Figures) -> list[Goal]:
    # A set always has the likeliest class, so that it may hold more than was asked for.
    off = {
        kind: [
            max(COVERAGE - one[kind], 0) if one["kind"] == Sets.KEY else abs(one[kind] - COVERAGE)
            for one in figures.values()
        ]
        for kind in ("random", "newer", "later")
    }
    kept = {kind: sum(one <= OFF for one in off[kind]) for kind in ("newer", "later")}
    return [
        at_most(
            "held-out rows in random halves: share that is off, at most", max(off["random"]), OFF
        ),
        at_least(
            "tables whose newer held-out rows are off by two points at most",
            kept["newer"],
            len(figures),
        ),
        at_least(
            "tables whose later rows are off by two points at most", kept["later"], len(figures)
        ),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
