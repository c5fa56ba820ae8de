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

from flows.train import is_open, train
from pipeline.config import Settings
from pipeline.errors import RegistryError, UnavailableError
from pipeline.registry import records
from pipeline.registry.records import Batch
from pipeline.registry.versions import Registry

ATTEMPTS = 3
"""Runs of one request that may crash or fail before people have to look."""
PICKED_UP = pd.Timedelta("10min")
"""A run that is pending for longer was lost by its worker, and one that is running without the
lock of training by its process, where that lock counts on all hosts."""


def outstanding(conf: str, settings: Settings, registry: Registry) -> dict[str, Any] | None:
    """What to train for the last request; None if there is none or its version is there."""
    asked = [b for b in records.batches(registry) if b.verdict.decision.action == "retrain"]
    if not asked:
        return None
    name, episode = asked[-1].name, asked[-1].verdict.decision.episode
    made = [one for one in registry.versions() if one.tags.get("episode") == episode]
    if made and not is_open(made[-1]):
        return None
    end = pd.Timestamp(name) + settings.monitoring.batch
    return {"conf": conf, "until": end.isoformat(), "episode": episode}


def send(conf: str, settings: Settings, registry: Registry) -> None:
    """Ask for the outstanding retrain through the API where there is a server, else do it now.

    A request that was sent is not sent again while its run is alive; one whose run is over,
    or was lost, without an answer gets the next attempt.

    Raises
    ------
    UnavailableError
        If Prefect's API does not answer; the request stays, and the next run sends it.
    RegistryError
        If there is no deployment of `train`, or all attempts came to nothing.
    """
    episode = ""
    for attempt in range(1, ATTEMPTS + 1):
        asked = outstanding(conf, settings, registry)
        if asked is None:
            return
        episode = asked["episode"]
        if PREFECT_API_URL.value() is None:
            train(**asked)
            return
        # Two stores may share a server and the model's name; the run of a batch is of one of them.
        batch = _first(registry, episode)
        key = f"{settings.name}-{episode}-{batch.run_id}-{attempt}"
        run = _dispatched(settings, asked, key)
        if not batch.announced:
            _announce(settings, asked, key)
            records.mark(registry, batch, announced=key)
        if not _lost(run, registry):
            return
    message = (
        f"The retrain of {settings.name} for episode {episode} must come to an end. "
        f"{ATTEMPTS} runs of train/{settings.name} did not. Look at them, mend the cause, and "
        "run it with that episode."
    )
    raise RegistryError(message)


def _first(registry: Registry, episode: str) -> Batch:
    """The batch that opened an episode."""
    batches = records.batches(registry)
    return next(one for one in batches if one.verdict.decision.episode == episode)


def _dispatched(settings: Settings, asked: dict[str, Any], key: str) -> FlowRun:
    """The run of that key, made when it is not there."""
    name = f"train/{settings.name}"
    try:
        run = run_deployment(
            name=name, parameters=asked, timeout=0, as_subflow=False, idempotency_key=key
        )
    except ObjectNotFound as error:
        message = f"Deployment {name} must be there. It is not. Deploy the flows: make up."
        raise RegistryError(message) from error
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        message = (
            f"Prefect's API must answer. Got {type(error).__name__}. Start its server; the "
            f"retrain for {asked['episode']} is sent by the next run of monitor/{settings.name}."
        )
        raise UnavailableError(message) from error
    assert isinstance(run, FlowRun)  # noqa: S101 -- called without a loop it is no coroutine
    return run


def _announce(settings: Settings, asked: dict[str, Any], key: str) -> None:
    """One event a request, for automations of people's own."""
    emit_event(
        "holdfast.retrain.requested",
        resource={
            "prefect.resource.id": f"holdfast.model.{settings.name}",
            "prefect.resource.name": settings.name,
        },
        payload={"episode": asked["episode"], "until": asked["until"], "request": key},
        id=uuid.uuid5(uuid.NAMESPACE_URL, key),
    )


def _lost(run: FlowRun, registry: Registry) -> bool:
    """Whether a run will not answer any more; one without its process is ended."""
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
    """Whether nobody trains, on any host; one that cannot be seen from here may."""
    if not registry.locks_count:
        return False
    try:
        with registry.exclusive("train", patience=0):
            return True
    except UnavailableError:
        return False
