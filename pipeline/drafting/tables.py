"""A table of unknown columns, with each column in the one type that suits all its values."""

import datetime as dt
import re
from dataclasses import dataclass
from typing import Final, Literal

import pandas as pd

from pipeline.columns import as_number, as_text, as_time, is_number, require
from pipeline.data.declared import as_numbers

Kind = Literal["number", "label", "moment"]
_USUAL: Final = {
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NULL", "NaN", "NaT", "n/a", "nan", "null"),
}
"""Spellings of null that are hardly ever labels; `CSV` reads them as null among numbers."""
_AMONG_NUMBERS: Final = {"NA", "None", *_USUAL}
_SIGNS: Final = {"?", "-", "--", ".", "\\N", "(null)", "na", "none", "missing", "unknown", "n.a."}
"""Further spellings of null, where all other values of a column are numbers."""
_DATE: Final = re.compile(r"\d{4}[-/]\d{2}([-/]\d{2})?([T ]|$)")
_LEADING_ZERO: Final = re.compile(r"[+-]?0\d")
_MOSTLY: Final = 0.99


@dataclass(frozen=True)
class Table:
    """The rows of a source, typed.

    Attributes
    ----------
    frame : DataFrame
        Numbers as float64, moments as datetime64[us] in UTC, labels as text.
    kinds : dict of str to str
        ``number``, ``label`` or ``moment``, for each column.
    nulls : tuple of str
        Spellings of null that the source has to name.
    """

    frame: pd.DataFrame
    kinds: dict[str, Kind]
    nulls: tuple[str, ...] = ()

    def labels(self, name: str) -> pd.Series:
        """A column as text, whatever its type."""
        return as_text(self.frame[name])


def typed(rows: pd.DataFrame, *, csv: bool = False, decimal: str = ".") -> Table:
    """Find the type of each column of rows as they were read, without any declaration.

    Parameters
    ----------
    rows : DataFrame
        Rows as a source returns them.
    csv : bool
        Whether they are of a CSV file, whose columns are all text.
    decimal : str
        The decimal point of numbers in text.

    Raises
    ------
    DataError
        If two columns share a name.
    """
    require(rows, [])
    rows = rows.rename(columns=str)
    nulls = _nulls(rows, decimal) if csv else set()
    kinds: dict[str, Kind] = {}
    found: dict[str, pd.Series] = {}
    for name in rows.columns:
        values = rows[name]
        if nulls and _is_text(values):
            values = values.mask(values.isin(nulls))
        kinds[name] = kind = _kind(values, csv=csv, decimal=decimal)
        found[name] = _converted(values, kind, decimal)
    return Table(pd.DataFrame(found, index=rows.index), kinds, tuple(sorted(nulls)))


def _is_text(values: pd.Series) -> bool:
    if pd.api.types.is_string_dtype(values.dtype) and values.dtype != object:
        return True
    there = values.dropna() if values.dtype == object else ()
    return len(there) > 0 and all(isinstance(value, str) for value in there)


def _nulls(rows: pd.DataFrame, decimal: str) -> set[str]:
    """Spellings of null that are not null by themselves, in any column of a CSV file."""
    named: set[str] = set()
    seen: set[str] = set()
    among: set[str] = set()
    for name in rows.columns:
        if not _is_text(rows[name]):
            continue
        counts = rows[name].value_counts()
        strays = _strays(counts.index, decimal)
        spelled = set(strays)
        if spelled <= _AMONG_NUMBERS | _SIGNS and counts[strays].sum() < counts.sum() / 2:
            among |= spelled
            named |= spelled - _AMONG_NUMBERS
        else:
            seen |= spelled
    # Among labels, NA and None count as null only if the numbers of this table are spelled so.
    return named | seen & (_USUAL | among)


def _strays(texts: pd.Index, decimal: str) -> list[str]:
    """The texts that are not numbers."""
    spelled = pd.Series(texts, dtype="str")
    numbers = as_number(as_numbers(spelled, decimal=decimal))
    return spelled[numbers.isna()].tolist()


def _kind(values: pd.Series, *, csv: bool, decimal: str) -> Kind:
    if isinstance(values.dtype, pd.CategoricalDtype):
        return "label"
    if values.dtype.kind == "M" or _holds_dates(values):
        return "moment"
    if not _is_text(values):
        return "number" if is_number(values) else "label"
    texts = pd.Series(values.dropna().unique(), dtype="str").str.strip()
    if not len(texts):
        return "label"
    if texts.str.match(_DATE).mean() >= _MOSTLY and as_time(texts).notna().mean() >= _MOSTLY:
        return "moment"
    strays = set(_strays(pd.Index(texts), decimal)) - (_AMONG_NUMBERS if csv else set())
    return "label" if strays or texts.str.match(_LEADING_ZERO).any() else "number"


def _holds_dates(values: pd.Series) -> bool:
    if values.dtype != object:
        return False
    there = values.dropna()
    return len(there) > 0 and all(isinstance(value, dt.date) for value in there)


def _converted(values: pd.Series, kind: Kind, decimal: str) -> pd.Series:
    if kind == "moment":
        return as_time(values)
    if kind == "label":
        return as_text(values)
    if _is_text(values):
        return as_number(as_numbers(values.astype("str"), decimal=decimal))
    return as_number(values)
