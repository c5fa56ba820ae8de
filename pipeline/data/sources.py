"""Rows from files, databases, a user's function or the served API's captures."""

import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.columns import as_time, require
from pipeline.config import CaptureSource, Columns, FileSource, FunctionSource, Source, SqlSource
from pipeline.data.captures import AT, KEY, read_captures, read_labels
from pipeline.data.databases import read_query
from pipeline.data.declared import as_classes, declare
from pipeline.data.files import Window, read_files
from pipeline.errors import DataError, PipelineError


def read(
    source: Source,
    *,
    time: str | None,
    key: str | None = None,
    target: str | None = None,
    columns: Columns | None = None,
    classes: tuple[str, ...] | None = None,
    moments: Collection[str] = (),
    start: pd.Timestamp | None = None,
    end: pd.Timestamp | None = None,
    captures: Path | None = None,
) -> pd.DataFrame:
    """Read the rows of a source with `start <= time < end`.

    A row whose time is null or unreadable belongs to every window: leaving it out would lose
    it silently, while validation refuses it by name and keeps it.

    Parameters
    ----------
    source : Source
        Where the rows are.
    time : str
        Name of the time column; None for rows without one, such as labels.
    key, target : str, optional
        Names of the key, which is text, and of the target.
    columns : dict of str to Column, optional
        The declared columns: categorical ones are read as text and numeric ones as numbers.
    classes : tuple of str, optional
        The labels of the target, which become their places. Captured labels of two classes are 0
        and 1 already.
    moments : collection of str
        Names of further columns that hold times.
    start, end : Timestamp, optional
        The window; None leaves a side open.
    captures : Path, optional
        The capture store of the served API, for a capture source.

    Raises
    ------
    ConfigError
        If a database's address cannot be used.
    DataError
        If the source does not exist, cannot be read, or has no time column that holds dates.
    UnavailableError
        If a database does not answer.
    """
    window = Window(time, _utc(start), _utc(end))
    roles: Any = {"key": key, "moments": {time, *moments}, "target": target}
    declared = declare(columns or {}, classes=classes or (), **roles)
    partial = False
    match source:
        case FileSource():
            frame, partial = read_files(source, window, declared)
        case SqlSource():
            frame = read_query(source, window, declared)
        case FunctionSource():
            frame = _call(source, window)
        case CaptureSource():
            frame = _captured(captures, window)
            labels = {"key": key, "target": target}
            frame = frame.rename(columns=labels if time is None else {KEY: key, AT: time})
    if classes and target is not None and target in frame:
        frame = _with_places(frame, source, target, classes)
    if time is None:
        return frame
    if time not in frame.columns:
        message = (
            f"The {source.kind} source must hold the time column {time!r}. "
            f"Got {', '.join(map(str, frame.columns[:20]))}. Fix data.time or the source."
        )
        raise DataError(message)
    require(frame, [])
    frame = frame.reset_index(drop=True)
    times = as_time(frame[time])
    if not partial:
        _require_dates(frame[time], times)
    return _inside(frame.assign(**_readable(frame, time, times)), times, window)


def _with_places(
    frame: pd.DataFrame, source: Source, target: str, classes: tuple[str, ...]
) -> pd.DataFrame:
    """Write the labels of a target as places; captured labels of two classes are 0 and 1."""
    if isinstance(source, CaptureSource) and len(classes) == 2:  # noqa: PLR2004 -- two are 0 and 1
        return frame
    require(frame, [])
    return frame.assign(**{target: as_classes(frame[target], classes)})


def _require_dates(column: pd.Series, times: pd.Series) -> None:
    unreadable = column[times.isna() & column.notna()]
    if len(unreadable) and times.isna().all():
        message = (
            f"Time column {column.name!r} must hold dates such as 2013-02-26T05:00. "
            f"Got {str(unreadable.iloc[0])[:80]!r} and no date in {len(column)} rows. "
            "Convert it in the source."
        )
        raise DataError(message)


def _readable(frame: pd.DataFrame, time: str, times: pd.Series) -> dict[str, pd.Series]:
    """The parsed time column; nothing if a time is unreadable, for validation to report it."""
    return {time: times} if (times.notna() | frame[time].isna()).all() else {}


def _inside(frame: pd.DataFrame, times: pd.Series, window: Window) -> pd.DataFrame:
    outside = pd.Series(data=False, index=frame.index)
    if window.start is not None:
        outside |= times < window.start
    if window.end is not None:
        outside |= times >= window.end
    return frame[~outside].reset_index(drop=True)


def _utc(moment: pd.Timestamp | None) -> pd.Timestamp | None:
    if moment is None or moment.tz is None:
        return moment
    return moment.tz_convert("UTC").tz_localize(None)


def _call(source: FunctionSource, window: Window) -> pd.DataFrame:
    name = f"{source.function.__module__}:{source.function.__qualname__}"
    try:
        frame = source.function(window.start, window.end)
    except PipelineError:
        raise
    except Exception as error:
        message = f"The source function {name} raised {error!r}. Fix the function."
        raise DataError(message) from error
    if not isinstance(frame, pd.DataFrame):
        message = (
            f"Source function {name} must return a DataFrame. Got {type(frame).__name__}. "
            "Fix the function."
        )
        raise DataError(message)
    return frame


_WRITTEN = pd.Timedelta("1s")
"""How long after the end of a window its last captures may still be on their way to disk."""


def is_over(end: pd.Timestamp) -> bool:
    """Whether a window is over, and its last captures are on disk."""
    return pd.Timestamp.now("UTC").tz_localize(None) >= end + _WRITTEN


def _captured(path: Path | None, window: Window) -> pd.DataFrame:
    if window.end is not None and not is_over(window.end):
        message = (
            f"The window ends at {window.end:%Y-%m-%d %H:%M:%S} UTC and is not over: more captures "
            "may come, and each counts once. Retry after its end."
        )
        raise DataError(message)
    if path is None or not path.exists():
        message = f"No capture store exists at {path}. Serve the model first: holdfast serve."
        raise DataError(message)
    try:
        if window.time is None:
            return read_labels(path)
        return read_captures(path, start=window.start, end=window.end)
    except sqlite3.DatabaseError as error:
        message = f"The capture store {path} is damaged ({error}). Restore it."
        raise DataError(message) from error
