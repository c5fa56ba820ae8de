"""Steps that several flows share: open a model, read and validate rows."""

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import pandas as pd
from prefect import Task, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import quote

from flows.logs import log_sentences
from pipeline.columns import as_time, require
from pipeline.config import CaptureSource, Settings, Source
from pipeline.data import tables, validation
from pipeline.data.labels import join_labels
from pipeline.data.validation import NoValidRowError, Validated
from pipeline.errors import ConfigError, DataError, UnavailableError
from pipeline.registry.history import History
from pipeline.registry.versions import Registry

P = ParamSpec("P")
R = TypeVar("R")
RETRIES: Final = 6
"""The last retry comes two minutes after the first failure, when a slow server is back as well."""


def opened(conf: str) -> tuple[Settings, Registry]:
    """The settings and the registry of a model's file; from here on, logs hold no secrets."""
    log_sentences()
    if (
        str(Path.cwd()) not in sys.path
    ):  # a YAML file may name functions of the folder it is used in
        sys.path.append(str(Path.cwd()))
    settings = Settings.load(conf)
    return settings, Registry(settings.name, settings.tracking, settings.conf)


async def _is_away(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Whether a later call may succeed."""
    return isinstance(await state.aresult(raise_on_failure=False), UnavailableError)


def patient(step: Callable[P, R]) -> Callable[P, R]:
    """Make a step a task that is retried, with growing delays, while a server is away.

    After any other error it is not retried. A retry only does what is left to do, because steps
    read from the record what was done before. A patient step must not call another patient step,
    or each would wait for the other's retries.
    """
    retried = Task(
        step,
        name=step.__name__.strip("_"),
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(2),
        retry_condition_fn=_is_away,
        cache_policy=NO_CACHE,
    )

    @wraps(step)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        # Prefect looks for futures inside of arguments: half a second for a long history.
        unseen = {key: quote(value) for key, value in kwargs.items()}
        return retried(*map(quote, args), **unseen)  # type: ignore[arg-type]

    return call


def require_window(start: pd.Timestamp | None, end: pd.Timestamp | None) -> None:
    """Check that a window that was asked for begins before it ends.

    Raises
    ------
    ConfigError
        If not.
    """
    if start is not None and end is not None and start >= end:
        message = (
            f"The start of a window must be before its end. Got {start} and {end}. Correct it."
        )
        raise ConfigError(message)


@task(cache_policy=NO_CACHE)
def read(
    settings: Settings,
    source: Source,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
    *,
    as_of: pd.Timestamp | None = None,
    need_labels: bool = True,
) -> pd.DataFrame:
    """Rows of a window, with the labels that have arrived for them by a moment, or until now.

    Without a need for labels, rows whose labels cannot be read have none.
    """
    data, captures = settings.data, settings.captures
    rows = tables.read(source, data, start=start, end=end, captures=captures)
    if not tables.has_labels(data, captures):
        return rows
    labels = tables.read_labels(data, captures=captures) if need_labels else labels_so_far(settings)
    return join_labels(rows, labels, data, as_of=as_of)


def labels_so_far(settings: Settings) -> pd.DataFrame:
    """Labels of `data.labels`; none, with a warning, if they cannot be read.

    Batches are judged without them, and people are paged if labels stay away.
    """
    data = settings.data
    columns = [data.key, data.target, *([data.label_time] if data.label_time else [])]
    try:
        labels = tables.read_labels(data, captures=settings.captures)
        require(labels, columns)
    except DataError as error:
        get_run_logger().warning("The labels of data.labels cannot be read. %s", error)
        return pd.DataFrame(columns=columns)
    return labels


def read_training(
    settings: Settings, start: pd.Timestamp | None, end: pd.Timestamp, *, as_of: pd.Timestamp
) -> pd.DataFrame:
    """Rows to train on: those of `train` and, if captures are the live rows, those after them.

    Parameters
    ----------
    settings : Settings
        The model's.
    start, end : Timestamp
        The window; None: from the oldest row on.
    as_of : Timestamp
        Labels that arrived later are left out.
    """
    data = settings.data
    arrived = read(settings, data.train, start, end, as_of=as_of)
    if not isinstance(data.live, CaptureSource) or not settings.captures.exists():
        return arrived
    newest = as_time(arrived[data.time]).max()
    since = start if pd.isna(newest) else newest + pd.Timedelta("1us")
    # What is captured just now is not on disk yet.
    until = min(end, pd.Timestamp.now("UTC").tz_localize(None) - pd.Timedelta("5s"))
    if since is not None and since >= until:
        return arrived
    captured = read(settings, data.live, since, until, as_of=as_of)
    return pd.concat([arrived, captured], ignore_index=True) if len(captured) else arrived


@task(cache_policy=NO_CACHE)
def check(settings: Settings, rows: pd.DataFrame, name: str) -> Validated:
    """Valid rows and refused rows; the refused rows are written to disk with their reasons.

    Labels of valid rows become numbers. A row whose target is not a label counts as unlabelled, and
    a warning counts these rows.
    """
    folder = quarantine_folder(settings)
    try:
        validated = validation.validate(rows, settings.data, source=name)
    except NoValidRowError as error:
        validation.quarantine(error.validated, folder, name)
        raise
    validation.quarantine(validated, folder, name)
    show_refused(settings, name, validated.reasons, len(validated.quarantined), len(rows))
    checked = validation.with_labels(validated, settings.data, settings.task)
    strays = validation.stray_labels(checked, settings.data)
    warn_of_strays(name, strays, len(strays), len(checked.valid))
    return checked


def show_refused(
    settings: Settings, name: str, reasons: Mapping[str, int], refused: int, rows: int
) -> None:
    """Show in Prefect why rows were refused, if some were."""
    if reasons:
        create_table_artifact(
            key=f"{settings.name}-refused",
            table=[{"reason": why, "rows": n} for why, n in reasons.items()],
            description=f"{refused} of {rows} rows of {name} were refused.",
        )


def warn_of_strays(name: str, strays: pd.Series, count: int, valid: int) -> None:
    """Warn of targets that are not labels, if there are any, with the first of them."""
    if count:
        get_run_logger().warning(
            "%d of %d rows of %s have a target that is not a label (%s) and count as unlabelled.",
            count,
            valid,
            name,
            ", ".join(strays.map(repr).drop_duplicates()[:5]),
        )


def without_set_aside(
    rows: pd.DataFrame, history: History, time: str
) -> tuple[pd.DataFrame, list[str]]:
    """Rows outside of the windows of batches that are set aside, and which batches held others.

    Parameters
    ----------
    rows : DataFrame
        Rows of any window.
    history : History
        All recorded batches.
    time : str
        Column that orders the rows.
    """
    times = as_time(rows[time])
    outside, names = pd.Series(data=True, index=rows.index), []
    for batch in history.batches:
        inside = (times >= batch.start) & (times < batch.end)
        if batch.set_aside and inside.any():
            outside &= ~inside
            names.append(batch.name)
    if names:
        get_run_logger().info(
            "Leaving out %d of %d rows, of batches that are set aside: %s.",
            (~outside).sum(),
            len(rows),
            ", ".join(names),
        )
    return rows[outside].reset_index(drop=True), names


def quarantine_folder(settings: Settings) -> Path:
    """Where refused rows of a model are kept."""
    return settings.tracking.folder / "quarantine" / settings.name
