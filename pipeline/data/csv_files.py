"""Rows of a CSV file: text as it is written, and numbers where the contract asks for them."""

import warnings
from collections.abc import Iterator
from typing import IO, Any

import pandas as pd

from pipeline.columns import TRUTH, as_text
from pipeline.config import FileSource
from pipeline.data.declared import NULLS, Declared, as_numbers, holds_truth, without_nulls


def read_csv(
    file: IO[bytes], source: FileSource, declared: Declared, size: int | None = None
) -> Iterator[pd.DataFrame]:
    """Read a CSV file without a guess at the type of a column.

    Columns of numbers hold numbers; any other value stays text, which validation refuses.
    Every other column, declared or not, holds the text of the file. Empty text is null.

    Parameters
    ----------
    file : binary file
        Can be read from its beginning again.
    source : FileSource
        The options of the file.
    declared : Declared
        The types of the columns.
    size : int, optional
        Rows of a part, of which the last may have fewer; None: all rows are one part.

    Yields
    ------
    DataFrame
        One part; without rows if the file has none.

    Raises
    ------
    ValueError
        If the file is not readable CSV, two columns share a name, or a row has more values than
        there are names.
    """
    options: dict[str, Any] = {
        "sep": source.sep,
        "quotechar": source.quotechar,
        "encoding": source.encoding,
        "keep_default_na": False,
    }
    names = _names(file, options)
    options |= {
        "dtype": {name: "str" for name in names if name not in declared.numbers},
        "na_values": {name: _nulls(name, source, declared) for name in names},
        "decimal": source.decimal,
        # Otherwise pandas takes the first of more values than names for an index.
        "index_col": False,
        "low_memory": False,
    }
    numbers = [name for name in names if name in declared.numbers]
    truths = set(numbers)
    if size is not None:
        truths, others = _doubtful(file, options, size, numbers)
        options["dtype"] |= dict.fromkeys(others, "str")
        file.seek(0)
    for frame in _chunks(file, options, size, len(names)):
        odd = {n: as_text(frame[n]) for n in numbers if n not in truths and holds_truth(frame[n])}
        mixed = [n for n in numbers if isinstance(frame[n].dtype, pd.StringDtype)]
        found = frame.assign(
            **odd, **{n: as_numbers(frame[n], decimal=source.decimal) for n in mixed}
        )
        found = without_nulls(found, source, declared) if source.na_values else found
        yield _with_classes(found, source.decimal, declared)


def _with_classes(frame: pd.DataFrame, decimal: str, declared: Declared) -> pd.DataFrame:
    """Keep the labels of a target as they are written, and read its other values as numbers."""
    found = {}
    for name in declared.classes.keys() & set(frame):
        numbers = as_numbers(frame[name], decimal=decimal)
        found[name] = frame[name].where(frame[name].isin(declared.classes[name]), numbers)
    return frame.assign(**found)


def _chunks(
    file: IO[bytes], options: dict[str, Any], size: int | None, count: int
) -> Iterator[pd.DataFrame]:
    """Parts of a file as pandas reads them; all rows at once if there is no size."""
    reader = None
    while True:
        with warnings.catch_warnings():  # not around a yield, as filters are of the whole process
            warnings.simplefilter("error", pd.errors.ParserWarning)
            try:
                if size is None:
                    frame: pd.DataFrame | None = pd.read_csv(file, **options)
                else:
                    reader = reader or pd.read_csv(file, chunksize=size, **options)
                    frame = next(reader, None)
            except pd.errors.ParserWarning as error:
                message = f"a row holds more values than the {count} names of the header"
                raise ValueError(message) from error
        if frame is not None:
            yield frame
        if frame is None or size is None:
            return


def _doubtful(
    file: IO[bytes], options: dict[str, Any], size: int, numbers: list[str]
) -> tuple[set[str], set[str]]:
    """Find the columns of numbers that begin with truth values: with no other value, and with some.

    A column of truth values holds 1 and 0, and beside a number a truth value is text. A part
    cannot know which of them it is of.
    """
    first = pd.read_csv(file, nrows=size, **options)
    begun = [n for n in numbers if first[n].isna().all() or holds_truth(first[n])]
    others: set[str] = set()
    if begun and len(first) == size:
        file.seek(0)
        asked = options | {"dtype": dict.fromkeys(begun, "str"), "usecols": begun}
        for frame in pd.read_csv(file, chunksize=size, **asked):
            others |= {n for n in begun if not frame[n].dropna().isin(TRUTH).all()}
    return set(begun) - others, others


def _nulls(name: str, source: FileSource, declared: Declared) -> list[str]:
    """What pandas takes for null in a column, without the labels that the target has."""
    if name in declared.numbers | declared.moments:
        return ["", *source.na_values, *NULLS]
    if name not in declared.classes:
        return [""]  # pandas would take 1.0 for null as well where 1 is
    return ["", *(text for text in NULLS if text not in declared.classes[name])]


def _names(file: IO[bytes], options: dict[str, Any]) -> list[str]:
    """The names in the header; pandas itself would rename the second of two equal names."""
    header: pd.Series = (
        pd.read_csv(file, header=None, nrows=1, dtype="str", **options).iloc[0].dropna()
    )
    file.seek(0)
    named = header[header != ""]
    doubled = sorted(named[named.duplicated()])
    if doubled:
        message = f"its header names {', '.join(doubled)} more than once"
        raise ValueError(message)
    return header.tolist()
