"""Preselect pairs of columns that may hold each other's values, where there are many pairs."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import Case

Pair = tuple[str, str]
_LEVELS = np.arange(1, 10) / 10
"""Shares of rows at whose quantiles distributions are compared."""


@dataclass(frozen=True)
class Parameters:
    """How many pairs are looked at, and how far they may differ.

    Attributes
    ----------
    most : int
        Most pairs that are looked at one by one: all pairs of 40 columns.
    far : float
        Largest distance of two quantiles that counts, in interquartile ranges.
    """

    most: int = 780
    far: float = 5.0


PARAMS = Parameters()


def likeliest_pairs(case: Case, names: Sequence[str], suspects: AbstractSet[str]) -> list[Pair]:
    """Pairs with a suspect column; of many, those that resemble each other crosswise most.

    Parameters
    ----------
    case : Case
        The batch and the reference.
    names : sequence of str
        Columns of one type, in alphabetical order.
    suspects : set of str
        The suspects among them.
    """
    n = len(names)
    if (
        not suspects
        or len(suspects) * (n - 1) - len(suspects) * (len(suspects) - 1) / 2 <= PARAMS.most
    ):
        return [pair for pair in combinations(names, 2) if not suspects.isdisjoint(pair)]
    gain = _relations(case, names)
    gain += _quantiles(case, names) if case.is_number(names[0]) else _unknown(case, names)
    both = gain + gain.T
    asked = np.asarray([name in suspects for name in names])
    i, j = np.triu_indices(n, 1)
    kept = asked[i] | asked[j]
    i, j = i[kept], j[kept]
    best = np.sort(np.argsort(-both[i, j], kind="stable")[: PARAMS.most])
    return [(names[a], names[b]) for a, b in zip(i[best].tolist(), j[best].tolist(), strict=True)]


def _relations(case: Case, names: Sequence[str]) -> Floats:
    """How much likelier the correlations of each column now are those another column had.

    An entry is half the rows times the sum over all columns of squared differences, so about the
    nats of independent correlations; shape (n_columns, n_columns).
    """
    leading = case.leading
    known = list(leading.values())
    rows = [leading.get(name, -1) for name in names]
    there = np.asarray(rows) >= 0
    before, now = (
        np.where(there[:, None], np.nan_to_num(matrix[np.ix_(rows, known)]), 0.0)
        for matrix in (case.reference.normal_scores.correlation, case.tally.correlation)
    )
    own = ((now - before) ** 2).sum(axis=1)
    crossed = (now**2).sum(axis=1)[:, None] + (before**2).sum(axis=1) - 2 * now @ before.T
    gain: Floats = (own[:, None] - crossed) * len(case.drawn) / 2
    return gain


def _quantiles(case: Case, names: Sequence[str]) -> Floats:
    """How much better the values of another column now fit a column than its own do.

    Entry i, j is about the nats that column i gains with the values of column j.
    """
    now = np.asarray([_quantiles_of(case.numbers(name)) for name in names])
    gain = np.zeros((len(names), len(names)))
    for k, name in enumerate(names):
        profile = case.profile(name)
        before = np.interp(_LEVELS, np.asarray(profile.upto), profile.points)
        wide = before[-1] - before[0] or profile.sd or 1.0
        far = np.minimum(np.abs(np.nan_to_num(now - before, nan=np.inf)) / wide, PARAMS.far) ** 2
        gain[k] = (far[k] - far).mean(axis=1)
    return gain * len(case.drawn) / 2


def _quantiles_of(values: Floats) -> Floats:
    known = values[~np.isnan(values)]
    return np.quantile(known, _LEVELS) if len(known) else np.full(len(_LEVELS), np.nan)


def _unknown(case: Case, names: Sequence[str]) -> Floats:
    """Rows of each column with labels that it never held, in every entry of its row."""
    unknown = np.zeros(len(names))
    for k, name in enumerate(names):
        places, labels = case.labels(name)
        counts = case.counts(name)
        new = np.asarray([*(label not in counts for label in labels), False], dtype=bool)
        unknown[k] = new[places].sum()
    return np.repeat(unknown[:, None], len(names), axis=1)
