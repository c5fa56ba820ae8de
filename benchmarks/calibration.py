"""What calibration is worth: log-loss of later rows by the version that would serve.

The rows after the training window decide; neither the model nor its calibration has seen them.
"""

import os
import tempfile
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np

from benchmarks.adoption import TABLES
from benchmarks.costs import NAMES, drafted
from benchmarks.harness.command import Figures, Goal, Result, at_least, name_some, options, run
from benchmarks.harness.processes import ChildError
from benchmarks.harness.windows import labelled_rows
from pipeline.config import Settings
from pipeline.training import fitting
from pipeline.training.calibrating import GAIN, calibrated
from pipeline.training.calibration import Kind
from pipeline.training.metrics import losses

SURE: Final = {"xgboost.XGBClassifier": {"n_estimators": 300, "max_depth": 8, "learning_rate": 0.3}}
"""Parameters of a model that is too sure, which is tried beside the drafted one."""


def main() -> int:
    parser = options("calibration", __doc__, quick="one table")
    name_some(parser, "tables", NAMES)
    return run(parser, measure)


def measure(seed: int, *, quick: bool, tables: list[str]) -> Result:
    """Log-loss of later rows of each table with and without calibration; nothing is random."""
    del seed
    data = os.environ.get("HOLDFAST_BENCH_DATA")
    if data is None:
        message = "HOLDFAST_BENCH_DATA must name the folder of the tables."
        raise ChildError(message, "")
    figures: Figures = {}
    for name in ["noaa_weather"] if quick else tables or list(NAMES):
        with tempfile.TemporaryDirectory() as folder:
            file = (Path(data) / f"{name}.parquet").resolve()
            settings = drafted(file, TABLES[name].target, Path(folder))
        for case, params in (("drafted", {}), ("too sure", SURE.get(settings.training.estimator))):
            if params is not None:
                figures[f"{name}, {case}"] = found = _gains(settings, params)
                print(f"{name}, {case}: {found}", flush=True)
    return figures, _goals(figures)


def _gains(settings: Settings, params: dict[str, Any]) -> dict[str, Any]:
    data, task = settings.data, settings.task
    given = {"params": settings.training.params | params}
    training = settings.training.model_copy(update=given)
    rows = labelled_rows(settings, None, training.until)
    later = labelled_rows(settings, training.until, None)
    truth = later[data.target].to_numpy(dtype=np.float64)
    trained = fitting.train(rows, data, training, task=task)
    fitted = _loss(truth, trained.model.predict(later))
    found: dict[str, Any] = {"later": len(later), "as fitted": fitted}
    for kind in get_args(Kind):
        asked = training.model_copy(update={"calibration": kind})
        own = calibrated(trained, rows, data, asked, length=settings.monitoring.batch)
        found[kind] = _loss(truth, own.model.predict(later))
        found[f"{kind}, held out"] = round(own.metrics[GAIN], 4)
    return found


def _loss(target: Any, predicted: Any) -> float:
    return round(float(losses("log_loss", target, predicted).mean()), 4)


def _goals(figures: Figures) -> list[Goal]:
    kinds = get_args(Kind)
    kept = [one for one in figures.values() for kind in kinds if one[f"{kind}, held out"] > 0]
    helped = sum(
        one[kind] <= one["as fitted"]
        for one in figures.values()
        for kind in kinds
        if one[f"{kind}, held out"] > 0
    )
    return [
        at_least(
            "calibrations that were kept and lower the log-loss of later rows", helped, len(kept)
        )
    ]


if __name__ == "__main__":
    raise SystemExit(main())
