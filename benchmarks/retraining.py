"""What retraining on drift is worth, beside never, monthly and weekly retraining.

The policy is the shipped configuration, replayed as `make demo` does, with labels used only after
they would have arrived. The schedules fit the same estimator on the labels known at the same
moments.
"""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

from benchmarks.harness.command import Figures, Goal, Result, at_least, at_most, options, run
from benchmarks.harness.processes import holdfast, last_json, output, own_prefect
from pipeline.columns import Matrix, known_categories
from pipeline.config import Numeric, Settings
from pipeline.data import sources, validation
from pipeline.data.labels import labelled
from pipeline.training import fitting
from pipeline.training.estimators import build_estimator
from pipeline.training.fitting import Trained
from pipeline.training.metrics import compute_metrics
from pipeline.training.model import Model

CONF: Final = "conf/flights.yaml"
SHARE, RETRAINS = 0.85, 8
"""Goals: least share of the gain of weekly retraining, most retrains."""
SCHEDULES: Final[dict[str, tuple[int, int | None]]] = {
    "never": (0, None),
    "monthly": (4, None),
    "weekly": (1, None),
    "weekly_26_weeks": (1, 26),
}
"""Weeks between fits, and weeks of rows in each fit (None: all)."""


def main() -> int:
    quick = "the first 3 weeks, and no schedule on 26 weeks, which are more than there are"
    parser = options("retraining", __doc__, quick=quick)
    parser.add_argument(
        "--no-refit", action="store_true", help="serve versions without refitting on held-out rows"
    )
    return run(parser, measure)


def measure(seed: int, *, quick: bool, no_refit: bool) -> Result:
    """Log-loss, AUC and retrains of the policy and of the schedules."""
    weeks = 3 if quick else 44
    figures = {"weeks": weeks, **policy(weeks, seed, refit=not no_refit)}
    print("policy", figures, flush=True)
    settings = Settings.load(CONF)
    seeded = settings.training.model_copy(update={"seed": seed})
    history = History(settings.model_copy(update={"training": seeded}))
    figures["naive_ks_alarms"] = history.naive_alarms(weeks)
    for name, (every, window) in SCHEDULES.items():
        if quick and window:
            continue
        metrics = history.schedule(every=every, weeks=weeks, window=window)
        figures |= {f"{name}_{key}": value for key, value in metrics.items()}
        print(name, metrics, flush=True)
    return figures, judge(figures)


def judge(figures: Figures) -> list[Goal]:
    """Goals; the share of each weekly gain that the policy keeps is added to the figures."""
    never, kept = figures["never_log_loss"], figures["policy_log_loss"]
    goals = []
    for name in ("weekly_26_weeks", "weekly"):
        if f"{name}_log_loss" not in figures:
            continue
        gain = never - figures[f"{name}_log_loss"]
        share = round((never - kept) / gain, 3) if gain > 0 else float("nan")
        figures[f"share_of_{name}_gain"] = share
        schedule = name.replace("_", " ")
        goals.append(at_least(f"share of the gain in log-loss of {schedule} fits", share, SHARE))
    return [*goals, at_most("retrains", figures["policy_retrains"], RETRAINS)]


def policy(weeks: int, seed: int, *, refit: bool = True) -> Figures:
    """The shipped policy over the same weeks, in a store of its own.

    Without `refit`, versions serve as they were judged: the held-out rows are in no fit.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = {
            "HOLDFAST__TRACKING__FOLDER": str(folder / "state"),
            "HOLDFAST__TRAINING__SEED": str(seed),
        }
        command = ["replay", CONF, "--batches", str(weeks)]
        started = time.perf_counter()
        if refit:
            story = holdfast(*command, folder=folder, **given)["batches"]
        else:
            script = f"from benchmarks.retraining import unrefitted; unrefitted({command})"
            story = last_json(output(sys.executable, "-c", script, **own_prefect(folder), **given))
        seconds = time.perf_counter() - started
    metrics = [row["maintained"] for row in story]
    return {
        "policy_log_loss": round(float(np.mean([one["log_loss"] for one in metrics])), 4),
        "policy_roc_auc": round(float(np.mean([one["roc_auc"] for one in metrics])), 4),
        "policy_retrains": sum(row["action"] == "retrain" for row in story),
        "policy_champions": len({row["version"] for row in story}),
        "policy_asked_in": [row["batch"] for row in story if row["action"] == "retrain"],
        "policy_seconds": round(seconds, 1),
    }


def unrefitted(command: list[str]) -> None:
    """Run a Holdfast command in this process, where training ends before the refit."""
    from flows.cli import main as holdfast_main  # noqa: PLC0415 -- Prefect reads the environment

    train = fitting.train
    fitting.train = lambda *a, **k: as_judged(train(*a, **k))
    sys.exit(holdfast_main([*command, "--json", "--verbose"]))


def as_judged(trained: Trained) -> Trained:
    """A training whose model is the one that was judged on the held-out rows."""
    return replace(
        trained, model=trained.judged, fitted_rows=trained.fitted_rows - len(trained.heldout)
    )


class History:
    """All valid rows, encoded once, and when the label of each row became known."""

    def __init__(self, settings: Settings) -> None:
        data = settings.data
        rows = sources.read(
            data.train, time=data.time, key=data.key, target=data.target, columns=data.features
        )
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
        self.start = cast("pd.Timestamp", settings.training.until)  # the shipped file has it

    def fit(self, until: pd.Timestamp, window: int | None) -> Model:
        """A model of the labels that were known then, of all rows or the last `window` weeks."""
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
        """Scores of fits that are renewed after every so many weeks; 0: never."""
        model, retrains, metrics = self.fit(self.start, None), 0, []
        for k in range(weeks):
            start = self.start + k * self.length
            inside = (self.times >= start) & (self.times < start + self.length)
            chosen = inside.to_numpy()
            predicted = model.predict_encoded(self.x[chosen])
            metrics.append(compute_metrics(self.settings.task, self.y[chosen], predicted))
            if every and (k + 1) % every == 0 and k + 1 < weeks:
                model, retrains = self.fit(start + self.length, window), retrains + 1
        loss = self.settings.loss
        return {
            "log_loss": round(float(np.mean([one[loss] for one in metrics])), 4),
            "roc_auc": round(float(np.mean([one["roc_auc"] for one in metrics])), 4),
            "retrains": retrains,
        }


if __name__ == "__main__":
    raise SystemExit(main())
