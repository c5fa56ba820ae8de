"""The past as the monitor would have lived it: judged and retrained in a store of its own."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import flow

from flows.judge import judge
from flows.monitor import judge_shadows, next_batch
from flows.processes import Say
from flows.retrains import outstanding
from flows.steps import patient
from flows.train import challenger, judged
from pipeline.backtest.fits import Span
from pipeline.config import Alerts, Settings, Tracking
from pipeline.errors import DataError
from pipeline.registry import champions, records
from pipeline.registry.history import History, batch_name
from pipeline.registry.versions import CHAMPION, Registry, Version


def lived(settings: Settings, span: Span, say: Say) -> dict[str, Any]:
    """Judge all batches one by one, and train where it is asked for; nobody is paged.

    What a run that was ended has recorded is not done again.

    Parameters
    ----------
    settings : Settings
        As `in_own_store` gives them.
    span : Span
        The batches.
    say : callable
        Called after each batch.

    Returns
    -------
    dict
        `served`: for each batch, the batch before which its champion was fitted and the batches
        whose rows were left out. `retrains`: the batches before which a version was trained.
        `pages`: the number of decisions that people would be paged about.
    """

    def story() -> dict[str, Any]:
        return _lived(settings, span, say)

    return flow(name="lived")(story)()


def in_own_store(
    settings: Settings, folder: Path, span: Span, monitoring: Mapping[str, Any]
) -> Settings:
    """Settings under which nothing outside of a folder is changed, and nobody is asked.

    Parameters
    ----------
    settings : Settings
        The model's.
    folder : Path
        Where the store is.
    span : Span
        The batches.
    monitoring : mapping of str to Any
        Settings of `monitoring` that differ.
    """
    unasked = {"first": "serve", "approval": "automatic"}
    changed = {
        "tracking": Tracking(folder=folder, uri=f"sqlite:///{folder.resolve() / 'mlflow.db'}"),
        "alerts": Alerts(),
        "serving": settings.serving.model_copy(update={"captures": settings.captures}),
        "promotion": settings.promotion.model_copy(update=unasked),
        "training": settings.training.model_copy(update={"until": span.start}),
        "monitoring": settings.monitoring.model_copy(update=monitoring),
    }
    return settings.model_copy(update=changed)


def _lived(settings: Settings, span: Span, say: Say) -> dict[str, Any]:
    registry = Registry(settings.name, settings.tracking, settings.conf)
    with registry.exclusive("lived"):  # a process whose parent was killed may not be over yet
        if registry.alias(CHAMPION) is None:
            _train(settings, registry, span.start, "")
        first = span.place(next_batch(settings, registry, patient(records.read_history)(registry)))
        for batch in range(span.batches):
            if batch >= first:
                with suppress(DataError):  # as in a replay, history goes on after such a batch
                    _live(settings, registry, span.begin(batch))
            say()
        return _story(registry, patient(records.read_history)(registry), span)


def _live(settings: Settings, registry: Registry, start: pd.Timestamp) -> None:
    """Train what the batches before asked for, judge a batch, and train if it asks for it."""
    history = patient(records.read_history)(registry)
    _answer(settings, registry, history)
    history = judge(settings, registry, history, start)
    judge_shadows(settings, registry, history)
    _answer(settings, registry, history)


def _answer(settings: Settings, registry: Registry, history: History) -> None:
    asked = outstanding(registry, history)
    if asked is not None:
        _train(settings, registry, pd.Timestamp(asked["until"]), asked["episode"])


def _train(settings: Settings, registry: Registry, until: pd.Timestamp, episode: str) -> None:
    judged(settings, registry, challenger(settings, registry, until, episode))


def _story(registry: Registry, history: History, span: Span) -> dict[str, Any]:
    versions = {version.number: version for version in registry.versions()}
    served = [versions[champions.champion_at(registry, span.begin(k))] for k in range(span.batches)]
    decisions = [batch.verdict.decision for batch in history.batches]
    return {
        "served": [_fit(version, span) for version in served],
        "retrains": sorted(_inside(span, (v.until for v in versions.values() if v.episode))),
        "pages": sum(one.action != "none" and one.due for one in decisions),
        "broken": [batch_name(batch.start) for batch in history.batches if batch.set_aside],
    }


def _fit(version: Version, span: Span) -> tuple[int, list[int]]:
    names = filter(None, version.left_out.split(", "))
    return span.place(version.until), [span.place(pd.Timestamp(name)) for name in names]


def _inside(span: Span, moments: Iterable[pd.Timestamp]) -> set[int]:
    """Batches that begin at some moments; the last batch is followed by none."""
    return {place for place in map(span.place, moments) if 0 < place < span.batches}
