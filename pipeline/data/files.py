"""Rows of CSV and Parquet files, on disk or at any fsspec address.

The footer of a Parquet file states which times each row group holds, so that only the row groups
that a window needs are read. A CSV file states nothing about its rows and is read whole.
"""

from functools import reduce
from operator import and_
from typing import IO, NamedTuple

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.errors import DataError

PARQUET = (".parquet", ".pq")


class Window(NamedTuple):
    """The rows that are asked for.

    Attributes
    ----------
    time : str or None
        Name of the time column; None for rows that have none.
    start, end : Timestamp or None
        The rows with `start <= time < end`, in UTC without a zone; None leaves a side open.
    """

    time: str | None
    start: pd.Timestamp | None
    end: pd.Timestamp | None


def read_files(path: str, window: Window) -> tuple[pd.DataFrame, bool]:
    """Read all files of a path or glob, with at least the rows of a window.

    Rows without a time, or with one that cannot be read, are always among them.

    Parameters
    ----------
    path : str
        A path, a glob or an fsspec URL.
    window : Window
        The rows that are asked for.

    Returns
    -------
    rows : DataFrame
        Rows of all files in the order of their names, with the columns of all files.
    partial : bool
        Whether rows with a readable time outside of the window were left out.

    Raises
    ------
    DataError
        If no file matches, or one cannot be read.
    """
    filesystem, found = _find(path)
    parts = [_read(filesystem, name, window) for name in found]
    # Files without a row say nothing about types.
    frames = [frame for frame, total in parts if total] or [parts[0][0]]
    rows = pd.concat(frames, ignore_index=True)
    return rows, len(rows) < sum(total for _, total in parts)


def first_line(error: BaseException | None) -> str:
    """Shorten an error message to its first line, without the full stop."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:160].rstrip(".")


def _find(path: str) -> tuple[fsspec.AbstractFileSystem, list[str]]:
    try:
        filesystem, pattern = fsspec.core.url_to_fs(path)
        found = sorted(filesystem.glob(pattern))
    except (ImportError, OSError, ValueError) as error:
        message = (
            f"File source {path!r} cannot be reached ({first_line(error)}). "
            "Correct data.*.path, or install what its protocol needs."
        )
        raise DataError(message) from error
    if not found:
        message = f"No file matches the file source {path!r}. Correct data.*.path."
        raise DataError(message)
    return filesystem, found


def _read(
    filesystem: fsspec.AbstractFileSystem, name: str, window: Window
) -> tuple[pd.DataFrame, int]:
    """Rows of one file that the window may hold, and how many rows the file holds."""
    parquet = name.endswith(PARQUET)
    try:
        with filesystem.open(name, "rb", compression=None if parquet else "infer") as file:
            if parquet:
                return _parquet(file, window)
            frame = pd.read_csv(file, low_memory=False)
            return frame, len(frame)
    except (OSError, ValueError, EOFError) as error:
        message = (
            f"File {name!r} must be readable CSV or Parquet. Got: {first_line(error)}. "
            "Write it again."
        )
        raise DataError(message) from error


def _parquet(file: IO[bytes], window: Window) -> tuple[pd.DataFrame, int]:
    fragment = ds.ParquetFileFormat().make_fragment(file)
    table = fragment.to_table(filter=_condition(fragment.physical_schema, window))
    return table.to_pandas(), fragment.count_rows()


def _condition(schema: pa.Schema, window: Window) -> ds.Expression | None:
    """What a row of a Parquet file must meet; None where only a full read is safe."""
    if window.time is None or schema.names.count(window.time) != 1:
        return None
    kind, column = schema.field(window.time).type, ds.field(window.time)
    if not (pa.types.is_timestamp(kind) or pa.types.is_date32(kind)):
        return None  # text may name a time that only `as_time` can read
    bounds = []
    try:
        if window.start is not None:
            bounds.append(column >= _bound(window.start, kind))
        if window.end is not None:
            bounds.append(column < _bound(window.end, kind))
    except (ValueError, OverflowError):  # beyond what the column's type can hold
        return None
    return reduce(and_, bounds) | column.is_null() if bounds else None


def _bound(moment: pd.Timestamp, kind: pa.DataType) -> pa.Scalar:
    """The first value of a type that is not before a moment.

    Both sides of the comparison have the column's own type, because row groups are not skipped
    where a column has to be converted first.
    """
    if pa.types.is_date32(kind):
        return pa.scalar(moment.ceil("D").date(), type=kind)
    # Times are compared in microseconds (see `as_time`).
    rounded = moment.ceil("us" if kind.unit == "ns" else kind.unit)
    return pa.scalar(rounded if kind.tz is None else rounded.tz_localize("UTC"), type=kind)
