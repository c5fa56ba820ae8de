"""The types that the contract gives to the columns of a source, so that no reader guesses them."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.columns import TRUTH, as_number, as_target, as_text, collection_in
from pipeline.config import UNITS, Categorical, Columns, FileSource, Numeric
from pipeline.errors import DataError

NULLS = (
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null"),
)
"""Null in columns of numbers and times: what pandas takes for null, and its NaT."""


class Declared(NamedTuple):
    """Which columns of a source hold text and which hold numbers.

    Attributes
    ----------
    texts : frozenset of str
        The key and the labels of categorical columns.
    numbers : frozenset of str
        Numeric columns, and the target unless its classes have labels.
    moments : frozenset of str
        Columns that hold times.
    classes : dict of str to frozenset of str
        Labels of a target that has them, which are no spellings of null there, such as None.
    """

    texts: frozenset[str]
    numbers: frozenset[str]
    moments: frozenset[str]
    classes: dict[str, frozenset[str]]


def declare(
    columns: Columns,
    *,
    key: str | None,
    moments: Collection[str | None],
    target: str | None,
    classes: Collection[str] = (),
) -> Declared:
    """Gather which columns of a source hold text, which hold numbers and which hold times."""
    labels = {name for name, column in columns.items() if isinstance(column, Categorical)}
    numbers = {name for name, column in columns.items() if isinstance(column, Numeric)}
    times = {name for name in moments if name is not None}
    return Declared(
        texts=frozenset({*labels, key} - {None} - times),  # type: ignore[arg-type]
        numbers=frozenset({*numbers, None if classes else target} - {None} - times),  # type: ignore[arg-type]
        moments=frozenset(times),
        classes={target: frozenset(classes)} if target is not None and classes else {},
    )


def with_texts(frame: pd.DataFrame, declared: Declared) -> pd.DataFrame:
    """Convert the columns that hold text to text, before rows of several sources are mixed.

    Raises
    ------
    DataError
        If a column that the contract names holds lists, maps or other collections.
    """
    require_single(frame, declared)
    names = [name for name in frame.columns if name in declared.texts]
    return frame.assign(**{name: as_text(frame[name]) for name in names})


def require_single(frame: pd.DataFrame, declared: Declared) -> None:
    """Check that each value of the columns that the contract names is one value.

    Raises
    ------
    DataError
        If a value is a list, a map or another collection; the message names its column.
    """
    used = declared.texts | declared.numbers | declared.moments | declared.classes.keys()
    for name in used & set(frame):
        if (collection := collection_in(frame[name])) is not None:
            message = (
                f"Column {name!r} must hold one value in each row. Got a {collection}. Take a "
                "value out of it in the source, or leave the column out of data."
            )
            raise DataError(message)


def with_nulls(frame: pd.DataFrame, declared: Declared) -> pd.DataFrame:
    """Make nulls of texts that spell null in columns of numbers and times, from any source."""
    found = {}
    spelled_so = declared.numbers | declared.moments | declared.classes.keys()
    for name in sorted(spelled_so & set(frame.columns)):
        nulls = {"", *NULLS} - declared.classes.get(name, frozenset())
        values = frame[name]
        if values.dtype == "str":
            found[name] = values.mask(values.isin(nulls))
        elif values.dtype == object:  # of a database: numbers and text in one column
            spelled = [isinstance(value, str) and value in nulls for value in values]
            found[name] = values.mask(np.asarray(spelled, dtype=bool))
    return frame.assign(**found)


def without_nulls(frame: pd.DataFrame, source: FileSource, declared: Declared) -> pd.DataFrame:
    """Make null what `na_values` says: equal text, and numbers however they are written."""
    spelled = pd.Series(source.na_values, dtype="str")
    numbers = pd.to_numeric(as_numbers(spelled, decimal=source.decimal), errors="coerce").dropna()
    changed = {}
    for name in frame.columns:
        is_number = name in declared.numbers
        if not (is_number and holds_truth(frame[name])):  # or true would be null where 1 is
            null = frame[name].isin(numbers if is_number else spelled)
            changed[name] = frame[name].mask(null)
    return frame.assign(**changed)


def holds_truth(column: pd.Series) -> bool:
    """Whether a column holds truth values, and nulls perhaps."""
    return pd.api.types.infer_dtype(column, skipna=True) == "boolean"


def with_moments(
    frame: pd.DataFrame, written: str, declared: Declared, *, decimal: str = "."
) -> pd.DataFrame:
    """Read the times of a frame that are written as `FileSource.date_format` says.

    Whatever is written otherwise stays as it is: validation reads ISO 8601, and refuses the rest.
    """
    names = [name for name in frame.columns if name in declared.moments]
    read = {name: as_moments(frame[name], written, decimal=decimal) for name in names}
    return frame.assign(**read)


def as_moments(values: pd.Series, written: str, *, decimal: str = ".") -> pd.Series:
    """Convert each value that is written so to a time in UTC, and keep every other as it is.

    Parameters
    ----------
    values : Series
        Texts, or numbers.
    written : str
        A format as of `strptime`, or ``s``, ``ms``, ``us`` or ``ns`` since 1970.
    decimal : str
        The decimal point of numbers that are text.
    """
    if values.dtype.kind == "M":
        return values
    times: pd.Series
    if written in UNITS:
        unit: Any = written
        texts = pd.api.types.is_string_dtype(values.dtype)
        read = as_numbers(as_text(values), decimal=decimal) if texts else values
        numbers = pd.to_numeric(read, errors="coerce")
        times = pd.to_datetime(numbers, unit=unit, errors="coerce", utc=True)
    else:
        times = pd.to_datetime(as_text(values), format=written, errors="coerce", utc=True)
    unread = times.isna() & values.notna()
    return times.astype(object).where(~unread, values) if unread.any() else times


def as_numbers(values: pd.Series, *, decimal: str = ".") -> pd.Series:
    """Convert each text that is a number, and keep every other text as it is.

    A text that is a number only with another decimal point is put in quotes: `1.234` with a decimal
    comma is one thousand and more, or a mistake, and nothing later may take it for a number.

    Parameters
    ----------
    values : Series of text
        Numbers and other text.
    decimal : str
        The decimal point of the numbers.
    """
    texts = values
    if decimal != ".":
        texts = values.where(~values.str.contains(".", regex=False, na=False))
        texts = texts.str.replace(decimal, ".", regex=False)
    numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
    unread = numbers.isna() & values.notna()
    if not unread.any():
        return numbers
    odd = unread & as_number(values).notna()
    return numbers.astype(object).where(~unread, values.mask(odd, values.map(repr)))


def as_classes(values: pd.Series, classes: Sequence[str]) -> pd.Series:
    """Write the labels of classes as their places, and keep every other value as it came.

    A stray value that reads as a place is put in quotes, or it would count as a class.
    """
    texts = as_text(values)
    labels = pd.Series(classes, dtype="str")
    places = texts.map(dict(zip(labels, range(len(labels)), strict=True)))
    if places.isna().any():
        plain = _plain(labels)
        known = {text: place for place, text in plain.drop_duplicates(keep=False).items()}
        places = places.fillna(_plain(texts).map(known))
    strays = places.isna() & values.notna()
    if not strays.any():
        return places.astype("float64")
    _, odd = as_target(values, "classification", len(classes))
    kept = values.astype(object).where(odd, texts.map(repr))
    return places.astype(object).where(~strays, kept)


def _plain(labels: pd.Series) -> pd.Series:
    """Labels as columns of numbers and of truth values are written: `01` as `1`, `TRUE` as `True`.

    The types of such columns have forgotten how their source spelled the labels.
    """
    truths = labels.map(TRUTH).map({1: "True", 0: "False"})
    return as_text(as_number(labels)).fillna(truths).fillna(labels)
