"""Remove the rows of a person from all that is kept of a model, and list what cannot be removed."""

import shutil
from collections import Counter
from functools import partial
from typing import Any, Final

import pandas as pd

from flows.score import refused_folder
from flows.steps import opened, quarantine_folder
from pipeline.config import OWN_KEY, CaptureSource, Settings
from pipeline.data import forgetting, tables
from pipeline.data.captures import KEY
from pipeline.data.forgetting import Person
from pipeline.errors import ConfigError, PipelineError
from pipeline.registry.forgetting import (
    forget_in_batches,
    forget_in_version,
    record_end,
    record_request,
)
from pipeline.registry.versions import Registry
from pipeline.training.forgetting import forget_rows

Item = dict[str, str]
SHORTEST: Final = 3
"""Least characters of a reason."""


def forget(conf: str, key: str, reason: str) -> dict[str, Any]:
    """Remove all rows of a key; the fitted models stay, and so do tables that are not ours.

    The request is recorded first. Rows without a key are found by the values of rows with it, so
    these go last: a run that was cut off is finished by the next.

    Parameters
    ----------
    conf : str
        The model's YAML file.
    key : str
        The key of the person.
    reason : str
        Why, for the record.

    Returns
    -------
    dict
        The ``request``, when it was ``asked`` and ``done``, what was ``removed`` now, with how many
        ``rows`` of the person other tables were compared, and what is ``left``.

    Raises
    ------
    ConfigError
        If there is no key, or no reason of a few characters.
    """
    settings, registry = opened(conf)
    if not key.strip() or len(reason.strip()) < SHORTEST:
        got = f"a reason of {len(reason.strip())}" if key.strip() else "a blank key"
        message = (
            f"A request must have a key and a reason of at least {SHORTEST} characters. Got {got}. "
            "Give both of them."
        )
        raise ConfigError(message)
    if settings.data.key == OWN_KEY and not isinstance(settings.data.live, CaptureSource):
        message = (
            f"data.key must name the column that tells people apart. Got none in {conf}: rows of a "
            "table without keys cannot be found by one. Declare the key, or delete the state."
        )
        raise ConfigError(message)
    with (
        registry.exclusive("backtest"),
        registry.exclusive("score"),
        registry.exclusive("train"),
        registry.exclusive("monitor"),
    ):
        # A comparison of policies that was cut off leaves copies of rows; the next reads them anew.
        shutil.rmtree(registry.folder / "backtest" / settings.name, ignore_errors=True)
        shutil.rmtree(refused_folder(settings), ignore_errors=True)  # of a score that was killed
        person, unread = _person(settings, key)
        request = record_request(registry, person.key, reason)
        removed = _in_mlflow(settings, registry, person, request=request, reason=reason)
        folder = quarantine_folder(settings)
        removed += Counter(forgetting.forget_quarantined(folder, person, settings.data.key))
        removed += Counter(forgetting.forget_captures(settings.captures, person.key))
        known = record_end(registry, request, removed)
    return {
        "request": request,
        **{name: known[name] for name in ("asked", "done", "reason")},
        "rows": len(person.rows),
        "removed": dict(removed),
        "left": _left(settings, person, unread),
    }


def _person(settings: Settings, key: str) -> tuple[Person, list[str]]:
    """The person, by all tables that hold keys, and what could not be read of them."""
    data, unread = settings.data, []
    found: list[tuple[pd.DataFrame, str]] = []
    for name, source in {"data.train": data.train, "data.live": data.live}.items():
        if source is None:
            continue
        try:
            rows = tables.read(source, data, start=None, end=None, captures=settings.captures)
            found.append((rows, data.key))
        except PipelineError as error:
            unread.append(f"{name} ({error})")
    found.append((forgetting.captured(settings.captures), KEY))
    refused = sorted(quarantine_folder(settings).glob("*.parquet"))
    found += [(pd.read_parquet(path), data.key) for path in refused]
    return Person.of(key, found, data.features), unread


def _in_mlflow(
    settings: Settings, registry: Registry, person: Person, *, request: str, reason: str
) -> Counter[str]:
    rewrite = partial(
        forget_rows,
        key=settings.data.key,
        has_key=person.has_key,
        own=person.rows,
        like=person.resembles,
    )
    removed: Counter[str] = Counter()
    for version in registry.versions():
        removed += forget_in_version(
            registry,
            version,
            request=request,
            reason=reason,
            rewrite=rewrite,
            like=person.resembles,
        )
    return removed + forget_in_batches(registry, has_key=person.has_key, like=person.resembles)


def _left(settings: Settings, person: Person, unread: list[str]) -> list[Item]:
    """What holds the person still, or may, each with what to do."""
    data = settings.data
    sources = {"train": data.train, "live": data.live, "labels": data.labels}
    places = ", ".join(
        f"data.{name}"
        for name, source in sources.items()
        if source is not None and source.kind != "capture"
    )
    compared = f"Rows without a key were compared with {len(person.rows)} rows of the person."
    return [
        {
            "what": f"The tables of {places}, which Holdfast only reads.",
            "do": "Delete the rows there first, or the next training learns them again.",
        },
        {
            "what": "The fitted models, which were trained on the rows.",
            "do": f"If they must not be used: `holdfast train {settings.conf}` once the source "
            "lacks the rows, then delete older versions in MLflow.",
        },
        {
            "what": "What describes all rows together, in reference.json, targets.json and "
            "manifest.json of versions and in reports of batches: quantiles, extremes, and sampled "
            "rows rounded to quantiles. A value of the person may be one of them.",
            "do": "Mark such columns private, and train again.",
        },
        {
            "what": "Pages, digests, logs and notes that quote single values; MLflow's and "
            "Prefect's databases hold no rows.",
            "do": f"Delete {settings.tracking.folder / 'logs'} and old pages: `holdfast prune "
            f"{settings.conf} --apply`.",
        },
        {
            "what": "Backups, exported models, images, files and tables of `holdfast score`, older "
            "versions of objects in a bucket, and freed blocks of disks.",
            "do": "Make them again after this, and delete the old ones.",
        },
        {"what": compared, "do": _about_values(unread)},
    ]


def _about_values(unread: list[str]) -> str:
    if unread:
        return f"Could not be read: {'; '.join(unread)}. Mend that and run the command again."
    return "Nothing, unless the source lost the rows before this command could read them."
