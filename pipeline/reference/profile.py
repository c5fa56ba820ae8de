"""Profile of one column of the reference, and how batches are counted with it.

A profile cuts its column into cells: the quantiles of a numeric column and the gaps between
them, or the labels of a categorical column. All comparisons are sums over cells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pipeline.columns import Floats
from pipeline.reference.masses import Masses, masses_of

Cells = NDArray[np.uint16]

GRID = 512
"""Quantiles kept of a numeric column; its distance is then exact to about 1/512."""
LABELS = 5
"""Number of most frequent labels of a column whose shares and correlations are followed."""
RARE = 20
"""Rows below which the classifier sees a label as one of the rare labels."""
_TWO_VALUED = 1e-3
"""Least excess of the kurtosis over 1; with two equally frequent values there is none."""
MISSING = 65_535
"""Cell of a missing value: the largest number of 16 bits."""


@dataclass(frozen=True)
class Moments:
    """Moments of the normal scores of a column, over the reference.

    Attributes
    ----------
    skewness, kurtosis : float
        Third and fourth standardised moments.
    square_skewness : float
        Third standardised moment of the squares of the scores.
    """

    skewness: float
    kurtosis: float
    square_skewness: float

    @property
    def square_variance(self) -> float:
        """Variance of the squared scores; above zero for any column."""
        return max(self.kurtosis - 1, _TWO_VALUED)


@dataclass(frozen=True)
class NumericProfile:
    """Profile of a numeric column of the reference.

    Attributes
    ----------
    n, missing : int
        Number of rows with and without a finite value.
    mean, sd : float
        Mean and standard deviation of the finite values, in the column's unit.
    grid, below, upto : list of float
        Quantiles, and the share of rows below and up to each quantile.
    """

    n: int
    missing: int
    mean: float
    sd: float
    grid: list[float]
    below: list[float]
    upto: list[float]

    @classmethod
    def fit(cls, values: Floats) -> "NumericProfile":
        """Describe the values of a column; those that are not finite count as missing."""
        known = np.sort(values[np.isfinite(values)])
        steps = np.linspace(0, 1, GRID)
        grid = np.unique(np.quantile(known, steps, method="nearest")) if len(known) else known
        low, high = (np.searchsorted(known, grid, side=side) for side in ("left", "right"))
        n = max(len(known), 1)
        mean, sd = _mean_and_sd(known)
        return cls(
            n=len(known),
            missing=len(values) - len(known),
            mean=mean,
            sd=sd,
            grid=grid.tolist(),
            below=(low / n).tolist(),
            upto=(high / n).tolist(),
        )

    @cached_property
    def edges(self) -> Floats:
        """Cumulative share of the reference at each border of two cells, shape (2 * len(grid),)."""
        return np.column_stack([self.below, self.upto]).ravel()

    @cached_property
    def points(self) -> Floats:
        """Quantiles of the grid as an array."""
        return np.asarray(self.grid, dtype=np.float64)

    @cached_property
    def weights(self) -> Floats:
        """Share of the reference in each cell, shape (2 * len(grid) + 1,)."""
        return np.diff(np.concatenate([[0.0], self.edges, [1.0]]))

    @cached_property
    def normal_scores(self) -> Floats:
        """Normal score of each cell, with mean 0 and variance 1 over the reference.

        The normal quantile of the middle of the cell's range of ranks (van der Waerden 1952), so
        that a difference of means is in standard deviations for any distribution. All cells of a
        column with a single value score 0.
        """
        ends = np.concatenate([[0.0], self.edges, [1.0]])
        half = 0.5 / max(self.n, 1)
        raw = special.ndtri(np.clip((ends[:-1] + ends[1:]) / 2, half, 1 - half))
        centred = raw - self.weights @ raw
        sd = np.sqrt(self.weights @ centred**2)
        constant = len(self.grid) < 2  # noqa: PLR2004 -- one value has no spread
        scores: Floats = np.zeros(len(raw)) if constant or sd == 0 else centred / sd
        return scores

    @cached_property
    def moments(self) -> Moments:
        """Moments of the normal scores over the reference."""
        squares = self.normal_scores**2
        kurtosis = float(self.weights @ squares**2)
        third = float(self.weights @ (squares - 1) ** 3)
        return Moments(
            skewness=float(self.weights @ self.normal_scores**3),
            kurtosis=kurtosis,
            square_skewness=third / max(kurtosis - 1, _TWO_VALUED) ** 1.5,
        )

    @cached_property
    def masses(self) -> Masses:
        """Where the values lie along the range; it needs at least two points in the grid."""
        return masses_of(self.points, np.asarray(self.below), np.asarray(self.upto))

    @property
    def rarest(self) -> float:
        """Share of rows outside of the most frequent cell, at most one half; 0 without rows."""
        return float(min(0.5, 1 - self.weights.max())) if self.n else 0.0

    def count(self, ordered: Floats) -> Floats:
        """Count the rows in each cell, given finite values in ascending order."""
        low, high = (np.searchsorted(ordered, self.points, side=side) for side in ("left", "right"))
        ends = np.concatenate([[0], np.column_stack([low, high]).ravel(), [len(ordered)]])
        return np.diff(ends).astype(np.float64)

    def span(self, share: float) -> tuple[float, float]:
        """Range of the values without, at most, a share of the rows at either end."""
        low = max(int(np.searchsorted(self.upto, share, side="right")) - 1, 0)
        high = min(int(np.searchsorted(self.below, 1 - share)), len(self.grid) - 1)
        return self.grid[low], self.grid[high]

    def distance(self, counts: Floats) -> float:
        """Kolmogorov-Smirnov distance of a batch from the reference, given its rows per cell.

        It is taken on both sides of each grid point.
        """
        upto = np.cumsum(counts)[:-1] / counts.sum()
        return float(np.abs(upto - self.edges).max())

    def wasserstein(self, counts: Floats, *, beyond: float) -> float:
        """Wasserstein-1 distance of rows per cell, in standard deviations of the reference.

        The area between the two distribution functions, by trapezoids between the points of
        the grid; `beyond` is the mean distance of values outside of the grid. NaN when the
        standard deviation is 0.
        """
        gap = np.abs(np.cumsum(counts)[:-1] / counts.sum() - self.edges)
        area = float((gap[1::2][:-1] + gap[::2][1:]) / 2 @ np.diff(self.points))
        return (area + beyond) / self.sd if self.sd > 0 else float("nan")

    def tenths(self, counts: Floats) -> tuple[Floats, Floats]:
        """Count rows of the reference and of a batch between the deciles of the reference."""
        cuts = np.unique(np.searchsorted(self.edges, np.linspace(0.1, 0.9, 9)))
        cuts = cuts[cuts < len(self.edges)]
        n = counts.sum()
        before, now = (
            np.diff(np.concatenate([[0.0], edges[cuts], [1.0]])) * rows
            for edges, rows in ((self.edges, self.n), (np.cumsum(counts)[:-1] / n, n))
        )
        return before, now

    def variance(self, counts: Floats) -> float:
        """Variance of the normal scores, given rows per cell; 1 for the reference itself."""
        n = float(counts.sum())
        mean = float(counts @ self.normal_scores) / n
        square = float(counts @ self.normal_scores**2) / n
        return float(max(square - mean**2, 0.0))

    def cells(self, values: Floats) -> Cells:
        """Find the cell of each value; `MISSING` where it is not finite."""
        finite = np.isfinite(values)
        order = np.argsort(values)  # searching sorted values is faster: it stays in the cache
        place = np.empty(len(values), dtype=np.intp)
        place[order] = np.searchsorted(self.points, values[order])
        inside = np.minimum(place, max(len(self.points) - 1, 0))
        exact = self.points[inside] == values if len(self.points) else False
        return np.where(finite, 2 * place + exact, MISSING).astype(np.uint16)

    def ranks(self, cells: Cells) -> Floats:
        """Turn cells into ranks that a classifier may see, NaN where missing.

        The reference lies on its own quantiles and inside its own range, which no other sample
        does and a classifier would learn. A quantile is therefore merged with the gap below it,
        and the outermost gaps with the next cell. A lowest value that many rows have keeps a
        rank of its own.
        """
        common = bool(self.grid) and (self.upto[0] - self.below[0]) * self.n >= RARE
        inside = np.clip(cells >> 1, 0 if common else 1, max(len(self.grid) - 1, 1))
        return np.where(cells == MISSING, np.nan, inside)

    def values(self, cells: Cells) -> Floats:
        """Give each cell a value: its quantile, or the middle of its gap; NaN where missing."""
        if not len(self.points):
            return np.full(len(cells), np.nan)
        padded = np.concatenate([self.points[:1], self.points, self.points[-1:]])
        middle = padded[:-1] / 2 + padded[1:] / 2
        table = np.empty(2 * len(self.points) + 1)
        table[::2], table[1::2] = middle, self.points
        there = cells != MISSING
        return np.where(there, table[np.where(there, cells, 0)], np.nan)

    def merge(self, other: "NumericProfile") -> "NumericProfile":
        """Merge with the profile of other rows, exact to the steps of the two grids."""
        n = self.n + other.n
        if min(self.n, other.n) == 0:
            known = self if self.n else other
            missing = self.missing + other.missing
            return NumericProfile(
                n, missing, known.mean, known.sd, known.grid, known.below, known.upto
            )
        points = np.union1d(self.points, other.points)
        below, upto = (
            (self.n * self.share(points, side) + other.n * other.share(points, side)) / n
            for side in ("below", "upto")
        )
        steps = np.linspace(0, 1, GRID)
        kept = np.unique(np.minimum(np.searchsorted(upto, steps), len(points) - 1))
        mean = (self.n * self.mean + other.n * other.mean) / n
        spread = sum(side.n * (side.sd**2 + (side.mean - mean) ** 2) for side in (self, other))
        return NumericProfile(
            n=n,
            missing=self.missing + other.missing,
            mean=mean,
            sd=float(np.sqrt(spread / n)),
            grid=points[kept].tolist(),
            below=below[kept].tolist(),
            upto=upto[kept].tolist(),
        )

    def share(self, points: Floats, side: str) -> Floats:
        """Share of rows below or up to each point, interpolated across the gaps of the grid.

        `side` is ``below`` or ``upto``.
        """
        place = np.minimum(np.searchsorted(self.points, points), len(self.points) - 1)
        exact = np.asarray(self.below if side == "below" else self.upto)[place]
        between = np.interp(points, np.repeat(self.points, 2), self.edges, left=0.0, right=1.0)
        return np.where(self.points[place] == points, exact, between)


@dataclass(frozen=True)
class CategoricalProfile:
    """Profile of a categorical column of the reference.

    Attributes
    ----------
    n, missing : int
        Number of rows with and without a label.
    counts : dict of str to int
        Rows per label, the most frequent label first.
    """

    n: int
    missing: int
    counts: dict[str, int]

    @classmethod
    def fit(cls, counts: Mapping[str, int], missing: int) -> "CategoricalProfile":
        """Describe a column by its rows per label and its number of missing values."""
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls(sum(counts.values()), missing, dict(ordered))

    @cached_property
    def rows(self) -> Floats:
        """Rows per label as an array, the most frequent label first."""
        return np.asarray(list(self.counts.values()), dtype=np.float64)

    @property
    def followed(self) -> list[str]:
        """Labels whose shares are followed, most frequent first; none in a column of one label."""
        return list(self.counts)[:LABELS] if len(self.counts) > 1 else []

    @property
    def scored(self) -> list[str]:
        """Labels whose correlations are followed; the last label follows from the others."""
        return self.followed[: len(self.counts) - 1]

    def cells(self, places: NDArray[np.intp], labels: Sequence[str]) -> Cells:
        """Find the cell of each row: the rank of its label; unknown labels share one cell.

        Parameters
        ----------
        places : array of int, shape (n_rows,)
            Label of each row, as a place in `labels`; -1 for a missing label.
        labels : sequence of str
            Labels of the batch.
        """
        cells = np.where(places < 0, MISSING, np.minimum(self._ranks(labels)[places], MISSING - 1))
        return cells.astype(np.uint16)

    def ranks(self, cells: Cells) -> Floats:
        """Turn cells into ranks that a classifier may see, NaN where missing.

        The reference holds all of its own labels, and its rarest labels are rarer in any other
        sample, which a classifier would learn. Labels of fewer than `RARE` rows therefore share
        one rank with labels that the reference never held.
        """
        common = float((self.rows >= RARE).sum())
        return np.where(cells == MISSING, np.nan, np.minimum(cells, common))

    def count(self, places: NDArray[np.intp], labels: Sequence[str]) -> Floats:
        """Count rows per label of the reference and, last, with any other label.

        Takes rows as `cells` does; the result has shape (n_labels + 1,).
        """
        found = np.bincount(places + 1, minlength=len(labels) + 1)[1:]
        ranks = self._ranks(labels)[:-1]
        counts = np.bincount(ranks, weights=found, minlength=len(self.counts) + 1)
        return counts.astype(np.float64)

    def _ranks(self, labels: Sequence[str]) -> NDArray[np.intp]:
        rank = {label: i for i, label in enumerate(self.counts)}
        ranks = [rank.get(label, len(rank)) for label in labels]
        return np.asarray([*ranks, 0], dtype=np.intp)  # the last entry serves rows without a label

    def merge(self, other: "CategoricalProfile") -> "CategoricalProfile":
        """Merge with the profile of other rows."""
        counts = {
            label: self.counts.get(label, 0) + other.counts.get(label, 0)
            for label in [*self.counts, *other.counts]
        }
        return CategoricalProfile.fit(counts, self.missing + other.missing)


Profile = NumericProfile | CategoricalProfile


def largest_excess(profile: Profile, counts: Floats) -> float:
    """Largest excess of the share of one cell over the reference, from 0 to 1.

    Parameters
    ----------
    profile : Profile
        The column in the reference.
    counts : array of float, shape (n_cells,)
        Rows of a batch per cell.
    """
    if counts.sum() == 0 or profile.n == 0:
        return 0.0
    weights = (
        profile.weights
        if isinstance(profile, NumericProfile)
        else np.append(profile.rows, 0.0) / profile.n
    )
    return float((counts / counts.sum() - weights).max(initial=0.0))


def profile_to_dict(profile: Profile) -> dict[str, Any]:
    """Convert a profile to JSON-able values."""
    kind = "numeric" if isinstance(profile, NumericProfile) else "categorical"
    return {"type": kind} | asdict(profile)


def profile_from_dict(values: Mapping[str, Any]) -> Profile:
    """Read a profile from the values of `profile_to_dict`."""
    rest = {key: value for key, value in values.items() if key != "type"}
    return NumericProfile(**rest) if values["type"] == "numeric" else CategoricalProfile(**rest)


def _mean_and_sd(known: Floats) -> tuple[float, float]:
    """Mean and standard deviation of sorted values; that of a constant is exactly 0."""
    if len(known) == 0:
        return 0.0, 0.0
    if known[0] == known[-1]:
        return float(known[0]), 0.0
    largest = np.abs(known[[0, -1]]).max()  # divided out, so that squares do not overflow
    return float((known / largest).mean() * largest), float((known / largest).std() * largest)
