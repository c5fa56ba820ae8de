"""Rows of CSV and Parquet files, on disk or at any fsspec address.

The footer of a Parquet file states which times each row group holds, so that only the row groups
that a window needs are read. A CSV file states nothing about its rows and is read whole.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial, reduce
from operator import and_
from typing import IO, NamedTuple
from zipfile import ZipFile

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.columns import TRUTH
from pipeline.config import FileSource
from pipeline.data.csv_files import read_csv
from pipeline.data.declared import (
    Declared,
    as_numbers,
    with_moments,
    with_nulls,
    with_texts,
    without_nulls,
)
from pipeline.data.places import UNREADABLE, find, unreached
from pipeline.errors import DataError, PipelineError, first_line

CSV = (".csv", ".tsv", ".txt")
PARQUET = (".parquet", ".pq")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
_UNNAMED_INDEX = "__index_level_0__"


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


Part = tuple[pd.DataFrame, int]
"""Rows, and from among how many rows of a file they were taken."""


def read_files(
    source: FileSource, window: Window, declared: Declared, size: int | None = None
) -> Iterator[Part]:
    """Read all files of a source, with at least the rows of a window.

    Rows without a time, or with one that cannot be read, are always among them.

    Parameters
    ----------
    source : FileSource
        A path, glob, folder or fsspec URL, and the options of its files.
    window : Window
        The rows that are asked for.
    declared : Declared
        The types of the columns.
    size : int, optional
        The most rows of a part; None: all rows are one part.

    Yields
    ------
    rows : DataFrame
        The next rows, files in the order of their names, with the columns of all files.
    total : int
        From among how many rows they were taken. The others have a readable time outside of the
        window.

    Raises
    ------
    DataError
        If no file matches, or one cannot be read.
    UnavailableError
        If a web server does not answer.
    """
    filesystem, found = find(source.path)
    files = [
        partial(_read, filesystem, name, keys, source=source, declared=declared)
        for name, keys in _with_truth(found, declared)
    ]
    if size is None:
        parts = [next(read(window, None)) for read in files]
        yield _together(parts, source), sum(total for _, total in parts)
        return
    heads = [next(read(Window(None, None, None), 1)) for read in files]
    columns = _together(heads, source).columns
    if not any(total for _, total in heads):
        yield pd.DataFrame(columns=columns), 0
    for read, (_, some) in zip(files, heads, strict=True):
        for rows, total in read(window, size) if some else ():
            yield rows if rows.columns.equals(columns) else rows.reindex(columns=columns), total


def _with_truth(
    found: list[tuple[str, dict[str, str | None]]], declared: Declared
) -> list[tuple[str, dict[str, str | None]]]:
    """Files with folders of truth values as 1 and 0, where a column of numbers has no others."""
    named: dict[str, set[str]] = {}
    for _, keys in found:
        for name in declared.numbers & keys.keys():
            named.setdefault(name, set()).update({keys[name] or ""} - {""})
    truths = {name for name, values in named.items() if values <= TRUTH.keys()}
    return [
        (file, {n: str(TRUTH[v]) if v and n in truths else v for n, v in keys.items()})
        for file, keys in found
    ]


def _together(parts: list[Part], source: FileSource) -> pd.DataFrame:
    """Rows of all files, with the columns of all; files without a row say nothing about types."""
    frames = [frame for frame, total in parts if total] or [
        max((frame for frame, _ in parts), key=lambda frame: frame.shape[1])
    ]
    if not len(frames[0].columns):
        message = f"The file source {source.path!r} is empty: no file has a header. Write it again."
        raise DataError(message)
    return pd.concat(frames, ignore_index=True)


def _read(
    filesystem: fsspec.AbstractFileSystem,
    name: str,
    keys: dict[str, str | None],
    window: Window,
    size: int | None,
    *,
    source: FileSource,
    declared: Declared,
) -> Iterator[Part]:
    """Rows of one file that the window may hold, in at least one part."""
    kind = format_of(name, source)
    try:
        with ExitStack() as stack:
            file = open_file(filesystem, name, source.compression, stack)
            if kind == "parquet":
                parts = _parquet(file, window, declared, size)
            else:
                parts = ((part, len(part)) for part in read_csv(file, source, declared, size))
            for frame, total in parts:
                yield _typed(frame, keys, source, declared), total
    except pd.errors.EmptyDataError:
        yield pd.DataFrame(), 0
    except PipelineError:
        raise
    except Exception as error:
        if (elsewhere := unreached(name, error)) is not None:
            raise elsewhere from error
        # An archive may be encrypted, and a zone unknown.
        if not isinstance(error, (ValueError, RuntimeError, KeyError, *UNREADABLE)):
            raise
        message = (
            f"File {name!r} must be readable CSV or Parquet. Got: {first_line(error)}. "
            "Write it again, or correct the options of the file source."
        )
        raise DataError(message) from error


def _typed(
    frame: pd.DataFrame, keys: dict[str, str | None], source: FileSource, declared: Declared
) -> pd.DataFrame:
    frame = with_nulls(with_texts(_with_keys(frame, keys, source, declared), declared), declared)
    if source.date_format is None:
        return frame
    return with_moments(frame, source.date_format, declared, decimal=source.decimal)


def _with_keys(
    frame: pd.DataFrame, keys: dict[str, str | None], source: FileSource, declared: Declared
) -> pd.DataFrame:
    """Add the columns that folders name; a column of the file itself counts for more."""
    texts = {
        name: pd.Series(value, index=frame.index, dtype="str")
        for name, value in keys.items()
        if name not in frame
    }
    added = {
        name: as_numbers(text, decimal=source.decimal) if name in declared.numbers else text
        for name, text in texts.items()
    }
    named = without_nulls(pd.DataFrame(added, index=frame.index), source, declared)
    return frame.assign(**{str(name): named[name] for name in named})


def format_of(name: str, source: FileSource) -> str:
    """Format of a file: as the source says, else as the ending of its name tells."""
    if source.format is not None:
        return source.format
    stem = name.lower()
    if source.compression is not None:
        stem = stem.removesuffix(next((end for end in _COMPRESSED if stem.endswith(end)), ""))
    if stem.endswith(PARQUET):
        return "parquet"
    if stem.endswith(CSV):
        return "csv"
    message = (
        f"The ending of file {name!r} must tell its format: {', '.join(CSV + PARQUET)}, and one of "
        f"{', '.join(_COMPRESSED)} if it is compressed. Set data.*.format to csv or parquet. "
        "Files of a tar archive are named as tar://*.csv::rows.tar."
    )
    raise DataError(message)


def open_file(
    filesystem: fsspec.AbstractFileSystem, name: str, compression: str | None, stack: ExitStack
) -> IO[bytes]:
    """Open a file, unpacked; an archive must hold one file, or the others would be lost."""
    if compression == "infer":
        compression = fsspec.utils.infer_compression(name.lower())
    if compression != "zip":
        return stack.enter_context(filesystem.open(name, "rb", compression=compression))
    archive = stack.enter_context(ZipFile(stack.enter_context(filesystem.open(name, "rb"))))
    members = [member for member in archive.namelist() if not member.endswith("/")]
    if len(members) != 1:
        message = (
            f"the archive holds {len(members)} files ({', '.join(members[:5])}) and must hold one. "
            f"Name those to read, as in zip://*.csv::{name}"
        )
        raise ValueError(message)
    return stack.enter_context(archive.open(members[0]))


def _parquet(
    file: IO[bytes], window: Window, declared: Declared, size: int | None
) -> Iterator[Part]:
    fragment = ds.ParquetFileFormat().make_fragment(file)
    names = fragment.physical_schema.names
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        message = f"its schema names {', '.join(doubled)} more than once"
        raise ValueError(message)
    schema = _filtered(fragment.physical_schema)
    condition = _condition(schema, window)
    if size is None:
        table = fragment.to_table(schema=schema, filter=condition)
        yield _as_frame(table, declared), fragment.count_rows()
        return
    groups = fragment if condition is None else fragment.subset(condition)
    file.seek(0)
    whole = pq.ParquetFile(file)
    # A scan of the fragment, or of all row groups at once, would hold on to what it has read.
    batches = (
        batch
        for together in _bunches(groups.row_groups, size)
        for batch in whole.iter_batches(size, row_groups=together)
    )
    skipped, rows = fragment.count_rows() - groups.count_rows(), 0
    for batch in batches:
        table = pa.Table.from_batches([batch]).cast(schema)
        inside = table if condition is None else table.filter(condition)
        yield _as_frame(inside, declared), len(table) + (0 if rows else skipped)
        rows += len(table)
    if not rows:
        yield _as_frame(schema.empty_table(), declared), skipped


def _filtered(schema: pa.Schema) -> pa.Schema:
    """A schema whose columns Arrow can filter, which it cannot do with views of texts yet."""
    views = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return pa.schema([field.with_type(views.get(field.type, field.type)) for field in schema])


def _bunches(groups: list[ds.RowGroupInfo], size: int) -> Iterator[list[int]]:
    """Row groups by their places, as many at once as have at most so many rows; at least one."""
    together: list[ds.RowGroupInfo] = []
    for group in groups:
        if together and sum(one.num_rows for one in [*together, group]) > size:
            yield [one.id for one in together]
            together = []
        together.append(group)
    if together:
        yield [one.id for one in together]


def _as_frame(table: pa.Table, declared: Declared) -> pd.DataFrame:
    names = table.column_names
    numbers = [name for name in names if name in declared.numbers]
    # Beside a null, pandas would round whole numbers beyond 2**53, and these may be identifiers.
    exact = table.drop_columns(numbers).to_pandas(integer_object_nulls=True, ignore_metadata=True)
    whole = table.select(numbers).to_pandas(ignore_metadata=True)
    frame: pd.DataFrame = pd.concat([exact, whole], axis=1)[names]
    return frame.drop(columns=_UNNAMED_INDEX, errors="ignore")


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
