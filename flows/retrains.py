"""Requests for a retrain: read from the record, sent until they are answered, each once."""

import uuid
from typing import Any

import httpx
import pandas as pd
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
from prefect.states import Crashed
from prefect.utilities.urls import url_for

from flows.attempts import ATTEMPTS, key_of
from flows.train import train
from pipeline.config import Settings
from pipeline.errors import RegistryError, UnavailableError
from pipeline.registry import records
from pipeline.registry.history import History
from pipeline.registry.recent import opened_by
from pipeline.registry.versions import Registry
from pipeline.reporting import flow_events

PICKED_UP = pd.Timedelta("10min")
"""A run that is pending for longer was lost by its worker; a run that is running for longer without
the lock of training was lost by its process, if that lock excludes all hosts."""


def outstanding(registry: Registry, history: History) -> dict[str, Any] | None:
    """Parameters of the training run that the last request asks for.

    None if no batch asked for a retrain, or the version that answers the request exists.
    """
    request = history.last_request
    if request is None:
        return None
    episode = request.verdict.decision.episode
    made = [version for version in registry.versions() if version.episode == episode]
    if made and not made[-1].awaits_gate:
        return None
    return {"conf": registry.conf, "until": request.end.isoformat(), "episode": episode}


def send(settings: Settings, registry: Registry, history: History) -> None:
    """Ask for the outstanding retrain through Prefect's API; without a server, train now.

    A request that was sent is not sent again while its run is alive. If its run is over, or was
    lost, without an answer, the request gets its next attempt.

    Raises
    ------
    UnavailableError
        If Prefect's API does not answer; the request stays, and the next run sends it.
    RegistryError
        If there is no deployment of `train`, or all attempts failed.
    """
    asked = outstanding(registry, history)
    if asked is None:
        return
    if PREFECT_API_URL.value() is None:
        train(**asked)
        return
    for attempt in range(1, ATTEMPTS + 1):
        history, run = _requested(settings, registry, history, asked, attempt)
        if not _is_lost(run, registry):
            return
        if outstanding(registry, history) is None:
            return
    said = "" if run.state is None else flow_events.reason_of(run.state.message or "")
    message = (
        f"{ATTEMPTS} runs of train/{settings.name} for episode {asked['episode']} ended without a "
        f"version. The last of them ({url_for('flow-run', obj_id=run.id)}) said: "
        f"{said.rstrip('.') or 'nothing'}. Mend the cause, and run "
        f"`holdfast train {registry.conf} --until {asked['until']} --episode {asked['episode']}`."
    )
    raise RegistryError(message)


def _requested(
    settings: Settings,
    registry: Registry,
    history: History,
    asked: dict[str, Any],
    attempt: int,
) -> tuple[History, FlowRun]:
    """The run of an attempt, started and announced unless it was before."""
    batch = opened_by(registry, asked["episode"])
    key = key_of(settings.name, asked["episode"], batch.run_id, attempt)
    run = _dispatched(settings, asked, key)
    if not batch.announced:
        _announce(settings, asked, key)
        history = history.with_batch(records.record_announcement(registry, batch, key))
    return history, run


def _dispatched(settings: Settings, asked: dict[str, Any], key: str) -> FlowRun:
    """The run of a key, started if it does not exist."""
    name = f"train/{settings.name}"
    try:
        run = run_deployment(
            name=name, parameters=asked, timeout=0, as_subflow=False, idempotency_key=key
        )
    except ObjectNotFound as error:
        message = f"Deployment {name} does not exist. Run `holdfast deploy {settings.conf}`."
        raise RegistryError(message) from error
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        message = (
            f"Prefect's API does not answer ({type(error).__name__}). Start its server; the next "
            f"`holdfast monitor {settings.conf}` sends the retrain for {asked['episode']}."
        )
        raise UnavailableError(message) from error
    assert isinstance(run, FlowRun)  # noqa: S101 -- called without a loop it is no coroutine
    return run


def _announce(settings: Settings, asked: dict[str, Any], key: str) -> None:
    """Emit one event for each request, for automations of people's own."""
    emit_event(
        "holdfast.retrain.requested",
        resource={
            "prefect.resource.id": f"holdfast.model.{settings.name}",
            "prefect.resource.name": settings.name,
        },
        payload={"episode": asked["episode"], "until": asked["until"], "request": key},
        id=uuid.uuid5(uuid.NAMESPACE_URL, key),
    )


def _is_lost(run: FlowRun, registry: Registry) -> bool:
    """Whether a run will not answer any more; a run without a process is ended."""
    state = run.state
    if state is None or state.is_scheduled() or state.is_paused():
        return False
    if state.is_final():
        return True
    if pd.Timestamp.now("UTC") - pd.Timestamp(state.timestamp) < PICKED_UP:
        return False
    if state.is_running() and not _is_free(registry):
        return False
    ended: State[Any] = Crashed(message="Its process is gone, or never came.")
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, ended, force=True)
    return True


def _is_free(registry: Registry) -> bool:
    """Whether nobody trains on any host; False where other hosts cannot be seen."""
    if not registry.locks_are_global:
        return False
    try:
        with registry.exclusive("train", patience=0):
            return True
    except UnavailableError:
        return False
