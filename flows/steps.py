"""What several flows do: open a model, read and validate rows, page when a flow fails."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import pandas as pd
from prefect import Flow, Task, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State
from prefect.tasks import exponential_backoff

from pipeline.columns import as_time
from pipeline.config import Settings, Source
from pipeline.data import sources, validation
from pipeline.data.labels import join_labels
from pipeline.data.validation import NoValidRowError, Validated
from pipeline.errors import PipelineError, UnavailableError
from pipeline.registry import records
from pipeline.registry.versions import Registry
from pipeline.reporting.pages import Event, page

P = ParamSpec("P")
R = TypeVar("R")
RETRIES: Final = 5
"""The last one a minute after the first failure."""


def opened(conf: str) -> tuple[Settings, Registry]:
    """A model's settings and its registry."""
    settings = Settings.load(conf)
    return settings, Registry(settings)


def page_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Tell people that a flow failed; a hook of every flow."""
    try:
        urls = Settings.load(flow_run.parameters["conf"]).alerts.urls
    except PipelineError:
        return  # the flow failed on the same file, and says so
    subject = f"Flow {flow.name} of {flow_run.parameters['conf']} failed"
    page(Event("failure", subject, state.message or ""), urls)


async def _away(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Whether the same call may work later."""
    return isinstance(await state.aresult(raise_on_failure=False), UnavailableError)


def patient(step: Callable[P, R]) -> Task[P, R]:
    """A task that is tried again, ever later, while a server is away, and after no other error.

    It does what is left to do, as all steps here read from the record what was done. None calls
    another, or the two would wait for each other's number of times.
    """
    return Task(
        step,
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(2),
        retry_condition_fn=_away,
        cache_policy=NO_CACHE,
    )


@task(cache_policy=NO_CACHE)
def read(
    settings: Settings, source: Source, start: pd.Timestamp | None, end: pd.Timestamp | None
) -> pd.DataFrame:
    """Rows of a window, with the labels that have arrived for them."""
    data, captures = settings.data, settings.captures
    rows = sources.read(
        source, time=data.time, key=data.key, start=start, end=end, captures=captures
    )
    if data.labels is None:
        return rows
    labels = sources.read(
        data.labels, time=None, key=data.key, target=data.target, captures=captures
    )
    return join_labels(rows, labels, data)


@task(cache_policy=NO_CACHE)
def check(settings: Settings, rows: pd.DataFrame, name: str) -> Validated:
    """Valid rows and refused ones, the refused written with their reasons."""
    folder = quarantine_folder(settings)
    try:
        validated = validation.validate(rows, settings.data, source=name)
    except NoValidRowError as error:
        validation.quarantine(error.validated, folder, name)
        raise
    validation.quarantine(validated, folder, name)
    if validated.reasons:
        create_table_artifact(
            key=f"{settings.name}-refused",
            table=[{"reason": why, "rows": n} for why, n in validated.reasons.items()],
            description=f"{len(validated.quarantined)} of {len(rows)} rows of {name} were refused.",
        )
    return validated


def without_set_aside(
    settings: Settings, registry: Registry, rows: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    """Rows outside of the windows of batches that are set aside, and those that held others."""
    times = as_time(rows[settings.data.time])
    length = settings.monitoring.batch
    outside, names = pd.Series(data=True, index=rows.index), []
    for batch in records.batches(registry):
        start = pd.Timestamp(batch.name)
        inside = (times >= start) & (times < start + length)
        if batch.set_aside and inside.any():
            outside &= ~inside
            names.append(batch.name)
    if names:
        get_run_logger().info(
            "%d of %d rows are left out, of batches that are set aside: %s.",
            (~outside).sum(),
            len(rows),
            ", ".join(names),
        )
    return rows[outside].reset_index(drop=True), names


def quarantine_folder(settings: Settings) -> Path:
    """Where refused rows of a model are kept."""
    return settings.tracking.folder / "quarantine" / settings.name
