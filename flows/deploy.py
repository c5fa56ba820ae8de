"""Deploy the flows of models on a Prefect server, with schedules derived from their batches.

What runs follows from the models' files at each call. How and when it runs belongs to people once
it was deployed: pool, tags, limits and pauses stay, and a schedule follows the batches only while
nobody has changed it. The slug of a schedule says what was written, so that a change shows.
"""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pandas as pd
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentUpdate,
    WorkPoolCreate,
)
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.server.schemas.schedules import SCHEDULE_TYPES
from prefect.settings import PREFECT_API_URL
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker
from pydantic import TypeAdapter

from flows.models import POOL
from flows.monitor import next_batch
from flows.steps import opened
from pipeline.config import ENV_PREFIX, Settings, spelled
from pipeline.errors import ConfigError, UnavailableError
from pipeline.registry import records
from pipeline.registry.versions import CHAMPION, Registry

FLOWS: Final = {
    "validate": "flows.validate",
    "train": "flows.train",
    "register": "flows.register",
    "rollback": "flows.register",
    "release": "flows.register",
    "promote": "flows.promote",
    "monitor": "flows.monitor",
    "score": "flows.score",
    "replay": "flows.replay",
    "replay-captures": "flows.replay_captures",
    "review": "flows.review",
    "digest": "flows.digest",
    "backtest": "flows.backtest",
    "tune": "flows.tune",
}
"""Every flow that is deployed, and its module."""
ABREAST: Final = {"validate", "score"}
"""Flows that change no model, so that their runs may overlap."""
ORIGIN: Final = pd.Timestamp("2000-01-03")
"""Schedules are counted from here, a Monday, unless batches start at another time of day."""
DIGEST: Final = (pd.Timedelta("7D"), ORIGIN + pd.Timedelta("7h"))
"""Interval and anchor of the digest: Mondays at 7:00 UTC."""
LATE: Final = pd.Timedelta("10min")
"""How long after the end of a batch its monitor runs, or a tenth of the batch if that is less."""
UNITS: Final = {"D": "day", "h": "hour", "min": "minute", "s": "second"}


class Plan(NamedTuple):
    """What one deployment should be.

    Attributes
    ----------
    name : str
        `<flow>/<model>`.
    flow : Flow
        The flow that runs.
    fields : dict
        What follows from the model's file and the code, by names of Prefect's API.
    schedule : IntervalSchedule or None
        When it runs unasked.
    """

    name: str
    flow: Flow[..., Any]
    fields: dict[str, Any]
    schedule: IntervalSchedule | None


def deploy(models: Sequence[Settings]) -> list[dict[str, Any]]:
    """Write the deployments of models to the server that PREFECT_API_URL names.

    Parameters
    ----------
    models : sequence of Settings
        The models, as `flows.models.load` reads them.

    Returns
    -------
    list of dict
        For each deployment its name, what it `became` (created, updated or unchanged), its
        `schedule` in words, the `next` run in UTC, and what people did to its schedule
        (`changed`, empty: nothing), so that it was left as it is.

    Raises
    ------
    ConfigError
        If no server is named.
    UnavailableError
        If the server does not answer, or refuses.
    """
    if PREFECT_API_URL.value() is None:
        message = (
            "PREFECT_API_URL is not set, so there is no server to deploy to. Export it, or run "
            "`holdfast up`, which starts a server and deploys to it."
        )
        raise ConfigError(message)
    plans = [plan for model in models for plan in _plans(model)]
    try:
        with get_client(sync_client=True) as client:
            _require_pool(client)
            return [_applied(client, plan) for plan in plans]
    except httpx.HTTPError as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        message = (
            f"Prefect's API at {PREFECT_API_URL.value()} did not take the deployments ({reason}). "
            "Start its server or correct PREFECT_API_URL and PREFECT_API_AUTH_STRING, and deploy "
            "again."
        )
        raise UnavailableError(message) from error


def flow_of(deployment: DeploymentResponse) -> str:
    """Name of the flow that a deployment runs."""
    return re.split("[.:]", deployment.entrypoint or "")[-1].replace("_", "-")


def _plans(model: Settings) -> list[Plan]:
    settings, registry = opened(model.conf)
    schedules = {"monitor": _monitoring(settings, registry), "digest": _every(*DIGEST)}
    folder = {"prefect.deployments.steps.set_working_directory": {"directory": str(Path.cwd())}}
    plans = []
    for name, module in FLOWS.items():
        function = name.replace("-", "_")
        flow = getattr(import_module(module), function)
        fields = {
            "entrypoint": f"{module}.{function}",
            "parameters": {"conf": settings.conf},
            "parameter_openapi_schema": parameter_schema(flow).model_dump(exclude_unset=True),
            "pull_steps": [folder],
            # A worker may serve several environments, whose variable must not be its own.
            "job_variables": {"env": {f"{ENV_PREFIX}ENVIRONMENT": settings.environment}},
        }
        plans.append(Plan(f"{name}/{settings.name}", flow, fields, schedules.get(name)))
    return plans


def _monitoring(settings: Settings, registry: Registry) -> IntervalSchedule:
    """Run once for each batch of the champion, soon after its end."""
    length = settings.monitoring.batch
    if registry.alias(CHAMPION) is not None:
        start = next_batch(settings, registry, records.read_history(registry))
    else:
        start = settings.training.until or ORIGIN
    return _every(length, start + min(LATE, length / 10))


