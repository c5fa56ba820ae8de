"""Read and validate the rows of a training window, fit a version on them, and register it."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.indicators import baselines, summary_of
from flows.slices import baselines_of_slices, usual_slices
from flows.steps import check, quarantine_folder, read_training, without_set_aside
from pipeline.columns import as_time
from pipeline.config import Numeric, Settings
from pipeline.data import validation
from pipeline.data.labels import labelled
from pipeline.data.validation import Validated
from pipeline.errors import DataError
from pipeline.monitoring.means import Baseline
from pipeline.monitoring.targets import describe_target
from pipeline.redaction import redacted
from pipeline.reference import Reference
from pipeline.registry import environment, records
from pipeline.registry.training_runs import record_training
from pipeline.registry.versions import CHAMPION, Registry
from pipeline.training import calibrating, costs, fitting, intervals, parity, unseen
from pipeline.training.bundle import Bundle
from pipeline.training.evaluation import evaluation
from pipeline.training.fitting import Trained
from pipeline.training.metrics import losses
from pipeline.training.model import Predictions
from pipeline.training.predictions import (
    BASELINE,
    PREDICTION,
    ROW_LOSS,
    as_cells,
    columns_of,
    in_columns,
    of_cells,
)
from pipeline.training.target import checked_target

SAMPLE_ROWS = 20_000
FEW = 3
"""Reasons for refused rows that a warning names."""


@task(cache_policy=NO_CACHE)
def fit(settings: Settings, registry: Registry, until: pd.Timestamp, asked: dict[str, str]) -> int:
    """Train a version on the rows before a moment and register it; its number.

    Parameters
    ----------
    settings : Settings
        The model's.
    registry : Registry
        The model's.
    until : Timestamp
        End of the training window.
    asked : dict of str to str
        Tags of the version that say what it was asked for by; empty values are left out.
    """
    data, training = settings.data, settings.training
    checked, rows, left_out = labelled_rows(settings, registry, until)
    valid = checked.valid
    trained = fitting.train(rows, data, training, task=settings.task)
    trained = calibrating.calibrated(
        trained, rows, data, training, length=settings.monitoring.batch
    )
    trained, promise = _with_intervals(settings, _with_costs(settings, trained))
    calibration = _said_of_calibration(settings, trained)
    never = [label for i, label in enumerate(data.several) if i not in trained.model.seen]
    if never:
        get_run_logger().warning(
            "No row of the training window has the class %s, so that it has no chance until a "
            "later version learns it.",
            " or ".join(never),
        )
    tags = {
        "since": f"{valid[data.time].min():%Y-%m-%d %H:%M}",
        "until": str(until).removesuffix(":00"),  # to the microsecond: batches begin there
        "rows": str(trained.fitted_rows),
        "calibration": calibration,
        **asked,
        "left_out": ", ".join(left_out),
    }
    tags = {key: value for key, value in tags.items() if value}
    champion = registry.alias(CHAMPION)
    earlier = rows[:0]
    if champion is not None:
        earlier = unseen.forward(
            rows,
            data,
            training,
            task=settings.task,
            since=champion.until,
            calibration=trained.model.calibration,
        )
    bundle = _bundle(settings, trained, earlier, known=rows, valid=valid, tags=tags)
    if promise is not None:
        bundle.manifest[promise.KEY] = asdict(promise)
    if training.costs is not None:
        bundle.manifest[costs.KEY] = training.costs.model_dump()
    bundle.manifest["refused"] = _refused(settings, checked)
    found = evaluation(trained, data, task=settings.task, ranges=bundle.manifest["ranges"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        bundle.save(folder, sample=_sample(settings, valid))
        return record_training(
            registry,
            trained,
            folder,
            rows=rows,
            target=data.target,
            training=training,
            settings=redacted(settings.model_dump_json(indent=1)),
            tags=tags,
            evaluation=found | {"golden": len(bundle.golden.rows)},
        )


def _said_of_calibration(settings: Settings, trained: Trained) -> str:
    """What became of a calibration, logged and as a tag; empty where none was asked for."""
    kind = settings.training.calibration
    if kind is None:
        return ""
    gain = trained.metrics[calibrating.GAIN]
    kept = trained.model.calibration is not None
    said = (
        f"{kind}, {'kept' if kept else 'left out'}: fitted on the rows before, it makes the "
        f"log-loss of held-out rows {abs(gain):.2%} {'smaller' if kept else 'larger'}"
    )
    get_run_logger().info("Calibration: %s.", said)
    return said


def _with_costs(settings: Settings, trained: Trained) -> Trained:
    """The training with metrics of decisions, of the model and of the trivial baseline."""
    stated = settings.training.costs
    if stated is None:
        return trained
    target = trained.heldout[settings.data.target].to_numpy(dtype=np.float64)
    own = costs.decision_metrics(stated, target, of_cells(trained.heldout[PREDICTION]))
    trivial = costs.decision_metrics(stated, target, trained.trivial)
    return replace(trained, metrics=trained.metrics | own, baseline=trained.baseline | trivial)


def _with_intervals(
    settings: Settings, trained: Trained
) -> tuple[Trained, intervals.Promise | None]:
    """Intervals or sets, where the file asks for them, and the training with their metrics."""
    coverage, data = settings.training.intervals, settings.data
    if coverage is None:
        return trained, None
    rows = trained.heldout.sort_values(data.time, kind="stable")
    target = rows[data.target].to_numpy(dtype=np.float64)
    predicted = of_cells(rows[PREDICTION])
    promise, found = intervals.promised(settings.task, target, predicted, coverage)
    return replace(trained, metrics=trained.metrics | found), promise


def labelled_rows(
    settings: Settings, registry: Registry, until: pd.Timestamp
) -> tuple[Validated, pd.DataFrame, list[str]]:
    """Read the training window: its checked rows, those with a label, and the batches left out.

    Raises
    ------
    DataError
        If no row is valid, or a target is not a label.
    """
    data = settings.data
    kept, left_out = _window(settings, registry, until)
    checked = check(settings, kept, f"training {until:%Y-%m-%d}")
    if checked.reasons:
        reasons = ", ".join(f"{why} ({n})" for why, n in [*checked.reasons.items()][:FEW])
        get_run_logger().warning(
            "%d of %d rows are refused and not trained on: %s. They are in %s.",
            len(checked.quarantined),
            len(kept),
            reasons,
            quarantine_folder(settings),
        )
    # A class that nobody declared must not vanish from training, so it is refused here.
    rows = labelled(validation.as_they_came(checked, data.target), data, as_of=until)
    labels = checked_target(rows, data, settings.task)
    return checked, rows.assign(**{data.target: labels}), left_out


def _window(
    settings: Settings, registry: Registry, until: pd.Timestamp
) -> tuple[pd.DataFrame, list[str]]:
    """Rows of the training window, and the batches whose rows are left out of it."""
    length = settings.training.window
    since = None if length is None else until - length
    arrived = read_training(settings, since, until, as_of=until)
    history = records.read_history(registry)
    kept, left_out = without_set_aside(arrived, history, settings.data.time)
    if left_out and kept.empty:
        message = (
            f"All {len(arrived)} rows of the training window until {until:%Y-%m-%d} are of "
            "batches that are set aside. "
            f"Answer for these batches: `holdfast review {registry.conf}`."
        )
        raise DataError(message)
    return kept, left_out


def _refused(settings: Settings, checked: Validated) -> list[tuple[int, int]]:
    """Rows, and refused rows, of each stretch of the window that is as long as a batch."""
    times = checked.valid[settings.data.time]
    refused = as_time(checked.quarantined.get(settings.data.time, pd.Series(dtype=object)))
    together = pd.concat([times, refused.fillna(times.min())])
    stretch = (together - together.min()) // settings.monitoring.batch
    bad = np.arange(len(together)) >= len(times)
    counts = pd.Series(bad).groupby(stretch.to_numpy()).agg(["size", "sum"])
    return [(int(rows), int(left)) for rows, left in counts.itertuples(index=False)]


def _sample(settings: Settings, valid: pd.DataFrame) -> pd.DataFrame:
    """A random sample of the rows, without private columns."""
    public = [name for name, column in settings.data.features.items() if not column.private]
    return valid[public].sample(min(len(valid), SAMPLE_ROWS), random_state=settings.training.seed)


def _bundle(
    settings: Settings,
    trained: Trained,
    earlier: pd.DataFrame,
    *,
    known: pd.DataFrame,
    valid: pd.DataFrame,
    tags: dict[str, str],
) -> Bundle:
    """All that travels with a version.

    Parameters
    ----------
    settings : Settings
        The model's.
    trained : Trained
        What training made.
    earlier : DataFrame
        Held-out rows of stretches before, as `forward` predicts them.
    known : DataFrame
        The labelled rows that the model was fitted on.
    valid : DataFrame
        All valid rows of the window.
    tags : dict of str to str
        Of the version.
    """
    halves, predictions = unseen.cross_fit(
        trained.model,
        known,
        valid,
        settings.data,
        settings.training,
        length=settings.monitoring.batch,
    )
    identity = settings.data.identity
    places = pd.MultiIndex.from_frame(valid[identity])
    predicted = predictions[places.get_indexer(pd.MultiIndex.from_frame(known[identity]))]
    indicators = baselines(settings, predictions, valid[settings.data.time])
    compared = valid.assign(**in_columns(predictions, settings.data.several))
    reference = _reference(settings, compared, trained.importance)
    baseline = None
    if halves:
        baseline = _baseline(settings, known, predicted) | {"indicators": indicators}
        cuts = baseline["slices"]["cuts"]
        baseline["slices"] |= usual_slices(settings, reference, compared, cuts, trained.importance)
    return Bundle(
        model=trained.model,
        golden=parity.make(trained.model, valid, seed=settings.training.seed),
        holdout=parity.held_out(trained.model, trained.heldout),
        reference=reference,
        heldout=_heldout(settings, trained, earlier),
        manifest={
            "name": settings.name,
            "importance": trained.importance,
            "ranges": _ranges(settings, valid),
            "indicators": {name: summary_of(stored) for name, stored in indicators.items()}
            if halves
            else {},
            **tags,
            **environment.describe(),
        },
        halves=halves,
        targets=_targets(settings, known, predicted),
        baseline=baseline,
    )


def _reference(
    settings: Settings, compared: pd.DataFrame, importance: Mapping[str, float]
) -> Reference:
    """The frozen description of the rows, with predictions of models that have not seen them."""
    data = settings.data
    return Reference.fit(
        compared,
        {**data.features, **(columns := columns_of(data.several))},
        time=data.time,
        block=settings.monitoring.batch,
        seed=settings.training.seed,
        prediction=tuple(columns),
        importance=importance,
    )


def _targets(settings: Settings, known: pd.DataFrame, predicted: Predictions) -> Reference:
    """Description of the labels beside predictions of models that have not seen them."""
    data = settings.data
    return describe_target(
        known[data.target],
        in_columns(predicted, data.several)[PREDICTION],
        labels=settings.task == "classification",
        classes=data.several,
        time=known[data.time],
        block=settings.monitoring.batch,
        seed=settings.training.seed,
    )


def _baseline(settings: Settings, known: pd.DataFrame, predicted: Predictions) -> dict[str, Any]:
    """Losses on the labelled rows, by models that have not seen them, as the monitor reads them."""
    target = known[settings.data.target].to_numpy(dtype=np.float64)
    lost = pd.Series(losses(settings.loss, target, predicted), index=known[settings.data.time])
    heavy = settings.task == "regression"
    whole = Baseline.of(lost, settings.monitoring.batch, heavy=heavy).to_dict()
    return whole | {"slices": baselines_of_slices(settings, known, lost)}


def _heldout(settings: Settings, trained: Trained, earlier: pd.DataFrame) -> pd.DataFrame:
    """Held-out rows with predictions, the trivial baseline, and the loss of the predictions."""
    data = settings.data
    parts = [earlier, trained.heldout.assign(**{BASELINE: as_cells(trained.trivial)})]
    together = pd.concat([part for part in parts if len(part)], ignore_index=True)
    heldout = together[[data.key, data.time, data.target, PREDICTION, BASELINE]]
    target = heldout[data.target].to_numpy(dtype=np.float64)
    lost = losses(settings.loss, target, of_cells(heldout[PREDICTION]))
    return heldout.assign(**{ROW_LOSS: lost})


def _ranges(settings: Settings, valid: pd.DataFrame) -> dict[str, list[float]]:
    """Smallest and largest number of each numeric column that is not private."""
    return {
        name: [float(valid[name].min()), float(valid[name].max())]
        for name, column in settings.data.features.items()
        if isinstance(column, Numeric) and not column.private and valid[name].notna().any()
    }
