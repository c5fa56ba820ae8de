"""Describe which rows a fault affects, by values of another column."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.likelihood import Mask
from pipeline.monitoring.diagnoses.parameters import SHARED


@dataclass(frozen=True)
class Parameters:
    """When values name the affected rows well enough.

    Attributes
    ----------
    fewest : int
        Fewest rows of a value that may name a segment.
    values : int
        Most values that are listed for a segment.
    mostly : float
        Share of the rows with a value that have to be affected.
    precise : float
        Least F score of a segment: a lower score is too vague a rule.
    outside : float
        Largest share of affected rows outside of a segment, relative to the share inside.
    """

    fewest: int = 10
    values: int = 4
    mostly: float = 0.5
    precise: float = 0.8
    outside: float = 0.25


PARAMS = Parameters()


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
    if not touched.any() or touched[able].mean() > SHARED.nearly_all:
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
        if numbers.nunique() > SHARED.naming:
            return []
        values = numbers.map("{:g}".format).where(numbers.notna())
    else:
        places, labels = case.labels(name)
        values = pd.Series(np.asarray([*labels, None], dtype=object)[places][able])
    rates = pd.Series(touched[able]).groupby(values).agg(["mean", "size"])
    often = rates[(rates["size"] >= PARAMS.fewest) & (rates["mean"] >= PARAMS.mostly)]
    if often.empty or len(often) > max(PARAMS.values, len(rates) / 2) or len(often) == len(rates):
        return []
    chosen = values.isin(often.index).to_numpy()
    precision = touched[able][chosen].mean()
    coverage = touched[able][chosen].sum() / touched[able].sum()
    outside = touched[able][~chosen].mean() if (~chosen).any() else 0.0
    f_score = 2 * precision * coverage / (precision + coverage)
    if f_score < PARAMS.precise or outside > PARAMS.outside * precision:
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
    if len(values) > PARAMS.values:
        shown = ", ".join(values[: PARAMS.values])
        return f"{shown} and {len(values) - PARAMS.values} more"
    return ", ".join(values)
