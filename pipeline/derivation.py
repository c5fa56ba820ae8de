"""Columns that are functions of others: training, monitoring and serving all derive them here."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pandas as pd

from pipeline.columns import Floats, as_number, as_text, as_time
from pipeline.config import MOMENTS, Categorical, Columns, Derived, Numeric

Derivations = Mapping[str, Derived]


def raw_columns(derivations: Derivations, columns: Columns) -> Columns:
    """What columns are derived from, beside the declared ones: times, as text, and numbers."""
    return {
        name: Categorical() if derived.function in MOMENTS else Numeric()
        for derived in derivations.values()
        for name in derived.columns
        if name not in columns
    }


def with_derived(frame: pd.DataFrame, derivations: Derivations, columns: Columns) -> pd.DataFrame:
    """Derive the columns whose origins a frame holds; the others stay as they are."""
    there = {
        name: derive(frame, derived, columns[name])
        for name, derived in derivations.items()
        if set(derived.columns) <= set(frame.columns)
    }
    return frame.assign(**there)


def derive(frame: pd.DataFrame, derived: Derived, column: Numeric | Categorical) -> pd.Series:
    """Derive one column.

    Parameters
    ----------
    frame : DataFrame
        Rows with the columns that it is a function of.
    derived : Derived
        The function.
    column : Numeric or Categorical
        The derived column as it is declared: numbers, or text.

    Returns
    -------
    Series
        Null where a column is null, or where the function has no value (the logarithm of what is
        not positive, a ratio with 0). Where a column cannot be read, text that no rule allows a
        number to be, such as ``hour(yesterday)``, so that the row is refused and not guessed.
    """
    raw = [frame[name] for name in derived.columns]
    read = [as_time(one) if derived.function in MOMENTS else as_number(one) for one in raw]
    values = _values(derived, read)
    unread = [one.isna() & came.notna() for one, came in zip(read, raw, strict=True)]
    bad = np.logical_or.reduce(unread)
    found = as_text(values) if isinstance(column, Categorical) else values
    if bad.any():
        texts = raw[0].astype(object).map(lambda value: f"{derived.function}({str(value)[:40]})")
        found = found.astype(object).where(~bad, texts)
    return found


def _values(derived: Derived, read: list[pd.Series]) -> pd.Series:
    first, second = read[0], read[-1]
    found: pd.Series
    match derived.function:
        case "weekday":
            found = first.dt.day_of_week
        case "hour" | "day" | "month" | "year" as part:
            found = getattr(first.dt, part)
        case "log":
            found = np.log(first.where(first > 0))
        case "ratio":
            found = first / second.where(second != 0)
        case _:
            return _binned(first, derived)
    return found.astype("float64")


def _binned(numbers: pd.Series, derived: Derived) -> pd.Series:
    texts = derived.spelled_bounds
    between = [f"{low} to {high}" for low, high in pairwise(texts)]
    labels = np.array([f"below {texts[0]}", *between, f"{texts[-1]} and more"], dtype=object)
    known: Floats = numbers.to_numpy(dtype=np.float64)
    places = np.searchsorted(derived.bounds, np.nan_to_num(known), side="right")
    return pd.Series(labels[places], index=numbers.index, dtype="str").where(numbers.notna())
