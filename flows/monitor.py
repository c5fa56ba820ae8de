"""Monitor one live batch: judge it, page people, judge challengers, and ask for a retrain."""

from typing import Any

import pandas as pd
from prefect import flow

from flows.gate import gate, shadowed
from flows.judge import judge
from flows.retrains import send
from flows.settle import live_source
from flows.steps import opened, page_failure, patient
from pipeline.config import Moment, Settings, spelled
from pipeline.data.sources import is_whole
from pipeline.errors import DataError
from pipeline.registry import champions, records
from pipeline.registry.history import Batch, History, batch_name
from pipeline.registry.versions import Registry
from pipeline.reporting.events import broken_batch, moved_batch
from pipeline.reporting.pages import Event, page


@flow(name="monitor", on_failure=[page_failure], on_crashed=[page_failure])
def monitor(conf: str, batch: Moment | None = None) -> dict[str, Any]:
    """Judge one batch, by default the batch after the last recorded one, and act on it."""
    settings, registry = opened(conf)
    with registry.exclusive("monitor"):
        history = patient(records.read_history)(registry)
        start = next_batch(registry, history) if batch is None else batch
        if batch is not None:
            _require_on_grid(settings, registry, history, start)
        patient(champions.reconcile)(registry, start)
        if history.last is not None:  # a page that was lost with its process is sent here
            history = page_about(settings, registry, history, history.last.name)
        end = start + settings.monitoring.batch
        if batch is None and not is_whole(live_source(settings), end):
            result = _not_over(start, end)
        else:
            history = judge(settings, registry, history, start)
            history = page_about(settings, registry, history, batch_name(start))
            result = _result(history, start)
        judge_shadows(settings, registry, history)
    send(settings, registry, history)
    return result


def _require_on_grid(
    settings: Settings, registry: Registry, history: History, start: pd.Timestamp
) -> None:
    """Refuse a batch that would hold rows of two others, unless it is recorded already."""
    length, following = settings.monitoring.batch, next_batch(registry, history)
    off = (start - following) % length
    if not off or batch_name(start) in {batch.name for batch in history.batches}:
        return
    message = (
        f"A batch must start a multiple of monitoring.batch ({spelled(length)}) from the next one, "
        f"{batch_name(following)}, or rows would count twice. Got {batch_name(start)}. "
        f"Name {batch_name(start - off)} or {batch_name(start - off + length)}."
    )
    raise DataError(message)


def _not_over(start: pd.Timestamp, end: pd.Timestamp) -> dict[str, Any]:
    reason = f"The batch is not over before {end:%Y-%m-%d %H:%M} UTC; nothing was judged."
    nothing = {"batch": batch_name(start), "rows": 0, "drifted": [], "action": "none"}
    return nothing | {"reason": reason}


def _result(history: History, start: pd.Timestamp) -> dict[str, Any]:
    batch = history.batch(batch_name(start))
    decision = batch.verdict.decision
    return {
        "batch": batch.name,
        "rows": batch.rows,
        "drifted": list(batch.drifted),
        "action": decision.action,
        "reason": decision.reason,
    }


@patient
def next_batch(registry: Registry, history: History) -> pd.Timestamp:
    """Start of the batch after the last recorded batch, else of the first after training."""
    return registry.champion().until if history.last is None else history.last.end


@patient
def page_about(settings: Settings, registry: Registry, history: History, name: str) -> History:
    """Page people about a batch whose decision calls for it, unless they were paged before."""
    batch = history.batch(name)
    decision = batch.verdict.decision
    if decision.action == "none" or not decision.due or batch.paged:
        return history
    event = _event(settings.name, registry, history, batch)
    page(event, settings.alerts.urls)
    return history.with_batch(records.record_page(registry, batch))


def _event(model: str, registry: Registry, history: History, batch: Batch) -> Event:
    earlier = history.before(batch.name).verdicts
    if batch.verdict.evidence.broken:
        causes = records.causes(registry, batch)
        return broken_batch(model, registry.conf, batch.verdict, causes, earlier)
    return moved_batch(model, registry.conf, batch.verdict, batch.drifted, earlier)


@patient
def judge_shadows(settings: Settings, registry: Registry, history: History) -> None:
    """Put each challenger before the gate that has scored its batches beside the champion."""
    for version in registry.versions():
        waits = version.closed or version.waits_for or not version.shadow
        if not waits and len(shadowed(settings, history, version)) >= version.shadow:
            gate(settings, registry, version.number)
