"""Train a challenger, log it with all that travels with it, and let the gate decide."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.register import ask_people, gate
from flows.steps import check, opened, page_failure, patient, read, without_set_aside
from pipeline.config import Numeric, Settings
from pipeline.data.labels import labelled
from pipeline.errors import DataError
from pipeline.reference import Reference
from pipeline.registry import champions, environment, records
from pipeline.registry.versions import CHAMPION, Registry, Version
from pipeline.training import fitting, parity
from pipeline.training.bundle import Bundle
from pipeline.training.fitting import PREDICTION, Trained
from pipeline.training.metrics import losses

SAMPLE_ROWS = 20_000


@flow(name="train", on_failure=[page_failure], on_crashed=[page_failure])
def train(conf: str, until: str | None = None, episode: str = "") -> dict[str, Any]:
    """Rows before `until` -> a judged version; what was trained already is not trained again."""
    settings, registry = opened(conf)
    with registry.exclusive("train"):
        number = challenger(settings, registry, until, episode)
        judged(settings, registry, number)
    ask_people(settings, registry, number)
    version = patient(registry.version)(number)
    return {
        "version": number,
        "promoted": bool(version.tags.get("champion")),
        "reason": version.tags.get(
            "reason", f"In shadow for {version.tags.get('shadow')} batches."
        ),
    }


def is_open(version: Version) -> bool:
    """Whether the gate has to judge a version now: it waits for neither people nor batches."""
    waits = version.tags.get("waits") or version.tags.get("shadow")
    return not version.settled and not waits


@patient
def challenger(settings: Settings, registry: Registry, until: str | None, episode: str) -> int:
    """The version of the episode, else one of the same rows and settings that is not judged yet.

    It is trained if there is none; its number.
    """
    registry.close_cut_off()
    moment = _until(settings, registry) if until is None else pd.Timestamp(until)
    champions.settle(registry, moment)
    recipe = _recipe(settings)
    for one in reversed(registry.versions()):
        same = one.until == moment and one.tags.get("recipe") == recipe and not one.settled
        if one.tags.get("episode") == episode if episode else same:
            return one.number
    shadow = settings.promotion.shadow if registry.alias(CHAMPION) is not None else 0
    tags = {"episode": episode, "recipe": recipe, "shadow": str(shadow or "")}
    return fit(settings, registry, moment, tags)


@patient
def judged(settings: Settings, registry: Registry, number: int) -> None:
    """Put a version before the gate that it has not been through."""
    champions.settle(registry, registry.version(number).until)
    if is_open(registry.version(number)):
        gate(settings, registry, number)


def _recipe(settings: Settings) -> str:
    """Digest of all that a fit depends on, but its rows."""
    parts = settings.model_dump_json(include={"task", "data", "training"})
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _until(settings: Settings, registry: Registry) -> pd.Timestamp:
    """End of the last judged batch; before there is one, the configured start, else now."""
    judged = records.batches(registry)
    if judged:
        return pd.Timestamp(judged[-1].name) + settings.monitoring.batch
    configured = settings.training.until
    now = pd.Timestamp.now("UTC").tz_localize(None)
    return now if configured is None else configured


@task(cache_policy=NO_CACHE)
def fit(settings: Settings, registry: Registry, until: pd.Timestamp, asked: dict[str, str]) -> int:
    """Read, validate, fit and register; the new version's number."""
    data, window = settings.data, settings.training.window
    since = None if window is None else until - window
    came = read(settings, data.train, since, until)
    kept, left_out = without_set_aside(settings, registry, came)
    if left_out and kept.empty:
        message = (
            f"The training window until {until:%Y-%m-%d} must hold rows of batches that are not "
            f"set aside. All its {len(came)} rows are. Answer for them: review/{settings.name}."
        )
        raise DataError(message)
    valid = check(settings, kept, f"training {until:%Y-%m-%d}")
    rows = labelled(valid.valid, data, as_of=until)
    trained = fitting.train(rows, data, settings.training, task=settings.task)
    tags = {
        "since": f"{valid.valid[data.time].min():%Y-%m-%d %H:%M}",
        "until": f"{until:%Y-%m-%d %H:%M}",
        "rows": str(trained.fitted_rows),
        **{key: value for key, value in asked.items() if value},
    }
    if left_out:
        tags["left_out"] = ", ".join(left_out)
    bundle = _bundle(settings, trained, known=rows, valid=valid.valid, tags=tags)
    features = valid.valid[list(data.features)]
    private = [name for name, column in data.features.items() if column.private]
    sample = features.drop(columns=private).sample(
        min(len(features), SAMPLE_ROWS), random_state=settings.training.seed
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        bundle.save(folder, sample=sample)
        return registry.record_training(trained, folder, rows=rows, settings=settings, tags=tags)


def _bundle(
    settings: Settings,
    trained: Trained,
    *,
    known: pd.DataFrame,
    valid: pd.DataFrame,
    tags: dict[str, str],
) -> Bundle:
    data = settings.data
    heldout = trained.heldout[[data.key, data.time, data.target, PREDICTION]]
    target = heldout[data.target].to_numpy(dtype=np.float64)
    predicted = heldout[PREDICTION].to_numpy(dtype=np.float64)
    block = settings.monitoring.batch
    reference = Reference.fit(
        valid.assign(
            **{
                PREDICTION: fitting.out_of_sample(
                    trained.model, known, valid, data, settings.training, length=block
                )
            }
        ),
        {**data.features, PREDICTION: Numeric()},
        time=data.time,
        block=block,
        seed=settings.training.seed,
        prediction=PREDICTION,
    )
    return Bundle(
        model=trained.model,
        golden=parity.make(trained.model, valid, seed=settings.training.seed),
        reference=reference,
        heldout=heldout.assign(
            baseline=trained.trivial, loss=losses(settings.task, target, predicted)
        ),
        manifest={
            "name": settings.name,
            "importance": trained.importance,
            "ranges": _ranges(settings, valid),
            **tags,
            **environment.describe(),
        },
    )


def _ranges(settings: Settings, valid: pd.DataFrame) -> dict[str, list[float]]:
    """Lowest and highest number of each column; those of a private one stay here."""
    return {
        name: [float(valid[name].min()), float(valid[name].max())]
        for name, column in settings.data.features.items()
        if isinstance(column, Numeric) and not column.private and valid[name].notna().any()
    }
