"""Rows of a CSV file: text as it is written, and numbers where the contract asks for them."""

import warnings
from collections.abc import Collection
from typing import IO, Any

import pandas as pd

from pipeline.config import FileSource
from pipeline.data.declared import Declared, as_numbers

_NULLS = (
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null"),
)
"""Null in columns of numbers and times: what pandas takes for null, and its NaT."""


def read_csv(file: IO[bytes], source: FileSource, declared: Declared) -> pd.DataFrame:
    """Read a CSV file without a guess at the type of a column.

    Columns of numbers hold numbers; any other value stays text, which validation refuses.
    Every other column, declared or not, holds the text of the file. Empty text is null.

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
    guessed = declared.numbers | declared.moments
    nulls = {
        name: ["", *source.na_values, *_nulls(declared.classes.get(name, ())) * (name in guessed)]
        for name in names
    }
    kinds = {name: "str" for name in names if name not in declared.numbers}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            # Otherwise pandas takes the first of more values than names for an index.
            frame: pd.DataFrame = pd.read_csv(
                file,
                dtype=kinds,
                na_values=nulls,
                decimal=source.decimal,
                index_col=False,
                low_memory=False,
                **options,
            )
        except pd.errors.ParserWarning as error:
            message = f"a row holds more values than the {len(names)} names of the header"
            raise ValueError(message) from error
    mixed = [
        n for n in frame if n in declared.numbers and isinstance(frame[n].dtype, pd.StringDtype)
    ]
    return frame.assign(**{n: as_numbers(frame[n], decimal=source.decimal) for n in mixed})


def _nulls(labels: Collection[str]) -> list[str]:
    """The usual spellings of null, but those that the target has as labels."""
    return [text for text in _NULLS if text not in labels]


def _names(file: IO[bytes], options: dict[str, Any]) -> list[str]:
    """The names in the header; pandas itself would rename the second of two equal names."""
    header: pd.Series = (
        pd.read_csv(file, header=None, nrows=1, dtype="str", **options).iloc[0].dropna()
    )
    file.seek(0)
    doubled = sorted(header[header.duplicated()])
    if doubled:
        message = f"its header names {', '.join(doubled)} more than once"
        raise ValueError(message)
    return header.tolist()
