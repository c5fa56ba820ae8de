"""Pages of flows: each event is written to the outbox, and sent while the flow goes on."""

import logging
from dataclasses import replace
from typing import Any

import pandas as pd
from prefect import Flow, runtime
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL
from prefect.utilities.urls import url_for

from flows.attempts import ATTEMPTS, attempt_of
from pipeline.config import Settings
from pipeline.errors import PipelineError
from pipeline.registry import champions, records
from pipeline.registry.cards import CARD
from pipeline.registry.history import MOST_RECENT, Batch, History, batch_name
from pipeline.registry.versions import Registry
from pipeline.reporting import delivery, events, flow_events, outbox, silence
from pipeline.reporting.delivery import Pager
from pipeline.reporting.pages import Event

logger = logging.getLogger(__name__)


def pager_of(settings: Settings) -> Pager:
    """How the people who own a model are paged."""
    file = settings.tracking.folder / "pages.db"
    return Pager(file, settings.name, settings.conf, settings.alerts)


def post(settings: Settings, event: Event, *lines: str) -> None:
    """Page people about an event, unless it is in the outbox already; nobody is waited for.

    Parameters
    ----------
    settings : Settings
        The model's.
    event : Event
        What happened.
    lines : str
        Lines that say where to see more; empty ones are left out. By default the flow run.
    """
    shown = filter(None, lines or [prefect_link(runtime.flow_run.id or "")])
    linked = replace(event, body="\n".join([event.body, *shown]))
    delivery.post(pager_of(settings), linked)


def prefect_link(flow_run: str) -> str:
    """A line with the address of a flow run, if Prefect has a server to look at it."""
    if not flow_run or PREFECT_API_URL.value() is None:
        return ""
    return f"Prefect: {url_for('flow-run', obj_id=flow_run)}"


def links(registry: Registry, run_id: str, shown: str = "") -> list[str]:
    """Lines with the addresses of an MLflow run and of this flow run, where servers show them.

    MLflow opens in its layout for training; without being asked it takes runs for those of agents.
    Where `shown` names an artifact of the run, it opens there.
    """
    here = prefect_link(runtime.flow_run.id or "")
    if not registry.uri.startswith("http"):
        return [here]
    run = f"{registry.address}/#/experiments/{registry.experiment}/runs/{run_id}"
    place = f"/artifacts/{shown}" if shown else ""
    return [f"MLflow: {run}{place}?workflowType=machine_learning", here]


def page_owed(settings: Settings, registry: Registry, history: History) -> History:
    """Page people about all that the records call for, unless they were paged before."""
    page_changes(settings, registry)
    for batch in history.batches[-MOST_RECENT:]:
        decision = batch.verdict.decision
        if decision.action != "none" and decision.due and not batch.paged:
            event = event_of(registry, history, batch)
            post(settings, event, *links(registry, batch.run_id, records.PAGE))
            history = history.with_batch(records.record_page(registry, batch))
    last = history.last
    if last is not None and events.is_calm(last.verdict):
        trouble = outbox.trouble(pager_of(settings).file, settings.name, events.BATCHES)
        if not trouble:
            return history
        unanswered = [batch.name for batch in history.batches if batch.is_open]
        event = events.calm_again(settings.name, settings.conf, last.verdict, trouble, unanswered)
        post(settings, event, *links(registry, last.run_id, records.PAGE))
    return history


def event_of(registry: Registry, history: History, batch: Batch) -> Event:
    """What people are paged about a batch that calls for a page."""
    model, conf = registry.name, registry.conf
    earlier = history.before(batch.name).verdicts
    known = history.performances(batch.version, also=[batch.name])
    more: Any = {"newest": known[-1] if known else None, "reading": batch.reading}
    if batch.verdict.evidence.broken:
        causes = records.causes(registry, batch)
        more |= {"rows": batch.rows, "refused": batch.quarantined}
        return events.broken_batch(model, conf, batch.verdict, causes, earlier, **more)
    more |= {"comparison": records.comparison(registry, batch), "until": batch.end.isoformat()}
    more["waiting"] = [one.name for one in history.batches if one.is_open]
    more["before"] = champions.to_go_back_to(registry, batch.version)
    return events.moved_batch(model, conf, batch.verdict, batch.drifted, earlier, **more)


def page_changes(settings: Settings, registry: Registry) -> None:
    """Page people about each new champion, promoted, gone back to or moved by hand."""
    oldest = pd.Timestamp.now("UTC") - pd.Timedelta(seconds=outbox.KEPT_UP)
    runs = {version.number: version.run_id for version in registry.versions()}
    for change in champions.changes(registry):
        if pd.Timestamp(change.at) >= oldest and change.version in runs:
            event = events.new_champion(
                settings.name,
                settings.conf,
                kind=change.kind,
                place=change.place,
                version=change.version,
                before=change.before,
                since=batch_name(pd.Timestamp(change.since)),
                reason=change.reason,
                at=change.at,
                scheduler=PREFECT_API_URL.value() is not None,
            )
            post(settings, event, *links(registry, runs[change.version], CARD))


