"""Rows as numbers that may be averaged: normal scores, and indicators of labels.

Pairs of columns are compared by the correlations of these scores, and all columns together by
the means.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Floats
from pipeline.reference.pairs import too_many
from pipeline.reference.profile import Cells, NumericProfile, Profile

Places = NDArray[np.intp]
LARGEST_CORRELATION = 0.99
"""Largest correlation; those closer to 1 are replaced by it."""
_NO_SPREAD = 1e-9
"""Standard deviation below which a score only varies by rounding."""
_CHUNK = 2_000_000
"""Most scores that are held in memory at once."""
_PAIRED = 250
"""Rows whose followed pairs are held in memory at once."""
RARE_AXES = 20
"""Rows outside of its most frequent value that a column needs to enter the joint test."""


@dataclass(frozen=True)
class NormalScores:
    """The sample as numbers: normal scores, and one indicator per followed label.

    Where a table has too many columns for all pairs to be followed, a categorical column has a
    single indicator, that of its most frequent label.

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
        for any distribution; the variance is 0 where only some pairs are followed, and not this.
    numeric : list of int
        Places of the normal scores among all scores.
    covariance : array of float, shape (n_numeric, n_numeric)
        Covariance of the normal scores over all rows, a missing value counting as 0.
    chosen : tuple of two arrays of int, or None
        Places in the cells of both columns of the followed pairs; None for all pairs.
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
    chosen: tuple[Places, Places] | None = None

    @classmethod
    def fit(
        cls,
        profiles: Mapping[int, Profile],
        cells: Cells,
        chosen: tuple[Places, Places] | None = None,
    ) -> "NormalScores":
        """Compute the scores of a sample and their moments.

        Parameters
        ----------
        profiles : mapping of int to Profile
            Profile of each column, by its place in `cells`.
        cells : array of uint16, shape (n_rows, n_columns)
            Cells of the sample.
        chosen : tuple of two arrays of int, optional
            Places in the cells of both columns of the followed pairs; all pairs by default.
        """
        columns, labels, tables, rarest = [], [], [], []
        wide = too_many(len(profiles))
        for i, profile in profiles.items():
            for label, table, share in _tables(profile)[: 1 if wide else None]:
                columns.append(i)
                labels.append(label)
                tables.append(table)
                rarest.append(share)
        numeric = [i for i, label in enumerate(labels) if not label]
        n = max(len(cells), 1)
        r, covariance = np.zeros((len(columns),) * 2), np.zeros((len(numeric),) * 2)
        skewness = np.zeros(len(columns))
        for scored, z in _standardised(cells, columns, tables):
            plain = scored[:, numeric]
            r += z.T @ z
            covariance += plain.T @ plain
            skewness += (z**2 * z).sum(axis=0)
        scores = cls(
            columns=columns,
            labels=labels,
            tables=tables,
            rarest=np.asarray(rarest),
            skewness=skewness / n,
            correlation=r / n,
            variance=np.zeros_like(r),
            numeric=numeric,
            covariance=covariance / n,
            chosen=chosen,
        )
        variance = _variance if chosen is None else _variance_of_followed
        return replace(scores, variance=variance(scores, cells))

    @cached_property
    def leading(self) -> list[int]:
        """Place of the leading score of each column: its numbers, or its most frequent label."""
        return [i for i, k in enumerate(self.columns) if i == 0 or k != self.columns[i - 1]]

    @cached_property
    def followed(self) -> tuple[Places, Places]:
        """Places of the leading scores of the followed pairs of columns, in their order."""
        leading = np.asarray(self.leading, dtype=np.intp)
        if self.chosen is None:
            one, other = np.triu_indices(len(leading), 1)
            return leading[one], leading[other]
        score = {self.columns[i]: i for i in self.leading}
        kept = [
            (score[a], score[b])
            for a, b in zip(*(side.tolist() for side in self.chosen), strict=True)
            if a in score and b in score
        ]
        one, other = np.asarray(kept, dtype=np.intp).reshape(-1, 2).T
        return one, other

    @cached_property
    def pairs(self) -> tuple[Places, Places, Places]:
        """Pairs of scores of the followed pairs of columns.

        Returns the places of both scores of each pair, ordered by pair of columns, and the place
        at which each pair of columns starts.
        """
        if self.chosen is not None:  # then each column has a single score
            return *self.followed, np.arange(len(self.followed[0]))
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
        key = kept.tobytes()
        if key not in self._axes:
            values, vectors = np.linalg.eigh(self.covariance[np.ix_(kept, kept)])
            wide = values > values.max() * 1e-3
            axes = np.zeros((len(kept), int(wide.sum())))
            axes[kept] = vectors[:, wide] / np.sqrt(values[wide])
            self._axes[key] = axes
        return self._axes[key]

    @cached_property
    def _axes(self) -> dict[bytes, Floats]:
        return {}

    def of_leading(self, matrix: Floats) -> Floats:
        """Select the entries of a score-by-score matrix for each followed pair of columns."""
        values: Floats = matrix[self.followed]
        return values

    def of(self, cells: Cells, among: Sequence[int] | None = None) -> Floats:
        """Compute the scores of rows, or some of them, shape (n_rows, n_scores)."""
        if among is None:
            return _scored(cells, self.columns, self.tables)
        return _scored(cells, [self.columns[k] for k in among], [self.tables[k] for k in among])

    def correlations(self, cells: Cells) -> Floats:
        """Correlate every two scores of rows, shape (n_scores, n_scores)."""
        if len(cells) * len(self.columns) <= _CHUNK:
            return correlations(self.of(cells))
        r = np.zeros((len(self.columns),) * 2)
        varied = np.zeros(len(self.columns), dtype=bool)
        for _, z in _standardised(cells, self.columns, self.tables):
            r += z.T @ z
            varied |= z.any(axis=0)
        r /= len(cells)
        r[~varied], r[:, ~varied] = np.nan, np.nan
        return r


