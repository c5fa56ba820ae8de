"""Train a challenger, log it with all that travels with it, and let the gate decide."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.register import gate
from flows.steps import check, opened, page_failure, read, without_set_aside
from pipeline import environment, parity, records, training
from pipeline.bundle import Bundle
from pipeline.config import Numeric, Settings
from pipeline.errors import DataError
from pipeline.reference import Reference
from pipeline.registry import Registry, Version
from pipeline.training import PREDICTION, Trained, losses

SAMPLE_ROWS = 20_000


@flow(name="train", on_failure=[page_failure])
def train(conf: str, until: str | None = None, episode: str = "") -> dict[str, Any]:
    """Rows before `until` -> a judged version; an episode that has its version trains no other."""
    settings, registry = opened(conf)
    moment = _until(settings, registry) if until is None else pd.Timestamp(until)
    asked = [one for one in registry.versions() if episode and one.tags.get("episode") == episode]
    number = asked[-1].number if asked else fit(settings, registry, moment, episode)
    if asked and asked[-1].tags["gate"] != "pending":
        return _told(asked[-1])
    gate(settings, registry, number)
    return _told(registry.version(number))


def _told(version: Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "promoted": version.passed,
        "reason": version.tags["reason"],
    }


def _until(settings: Settings, registry: Registry) -> pd.Timestamp:
    """End of the last judged batch; before there is one, the configured start, else now."""
    judged = records.batches(registry)
    if judged:
        return pd.Timestamp(judged[-1].name) + pd.Timedelta(settings.monitoring.batch)
    configured = settings.training.until
    now = pd.Timestamp.now("UTC").tz_localize(None)
    return now if configured is None else pd.Timestamp(configured)


@task(cache_policy=NO_CACHE)
def fit(settings: Settings, registry: Registry, until: pd.Timestamp, episode: str) -> int:
    """Read, validate, fit and register; the new version's number."""
    data, window = settings.data, settings.training.window
    since = None if window is None else until - pd.Timedelta(window)
    came = read(settings, data.train, since, until)
    kept, left_out = without_set_aside(settings, registry, came)
    if left_out and kept.empty:
        message = (
            f"The training window until {until:%Y-%m-%d} must hold rows of batches that are not "
            f"set aside. All its {len(came)} rows are. Answer for them: review/{settings.name}."
        )
        raise DataError(message)
    valid = check(settings, kept, f"training {until:%Y-%m-%d}")
    rows = training.labelled(valid.valid, data, as_of=until)
    trained = training.train(rows, data, settings.training, task=settings.task)
    tags = {
        "since": f"{valid.valid[data.time].min():%Y-%m-%d %H:%M}",
        "until": f"{until:%Y-%m-%d %H:%M}",
        "rows": str(trained.fitted_rows),
        "episode": episode,
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
                PREDICTION: training.out_of_sample(
                    trained.model, known, valid, settings, length=block
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
            **tags,
            **environment.describe(),
        },
    )
