"""Copies of versions from one environment's model into another's, file by file."""

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import mlflow
from mlflow.models import Model

from pipeline.registry.cards import EVALUATION, draw_card
from pipeline.registry.tracking import translated
from pipeline.registry.training_runs import created
from pipeline.registry.versions import DATA, Registry, Version

COPIED = "copied_from"
"""Tag of a copy: the model and the version that it was copied from."""
_OF_THE_MODEL = ("champion", "episode", "gate", "left_out", "reason", "shadow", "waits")
_AT_THE_GATE = ("expected_gain", "promised_gain")
_OF_TRAINING = (EVALUATION, "settings.json", "environment")
"""Artifacts of a training run that say how a version was made."""


def copied(registry: Registry, source: Registry, version: Version) -> int:
    """Copy a version of another environment's model; a copy that is there already is taken.

    Parameters
    ----------
    registry : Registry
        Of the model that takes the copy.
    source : Registry
        Of the model that the version belongs to; it is only read.
    version : Version
        The version.

    Returns
    -------
    int
        Number of the copy, whose files have the SHA-256 of the version. It is before the gate.

    Raises
    ------
    RegistryError
        If the files of the version are gone or were changed.
    """
    origin = {COPIED: f"{source.name}/{version.number}", "sha256": version.tags["sha256"]}
    with registry.exclusive("copy"), tempfile.TemporaryDirectory() as folder:
        for known in registry.versions():
            if origin.items() <= known.tags.items():
                return known.number
        files = source.fetch(version, Path(folder) / "version")
        dropped = {*_OF_THE_MODEL, *_AT_THE_GATE}
        tags = {key: text for key, text in version.tags.items() if key not in dropped}
        with translated():
            return _registered(registry, source, version, files, {**tags, **origin})


def _registered(
    registry: Registry, source: Registry, version: Version, files: Path, tags: Mapping[str, str]
) -> int:
    """Log a run of its own for a copy, and register its model."""
    trained, bundle = source.run_of(version.run_id), files / DATA
    experiment, kind = registry.experiment, {"kind": "training"}
    name = f"copy of {tags[COPIED]}"
    with mlflow.start_run(experiment_id=experiment, run_name=name, tags=kind) as run:
        note = f"A copy of version {version.number} of {source.name}, run {version.run_id}."
        mlflow.set_tags({**tags, "mlflow.note.content": note})
        mlflow.log_params(trained.data.params)
        mlflow.log_metrics(trained.data.metrics)
        beside = files.parent / "beside"
        there = {one.path for one in source.client.list_artifacts(version.run_id)}
        for artifact in there & {*_OF_TRAINING}:
            source.client.download_artifacts(version.run_id, artifact, str(_made(beside)))
        mlflow.log_artifacts(str(_made(beside)))
        kept = Model.load(str(files))
        log = partial(
            mlflow.pyfunc.log_model,
            signature=kept.signature,
            input_example=kept.load_input_example(str(files)),
            pip_requirements=str(files / "requirements.txt"),
        )
        version_tags = {**tags, "gate": "pending"}
        number = created(registry, log, bundle, version_tags)
        draw_card(registry, number, run.info.run_id, version_tags)
        return number


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
