"""The rows of a model: read from one of its sources, each with a key and a time.

A table may lack either. Rows without a time come one after another, as `data.arrival` says; rows
without a key are identified by what they hold.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline.columns import as_time, conform, require
from pipeline.config import OWN_KEY, OWN_TIME, CaptureSource, Columns, Data, Source, spelled
from pipeline.data import sources
from pipeline.data.captures import first_captured
from pipeline.data.repeats import Counted
from pipeline.derivation import raw_columns, with_derived
from pipeline.errors import DataError

_END = pd.Timestamp("2262-01-01")
"""Times in nanoseconds end soon after."""


def read(
    source: Source,
    data: Data,
    *,
    start: pd.Timestamp | None = None,
    end: pd.Timestamp | None = None,
    captures: Path | None = None,
) -> pd.DataFrame:
    """Read the rows of a source with `start <= time < end`, with their keys and times.

    Parameters
    ----------
    source : Source
        `data.train` or `data.live`.
    data : Data
        Declared columns and their roles.
    start, end : Timestamp, optional
        The window; None leaves a side open.
    captures : Path, optional
        The capture store of the served API, for a capture source.

    Raises
    ------
    DataError
        If the rows of a table without a time would come after the year 2261.
    PipelineError
        As `sources.read`.
    """
    asked = _asked(source, data, start, end, captures)
    [rows] = _with_roles([sources.read(source, **asked)], source, data, start, end)
    return rows


def read_parts(
    source: Source,
    data: Data,
    *,
    start: pd.Timestamp | None = None,
    end: pd.Timestamp | None = None,
    captures: Path | None = None,
    size: int = sources.PART_ROWS,
) -> Iterator[pd.DataFrame]:
    """Read the rows that `read` returns, some at a time, so that memory does not grow with them.

    A part holds the times as the source has them: only `read` knows whether all can be read.

    Parameters
    ----------
    source, data, start, end, captures
        As of `read`.
    size : int
        The most rows of a part. Functions, captures, and the rows of a table without a time that
        are shuffled are one part, however many they are.

    Yields
    ------
    DataFrame
        The next rows; there is at least one part, and any may be without rows.

    Raises
    ------
    PipelineError
        As `read`, and as late as after the last part.
    """
    asked = _asked(source, data, start, end, captures)
    parts = sources.read_parts(source, size=size, **asked)
    yield from _with_roles(parts, source, data, start, end)


def _asked(
    source: Source,
    data: Data,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
    captures: Path | None,
) -> dict[str, Any]:
    """What is asked of a source."""
    numbered = _is_numbered(source, data)
    return {
        "time": None if numbered else data.time,
        "key": None if data.key == OWN_KEY and not isinstance(source, CaptureSource) else data.key,
        "target": data.target,
        "columns": _declared(data),
        "classes": data.classes,
        "moments": data.moments,
        "start": None if numbered else start,
        "end": None if numbered else end,
        "captures": captures,
    }


def _is_numbered(source: Source, data: Data) -> bool:
    """Whether rows have no time of their own."""
    return data.arrival is not None and not isinstance(source, CaptureSource)


def _with_roles(
    parts: Iterable[pd.DataFrame],
    source: Source,
    data: Data,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
) -> Iterator[pd.DataFrame]:
    """Add what is derived, and the key and the time that the table has not."""
    if not isinstance(source, CaptureSource):  # captures hold what was derived
        parts = (_derived(rows, source, data) for rows in parts)
    if _is_numbered(source, data):
        yield from _arrived(parts, source, data, start, end)
        return
    counted = Counted()
    for rows in parts:
        if data.key == OWN_KEY and OWN_KEY not in rows:
            yield rows.assign(**{OWN_KEY: _content(rows, data, counted)})
        else:
            yield rows


def read_labels(data: Data, *, captures: Path) -> pd.DataFrame:
    """Read the labels of `data.labels`: keys, targets and, if it is named, `data.label_time`.

    Raises
    ------
    PipelineError
        As `sources.read`.
    """
    assert data.labels is not None  # noqa: S101 -- for mypy: the caller asked
    return sources.read(
        data.labels,
        time=None,
        key=data.key,
        target=data.target,
        classes=data.classes,
        moments=data.moments,
        captures=captures,
    )


def has_labels(data: Data, captures: Path) -> bool:
    """Whether labels of a source of their own can be read.

    Clients send none before a model is served, which makes the store of captures.
    """
    sent = isinstance(data.labels, CaptureSource)
    return captures.exists() if sent else data.labels is not None


def _declared(data: Data) -> Columns:
    """The columns of a source whose types are known, beside key, time and target."""
    raw = raw_columns(data.derive, data.features)
    roles = {data.key, data.time, data.target}
    return data.features | {name: column for name, column in raw.items() if name not in roles}


def _derived(rows: pd.DataFrame, source: Source, data: Data) -> pd.DataFrame:
    """Add the columns that are derived from others."""
    taken = [name for name in data.derive if name in rows]
    if taken:
        message = (
            f"The {source.kind} source holds the columns {', '.join(taken)} already, which "
            "data.derive makes. Name these otherwise there."
        )
        raise DataError(message)
    require(rows, [name for derived in data.derive.values() for name in derived.columns])
    return with_derived(rows, data.derive, data.features)


Progress = Literal["whole", "open", "silent"]
"""How far a batch has come: no more rows will; some may; its time is over and none has."""


def progress(
    source: Source,
    data: Data,
    start: pd.Timestamp,
    end: pd.Timestamp,
    *,
    captures: Path | None = None,
) -> Progress:
    """Whether the rows of a window have come, as far as they will.

    A window that is over is silent if its source holds no row of it and no later one: these may be
    on their way, or the source has ended. A model that never answered a request is silent; one
    that did is silent no more. Rows without a time come in their order, so that only a later row
    ends a window, or its last.
    """
    if isinstance(source, CaptureSource):
        if not sources.is_over(end):
            return "open"
        return "silent" if captures is None or first_captured(captures) is None else "whole"
    if data.arrival is not None:
        last = read(source, data, start=end - data.arrival.every)
        return "open" if last.empty else "whole"
    over = sources.is_over(end)
    if over and len(read(source, data, start=start, end=end)):
        return "whole"
    later = read(source, data, start=end)
    if (as_time(later[data.time]) >= end).any():
        return "whole"
    return "silent" if over else "open"


def _arrived(
    parts: Iterable[pd.DataFrame],
    source: Source,
    data: Data,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
) -> Iterator[pd.DataFrame]:
    """The rows of a window of a table without a time, in the order in which they came."""
    arrival, place = data.arrival, 0
    assert arrival is not None  # noqa: S101 -- for mypy: the caller asked
    for rows in _joined(parts, arrival.shuffled if source == data.train else 0):
        timed = _timed(rows.reset_index(drop=True), place, source, data)
        inside = pd.Series(data=True, index=timed.index)
        inside &= True if start is None else timed[OWN_TIME] >= start
        inside &= True if end is None else timed[OWN_TIME] < end
        yield timed[inside].reset_index(drop=True)
        place += len(rows)


def _joined(parts: Iterable[pd.DataFrame], rows: int) -> Iterator[pd.DataFrame]:
    """The parts, of which the first has so many rows, or all."""
    rest = iter(parts)
    first = [next(rest)]
    while sum(map(len, first)) < rows and (part := next(rest, None)) is not None:
        first.append(part)
    yield first[0] if len(first) == 1 else pd.concat(first, ignore_index=True)
    yield from rest


def _timed(rows: pd.DataFrame, place: int, source: Source, data: Data) -> pd.DataFrame:
    """Give rows of a table without a time, from a place on, the times of `data.arrival`.

    The key of such a row is its place in the table, where the table has no key either.
    """
    arrival, ours = data.arrival, source == data.train
    assert arrival is not None  # noqa: S101 -- for mypy: the caller asked
    first = arrival.start if ours or arrival.live_start is None else arrival.live_start
    after = place + len(rows)
    if after * arrival.every.total_seconds() > (_END - first).total_seconds():
        message = (
            f"{after} rows, one every {spelled(arrival.every)} from {first:%Y-%m-%d} on, would "
            f"come until after {_END:%Y}. Set a shorter data.arrival.every."
        )
        raise DataError(message)
    turns = np.arange(place, after)
    if ours and not place:
        mixed = min(arrival.shuffled, len(rows))
        turns[:mixed] = np.random.default_rng(0).permutation(mixed)
    times = first.as_unit("us") + pd.to_timedelta(turns * arrival.every.to_timedelta64())
    places = pd.Series(range(place, after)).astype("str")
    own = {OWN_KEY: places if ours else "live-" + places} if data.key == OWN_KEY else {}
    added = pd.DataFrame({**own, OWN_TIME: times.as_unit("us")}, index=rows.index)
    rows = pd.concat([rows, added], axis=1)  # where hundreds are text, pandas warns of `assign`
    return rows.sort_values(OWN_TIME, ignore_index=True)


def _content(rows: pd.DataFrame, data: Data, counted: Counted) -> pd.Series:
    """A hash of time and features, which labels do not change; equal rows are numbered."""
    known = {name: column for name, column in data.features.items() if name in rows}
    parts = conform(rows, known).assign(**{data.time: as_time(rows[data.time])})
    numbers = pd.util.hash_pandas_object(parts, index=False)
    hashes = numbers.map("{:016x}".format).astype("str")
    again = counted.before(hashes)
    return hashes.where(again == 0, hashes + "-" + (again + 1).astype("str"))
