"""Which rows a fault touches, in the words of another column."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.monitoring.diagnoses.case import Case, Mask

_FEWEST = 10
"""Rows of a value below which nothing is said of it."""
_VALUES = 4
"""Most values that name a segment."""
_DISTINCT = 40
"""Most distinct numbers of a column whose values name segments."""


def segment(case: Case, touched: Mask, columns: Sequence[str], able: Mask | None = None) -> str:
    """The values of one other column that the touched rows, and no others, have.

    Parameters
    ----------
    case : Case
    touched : array of bool, shape (n_drawn,)
        Rows with the fault.
    columns : sequence of str
        Where the fault is: they name no segment.
    able : array of bool, shape (n_drawn,), optional
        Rows that would show it; all by default.

    Returns
    -------
    str
        As `carrier = UA`; empty when all rows are touched or no column tells them apart.
    """
    able = np.ones(len(touched), dtype=bool) if able is None else able
    if not touched.any() or touched[able].mean() > 0.9:  # nearly all
        return ""
    found = [
        (told, name, values)
        for name in case.features
        if name not in columns
        for told, values in _rule(case, name, touched, able)
    ]
    if not found:
        return ""
    _, name, values = max(found, key=lambda one: (round(one[0], 2), -len(one[2]), one[1]))
    return f"{name} = {_listed(values)}"


def _rule(case: Case, name: str, touched: Mask, able: Mask) -> list[tuple[float, list[str]]]:
    if name in case.numeric:
        numbers = pd.Series(case.numbers(name)[able])
        if numbers.nunique() > _DISTINCT:
            return []
        values = numbers.map("{:g}".format).where(numbers.notna())
    else:
        places, labels = case.labels(name)
        values = pd.Series(np.asarray([*labels, None], dtype=object)[places][able])
    rates = pd.Series(touched[able]).groupby(values).agg(["mean", "size"])
    often = rates[(rates["size"] >= _FEWEST) & (rates["mean"] >= 0.5)]  # most of them
    if often.empty or len(often) > max(_VALUES, len(rates) / 2) or len(often) == len(rates):
        return []
    chosen = values.isin(often.index).to_numpy()
    precision = touched[able][chosen].mean()
    coverage = touched[able][chosen].sum() / touched[able].sum()
    outside = touched[able][~chosen].mean() if (~chosen).any() else 0.0
    told = 2 * precision * coverage / (precision + coverage)
    if told < 0.8 or outside > precision / 4:  # of both
        return []
    return [(float(told), [str(value) for value in often.index])]


def clause(where: str) -> str:
    """The words that name a segment in a sentence; none for none."""
    return f", where {where}" if where else ""


def _listed(values: Sequence[str]) -> str:
    try:
        values = [f"{value:g}" for value in sorted(float(value) for value in values)]
    except ValueError:
        values = sorted(values)
    if len(values) > _VALUES:
        return f"{', '.join(values[:_VALUES])} and {len(values) - _VALUES} more"
    return ", ".join(values)
