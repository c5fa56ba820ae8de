"""What retraining on drift is worth: log-loss kept against never, weekly and monthly retraining.

The policy is the shipped configuration, replayed by the same flow that `make demo` runs, with
labels used only after they would have arrived. The schedules fit the same estimator on the
labels known at the same moments.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

from pipeline.columns import Matrix, known_categories
from pipeline.config import Numeric, Settings
from pipeline.data import sources, validation
from pipeline.data.labels import labelled
from pipeline.training import fitting
from pipeline.training.fitting import Trained
from pipeline.training.metrics import LOSS, evaluate
from pipeline.training.model import Model, build_estimator

CONF = "conf/flights.yaml"
SHARE, RETRAINS = 0.85, 8


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retraining", description=__doc__)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--quick", action="store_true", help="the first 8 weeks only")
    parser.add_argument("--no-refit", action="store_true", help="serve versions as judged")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    settings = Settings.load(CONF)
    changed = settings.training.model_copy(update={"seed": given.seed})
    settings = settings.model_copy(update={"training": changed})
    weeks = 8 if given.quick else 44
    figures = {"weeks": weeks, **policy(weeks, given.seed, refit=not given.no_refit)}
    print("policy", figures, flush=True)
    history = History(settings)
    figures["naive_ks_alarms"] = history.naive_alarms(weeks)
    schedules: list[tuple[str, int, int | None]] = [
        ("never", 0, None),
        ("monthly", 4, None),
        ("weekly", 1, None),
    ]
    if not given.quick:  # the history is shorter than 26 weeks there
        schedules.append(("weekly_26_weeks", 1, 26))
    for name, every, window in schedules:
        told = history.schedule(every=every, weeks=weeks, window=window)
        figures |= {f"{name}_{key}": value for key, value in told.items()}
        print(name, told, flush=True)
    goals = judge(figures)
    if given.json:
        print(json.dumps({"figures": figures, "goals": goals}))
    return 0


def judge(figures: dict[str, Any]) -> list[dict[str, Any]]:
    never, kept = figures["never_log_loss"], figures["policy_log_loss"]
    goals = []
    for name in ("weekly_26_weeks", "weekly"):
        if f"{name}_log_loss" not in figures:
            continue
        gain = never - figures[f"{name}_log_loss"]
        share = (never - kept) / gain if gain > 0 else float("nan")
        figures[f"share_of_{name}_gain"] = round(share, 3)
        goal = f"share of the log-loss gain of {name.replace('_', ' ')} retraining"
        goals.append({"goal": goal, "value": share, "limit": SHARE, "met": bool(share >= SHARE)})
    asked = figures["policy_retrains"]
    goals.append(
        {"goal": "retrains", "value": asked, "limit": RETRAINS, "met": bool(asked <= RETRAINS)}
    )
    return goals


def policy(weeks: int, seed: int, *, refit: bool = True) -> dict[str, Any]:
    """The shipped flow over the same weeks, in a store of its own.

    Without `refit` the fit that was judged serves, and the held-out rows are in none.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HOLDFAST__TRACKING__FOLDER"] = str(Path(folder) / "state")
        os.environ["HOLDFAST__TRAINING__SEED"] = str(seed)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        os.environ["PREFECT_HOME"] = str(Path(folder) / "prefect")
        os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
        os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "90"
        (Path(folder) / "prefect").mkdir()
        from flows.replay import replay  # noqa: PLC0415 -- Prefect reads its settings at import

        if not refit:
            fitted = fitting.train
            fitting.train = lambda *a, **k: as_judged(fitted(*a, **k))
        started = time.perf_counter()
        story = replay(CONF, batches=weeks)
        seconds = time.perf_counter() - started
        for name in ("HOLDFAST__TRACKING__FOLDER", "HOLDFAST__TRAINING__SEED"):
            del os.environ[name]
    scores = [row["maintained"] for row in story]
    return {
        "policy_log_loss": round(float(np.mean([one["log_loss"] for one in scores])), 4),
        "policy_roc_auc": round(float(np.mean([one["roc_auc"] for one in scores])), 4),
        "policy_retrains": sum(row["action"] == "retrain" for row in story),
        "policy_champions": len({row["version"] for row in story}),
        "policy_asked_in": [row["batch"] for row in story if row["action"] == "retrain"],
        "policy_seconds": round(seconds, 1),
    }


def as_judged(trained: Trained) -> Trained:
    return replace(
        trained, model=trained.judged, fitted_rows=trained.fitted_rows - len(trained.heldout)
    )


class History:
    """All valid rows, encoded once, and what was known of them when."""

    def __init__(self, settings: Settings) -> None:
        data = settings.data
        rows = sources.read(data.train, time=data.time)
        end = rows[data.time].max() + data.label_delay
        valid = validation.validate(rows, data).valid
        self.settings = settings
        self.rows = labelled(valid, data, as_of=end)
        self.categories = known_categories(self.rows, data.features)
        unfitted = Model(settings.task, data.features, self.categories, estimator=None)
        self.x: Matrix = unfitted.encode(self.rows)
        self.y = self.rows[data.target].to_numpy(dtype=np.float64)
        self.times = self.rows[data.time]
        self.known = self.times + data.label_delay
        self.length = settings.monitoring.batch
        self.start = settings.training.until

    def fit(self, until: pd.Timestamp, window: int | None) -> Model:
        inside = (self.known <= until).to_numpy()
        if window is not None:
            inside = inside & (self.times >= until - window * self.length).to_numpy()
        section = self.settings.training
        estimator = build_estimator(
            section.estimator, section.params, self.settings.data.features, seed=section.seed
        )
        estimator.fit(self.x[inside], self.y[inside])
        columns = self.settings.data.features
        return Model(self.settings.task, columns, self.categories, estimator)

    def naive_alarms(self, weeks: int) -> int:
        """Weeks in which a loop of `ks_2samp(...).pvalue < 0.05` over the numbers alarms."""
        features = self.settings.data.features
        names = [name for name, column in features.items() if isinstance(column, Numeric)]
        before = self.rows[self.times < self.start]
        alarms = 0
        for k in range(weeks):
            start = self.start + k * self.length
            now = self.rows[(self.times >= start) & (self.times < start + self.length)]
            tests = (ks_2samp(before[name].dropna(), now[name].dropna()) for name in names)
            alarms += any(test.pvalue < 0.05 for test in tests)
        return alarms

    def schedule(self, *, every: int, weeks: int, window: int | None) -> dict[str, Any]:
        """Retrain after every so many weeks; 0 is never."""
        model, retrains, scores = self.fit(self.start, None), 0, []
        for k in range(weeks):
            start = self.start + k * self.length
            inside = (self.times >= start) & (self.times < start + self.length)
            chosen = inside.to_numpy()
            predicted = model.predict_encoded(self.x[chosen])
            scores.append(evaluate(self.settings.task, self.y[chosen], predicted))
            if every and (k + 1) % every == 0 and k + 1 < weeks:
                model, retrains = self.fit(start + self.length, window), retrains + 1
        loss = LOSS[self.settings.task]
        return {
            "log_loss": round(float(np.mean([one[loss] for one in scores])), 4),
            "roc_auc": round(float(np.mean([one["roc_auc"] for one in scores])), 4),
            "retrains": retrains,
        }


if __name__ == "__main__":
    sys.exit(main())
