"""Watch models from outside of their runs: dead runs, silence, lost retrains, pages that wait."""

import logging
import time
from collections.abc import Sequence
from typing import Any, Final

import httpx
import pandas as pd
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from flows.deploy import flow_of
from flows.paging import page_owed, page_run, page_silence, pager_of, post
from flows.retrains import outstanding, send
from flows.settle import recent_history
from flows.steps import opened
from pipeline.config import Settings
from pipeline.errors import PipelineError, RegistryError
from pipeline.registry.history import History
from pipeline.registry.versions import CHAMPION, Registry
from pipeline.reporting import delivery, outbox
from pipeline.reporting.flow_events import stuck_retrain

logger = logging.getLogger(__name__)

DELIVERED: Final = 30.0
"""Seconds between two looks at pages that wait."""
LOOKS: Final = 10
"""Looks at the pages for one look at the records."""
ENDED: Final = {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}
WAITING: Final = {"name": {"any_": ["Scheduled", "Late"]}}
MOST: Final = 200
"""Newest runs of a model that are looked at."""


def watch(confs: Sequence[str], *, once: bool = False) -> None:
    """Watch models until this process is ended, or once.

    Parameters
    ----------
    confs : sequence of str
        The models' YAML files.
    once : bool
        Whether to look a single time.
    """
    look = 0
    while True:
        for conf in confs:
            try:
                if look % LOOKS == 0:
                    look_after(conf)
                delivery.deliver(pager_of(Settings.load(conf)))
            except PipelineError as error:
                logger.warning("%s cannot be watched now: %s", conf, error)
            except Exception:  # whatever it is, the other models are watched on
                logger.exception("Watching %s failed.", conf)
        if once:
            return
        look += 1
        time.sleep(DELIVERED)


def look_after(conf: str) -> None:
    """Page about all that the records of a model call for, and send a lost retrain again."""
    settings, registry = opened(conf)
    history = recent_history(settings, registry)
    scheduled: bool | None = None
    due: pd.Timestamp | None = None
    if PREFECT_API_URL.value() is not None:
        with get_client(sync_client=True) as client:
            try:
                found = _deployments(client, settings.name)
                scheduled = _is_scheduled(found)
                due = _due(client, found)
                page_dead_runs(settings, client, found)
            except (httpx.HTTPError, PrefectHTTPStatusError) as error:
                logger.warning("Prefect's API does not answer (%s).", type(error).__name__)
    history = page_owed(settings, registry, history)
    if registry.alias(CHAMPION) is not None:
        page_silence(settings, registry, history, scheduled=scheduled, due=due)
    if PREFECT_API_URL.value() is not None:
        _send_again(settings, registry, history)


def _deployments(client: SyncPrefectClient, name: str) -> dict[Any, DeploymentResponse]:
    """Deployments of a model, by id."""
    named = DeploymentFilter.model_validate({"name": {"any_": [name]}})
    return {one.id: one for one in client.read_deployments(deployment_filter=named)}


def _is_scheduled(deployments: dict[Any, DeploymentResponse]) -> bool | None:
    """Whether a schedule starts the monitor; None: it is not deployed."""
    monitors = [one for one in deployments.values() if flow_of(one) == "monitor"]
    if not monitors:
        return None
    return any(schedule.active and not one.paused for one in monitors for schedule in one.schedules)


def _due(
    client: SyncPrefectClient, deployments: dict[Any, DeploymentResponse]
) -> pd.Timestamp | None:
    """When the oldest run of the monitor was due that no worker has started; None: none is.

    Runs that wait for another run of the monitor to end are not late.
    """
    monitors = [str(one.id) for one in deployments.values() if flow_of(one) == "monitor"]
    if not monitors:
        return None
    filters: dict[str, Any] = {"state": WAITING, "deployment_id": {"any_": monitors}}
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(filters),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=1,
    )
    times = [run.expected_start_time for run in runs if run.expected_start_time is not None]
    now = pd.Timestamp.now("UTC")
    late = [pd.Timestamp(one) for one in times if pd.Timestamp(one) <= now]
    return late[0].tz_convert("UTC").tz_localize(None) if late else None


def page_dead_runs(
    settings: Settings, client: SyncPrefectClient, deployments: dict[Any, DeploymentResponse]
) -> None:
    """Page about runs that failed or crashed, each once, also if nobody in them could.

    Of each flow, only runs since its last success are looked at.
    """
    if not deployments:
        return
    filters: dict[str, Any] = {"state": ENDED, "deployment_id": {"any_": [*map(str, deployments)]}}
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(filters),
        sort=FlowRunSort.END_TIME_DESC,
        limit=MOST,
    )
    oldest = pd.Timestamp.now("UTC") - pd.Timedelta(seconds=outbox.KEPT_UP)
    succeeded: set[str] = set()
    dead: list[tuple[str, FlowRun]] = []
    for run in runs:
        flow = flow_of(deployments[run.deployment_id])
        if run.state is None or pd.Timestamp(run.state.timestamp) < oldest:
            continue
        if run.state.is_completed():
            succeeded.add(flow)
        elif flow not in succeeded:
            dead.append((flow, run))
    for flow, run in reversed(dead):
        assert run.state is not None  # noqa: S101 -- looked at above
        page_run(settings, flow, run, run.state)


def _send_again(settings: Settings, registry: Registry, history: History) -> None:
    """Send a retrain again whose run is lost; if it was sent too often, page once."""
    try:
        send(settings, registry, history)
    except RegistryError as error:
        asked = outstanding(registry, history)
        if asked is None:
            raise
        post(settings, stuck_retrain(settings.name, asked, str(error)))
