"""Whether the rows of a table without a time are in an order that means something."""

from typing import Final

import numpy as np
import pandas as pd

from pipeline.columns import as_codes, doubt
from pipeline.drafting.tables import Table
from pipeline.drafting.words import CLOCK, words

_SEVERAL: Final = 5
"""Distinct values of a feature that has to be in order for a table to look sorted by it."""
_EXPECTED: Final = 40
"""Changes from row to row that a random order would show at least."""


def sorted_by(table: Table, target: str) -> str:
    """The column by which the rows look sorted; empty if there is none.

    A table that is sorted by its target, or by a column that is neither a part of the time nor an
    identifier, is not in the order in which its rows came. Rows that are merely like their
    neighbours may well be.
    """
    if _in_order(table.frame[target], least=2):
        return target
    for name in table.frame.columns:
        values = table.frame[name]
        in_order = not set(words(name)) & CLOCK and _in_order(values, least=_SEVERAL)
        if in_order and doubt(values, None) is None:
            return str(name)
    return ""


def _in_order(values: pd.Series, *, least: int) -> bool:
    """Whether each value comes in one stretch, or numbers never fall or never rise."""
    codes = as_codes(values)[0]
    shares = np.bincount(codes + 1) / len(codes)
    expected = len(codes) * (1 - float((shares**2).sum()))
    distinct = len(np.unique(codes))
    changes = int((np.diff(codes) != 0).sum())
    if distinct < least or expected < _EXPECTED:
        return False
    return (changes < distinct and changes < expected / 2) or _is_monotone(values)


def _is_monotone(values: pd.Series) -> bool:
    if not pd.api.types.is_numeric_dtype(values.dtype) or values.isna().any():
        return False
    return bool(values.is_monotonic_increasing or values.is_monotonic_decreasing)
