"""Rows as numbers that may be averaged: normal scores, and indicators of labels.

Pairs of columns are compared by the correlations of these scores, and all columns together by
the means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Floats
from pipeline.reference.profile import Cells, NumericProfile, Profile

Places = NDArray[np.intp]
LARGEST_CORRELATION = 0.99
"""Largest correlation; those closer to 1 are replaced by it."""
_NO_SPREAD = 1e-9
"""Standard deviation below which a score only varies by rounding."""
RARE_AXES = 20
"""Rows outside of its most frequent value that a column needs to enter the joint test."""


@dataclass(frozen=True)
class NormalScores:
    """The sample as numbers: normal scores, and one indicator per followed label.

    Attributes
    ----------
    columns : list of int
        Column of each score, as its place in the cells.
    labels : list of str
        Label of each indicator; empty for normal scores.
    tables : list of array of float
        Score of each cell; the last entry is that of a missing value, 0.
    rarest : array of float
        Share of rows outside of the most frequent value, at most one half.
    skewness : array of float
        Third standardised moment of each score.
    correlation, variance : array of float, shape (n_scores, n_scores)
        Correlations over the sample, and the variance of Fisher's z for one row, which holds
        for any distribution.
    numeric : list of int
        Places of the normal scores among all scores.
    covariance : array of float, shape (n_numeric, n_numeric)
        Covariance of the normal scores over all rows, a missing value counting as 0.
    """

    columns: list[int]
    labels: list[str]
    tables: list[Floats]
    rarest: Floats
    skewness: Floats
    correlation: Floats
    variance: Floats
    numeric: list[int]
    covariance: Floats

    @classmethod
    def fit(cls, profiles: Mapping[int, Profile], cells: Cells) -> "NormalScores":
        """Compute the scores of a sample and their moments.

        Parameters
        ----------
        profiles : mapping of int to Profile
            Profile of each column, by its place in `cells`.
        cells : array of uint16, shape (n_rows, n_columns)
            Cells of the sample.
        """
        columns, labels, tables, rarest = [], [], [], []
        for i, profile in profiles.items():
            for label, table, share in _tables(profile):
                columns.append(i)
                labels.append(label)
                tables.append(table)
                rarest.append(share)
        numeric = [i for i, label in enumerate(labels) if not label]
        scored = _scored(cells, columns, tables)
        z, plain = standardised(scored), scored[:, numeric]
        n = max(len(z), 1)
        r, squares = z.T @ z / n, z**2
        both, third = squares.T @ squares / n, (squares * z).T @ z / n
        fourth = np.diag(both)
        # Variance of a correlation from its influence function, then that of Fisher's z.
        influence = both - r * (third + third.T) + r**2 * (fourth[:, None] + fourth + 2 * both) / 4
        limit = np.clip(r, -LARGEST_CORRELATION, LARGEST_CORRELATION)
        return cls(
            columns=columns,
            labels=labels,
            tables=tables,
            rarest=np.asarray(rarest),
            skewness=(squares * z).mean(axis=0) if len(z) else np.zeros(len(columns)),
            correlation=r,
            variance=np.maximum(influence, _NO_SPREAD) / (1 - limit**2) ** 2,
            numeric=numeric,
            covariance=plain.T @ plain / n,
        )

    @cached_property
    def leading(self) -> list[int]:
        """Place of the leading score of each column: its numbers, or its most frequent label."""
        return [i for i, column in enumerate(self.columns) if column not in self.columns[:i]]

    @cached_property
    def pairs(self) -> tuple[Places, Places, Places]:
        """Pairs of scores of different columns.

        Returns the places of both scores of each pair, ordered by pair of columns, and the place
        at which each pair of columns starts.
        """
        column = np.asarray(self.columns, dtype=np.intp)
        i, j = np.triu_indices(len(column), 1)
        different = column[i] != column[j]
        i, j = i[different], j[different]
        order = np.lexsort((column[j], column[i]))
        i, j = i[order], j[order]
        pair = column[i] * (column.max(initial=0) + 1) + column[j]
        return i, j, np.flatnonzero(np.diff(pair, prepend=-1))

    def axes(self, rows: float) -> Floats:
        """Axes along which mean scores of the numeric columns are independent and standard.

        A column is left out when too few of `rows` lie outside of its most frequent value for
        its mean to be nearly normal, and so are directions without spread.

        Returns
        -------
        array of float, shape (n_numeric, n_axes)
            Coefficients by which mean scores are multiplied.
        """
        kept = self.rarest[self.numeric] * rows >= RARE_AXES
        if not kept.any():
            return np.empty((len(kept), 0))
        values, vectors = np.linalg.eigh(self.covariance[np.ix_(kept, kept)])
        wide = values > values.max() * 1e-3
        axes = np.zeros((len(kept), int(wide.sum())))
        axes[kept] = vectors[:, wide] / np.sqrt(values[wide])
        return axes

    def of_leading(self, matrix: Floats) -> Floats:
        """Select the entries of a score-by-score matrix for each pair of leading scores."""
        values: Floats = matrix[np.ix_(self.leading, self.leading)]
        return values[np.triu_indices(len(self.leading), 1)]

    def of(self, cells: Cells) -> Floats:
        """Compute the scores of rows, shape (n_rows, n_scores)."""
        return _scored(cells, self.columns, self.tables)

    def correlations(self, cells: Cells) -> Floats:
        """Correlate every two scores of rows, shape (n_scores, n_scores)."""
        return correlations(self.of(cells))


def correlations(scores: Floats) -> Floats:
    """Pearson's correlation of the columns of a matrix; NaN where a column is constant."""
    if len(scores) == 0:
        return np.full((scores.shape[1],) * 2, np.nan)
    z = standardised(scores)
    r = z.T @ z / len(z)
    constant = ~z.any(axis=0)
    r[constant], r[:, constant] = np.nan, np.nan
    return r


def standardised(scores: Floats) -> Floats:
    """Scale columns to mean 0 and variance 1; a constant column becomes 0."""
    if len(scores) == 0:
        return scores
    centred = scores - scores.mean(axis=0)
    sd = np.sqrt((centred**2).mean(axis=0))
    constant = sd < _NO_SPREAD
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, sd))


def fisher(r: Floats) -> Floats:
    """Fisher's z of correlations, each limited to `LARGEST_CORRELATION` in size."""
    z: Floats = np.arctanh(np.clip(r, -LARGEST_CORRELATION, LARGEST_CORRELATION))
    return z


def _tables(profile: Profile) -> list[tuple[str, Floats, float]]:
    """Label, score per cell, and share outside of the most frequent value, of each score."""
    if isinstance(profile, NumericProfile):
        if not profile.normal_scores.any():
            return []
        return [("", np.append(profile.normal_scores, 0.0), profile.rarest)]
    tables = []
    for place, label in enumerate(profile.scored):
        share = profile.counts[label] / profile.n
        table = np.full(len(profile.counts) + 2, -share)
        table[place] = 1 - share
        table[-1] = 0.0
        tables.append((label, table / np.sqrt(share * (1 - share)), min(share, 1 - share)))
    return tables


def _scored(cells: Cells, columns: Sequence[int], tables: Sequence[Floats]) -> Floats:
    scores = np.empty((len(cells), len(columns)))
    for j, (i, table) in enumerate(zip(columns, tables, strict=True)):
        scores[:, j] = table[np.minimum(cells[:, i], len(table) - 1)]
    return scores
