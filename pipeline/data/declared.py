"""The types that the contract gives to the columns of a source, so that no reader guesses them."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.columns import as_number, as_target, as_text
from pipeline.config import UNITS, Categorical, Columns, Numeric

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
        Numeric columns and the target.
    moments : frozenset of str
        Columns that hold times.
    classes : dict of str to frozenset of str
        Labels of the target, which are no spellings of null there, such as None.
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
        numbers=frozenset({*numbers, target} - {None} - times),  # type: ignore[arg-type]
        moments=frozenset(times),
        classes={} if target is None else {target: frozenset(classes)},
    )


def with_texts(frame: pd.DataFrame, declared: Declared) -> pd.DataFrame:
    """Convert the columns that hold text to text, before rows of several sources are mixed."""
    names = [name for name in frame.columns if name in declared.texts]
    return frame.assign(**{name: as_text(frame[name]) for name in names})


def with_nulls(frame: pd.DataFrame, declared: Declared) -> pd.DataFrame:
    """Make nulls of texts that spell null in columns of numbers and times, from any source."""
    found = {}
    for name in sorted((declared.numbers | declared.moments) & set(frame.columns)):
        nulls = {"", *NULLS} - declared.classes.get(name, frozenset())
        values = frame[name]
        if values.dtype == "str":
            found[name] = values.mask(values.isin(nulls))
        elif values.dtype == object:  # of a database: numbers and text in one column
            spelled = [isinstance(value, str) and value in nulls for value in values]
            found[name] = values.mask(np.asarray(spelled, dtype=bool))
    return frame.assign(**found)


def with_moments(frame: pd.DataFrame, written: str, declared: Declared) -> pd.DataFrame:
    """Read the times of a frame that are written as `FileSource.date_format` says.

    Whatever is written otherwise stays as it is: validation reads ISO 8601, and refuses the rest.
    """
    names = [name for name in frame.columns if name in declared.moments]
    return frame.assign(**{name: as_moments(frame[name], written) for name in names})


def as_moments(values: pd.Series, written: str) -> pd.Series:
    """Convert each value that is written so to a time in UTC, and keep every other as it is.

    Parameters
    ----------
    values : Series
        Texts, or numbers.
    written : str
        A format as of `strptime`, or ``s``, ``ms``, ``us`` or ``ns`` since 1970.
    """
    if values.dtype.kind == "M":
        return values
    times: pd.Series
    if written in UNITS:
        unit: Any = written
        numbers = pd.to_numeric(values, errors="coerce")
        times = pd.to_datetime(numbers, unit=unit, errors="coerce", utc=True)
    else:
        times = pd.to_datetime(as_text(values), format=written, errors="coerce", utc=True)
    unread = times.isna() & values.notna()
    return times.astype(object).where(~unread, values) if unread.any() else times


def as_numbers(values: pd.Series, *, decimal: str = ".") -> pd.Series:
    """Convert each text that is a number, and keep every other text as it is.

    Parameters
    ----------
    values : Series of text
        Numbers and other text.
    decimal : str
        The decimal point of the numbers.
    """
    texts = values
    if decimal != ".":  # 1.234 with a decimal comma is one thousand and more, or a mistake
        texts = values.where(~values.str.contains(".", regex=False, na=False))
        texts = texts.str.replace(decimal, ".", regex=False)
    numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
    unread = numbers.isna() & values.notna()
    return numbers if not unread.any() else numbers.astype(object).where(~unread, values)


def as_classes(values: pd.Series, classes: Sequence[str]) -> pd.Series:
    """Write the labels of classes as their places, and keep every other value as it came.

    A stray value that reads as a place is put in quotes, or it would count as a class.
    """
    texts = as_text(values)
    places = texts.map(_places(classes))
    strays = places.isna() & values.notna()
    if not strays.any():
        return places.astype("float64")
    _, odd = as_target(values, "classification", len(classes))
    kept = values.astype(object).where(odd, texts.map(repr))
    return places.astype(object).where(~strays, kept)


def _places(classes: Sequence[str]) -> dict[str, int]:
    """Places of classes by their labels; a label such as 01 is also known as the number 1."""
    labels = pd.Series(classes, dtype="str")
    plain = as_text(as_number(labels)).fillna(labels)
    plain = plain.where(~plain.duplicated(keep=False), labels)
    return {text: place for given in (plain, labels) for place, text in enumerate(given)}
