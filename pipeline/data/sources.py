"""Rows from files, databases, a user's function or the served API's captures."""

import sqlite3
from datetime import datetime
from pathlib import Path

import fsspec
import pandas as pd
import sqlalchemy as sa

from pipeline.columns import as_time, require
from pipeline.config import CaptureSource, FileSource, FunctionSource, Source, SqlSource
from pipeline.data.captures import read_captures, read_labels
from pipeline.errors import ConfigError, DataError, PipelineError, UnavailableError


def read(
    source: Source,
    *,
    time: str | None,
    key: str | None = None,
    target: str | None = None,
    start: pd.Timestamp | None = None,
    end: pd.Timestamp | None = None,
    captures: Path | None = None,
) -> pd.DataFrame:
    """Rows of a source with `start <= time < end`.

    A row whose time is null or unreadable belongs to every window: leaving it out would lose
    it silently, while validation refuses it by name and keeps it.

    Parameters
    ----------
    source : Source
        Where the rows are.
    time : str
        Name of the column that orders them; None for rows without one, such as labels.
    key, target : str, optional
        Names to give the key of captured rows, and the label of those that came back.
    start, end : Timestamp, optional
        The window; None leaves that side open.
    captures : Path, optional
        The served API's store, for a capture source.

    Raises
    ------
    ConfigError
        If a database's address cannot be used.
    DataError
        If the source is not there, cannot be read, or has no time column that holds dates.
    UnavailableError
        If a database does not answer.
    """
    start, end = _utc(start), _utc(end)
    match source:
        case FileSource():
            frame = _files(source.path)
        case SqlSource():
            frame = _query(source, start, end)
        case FunctionSource():
            frame = _call(source, start, end)
        case CaptureSource():
            frame = _captured(captures, start, end, labels=time is None)
            frame = frame.rename(columns={"captured_at": time, "key": key, "target": target})
    if time is None:
        return frame
    if time not in frame.columns:
        message = (
            f"The {source.kind} source must hold the time column {time!r}. "
            f"Got {', '.join(map(str, frame.columns[:20]))}. Fix data.time or the source."
        )
        raise DataError(message)
    require(frame, [])
    return _windowed(frame.reset_index(drop=True), time, start, end)


def _windowed(
    frame: pd.DataFrame, time: str, start: pd.Timestamp | None, end: pd.Timestamp | None
) -> pd.DataFrame:
    times = as_time(frame[time])
    unreadable = frame.loc[times.isna() & frame[time].notna(), time]
    if len(unreadable) and times.isna().all():
        message = (
            f"Time column {time!r} must hold dates such as 2013-02-26T05:00. "
            f"Got {str(unreadable.iloc[0])[:80]!r} and no date in {len(frame)} rows. "
            "Convert it in the source."
        )
        raise DataError(message)
    outside = pd.Series(data=False, index=frame.index)
    if start is not None:
        outside |= times < start
    if end is not None:
        outside |= times >= end
    if unreadable.empty:  # else validation shall see and keep what came
        frame = frame.assign(**{time: times})
    return frame[~outside].reset_index(drop=True)


def _utc(moment: pd.Timestamp | None) -> pd.Timestamp | None:
    if moment is None or moment.tz is None:
        return moment
    return moment.tz_convert("UTC").tz_localize(None)


def _files(path: str) -> pd.DataFrame:
    try:
        filesystem, pattern = fsspec.core.url_to_fs(path)
        found = sorted(filesystem.glob(pattern))
    except (ImportError, OSError, ValueError) as error:
        message = f"File source {path!r} must be reachable. Got: {_first_line(error)}. Fix it."
        raise DataError(message) from error
    if not found:
        message = f"File source {path!r} must match at least one file. Got none. Fix data.*.path."
        raise DataError(message)
    try:
        frames = []
        for name in found:
            parquet = name.endswith((".parquet", ".pq"))
            packed = None if parquet else "infer"
            with filesystem.open(name, "rb", compression=packed) as file:
                frames.append(
                    pd.read_parquet(file) if parquet else pd.read_csv(file, low_memory=False)
                )
    except (OSError, ValueError, EOFError) as error:
        message = (
            f"File {name!r} must be readable CSV or Parquet. Got: {_first_line(error)}. "
            "Write it again."
        )
        raise DataError(message) from error
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


