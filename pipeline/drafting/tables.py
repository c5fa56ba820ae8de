"""A table of unknown columns, with each column in the one type that suits all its values."""

import datetime as dt
import re
import warnings
from dataclasses import dataclass
from typing import Final, Literal

import pandas as pd
from pandas.tseries.api import guess_datetime_format

from pipeline.columns import (
    LARGEST,
    as_number,
    as_text,
    as_time,
    collection_in,
    is_number,
    require,
)
from pipeline.config import UNITS
from pipeline.data.declared import as_moments, as_numbers
from pipeline.drafting.words import CLOCK, words

Kind = Literal["number", "label", "moment", "collection"]
_USUAL: Final = {
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NULL", "NaN", "NaT", "n/a", "nan", "null"),
}
"""Spellings of null that are hardly ever labels; `CSV` reads them as null among numbers."""
_AMONG_NUMBERS: Final = {"NA", "None", *_USUAL}
_SIGNS: Final = {"?", "-", "--", ".", "\\N", "(null)", "na", "none", "missing", "unknown", "n.a."}
"""Further spellings of null, where all other values of a column are numbers."""
_DATE: Final = re.compile(r"\d{4}[-/]\d{2}([-/]\d{2})?([T ]|$)")
_DAY: Final = re.compile(r"(?=.*%[Yy])(?=.*%[mbB])(?=.*%d)")
_YEARS: Final = (1990, 2100)
"""Years, after which a number counts as a moment; seconds from 1970 on are then large."""
_SHOWN: Final = 50
"""Values whose format is guessed."""
_LEADING_ZERO: Final = re.compile(r"[+-]?0\d")
_MOSTLY: Final = 0.99


@dataclass(frozen=True)
class Table:
    """The rows of a source, typed.

    Attributes
    ----------
    frame : DataFrame
        Numbers as float64, moments as datetime64[us] in UTC, labels and collections as text.
    kinds : dict of str to str
        ``number``, ``label``, ``moment`` or ``collection``, such as a list, for each column.
    nulls : tuple of str
        Spellings of null that the source has to name.
    formats : dict of str to str
        How moments are written that are not ISO 8601, as `FileSource.date_format` says it.
    infinite : dict of str to float
        Share of the rows with a number beyond those of a float32, which count as null here.
    """

    frame: pd.DataFrame
    kinds: dict[str, Kind]
    nulls: tuple[str, ...]
    formats: dict[str, str]
    infinite: dict[str, float]

    def labels(self, name: str) -> pd.Series:
        """A column as text, whatever its type."""
        return as_text(self.frame[name])


def typed(
    rows: pd.DataFrame, *, csv: bool = False, files: bool = False, decimal: str = "."
) -> Table:
    """Find the type of each column of rows as they were read, without any declaration.

    Parameters
    ----------
    rows : DataFrame
        Rows as a source returns them.
    csv : bool
        Whether they are of a CSV file, whose columns are all text.
    files : bool
        Whether they are of files, whose moments need not be ISO 8601.
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
    formats: dict[str, str] = {}
    infinite: dict[str, float] = {}
    for name in rows.columns:
        values = rows[name]
        if nulls and _is_text(values):
            values = values.mask(values.isin(nulls))
        kind: Kind = "collection"
        if collection_in(values) is None:
            kind = _kind(values, csv=csv, decimal=decimal)
        kinds[name] = kind
        found[name] = _converted(values, kind, decimal)
        if files and (written := format_of(values, name, kind)):
            kinds[name], formats[name] = "moment", written
            found[name] = as_time(as_moments(values, written))
        beyond = found[name].abs() > LARGEST if kinds[name] == "number" else pd.Series(dtype=bool)
        if beyond.any():
            infinite[name] = float(beyond.mean())
            found[name] = found[name].mask(beyond)
    frame = pd.DataFrame(found, index=rows.index)
    return Table(frame, kinds, tuple(sorted(nulls)), formats, infinite)


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


def format_of(values: pd.Series, name: str, kind: Kind) -> str | None:
    """How a column writes moments that are not ISO 8601, as `FileSource.date_format` says it.

    None if it holds none, or if days may as well be months.

    Parameters
    ----------
    values : Series
        A column as it was read.
    name : str
        Its name; numbers are moments only where it says so.
    kind : str
        What the column was taken for.
    """
    if kind in {"moment", "collection"}:
        return None
    there = pd.Series(values.dropna().unique())
    if kind == "number":
        return _unit(there) if set(words(name)) & CLOCK else None
    if not _is_text(values) or not len(there):
        return None
    fits = [form for form in _guessed(there[:_SHOWN]) if _fits(there, form)]
    if len(fits) > 1:  # rows that come in the order of their times show which it is
        came = values.dropna()
        fits = [form for form in fits if as_time(as_moments(came, form)).is_monotonic_increasing]
    return fits[0] if len(fits) == 1 else None


def _guessed(texts: pd.Series) -> list[str]:
    """Formats of whole dates that some texts may be written in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a day of more than 12 settles the order
        guessed = {guess_datetime_format(text, dayfirst=d) for text in texts for d in (True, False)}
    return sorted(form for form in guessed if form and _DAY.search(form))


def _fits(values: pd.Series, written: str) -> bool:
    years = as_time(as_moments(values, written)).dt.year
    return bool(years.between(*_YEARS).mean() >= _MOSTLY)


def _unit(values: pd.Series) -> str | None:
    """The format or the unit of moments that are whole numbers."""
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.isna().any() or (numbers % 1 != 0).any():
        return None
    days = numbers.between(10**7, 10**8).all()  # pandas takes 2025 for a day as well
    forms = ("%Y%m%d",) if days else UNITS
    return next((form for form in forms if _fits(values, form)), None)


def _holds_dates(values: pd.Series) -> bool:
    if values.dtype != object:
        return False
    there = values.dropna()
    return len(there) > 0 and all(isinstance(value, dt.date) for value in there)


def _converted(values: pd.Series, kind: Kind, decimal: str) -> pd.Series:
    if kind == "moment":
        return as_time(values)
    if kind in {"label", "collection"}:
        return as_text(values)
    if _is_text(values):
        return as_number(as_numbers(values.astype("str"), decimal=decimal))
    return as_number(values)
