"""What `holdfast tune` is worth: tuned parameters beside those of `init`, on held-out rows.

Neither the search nor the fits that are judged have seen these rows, by which training judges a
version. Tables are drafted by `holdfast init`, without an edit.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.adoption import TABLES
from benchmarks.harness.command import Figures, Goal, Result, at_least, name_some, options, run
from benchmarks.harness.processes import ChildError, holdfast
from benchmarks.harness.windows import labelled_rows
from pipeline.config import Settings
from pipeline.training import fitting
from pipeline.training.metrics import losses, mean_loss
from pipeline.training.predictions import baseline

NAMES: Final = (
    *("hotel_bookings", "bank_marketing", "bike_hourly", "uci_credit_default"),
    *("evidently_adult", "noaa_weather", "elec2", "chicago_taxi_tfx"),
)
"""Tables that are read from the folder that `HOLDFAST_BENCH_DATA` names."""
TRIALS: Final = 30
MINUTES: Final = 2


def main() -> int:
    parser = options("tuning", __doc__, quick="one table, three trials")
    parser.add_argument("--trials", type=int, default=TRIALS, help=f"{TRIALS} by default")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"{MINUTES} by default")
    name_some(parser, "tables", NAMES)
    return run(parser, measure)


def measure(seed: int, *, quick: bool, trials: int, minutes: float, tables: list[str]) -> Result:
    """Held-out losses of each table before and after a search; `seed` is that of the trainings."""
    data = os.environ.get("HOLDFAST_BENCH_DATA")
    if data is None:
        message = "HOLDFAST_BENCH_DATA must name the folder of the tables."
        raise ChildError(message, "")
    names = ["bike_hourly"] if quick else tables or list(NAMES)
    bounds = {"trials": 3 if quick else trials, "minutes": minutes}
    figures: Figures = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            file = (Path(data) / f"{name}.parquet").resolve()
            figures[name] = _tuned(file, TABLES[name].target, Path(folder), seed, bounds)
        print(f"{name}: {figures[name]}", flush=True)
    return figures, _goals(figures)


def _tuned(
    file: Path, target: str, folder: Path, seed: int, bounds: dict[str, float]
) -> dict[str, Any]:
    before = Path.cwd()
    environment = {
        "PYTHONPATH": str(before),
        "HOLDFAST__TRACKING__FOLDER": str(folder / "state"),
        "HOLDFAST__TRAINING__SEED": str(seed),
    }
    conf = Path("conf") / f"{file.stem.replace('_', '-')}.yaml"
    os.chdir(folder)
    try:
        holdfast("init", file, "--target", target, folder=folder, **environment)
        began = time.perf_counter()
        words = [f"--{name}={value}" for name, value in bounds.items()]
        found = holdfast("tune", conf, *words, folder=folder, **environment)
        spent = time.perf_counter() - began
        judged = _judged(Settings.load(conf), found["params"])
    finally:
        os.chdir(before)
    return {
        **judged,
        "gain": round(1 - judged["tuned"] / judged["drafted"], 4),
        "gain_in_search": found["gain"] and round(found["gain"], 4),
        "applied": found["best"] > 0,
        "trials": len(found["trials"]),
        "minutes": round(spent / 60, 1),
        "params": found["params"],
    }


def _judged(settings: Settings, params: dict[str, Any]) -> dict[str, Any]:
    """Mean held-out loss with the drafted and with other parameters, and of the trivial model."""
    data, training, task = settings.data, settings.training, settings.task
    rows = labelled_rows(settings, None, training.until)
    older, heldout = fitting.split(rows, data, training)
    target = heldout[data.target].to_numpy(dtype=np.float64)
    found: dict[str, Any] = {"loss": settings.loss, "rows": len(heldout)}
    for name, changed in (("drafted", {}), ("tuned", params)):
        given = training.model_copy(update={"params": {**training.params, **changed}})
        model = fitting.fit(older, data, given, task)
        found[name] = mean_loss(model, model.encode(heldout), target, settings.loss)
    known = older[data.target].to_numpy(dtype=np.float64)
    trivial = baseline(known, data.several, len(heldout))
    found["trivial"] = float(losses(settings.loss, target, trivial).mean())
    return found


def _goals(figures: Figures) -> list[Goal]:
    better = sum(one["gain"] > 0 for one in figures.values())
    wanted = 6 if len(figures) == len(NAMES) else len(figures) // 2
    return [at_least(f"of {len(figures)} tables, better when tuned", better, wanted)]


if __name__ == "__main__":
    raise SystemExit(main())
