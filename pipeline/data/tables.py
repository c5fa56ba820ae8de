"""The rows of a model: read from one of its sources, each with a key and a time.

A table may lack either. Rows without a time come one after another, as `data.arrival` says; rows
without a key are identified by what they hold.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from pipeline.columns import as_time, conform, require
from pipeline.config import OWN_KEY, OWN_TIME, CaptureSource, Columns, Data, Source, spelled
from pipeline.data import sources
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
    numbered = data.arrival is not None and not isinstance(source, CaptureSource)
    rows = sources.read(
        source,
        time=None if numbered else data.time,
        key=None if data.key == OWN_KEY and not isinstance(source, CaptureSource) else data.key,
        target=data.target,
        columns=_declared(data),
        classes=data.classes,
        moments=data.moments,
        start=None if numbered else start,
        end=None if numbered else end,
        captures=captures,
    )
    if not isinstance(source, CaptureSource):  # captures hold what was derived
        rows = _derived(rows, source, data)
    if numbered:
        rows = _arrived(rows.reset_index(drop=True), source, data)
        inside = pd.Series(data=True, index=rows.index)
        inside &= True if start is None else rows[OWN_TIME] >= start
        inside &= True if end is None else rows[OWN_TIME] < end
        return rows[inside].reset_index(drop=True)
    if data.key == OWN_KEY and OWN_KEY not in rows:
        rows = rows.assign(**{OWN_KEY: _content(rows, data)})
    return rows


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


def progress(source: Source, data: Data, start: pd.Timestamp, end: pd.Timestamp) -> Progress:
    """Whether the rows of a window have come, as far as they will.

    A window that is over is silent if its source holds no row of it and no later one: these may be
    on their way, or the source has ended. Rows without a time come in their order, so that only a
    later row ends a window, or its last.
    """
    if isinstance(source, CaptureSource):
        return "whole" if sources.is_over(end) else "open"
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


def _arrived(rows: pd.DataFrame, source: Source, data: Data) -> pd.DataFrame:
    """Give the rows of a table without a time the times of `data.arrival`, in their order.

    The key of such a row is its place in the table, where the table has no key either.
    """
    arrival, ours = data.arrival, source == data.train
    assert arrival is not None  # noqa: S101 -- for mypy: the caller asked
    first = arrival.start if ours or arrival.live_start is None else arrival.live_start
    if len(rows) * arrival.every.total_seconds() > (_END - first).total_seconds():
        message = (
            f"{len(rows)} rows, one every {spelled(arrival.every)} from {first:%Y-%m-%d} on, would "
            f"come until after {_END:%Y}. Set a shorter data.arrival.every."
        )
        raise DataError(message)
    turns = np.arange(len(rows))
    if ours:
        mixed = min(arrival.shuffled, len(rows))
        turns[:mixed] = np.random.default_rng(0).permutation(mixed)
    times = first.as_unit("us") + pd.to_timedelta(turns * arrival.every.to_timedelta64())
    places = pd.Series(range(len(rows))).astype("str")
    own = {OWN_KEY: places if ours else "live-" + places} if data.key == OWN_KEY else {}
    added = pd.DataFrame({**own, OWN_TIME: times.as_unit("us")}, index=rows.index)
    rows = pd.concat([rows, added], axis=1)  # where hundreds are text, pandas warns of `assign`
    return rows.sort_values(OWN_TIME, ignore_index=True)


def _content(rows: pd.DataFrame, data: Data) -> pd.Series:
    """A hash of time and features, which labels do not change; equal rows are numbered."""
    known = {name: column for name, column in data.features.items() if name in rows}
    parts = conform(rows, known).assign(**{data.time: as_time(rows[data.time])})
    numbers = pd.util.hash_pandas_object(parts, index=False)
    hashes = numbers.map("{:016x}".format).astype("str")
    again = hashes.groupby(hashes).cumcount()
    return hashes.where(again == 0, hashes + "-" + (again + 1).astype("str"))