def _query(source: SqlSource, start: pd.Timestamp | None, end: pd.Timestamp | None) -> pd.DataFrame:
    query = sa.text(source.query)
    try:
        engine = sa.create_engine(source.url.get_secret_value())
    except (sa.exc.ArgumentError, ImportError) as error:
        message = (
            f"data.*.url must be an SQLAlchemy address. Got: {_first_line(error)}. "
            "Correct it or install its driver."
        )
        raise ConfigError(message) from error
    bounds = _bounds(start, end, text=engine.dialect.name == "sqlite")
    named = {name: value for name, value in bounds.items() if name in query.compile().params}
    try:
        with engine.connect() as connection:
            return pd.read_sql_query(query, connection, params=named)
    except (sa.exc.SQLAlchemyError, pd.errors.DatabaseError) as error:
        raise _sql_error(error) from error
    finally:
        engine.dispose()


def _bounds(
    start: pd.Timestamp | None, end: pd.Timestamp | None, *, text: bool
) -> dict[str, datetime | str]:
    """The window as bound parameters.

    SQLite compares times as text, where the shortest spelling of a moment comes before all its
    others: bound as `2013-02-26`, a row at `2013-02-26 00:00:00` lies inside.
    """
    moments = {
        "start": start or pd.Timestamp("1677-09-22"),
        "end": end or pd.Timestamp("2262-04-11"),
    }
    if not text:
        return {name: moment.to_pydatetime() for name, moment in moments.items()}
    return {name: str(moment).removesuffix(" 00:00:00") for name, moment in moments.items()}


def _sql_error(error: Exception) -> PipelineError:
    origin = error.__cause__ if isinstance(error, pd.errors.DatabaseError) else error
    cause = getattr(origin, "orig", None) or origin
    code = getattr(cause, "sqlite_errorcode", None)
    got = _first_line(cause)
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return DataError(f"The SQL source must be a whole SQLite file. Got: {got}. Restore it.")
    if isinstance(origin, sa.exc.OperationalError) and code != sqlite3.SQLITE_ERROR:
        return UnavailableError(f"The SQL source must answer. Got: {got}. Check data.*.url.")
    return DataError(f"The SQL source's query must run. Got: {got}. Fix data.*.query.")


def _call(
    source: FunctionSource, start: pd.Timestamp | None, end: pd.Timestamp | None
) -> pd.DataFrame:
    name = f"{source.function.__module__}:{source.function.__qualname__}"
    try:
        frame = source.function(start, end)
    except PipelineError:
        raise
    except Exception as error:
        message = f"Source function {name} must return rows. It raised {error!r}. Fix the function."
        raise DataError(message) from error
    if not isinstance(frame, pd.DataFrame):
        message = (
            f"Source function {name} must return a DataFrame. Got {type(frame).__name__}. "
            "Fix the function."
        )
        raise DataError(message)
    return frame


_WRITTEN = pd.Timedelta("1s")
"""After the end of a window until its last captures are written, as long as their disk works."""


def is_whole(source: Source, end: pd.Timestamp) -> bool:
    """Whether all rows before `end` may be there: captures come until it is over."""
    return not isinstance(source, CaptureSource) or _is_over(end)


def _is_over(end: pd.Timestamp) -> bool:
    return pd.Timestamp.now("UTC").tz_localize(None) >= end + _WRITTEN


def _captured(
    path: Path | None, start: pd.Timestamp | None, end: pd.Timestamp | None, *, labels: bool
) -> pd.DataFrame:
    if end is not None and not _is_over(end):
        message = (
            "A window of captures must be over before it is read, as each of its rows counts once. "
            f"It ends at {end:%Y-%m-%d %H:%M:%S} UTC. Come again then."
        )
        raise DataError(message)
    if path is None or not path.exists():
        message = (
            f"The capture source must exist. There is nothing at {path}. "
            "Serve the model first: make serve."
        )
        raise DataError(message)
    try:
        if labels:
            return read_labels(path)
        return read_captures(path, start=start, end=end)
    except sqlite3.DatabaseError as error:
        message = f"The capture store {path} must be a whole SQLite file. Got: {error}. Restore it."
        raise DataError(message) from error


def _first_line(error: BaseException | None) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:160].rstrip(".")
