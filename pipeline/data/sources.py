"""Rows from files, databases, a user's function or the served API's captures."""

import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd

from pipeline.columns import as_time, require
from pipeline.config import CaptureSource, Columns, FileSource, FunctionSource, Source, SqlSource
from pipeline.data.captures import AT, KEY, read_captures, read_labels
from pipeline.data.databases import read_query
from pipeline.data.declared import Declared, as_classes, declare, require_single
from pipeline.data.files import Part, Window, read_files
from pipeline.errors import DataError, PipelineError

PART_ROWS: Final = 100_000
"""Rows that are held at once where a source is read in parts."""


def read(source: Source, *, time: str | None, **asked: Any) -> pd.DataFrame:
    """Read the rows of a source with `start <= time < end` at once.

    Arguments and errors are as of `read_parts`. The time column holds times where all of them can
    be read.
    """
    [rows] = read_parts(source, time=time, size=None, **asked)
    return rows if time is None else rows.assign(**_readable(rows, time, as_time(rows[time])))


def read_parts(
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
    size: int | None = PART_ROWS,
) -> Iterator[pd.DataFrame]:
    """Read the rows of a source with `start <= time < end`, some at a time.

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
    size : int, optional
        The most rows of a part of a file or a query; None: all rows are one part. A function and
        the captures hand over all their rows at once.

    Yields
    ------
    DataFrame
        The next rows of the source, in its order; there is at least one part, perhaps without rows.

    Raises
    ------
    ConfigError
        If a database's address cannot be used.
    DataError
        If the source does not exist, cannot be read, or has no time column that holds dates; that
        none of its rows has a date, is known after the last part.
    UnavailableError
        If a database does not answer.
    """
    window = Window(time, _utc(start), _utc(end))
    roles: Any = {"key": key, "moments": {time, *moments}, "target": target}
    declared = declare(columns or {}, classes=classes or (), **roles)
    dates = _Dates()
    for part, total in _parts(source, window, declared, size, captures=captures):
        frame = part
        if isinstance(source, CaptureSource):
            labels = {"key": key, "target": target}
            frame = frame.rename(columns=labels if time is None else {KEY: key, AT: time})
        if classes and target is not None and target in frame:
            frame = _with_places(frame, source, target, classes)
        if time is None:
            yield frame
            continue
        if time not in frame.columns:
            message = (
                f"The {source.kind} source must hold the time column {time!r}. "
                f"Got {', '.join(map(str, frame.columns[:20]))}. Fix data.time or the source."
            )
            raise DataError(message)
        require(frame, [])
        frame = frame.reset_index(drop=True)
        times = as_time(frame[time])
        dates.add(frame[time], times, total)
        yield _inside(frame, times, window)
    dates.require()


def _parts(
    source: Source,
    window: Window,
    declared: Declared,
    size: int | None,
    *,
    captures: Path | None,
) -> Iterator[Part]:
    match source:
        case FileSource():
            yield from read_files(source, window, declared, size)
        case SqlSource():
            for frame in read_query(source, window, declared, size):
                yield frame, len(frame)
        case FunctionSource():
            frame = _call(source, window)
            require(frame, [])
            require_single(frame, declared)
            yield frame, len(frame)
        case CaptureSource():
            frame = _captured(captures, window)
            yield frame, len(frame)


def _with_places(
    frame: pd.DataFrame, source: Source, target: str, classes: tuple[str, ...]
) -> pd.DataFrame:
    """Write the labels of a target as places; captured labels of two classes are 0 and 1."""
    if isinstance(source, CaptureSource) and len(classes) == 2:  # noqa: PLR2004 -- two are 0 and 1
        return frame
    require(frame, [])
    return frame.assign(**{target: as_classes(frame[target], classes)})


class _Dates:
    """Whether the time column of some rows holds dates at all."""

    def __init__(self) -> None:
        self.rows, self.found = 0, False
        self.odd: pd.Series | None = None

    def add(self, column: pd.Series, times: pd.Series, total: int) -> None:
        """Count a part; of `total` rows, those outside of the window hold dates."""
        self.rows += len(column)
        self.found |= bool(times.notna().any()) or len(column) < total
        if self.odd is None and (unread := times.isna() & column.notna()).any():
            self.odd = column[unread].head(1)

    def require(self) -> None:
        if self.odd is None or self.found:
            return
        message = (
            f"Time column {self.odd.name!r} must hold dates such as 2013-02-26T05:00. "
            f"Got {str(self.odd.iloc[0])[:80]!r} and no date in {self.rows} rows. "
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
