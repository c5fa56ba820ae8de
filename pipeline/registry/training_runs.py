"""Training runs: logged with everything about them, their models registered as versions."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Metric, Run
from mlflow.models import infer_signature
from mlflow.models.model import ModelInfo

from pipeline.config import Training
from pipeline.registry import environment
from pipeline.registry.cards import EVALUATION, draw_card
from pipeline.registry.champions import changes
from pipeline.registry.tracking import metric_name, translated
from pipeline.registry.versions import SUBSTITUTE, Registry
from pipeline.reporting import notes
from pipeline.training.bundle import sha256_of
from pipeline.training.fitting import Trained


def record_training(
    registry: Registry,
    trained: Trained,
    bundle: Path,
    *,
    rows: pd.DataFrame,
    target: str,
    training: Training,
    settings: str,
    tags: Mapping[str, str],
    evaluation: Mapping[str, Any],
) -> int:
    """Log a training run and register its model.

    Parameters
    ----------
    registry : Registry
        Where to log it.
    trained : Trained
        What training made.
    bundle : Path
        The folder that travels with the version.
    rows : DataFrame
        The labelled rows that it was fitted on.
    target : str
        Name of the column that is predicted.
    training : Training
        Estimator and parameters.
    settings : str
        All settings of the model as JSON, without secrets.
    tags : mapping of str to str
        Of the version and the run: window, rows, episode.
    evaluation : mapping of str to Any
        What the model card says of the training.

    Returns
    -------
    int
        Number of the registered version.
    """
    tags = {**tags, **environment.describe()}
    name, kind = f"train until {tags['until']}", {"kind": "training"}
    with translated():
        experiment = registry.experiment
        with mlflow.start_run(experiment_id=experiment, run_name=name, tags=kind) as run:
            mlflow.set_tags({**tags, "mlflow.note.content": notes.training_note(trained, tags)})
            _log_parameters(trained, training, tags["until"])
            _log_rows(trained, rows, [*trained.model.columns, target])
            _log_results(registry, run, trained)
            mlflow.log_text(settings, "settings.json")
            mlflow.log_text(json.dumps(dict(evaluation)), EVALUATION)
            lock = environment.lock()
            if lock is not None:
                mlflow.log_artifact(str(lock), "environment")
            version_tags = {**tags, "gate": "pending", "sha256": sha256_of(bundle)}
            number = _register(registry, trained, bundle, version_tags)
            draw_card(registry, number, run.info.run_id, version_tags)
            return number


def close_cut_off(registry: Registry) -> None:
    """End training runs whose process is gone; the caller holds the lock of training."""
    registered = {version.run_id for version in registry.versions()}
    for run in registry.search("tags.kind = 'training' and attributes.status = 'RUNNING'"):
        run_id = run.info.run_id
        status = "FINISHED" if run_id in registered else "KILLED"
        with translated():
            registry.client.set_terminated(run_id, status=status)


def _log_parameters(trained: Trained, training: Training, until: str) -> None:
    mlflow.log_params({"estimator": training.estimator, **training.params})
    mlflow.log_params(training.model_dump(mode="json", include={"window", "holdout", "seed"}))
    mlflow.log_params({"until": until, "rows": trained.fitted_rows})


def _log_rows(trained: Trained, rows: pd.DataFrame, columns: list[str]) -> None:
    for context, part in (("training", rows), ("heldout", trained.heldout)):
        dataset = mlflow.data.from_pandas(part[columns], name=context, targets=columns[-1])  # type: ignore[attr-defined]
        mlflow.log_input(dataset, context=context)


def _log_results(registry: Registry, run: Run, trained: Trained) -> None:
    metrics = {f"heldout_{key}": value for key, value in trained.metrics.items()}
    metrics |= {metric_name(f"heldout_{key}"): value for key, value in trained.of_classes.items()}
    metrics |= {f"baseline_{key}": value for key, value in trained.baseline.items()}
    mlflow.log_metrics(metrics)
    for side in ("fitted", "heldout"):
        points = zip(trained.curve.steps, getattr(trained.curve, side), strict=True)
        now = run.info.start_time
        curve = [Metric(f"curve/{side}", loss, now, step) for step, loss in points]
        registry.client.log_batch(run.info.run_id, curve)


def _register(registry: Registry, trained: Trained, bundle: Path, tags: Mapping[str, str]) -> int:
    private = any(column.private for column in trained.model.columns.values())
    rows = trained.heldout[list(trained.model.columns)]
    log = partial(
        mlflow.pyfunc.log_model,
        signature=infer_signature(rows, trained.model.predict(rows)),
        input_example=None if private else rows.head(3),
        pip_requirements=environment.requirements(),
    )
    return created(registry, log, bundle, tags)


def created(
    registry: Registry, log: Callable[..., ModelInfo], bundle: Path, tags: Mapping[str, str]
) -> int:
    """Log the model of a bundle with the run that is active, and register it; its number.

    Parameters
    ----------
    registry : Registry
        Where to register it.
    log : callable
        MLflow's `log_model`, with all that the bundle does not hold.
    bundle : Path
        The folder that travels with the version.
    tags : mapping of str to str
        Of the version.
    """
    info = log(name="model", loader_module="pipeline.training.model", data_path=str(bundle))
    mlflow.log_artifacts(str(bundle), "reference")
    if not registry.client.search_registered_models(f"name = '{registry.name}'"):
        registry.client.create_registered_model(registry.name)
    register = partial(
        registry.client.create_model_version,
        *(registry.name, info.model_uri),
        run_id=info.run_id,
        model_id=info.model_id,
    )
    for _ in range(_deleted(registry)):
        reason = "Its number belonged to a version that was deleted in MLflow."
        register(description=reason, tags={SUBSTITUTE: "yes"})
    return int(register(tags=dict(tags)).version)


def _deleted(registry: Registry) -> int:
    """How many of the newest versions were deleted: MLflow would give their numbers again.

    Batches and changes of champion name versions by their numbers.
    """
    named = {change.version for change in changes(registry)}
    monitored = registry.search("tags.kind = 'timeline'")
    named |= {int(run.data.tags["version"]) for run in monitored}
    existing = [version.number for version in registry.all_versions()]
    return max(0, max(named, default=0) - max(existing, default=0))
