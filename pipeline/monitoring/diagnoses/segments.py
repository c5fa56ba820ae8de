"""Describe which rows a fault affects, by values of another column."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.monitoring.diagnoses.attention import DISTINCT
from pipeline.monitoring.diagnoses.case import Case, Mask

_FEWEST = 10
"""Fewest rows of a value that may name a segment."""
_VALUES = 4
"""Most values that are listed for a segment."""


def segment(case: Case, touched: Mask, columns: Sequence[str], able: Mask | None = None) -> str:
    """Find values of another column that the affected rows have and other rows do not.

    Parameters
    ----------
    case : Case
        The batch and the reference.
    touched : array of bool, shape (n_drawn,)
        Rows with the fault.
    columns : sequence of str
        Columns at fault, which cannot name the segment.
    able : array of bool, shape (n_drawn,), optional
        Rows in which the fault would show; all rows by default.

    Returns
    -------
    str
        The segment as `carrier = UA`; empty when nearly all rows are affected, or when no column
        separates the affected rows.
    """
    able = np.ones(len(touched), dtype=bool) if able is None else able
    if not touched.any() or touched[able].mean() > 0.9:  # nearly all rows
        return ""
    found = [
        (f_score, name, values)
        for name in case.naming
        if name not in columns
        for f_score, values in _rule(case, name, touched, able)
    ]
    if not found:
        return ""
    _, name, values = max(found, key=lambda rule: (round(rule[0], 2), -len(rule[2]), rule[1]))
    return f"{name} = {_listed(values)}"


def _rule(case: Case, name: str, touched: Mask, able: Mask) -> list[tuple[float, list[str]]]:
    if case.is_number(name):
        numbers = pd.Series(case.numbers(name)[able])
        if numbers.nunique() > DISTINCT:
            return []
        values = numbers.map("{:g}".format).where(numbers.notna())
    else:
        places, labels = case.labels(name)
        values = pd.Series(np.asarray([*labels, None], dtype=object)[places][able])
    rates = pd.Series(touched[able]).groupby(values).agg(["mean", "size"])
    often = rates[(rates["size"] >= _FEWEST) & (rates["mean"] >= 0.5)]  # most of its rows
    if often.empty or len(often) > max(_VALUES, len(rates) / 2) or len(often) == len(rates):
        return []
    chosen = values.isin(often.index).to_numpy()
    precision = touched[able][chosen].mean()
    coverage = touched[able][chosen].sum() / touched[able].sum()
    outside = touched[able][~chosen].mean() if (~chosen).any() else 0.0
    f_score = 2 * precision * coverage / (precision + coverage)
    if f_score < 0.8 or outside > precision / 4:  # too vague a rule
        return []
    return [(float(f_score), [str(value) for value in often.index])]


def clause(where: str) -> str:
    """Name a segment in a sentence; empty without a segment."""
    return f", where {where}" if where else ""


def _listed(values: Sequence[str]) -> str:
    try:
        values = [f"{value:g}" for value in sorted(float(value) for value in values)]
    except ValueError:
        values = sorted(values)
    if len(values) > _VALUES:
        return f"{', '.join(values[:_VALUES])} and {len(values) - _VALUES} more"
    return ", ".join(values)
