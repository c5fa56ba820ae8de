"""Rows of CSV and Parquet files, on disk or at any fsspec address.

The footer of a Parquet file states which times each row group holds, so that only the row groups
that a window needs are read. A CSV file states nothing about its rows and is read whole.
"""

import lzma
import zlib
from contextlib import ExitStack
from functools import reduce
from itertools import takewhile
from operator import and_
from typing import IO, NamedTuple
from urllib.parse import unquote
from zipfile import BadZipFile, ZipFile

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.config import FileSource
from pipeline.data.csv_files import read_csv
from pipeline.data.declared import Declared, as_numbers, with_moments, with_texts
from pipeline.errors import DataError, first_line

CSV = (".csv", ".tsv", ".txt")
PARQUET = (".parquet", ".pq")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
_NULL_KEY = "__HIVE_DEFAULT_PARTITION__"
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


def read_files(source: FileSource, window: Window, declared: Declared) -> tuple[pd.DataFrame, bool]:
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
    filesystem, found = find(source.path)
    parts = [
        _read(filesystem, name, keys, source=source, window=window, declared=declared)
        for name, keys in found
    ]
    # Files without a row say nothing about types.
    frames = [frame for frame, total in parts if total] or [
        max((frame for frame, _ in parts), key=lambda frame: frame.shape[1])
    ]
    if not len(frames[0].columns):
        message = f"The file source {source.path!r} is empty: no file has a header. Write it again."
        raise DataError(message)
    rows = pd.concat(frames, ignore_index=True)
    return rows, len(rows) < sum(total for _, total in parts)


def find(path: str) -> tuple[fsspec.AbstractFileSystem, list[tuple[str, dict[str, str | None]]]]:
    """The files of a path in the order of their names, each with its partition keys."""
    try:
        filesystem, pattern = fsspec.core.url_to_fs(path)
        # A name may hold `[`, which a glob would take for a set of characters.
        exact = filesystem.exists(pattern)
        if exact:
            matched = {pattern: filesystem.info(pattern)}
        else:
            matched = filesystem.glob(pattern, detail=True)
        folders = [name for name, facts in matched.items() if facts["type"] == "directory"]
        below = {name for folder in folders for name in _files_of(filesystem, folder)}
        found = sorted(matched.keys() - set(folders) | below)
    except (ImportError, OSError, ValueError) as error:
        message = (
            f"File source {path!r} cannot be reached ({first_line(error)}). "
            "Correct its path, or install what its protocol needs."
        )
        raise DataError(message) from error
    if not found:
        message = f"No file matches the file source {path!r}. Correct its path."
        raise DataError(message)
    fixed = _parts(pattern) if exact else list(takewhile(_is_fixed, _parts(pattern)))
    return filesystem, [(name, _keys(_parts(name)[len(fixed) :])) for name in found]


def _files_of(filesystem: fsspec.AbstractFileSystem, folder: str) -> list[str]:
    """All files of a folder but those that engines hide, such as _SUCCESS."""
    inside = len(_parts(folder))
    return [
        name
        for name in filesystem.find(folder)
        if not any(part.startswith(("_", ".")) for part in _parts(name)[inside:])
    ]


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part]


def _is_fixed(part: str) -> bool:
    return not set(part) & set("*?[")


def _keys(parts: list[str]) -> dict[str, str | None]:
    """Columns that folders name, as in `month=2013-02`."""
    pairs = [part.partition("=") for part in parts[:-1] if "=" in part]
    return {
        unquote(name): None if value == _NULL_KEY else unquote(value) for name, _, value in pairs
    }


def _read(
    filesystem: fsspec.AbstractFileSystem,
    name: str,
    keys: dict[str, str | None],
    *,
    source: FileSource,
    window: Window,
    declared: Declared,
) -> tuple[pd.DataFrame, int]:
    """Rows of one file that the window may hold, and how many rows the file holds."""
    kind = format_of(name, source)
    try:
        with ExitStack() as stack:
            file = open_file(filesystem, name, source.compression, stack)
            if kind == "parquet":
                frame, total = _parquet(file, window, declared)
            else:
                frame = read_csv(file, source, declared)
                total = len(frame)
    except pd.errors.EmptyDataError:
        return pd.DataFrame(), 0
    except (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError, BadZipFile) as error:
        message = (
            f"File {name!r} must be readable CSV or Parquet. Got: {first_line(error)}. "
            "Write it again, or correct the options of the file source."
        )
        raise DataError(message) from error
    frame = with_texts(_with_keys(frame, keys, declared), declared)
    if source.date_format is not None:
        frame = with_moments(frame, source.date_format, declared)
    return frame, total


def _with_keys(
    frame: pd.DataFrame, keys: dict[str, str | None], declared: Declared
) -> pd.DataFrame:
    """Add the columns that folders name; a column of the file itself counts for more."""
    texts = {
        name: pd.Series(value, index=frame.index, dtype="str")
        for name, value in keys.items()
        if name not in frame
    }
    return frame.assign(
        **{n: as_numbers(text) if n in declared.numbers else text for n, text in texts.items()}
    )


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


def _parquet(file: IO[bytes], window: Window, declared: Declared) -> tuple[pd.DataFrame, int]:
    fragment = ds.ParquetFileFormat().make_fragment(file)
    names = fragment.physical_schema.names
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        message = f"its schema names {', '.join(doubled)} more than once"
        raise ValueError(message)
    table = fragment.to_table(filter=_condition(fragment.physical_schema, window))
    numbers = [name for name in names if name in declared.numbers]
    # Beside a null, pandas would round whole numbers beyond 2**53, and these may be identifiers.
    exact = table.drop_columns(numbers).to_pandas(integer_object_nulls=True, ignore_metadata=True)
    frame = pd.concat([exact, table.select(numbers).to_pandas(ignore_metadata=True)], axis=1)
    return frame[names].drop(columns=_UNNAMED_INDEX, errors="ignore"), fragment.count_rows()


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