def ended(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Page people about a run that failed, or succeeds again, and send what waits.

    A hook of every flow. A run inside of another leaves this to the end of the other.
    """
    if flow_run.parent_task_run_id is not None:
        return
    try:
        settings = Settings.load(flow_run.parameters["conf"])
    except PipelineError:
        return  # the flow failed because of that file, and says so
    try:
        _page_end(settings, flow.name, flow_run, state)
    except PipelineError as error:  # of the outbox; the watch writes the page when it can be used
        logger.error("Nobody is paged about the end of this run: %s", error)  # noqa: TRY400 -- one sentence


def _page_end(settings: Settings, flow: str, flow_run: FlowRun, state: State[Any]) -> None:
    if not state.is_completed():
        page_run(settings, flow, flow_run, state)
    elif _is_open(settings, flow_events.fails(flow)):
        pager, run = pager_of(settings), str(flow_run.id)
        failed = outbox.turned(pager.file, pager.model, flow_events.fails(flow))
        event = flow_events.succeeded_flow(settings.name, flow, settings.conf, run, failed=failed)
        post(settings, event, prefect_link(str(flow_run.id)))
    delivery.deliver(pager_of(settings))


def _is_open(settings: Settings, episode: str) -> bool:
    return outbox.is_open(pager_of(settings).file, settings.name, episode)


def page_run(settings: Settings, flow: str, flow_run: FlowRun, state: State[Any]) -> None:
    """Page people about a run that failed or crashed, unless they were paged about it before.

    A retrain that was asked for is sent again, unless this was its last attempt.
    """
    event = flow_events.failed_flow(
        settings.name,
        flow,
        flow_run.parameters,
        run=str(flow_run.id),
        crashed=state.is_crashed(),
        error=state.message or "",
        at=f"{state.timestamp:%Y-%m-%d %H:%M} UTC",
        attempt=attempt_of(flow_run.idempotency_key, settings.name, flow_run.parameters),
        attempts=ATTEMPTS,
    )
    post(settings, event, prefect_link(str(flow_run.id)))


def page_silence(
    settings: Settings,
    registry: Registry,
    history: History,
    *,
    scheduled: bool | None,
    due: pd.Timestamp | None = None,
) -> None:
    """Page about what has not happened in time, and about its end."""
    pager, now = pager_of(settings), pd.Timestamp.now("UTC").tz_localize(None)
    signs = _signs(settings, registry, history, scheduled=scheduled, due=due)
    found = silence.silences(signs, length=settings.monitoring.batch, now=now)
    first = next(iter(found), None)  # the others follow from it
    for what in silence.SILENCES:
        episode = silence.episode_of(what)
        is_open = outbox.is_open(pager.file, pager.model, episode)
        turned = pd.Timestamp(outbox.turned(pager.file, pager.model, episode), unit="s")
        if what == first and not is_open:
            since, length = found[what], settings.monitoring.batch
            event = silence.silent(
                settings.name,
                settings.conf,
                what,
                since,
                length=length,
                resolved=turned,
                ran=signs.monitored is not None,
            )
            post(settings, event, *_places(registry, history))
        if what not in found and is_open:
            event = silence.silence_over(settings.name, settings.conf, what, now, paged=turned)
            post(settings, event, *_places(registry, history))


def _places(registry: Registry, history: History) -> list[str]:
    """Where to look when nothing runs: the newest batch in MLflow, and Prefect's deployments."""
    shown = (
        "" if PREFECT_UI_URL.value() is None else f"Prefect: {PREFECT_UI_URL.value()}/deployments"
    )
    last = history.last
    return [shown] if last is None else [*links(registry, last.run_id, records.PAGE), shown]


def _signs(
    settings: Settings,
    registry: Registry,
    history: History,
    *,
    scheduled: bool | None,
    due: pd.Timestamp | None,
) -> silence.Signs:
    monitored = registry.monitored
    length = settings.monitoring.batch
    labelled = [batch.end for batch in history.batches if batch.performance is not None]
    first = history.batches[0].start if history.batches else None
    newest = labelled[-1] if labelled else first
    made = champions.changes(registry)
    return silence.Signs(
        served=_naive(made[0].at) if made else pd.Timestamp.now("UTC").tz_localize(None),
        monitored=None if monitored is None else pd.Timestamp(monitored, unit="s"),
        scheduled=scheduled,
        due=due,
        batch_end=None if history.last is None else history.last.end,
        labels_due=None if newest is None else newest + length + settings.data.label_delay,
    )


def _naive(moment: str) -> pd.Timestamp:
    return pd.Timestamp(moment).tz_localize(None)
