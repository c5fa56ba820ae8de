"""How a CSV file is written: its encoding, what separates values, and its decimal sign.

Only a draft of a configuration guesses. Whatever is read later is read as the file source says.
"""

import csv
import re
from contextlib import ExitStack
from itertools import islice
from typing import Any

from pipeline.config import FileSource
from pipeline.data.files import format_of, open_file
from pipeline.data.places import find
from pipeline.errors import DataError, first_line

_SEPARATORS = (",", ";", "\t", "|")
_LINES = 200
"""Lines from the first on that the separator is looked for in."""
_COMMA = re.compile(r"[+-]?\d+,\d+")
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
"""How text begins that says its own encoding."""


def dialect(path: str) -> dict[str, Any]:
    """Options that a file source needs for its first file; empty where the defaults fit.

    Parameters
    ----------
    path : str
        A path, glob, folder or fsspec URL, as in `FileSource`.

    Returns
    -------
    dict of str to str
        `sep`, `decimal` and `encoding`, where they are not the default.

    Raises
    ------
    DataError
        If no file matches, or the first cannot be opened.
    """
    source = FileSource(kind="file", path=path)
    if not is_csv(source):
        return {}
    filesystem, found = find(path)
    name = found[0][0]
    try:
        with ExitStack() as stack:
            raw = open_file(filesystem, name, source.compression, stack).read()
    except (OSError, ValueError, EOFError) as error:
        message = f"File {name!r} cannot be read ({first_line(error)}). Write it again."
        raise DataError(message) from error
    encoding = _encoding(raw)
    lines = raw.decode(encoding, errors="replace").splitlines()[: _LINES + 1]
    sep = max(_SEPARATORS, key=lambda sign: _columns(lines, sign))
    decimal = "," if sep != "," and _has_decimal_commas(lines, sep) else "."
    options = {"sep": sep, "decimal": decimal, "encoding": encoding}
    defaults = {name: FileSource.model_fields[name].default for name in options}
    return {name: value for name, value in options.items() if value != defaults[name]}


def is_csv(source: FileSource) -> bool:
    """Whether the first file of a source is CSV.

    Raises
    ------
    DataError
        If no file matches, or its ending does not tell its format.
    """
    return format_of(find(source.path)[1][0][0], source) == "csv"


def _encoding(raw: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if raw.startswith(mark):
            return encoding
    for encoding in ("utf-8", "cp1252"):
        try:
            raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"


def _columns(lines: list[str], sign: str) -> int:
    """Into how many values a sign splits every line; 0 where it splits them unevenly.

    The last line is left out, as it may be the first part of a value that goes on.
    """
    counts = {len(row) for row in csv.reader(lines[:-1] or lines, delimiter=sign) if row}
    return max(counts) if len(counts) == 1 and max(counts) > 1 else 0


def _has_decimal_commas(lines: list[str], sep: str) -> bool:
    cells = [
        cell.strip() for row in islice(csv.reader(lines, delimiter=sep), 1, None) for cell in row
    ]
    points = sum(bool(re.fullmatch(r"[+-]?\d+\.\d+", cell)) for cell in cells)
    return sum(bool(_COMMA.fullmatch(cell)) for cell in cells) > points