def _every(interval: pd.Timedelta, moment: pd.Timestamp) -> IntervalSchedule:
    """Run at a moment and whole intervals before and after it, in UTC."""
    # Champions come and go at whole intervals from one another, which must not change a schedule.
    anchor = (ORIGIN + (moment - ORIGIN) % interval).floor("s")
    return IntervalSchedule(
        interval=interval.to_pytimedelta(),
        anchor_date=anchor.tz_localize(UTC).to_pydatetime(),
        timezone="UTC",
    )


def _slug(schedule: IntervalSchedule) -> str:
    interval = spelled(pd.Timedelta(schedule.interval)).lower()
    return f"every-{interval}-from-{schedule.anchor_date.astimezone(UTC):%Y-%m-%dt%H-%M-%S}"


def _require_pool(client: SyncPrefectClient) -> None:
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        pool = WorkPoolCreate(name=POOL, type="process", base_job_template=template)
        try:
            client.create_work_pool(pool)
        except ObjectAlreadyExists:  # somebody else deploys at this moment
            return


def _applied(client: SyncPrefectClient, plan: Plan) -> dict[str, Any]:
    """Bring one deployment to its plan, and say what it became."""
    try:
        found = client.read_deployment_by_name(plan.name)
    except ObjectNotFound:
        _create(client, plan)
        became, changed = "created", ""
    else:
        changed = _changed_by_people(found) if plan.schedule else ""
        fields = _differing(found, plan)
        if fields:
            client.update_deployment(found.id, DeploymentUpdate(**fields))
        follows = not changed and _follow(client, found, plan)
        became = "updated" if fields or follows else "unchanged"
    now = client.read_deployment_by_name(plan.name)
    active = [] if now.paused else [one.schedule for one in now.schedules if one.active]
    moments = [moment for schedule in active if (moment := _next(schedule))]
    return {
        "deployment": plan.name,
        "became": became,
        "schedule": " and ".join(map(_in_words, active)) or None,
        "next": f"{min(moments):%Y-%m-%dT%H:%M}" if moments else None,
        "changed": changed,
    }


def _create(client: SyncPrefectClient, plan: Plan) -> None:
    flow, model = plan.name.split("/")
    schedules = [
        DeploymentScheduleCreate(schedule=schedule, active=True, slug=_slug(schedule))
        for schedule in [plan.schedule]
        if schedule is not None
    ]
    abreast = flow in ABREAST
    client.create_deployment(
        flow_id=client.create_flow_from_name(flow),
        name=model,
        description=plan.flow.description,
        tags=[POOL, model],
        work_pool_name=POOL,
        concurrency_limit=None if abreast else 1,
        concurrency_options=None
        if abreast
        else ConcurrencyOptions.model_validate({"collision_strategy": "ENQUEUE"}),
        schedules=schedules,
        enforce_parameter_schema=True,
        **plan.fields,
    )


def _changed_by_people(found: DeploymentResponse) -> str:
    """What people did to a schedule; empty: nothing."""
    if found.paused:
        return "the deployment is paused"
    if not found.schedules:
        return "its schedule was removed"
    (first, *more) = found.schedules
    if not first.active and not more:
        return "its schedule is paused"
    written = isinstance(first.schedule, IntervalSchedule) and first.slug == _slug(first.schedule)
    return "" if written and not more and not first.parameters else "its schedule was changed"


def _differing(found: DeploymentResponse, plan: Plan) -> dict[str, Any]:
    """Fields of a deployment that differ from its plan."""
    fields = plan.fields | {"parameters": {**found.parameters, **plan.fields["parameters"]}}
    variables = found.job_variables or {}
    env = {**variables.get("env", {}), **plan.fields["job_variables"]["env"]}
    fields["job_variables"] = {**variables, "env": env}
    return {key: value for key, value in fields.items() if getattr(found, key) != value}


def _follow(client: SyncPrefectClient, found: DeploymentResponse, plan: Plan) -> bool:
    """Bring a schedule that nobody changed to its plan; whether it differed."""
    if plan.schedule is None or found.schedules[0].slug == _slug(plan.schedule):
        return False
    changes: dict[str, Any] = {"schedule": plan.schedule, "slug": _slug(plan.schedule)}
    client.update_deployment_schedule(found.id, found.schedules[0].id, **changes)
    return True


def _next(schedule: Any) -> datetime | None:
    """The next run of a schedule of any kind, in UTC."""
    known: Any = TypeAdapter(SCHEDULE_TYPES).validate_python(schedule.model_dump())
    moments: list[datetime] = asyncio.run(known.get_dates(1))
    return moments[0].astimezone(UTC) if moments else None


def _in_words(schedule: Any) -> str:
    if isinstance(schedule, IntervalSchedule):
        number, unit = re.findall(r"\d+|\D+", spelled(pd.Timedelta(schedule.interval)))
        return f"every {number} {UNITS[unit]}s" if number != "1" else f"every {UNITS[unit]}"
    zone = schedule.timezone or "UTC"
    return f"{getattr(schedule, 'cron', None) or schedule.rrule} ({zone})"