def _variance(scores: NormalScores, cells: Cells) -> Floats:
    """Variance of Fisher's z for one row of all pairs of scores, shape (n_scores, n_scores)."""
    n, size = max(len(cells), 1), len(scores.columns)
    both, third = np.zeros((size, size)), np.zeros((size, size))
    for _, z in _standardised(cells, scores.columns, scores.tables):
        squares = z**2
        both += squares.T @ squares
        third += (squares * z).T @ z
    both, third = both / n, third / n
    fourth = np.diag(both)
    return _of_fisher(scores.correlation, both, third + third.T, fourth[:, None] + fourth)


def _variance_of_followed(scores: NormalScores, cells: Cells) -> Floats:
    """Variance as `_variance` gives it, but of the followed pairs alone; else 0."""
    n, (one, other) = max(len(cells), 1), scores.followed
    both, third, fourth = (np.zeros(len(one)) for _ in range(3))
    for _, many in _standardised(cells, scores.columns, scores.tables):
        for z in np.array_split(many, max(len(many) // _PAIRED, 1)):
            a, b = z[:, one], z[:, other]
            both += ((a * b) ** 2).sum(axis=0)
            third += (a * b * (a**2 + b**2)).sum(axis=0)
            fourth += (a**4 + b**4).sum(axis=0)
    variance = np.zeros_like(scores.correlation)
    variance[one, other] = _of_fisher(
        scores.correlation[one, other], both / n, third / n, fourth / n
    )
    return variance


def _of_fisher(r: Floats, both: Floats, third: Floats, fourth: Floats) -> Floats:
    """Variance of a correlation from its influence function, and then that of Fisher's z.

    Parameters
    ----------
    r : array of float
        Correlations.
    both, third, fourth : array of float
        Means of a^2 b^2, of a^3 b + a b^3, and of a^4 + b^4, of standardised scores a and b.

    References
    ----------
    Devlin, Gnanadesikan & Kettenring (1975), Biometrika 62(3): 531-545, for the influence of a
    row, a b - r (a^2 + b^2) / 2, of which this is the mean square; the slope of z is 1 / (1 - r^2).
    """
    influence = both - r * third + r**2 * (fourth + 2 * both) / 4
    limit = np.clip(r, -LARGEST_CORRELATION, LARGEST_CORRELATION)
    variance: Floats = np.maximum(influence, _NO_SPREAD) / (1 - limit**2) ** 2
    return variance


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


def _standardised(
    cells: Cells, columns: Sequence[int], tables: Sequence[Floats]
) -> Iterator[tuple[Floats, Floats]]:
    """Scores of rows, plain and scaled to mean 0 and variance 1, a part of the rows at a time."""
    n, rows = len(cells), max(_CHUNK // max(len(columns), 1), 1)
    if n <= rows:
        scored = _scored(cells, columns, tables)
        yield scored, standardised(scored)
        return
    parts = [cells[start : start + rows] for start in range(0, n, rows)]
    mean = sum(_scored(part, columns, tables).sum(axis=0) for part in parts) / n
    squares = sum(((_scored(x, columns, tables) - mean) ** 2).sum(axis=0) for x in parts)
    sd = np.sqrt(squares / n)
    constant = sd < _NO_SPREAD
    for part in parts:
        scored = _scored(part, columns, tables)
        yield scored, np.where(constant, 0.0, (scored - mean) / np.where(constant, 1.0, sd))


def fisher(r: Floats) -> Floats:
    """Fisher's z of correlations, each limited to `LARGEST_CORRELATION` in size.

    References
    ----------
    Fisher (1921), Metron 1: 3-32.
    """
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
