"""What a declared column means: its limits, its encoding, its inference from data.

A column is declared once, in `data.features`. Validation, training, serving and drift tests all
call these functions, so that they agree about it.
"""

import datetime as dt
import logging
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config import Categorical, Columns, Numeric
from pipeline.errors import DataError

__all__ = ["infer_columns"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Matrix = NDArray[np.float64]
Categories = dict[str, list[str]]
FEWEST_TO_JUDGE = 50
"""Rows from which a column is called an identifier, a constant or a function of the time."""
_RARE = 0.01
"""Share of rows up to which a second value does not count."""
TRUTH = {"True": 1, "TRUE": 1, "true": 1, "False": 0, "FALSE": 0, "false": 0}
"""What pandas takes for truth values in a CSV file."""
_YEARS = pd.Timestamp("0001-01-01"), pd.Timestamp("9999-12-31 23:59:59.999999")
"""Times that Python can spell, of the years 1 to 9999."""
LARGEST = float(np.finfo(np.float32).max)
_COLLECTIONS = (list, tuple, dict, set, frozenset, np.ndarray)
_OF_ALL_KINDS = ("mixed", "mixed-integer", "unknown-array")
"""What pandas says of a column that holds collections, and perhaps of others."""


def as_text(values: pd.Series) -> pd.Series:
    """Convert the labels of a categorical column to strings; nulls stay null.

    Whole numbers and booleans become `1` and `True`, so that codes read from CSV compare with
    declared labels. The label of a value never depends on the other rows of a batch.
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        labels = [*as_text(pd.Series(values.cat.categories)), None]
        return pd.Series([labels[i] for i in values.cat.codes], index=values.index, dtype="str")
    if pd.api.types.is_string_dtype(values.dtype) and values.dtype not in ("str", object):
        return values.astype("str").where(values.notna())  # pandas 2 makes a label of a null
    if values.dtype == "str":
        return values
    pairs = zip(values.astype(object), values.notna(), strict=True)
    return pd.Series(
        [_label(value) if there else None for value, there in pairs],
        index=values.index,
        dtype="str",
    )


def as_codes(values: pd.Series) -> tuple[NDArray[np.intp], list[str]]:
    """Encode labels as positions in the list of distinct labels, as text.

    Returns
    -------
    codes : array of int, shape (n_rows,)
        Position of each row's label; -1 for null.
    labels : list of str
        The distinct labels, as `as_text` writes them.
    """
    if values.dtype == object or isinstance(values.dtype, pd.CategoricalDtype):
        places, found = pd.factorize(as_text(values))
        return places, [str(label) for label in found]
    places, found = pd.factorize(values)
    texts = as_text(pd.Series(found))
    again, labels = pd.factorize(texts)
    return np.append(again, -1)[places], [str(label) for label in labels]


def _label(value: Any) -> str:
    whole = isinstance(value, float | np.floating) and value.is_integer()
    if isinstance(value, bytes):  # text that a file or a database holds without saying so
        value = value.decode("utf-8", "backslashreplace")
    label = str(int(value) if whole else value)
    # JSON can hold half a surrogate pair, which UTF-8 cannot encode; it becomes \\ud800.
    return label if label.isascii() else label.encode("utf-8", "backslashreplace").decode()


def as_number(values: pd.Series) -> pd.Series:
    """Convert a numeric column to float64; nulls and unreadable values become NaN.

    Times become seconds since 1970 (read as UTC where they have no zone), durations become
    seconds.
    """
    if values.dtype == np.float64:
        return values
    if isinstance(values.dtype, pd.CategoricalDtype):
        known = as_number(pd.Series(values.cat.categories)).to_numpy()
        return pd.Series(np.append(known, np.nan)[values.cat.codes], index=values.index)
    if values.dtype.kind in "mM":
        return _seconds(values)
    if pd.api.types.is_complex_dtype(values.dtype):
        return pd.Series(np.nan, index=values.index)
    if pd.api.types.is_numeric_dtype(values.dtype):
        return pd.Series(values.to_numpy("float64", na_value=np.nan), index=values.index)
    try:
        numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    except OverflowError:  # whole numbers beyond every float
        numbers = pd.to_numeric(values.map(_within_floats), errors="coerce").astype("float64")
    if values.dtype == object:
        dates = values.notna() & values.map(lambda value: isinstance(value, dt.date)).astype(bool)
        if dates.any():
            numbers[dates] = _seconds(values[dates])
    return numbers


def _within_floats(value: Any) -> Any:
    return None if isinstance(value, int) and abs(value) > sys.float_info.max else value


def as_target(values: pd.Series, task: str, classes: int = 2) -> tuple[pd.Series, pd.Series]:
    """Convert labels to numbers, and find the values that are not labels.

    Labels of a classification are 0 and 1, as numbers, text, truth values or categories of these,
    or the places of more `classes`.
    Labels of a regression are numbers of 32 bits; a length of time becomes seconds.

    Returns
    -------
    labels : Series of float64
        NaN where a value is null or not a label.
    strays : Series of bool
        Where a value is neither null nor a label. Dates are not labels: they have no unit.
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    if task == "classification" and values.dtype.kind not in "biuf":
        values = values.map(
            lambda value: TRUTH.get(value, value) if isinstance(value, str) else value
        )
    numbers = as_number(values)
    if values.dtype.kind in ("M" if task == "regression" else "mM"):
        right = pd.Series(data=False, index=values.index)
    elif task == "classification":
        right = numbers.isin(range(classes))
    else:
        dates = values.map(lambda value: isinstance(value, dt.date)).astype(bool)
        right = (numbers.abs() <= LARGEST) & ~dates
    return numbers.where(right), values.notna() & ~right


def as_time(values: pd.Series) -> pd.Series:
    """Convert a time column to datetime64[us] in UTC without a zone.

    Text must be ISO 8601. Everything else becomes NaT: a guess at `1/2/2013` would depend on
    the other rows, and a bare number has no unit.
    """
    if values.dtype.kind != "M":
        texts = [value if isinstance(value, dt.date | str) else None for value in values]
        values = pd.Series(texts, index=values.index, dtype=object)
    times = pd.to_datetime(values, errors="coerce", format="ISO8601", utc=True)
    times = times.dt.tz_localize(None)
    if more := {"s": 1_000_000, "ms": 1_000}.get(times.dt.unit):  # these end later
        times = times.where(times.astype("int64").abs() < 2**63 // more)
    times = times.astype("datetime64[us]")
    return times.where(times.between(*_YEARS))


def _seconds(values: pd.Series) -> pd.Series:
    if values.dtype.kind == "m":
        lengths = pd.to_timedelta(values)
    else:
        origin = pd.Timestamp(0, tz="UTC").as_unit("us")  # nanoseconds end in 2262
        lengths = pd.to_datetime(values, errors="coerce", utc=True) - origin
    return lengths.dt.total_seconds().astype("float64")


def conform(frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Select the declared columns in declared order and convert them to float64 and strings.

    Raises
    ------
    DataError
        If declared columns are missing or two columns share a name; the message names them all.
    """
    require(frame, list(columns))
    return pd.DataFrame(
        {
            name: as_number(frame[name]) if isinstance(column, Numeric) else as_text(frame[name])
            for name, column in columns.items()
        },
        index=frame.index,
    )


def require(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Check that a frame has the named columns and that no two columns share a name.

    Raises
    ------
    DataError
        If not; the message names every missing and every repeated column.
    """
    missing = [name for name in names if name not in frame.columns]
    doubled = sorted({str(name) for name in frame.columns[frame.columns.duplicated()]})
    problems = []
    if missing:
        problems.append(f"lack the columns {', '.join(missing)}")
    if doubled:
        problems.append(f"hold {', '.join(doubled)} more than once")
    if problems:
        came = ", ".join(map(str, frame.columns[:30])) or "no column"
        message = f"The rows {' and '.join(problems)}. Got {came}. Fix the source, or data."
        raise DataError(message)


def known_categories(frame: pd.DataFrame, columns: Columns) -> Categories:
    """List the labels of each categorical column, sorted: as declared, else as found in rows."""
    return {
        name: sorted(column.values or as_text(frame[name]).dropna().unique())
        for name, column in columns.items()
        if isinstance(column, Categorical)
    }


def encode(
    frame: pd.DataFrame, columns: Columns, categories: Mapping[str, Sequence[str]]
) -> Matrix:
    """Encode rows for an estimator: numbers unchanged, labels as positions in `categories`.

    Parameters
    ----------
    frame : DataFrame
        Rows with at least the declared columns.
    columns : dict of str to Column
        Declared columns, in the order of the matrix.
    categories : mapping of str to sequence of str
        Known labels of each categorical column.

    Returns
    -------
    array of float64, shape (n_rows, n_columns)
        NaN for a null, an unknown label or an unreadable number.
    """
    matrix = np.empty((len(frame), len(columns)), dtype=np.float64)
    for i, (name, column) in enumerate(columns.items()):
        if isinstance(column, Numeric):
            matrix[:, i] = as_number(frame[name])
        else:
            known = pd.Index(list(categories[name]), dtype="str")
            codes, labels = as_codes(frame[name])  # each label is looked up once, not in each row
            places = known.get_indexer(pd.Index(labels, dtype="str"))
            matrix[:, i] = np.append(np.where(places < 0, np.nan, places), np.nan)[codes]
    return matrix


def limits(column: Numeric) -> tuple[float, float]:
    """Find the smallest and largest number that a column may hold.

    Numbers beyond the range of float32 are never allowed: estimators compute in float32 and
    would see infinity.
    """
    least = -LARGEST if column.min is None else column.min
    most = LARGEST if column.max is None else column.max
    return max(least, -LARGEST), min(most, LARGEST)


def range_rule(column: Numeric) -> str:
    """Say in words which numbers a column may hold."""
    low, high = limits(column)
    return f"must lie in {low:g} .. {high:g}"


def infer_columns(frame: pd.DataFrame, *, time: str | None = None) -> Columns:
    """Draft a declaration of columns from rows, for a person to read and correct.

    Numbers and times become numeric, everything else (booleans too) categorical; a column
    with a null becomes nullable. No range is inferred, because observed extremes are no limits.
    A warning is logged of each column that looks like an identifier, is constant, or follows from
    the time of its row, as such columns are seldom of use to a model. A column of lists or maps
    is not declared, and logged as well.

    Parameters
    ----------
    frame : DataFrame
        Rows.
    time : str, optional
        The column that orders the rows, which is not declared.

    Raises
    ------
    DataError
        If two columns share a name.
    """
    require(frame, [] if time is None else [time])
    times = None if time is None else as_time(frame[time])
    columns: Columns = {}
    for name in frame.columns.drop([] if time is None else time):
        if (collection := collection_in(frame[name])) is not None:
            logger.warning("Column %r holds a %s: take a value out of it.", str(name), collection)
            continue
        nullable = bool(frame[name].isna().any())
        kind = Numeric if is_number(frame[name]) else Categorical
        columns[str(name)] = kind(nullable=nullable)
        if len(frame) >= FEWEST_TO_JUDGE and (found := doubt(frame[name], times)):
            logger.warning("Column %r %s", str(name), found.sentence)
    return columns


def collection_in(values: pd.Series) -> str | None:
    """Name of a type of collection, such as list, that a column holds; None: it holds none."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = pd.Series(values.cat.categories)
    if values.dtype.kind != "O" or pd.api.types.infer_dtype(values) not in _OF_ALL_KINDS:
        return None
    kinds = {type(value).__name__ for value in values if isinstance(value, _COLLECTIONS)}
    return min(kinds, default=None)


def is_number(values: pd.Series) -> bool:
    """Whether a column is drafted as numeric: numbers and times, and not truth values."""
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_complex_dtype(values):
        return False
    if values.dtype == object:
        there = values.dropna()
        return len(there) > 0 and all(
            isinstance(value, int | float | Decimal | dt.date) and not isinstance(value, bool)
            for value in there
        )
    return pd.api.types.is_numeric_dtype(values) or values.dtype.kind in "mM"


class Doubt(NamedTuple):
    """Why a column is hardly a feature.

    `kind` is constant, moment, identifier, or the part of the time that settles the column, such
    as hour; `sentence` goes on after the name of the column.
    """

    kind: str
    sentence: str


def doubt(values: pd.Series, times: pd.Series | None) -> Doubt | None:
    """Why a column is hardly a feature; None if nothing speaks against it.

    Parameters
    ----------
    values : Series
        The column.
    times : Series of datetime, optional
        Time of each row.
    """
    codes, labels = as_codes(values)
    # A column of one label and nulls is a flag, unless nearly all rows are alike.
    flag = _RARE < (codes < 0).mean() < 1 - _RARE
    if len(labels) <= 1 and not flag:
        sentence = (
            "has one value in all rows: leave it out, unless other values are to be expected."
        )
        return Doubt("constant", sentence)
    if isinstance(values.dtype, pd.DatetimeTZDtype) or values.dtype.kind == "M":
        sentence = (
            "holds moments, which never return: declare a length of time, an hour or a weekday."
        )
        return Doubt("moment", sentence)
    whole = not is_number(values) or bool((as_number(values) % 1 == 0).all())
    if whole and len(labels) == len(values):
        sentence = "has another value in each row, as keys do: leave it out, or name it data.key."
        return Doubt("identifier", sentence)
    if times is not None and (part := _part_of(times, pd.Series(codes, index=values.index))):
        sentence = f"follows from the {part} of its row: it tells the model nothing but the time."
        return Doubt(part, sentence)
    return None


def _part_of(times: pd.Series, codes: pd.Series) -> str:
    """The part of the time that settles every value of a column; empty if none does."""
    calendar = times.dt
    parts = {
        "hour": calendar.hour,
        "weekday": calendar.day_of_week,
        "day of the month": calendar.day,
        "month": calendar.month,
        "year": calendar.year,
        "date": calendar.normalize(),
    }
    known = codes.where(codes >= 0) if codes.max() > 0 else codes
    for name, part in parts.items():
        if 1 < part.nunique() < len(part) / 2 and known.groupby(part).nunique().max() <= 1:
            return name
    return ""
