"""Batches as observations: how far apart ordinary ones are, and whether the last ones differ.

Every function takes matrices of one row per block or batch and one column per trait (a mean,
a share, a correlation: one number that a batch has), oldest first; NaN where a batch has none.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from pipeline.reference.statistics import difference_skewness, mean_p, mean_tails

Floats = NDArray[np.float64]
_DEPENDENT = 0.05
"""Level of the test that decides whether blocks differ more than independent rows would."""
_EXCEPTIONAL = 0.02
"""Dependent traits expected to show as little as one does, for it to count as independent."""
FEWEST_BLOCKS = 4
"""Blocks of the reference below which batches get no verdict."""
_STEPS = np.array([0.5, 1.0, 2.0, 4.0])
"""Sizes of change, in standard errors of one batch, that evidence is gathered for."""


@dataclass(frozen=True)
class Observed:
    """Blocks or batches as observations.

    Attributes
    ----------
    values, sizes : array of float, shape (n_batches, n_traits)
        One row per batch, oldest first, NaN where it has no value; and the rows behind each.
    """

    values: Floats
    sizes: Floats

    def then(self, other: "Observed") -> "Observed":
        """These, followed by others."""
        return Observed(
            np.vstack([self.values, other.values]), np.vstack([self.sizes, other.sizes])
        )

    @property
    def count(self) -> NDArray[np.intp]:
        """Batches that have a value, per trait."""
        there: NDArray[np.intp] = np.isfinite(self.values).sum(axis=0)
        return there

    @property
    def rows(self) -> Floats:
        """Rows behind the values that are there, per trait."""
        rows: Floats = np.where(np.isfinite(self.values), self.sizes, 0.0).sum(axis=0)
        return rows

    @property
    def mean(self) -> Floats:
        """Mean over batches, per trait."""
        return mean_known(self.values)

    @property
    def weighted_mean(self) -> Floats:
        """Mean over rows, per trait."""
        with np.errstate(invalid="ignore", divide="ignore"):
            weights = np.where(np.isfinite(self.values), self.sizes, 0.0)
            mean: Floats = np.nansum(self.values * weights, axis=0) / self.rows
        return mean

    @property
    def squares(self) -> Floats:
        """Sum of squared distances from the mean; exactly zero where all values agree."""
        low = np.nanmin(self.values, axis=0, initial=np.inf)
        same = np.nanmax(self.values, axis=0, initial=-np.inf) == low
        squares = np.nansum((self.values - self.mean) ** 2, axis=0)
        return np.where(same, 0.0, squares)


@dataclass(frozen=True)
class Yardstick:
    """How much ordinary batches differ, one value per trait.

    Attributes
    ----------
    effect : array of float
        Design effect: variance between blocks over that of independent rows; never below 1.
    freedom : array of float
        Degrees of freedom of that estimate; infinite where the blocks differ no more than
        independent rows would.
    measured : array of bool
        Whether there were blocks enough to tell.
    """

    effect: Floats
    freedom: Floats
    measured: NDArray[np.bool_]

    @property
    def dependent(self) -> NDArray[np.bool_]:
        """Where rows are known to share more than chance."""
        return np.isfinite(self.freedom)


def yardstick(
    blocks: Observed,
    units: "Units",
    *,
    kinds: NDArray[Any] | None = None,
    groups: NDArray[Any] | None = None,
) -> Yardstick:
    """Judge by the reference's blocks whether its rows are independent.

    Where the chi-square test of the blocks' differences rejects independent rows, the trait
    gets its own design effect with few degrees of freedom. The others share one that is
    estimated from all of them, because dependence too weak to be proved in one trait is
    plain in many.

    Parameters
    ----------
    blocks : Observed
        The reference's blocks.
    units : Units
        Of the traits.
    kinds : array, shape (n_traits,), optional
        Traits of one kind share what they may; by default all are of one.
    groups : array, shape (n_traits,), optional
        Rows that depend in one trait of a group do so in all of it; by default there is none.

    References
    ----------
    Kish (1965), Survey Sampling, section 8.2, for the design effect.
    """
    distances = (blocks.values - blocks.weighted_mean) ** 2 * blocks.sizes
    squares = np.nansum(distances, axis=0) / units.variance
    return chi_square_yardstick(squares, blocks.count - 1, kinds=kinds, groups=groups)


def chi_square_yardstick(
    squares: Floats,
    freedom: NDArray[Any],
    *,
    kinds: NDArray[Any] | None = None,
    groups: NDArray[Any] | None = None,
) -> Yardstick:
    """The same from sums of squares that are chi-square when rows are independent."""
    kinds = np.zeros(len(squares)) if kinds is None else kinds
    groups = np.arange(len(squares)) if groups is None else groups
    enough = freedom >= FEWEST_BLOCKS - 1
    own = np.where(enough, squares / np.maximum(freedom, 1), 1.0)
    dependent = enough & (special.chdtrc(np.maximum(freedom, 1), squares) < _DEPENDENT)
    for kind in np.unique(kinds):
        mask = enough & (kinds == kind)
        proved = own[mask & dependent]
        dependent[mask] |= _like_dependent(squares[mask], freedom[mask], proved)
    dependent |= enough & np.isin(groups, groups[dependent])
    effect = np.where(dependent, np.maximum(own, 1.0), 1.0)
    for kind in np.unique(kinds):
        rest = enough & ~dependent & (kinds == kind)
        effect[rest] = _shared_effect(squares[rest], freedom[rest].astype(float))
    return Yardstick(effect, np.where(dependent, freedom, np.inf), enough)


def _like_dependent(squares: Floats, freedom: NDArray[Any], proved: Floats) -> NDArray[np.bool_]:
    """Traits that passed the test of independence, but that dependent ones may pass as well.

    As many traits as chance alone may have failed (99 of 100 times) are left out of account.
    The rest share a typical effect, the lower quartile; where more than `_EXCEPTIONAL` of them are
    expected to show as little as a trait does, that trait is no exception to them.
    """
    tested = len(squares)
    failed = len(proved) - stats.binom.ppf(0.99, tested, _DEPENDENT) if tested else 0.0
    if failed <= 0:
        return np.zeros(len(squares), dtype=bool)
    typical = np.quantile(proved, 0.25)
    expected = failed * special.chdtr(np.maximum(freedom, 1), squares / typical)
    alike: NDArray[np.bool_] = expected > _EXCEPTIONAL
    return alike


def _shared_effect(squares: Floats, freedom: Floats) -> float:
    """One design effect of traits that passed the test of independence.

    Those that failed it are missing from the sample, so the mean of what is left is compared
    with that of a chi-square cut off at the test's critical value, times the effect.
    """
    if len(squares) == 0:
        return 1.0
    cut = special.chdtri(freedom, _DEPENDENT)

    def excess(effect: float) -> float:
        inside = special.chdtr(freedom, cut / effect)
        mean = effect * freedom * special.chdtr(freedom + 2, cut / effect) / inside
        return float(mean.sum() - squares.sum())

    if excess(1.0) >= 0:
        return 1.0
    largest = 20.0
    return largest if excess(largest) <= 0 else float(optimize.brentq(excess, 1.0, largest))


def grown(effect: Floats, *, n: float, n_block: float) -> Floats:
    """A design effect of blocks, for batches of another length.

    What all rows of a batch share weighs more the more rows there are: 1 + (effect - 1)
    n / n_block. Dependence between neighbours alone does not grow; shorter batches are
    judged as the blocks are, because which of the two it is cannot be told.
    """
    return 1 + (effect - 1) * max(n / n_block, 1.0)


@dataclass(frozen=True)
class Units:
    """What one row contributes to each trait, if rows were independent.

    Attributes
    ----------
    variance, skewness : array of float, shape (n_traits,)
        Second moment and third standardised moment.
    """

    variance: Floats
    skewness: Floats

    def only(self, mask: NDArray[np.bool_]) -> "Units":
        """Of some of the traits."""
        return Units(self.variance[mask], self.skewness[mask])

    def difference(self, n: Floats, m: Floats) -> tuple[Floats, Floats]:
        """Variance and skewness of a mean of `n` rows less one of `m` rows."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.variance * (1 / n + 1 / m), self.skewness * difference_skewness(n, m)


def last_batches_p(before: Observed, now: Observed, units: Units, ruler: Yardstick) -> Floats:
    """Whether the mean of the last batches differs from that of the reference's blocks.

    Student's t on the pooled spread of blocks and batches where rows depend, never below
    what independent rows would show; the mean's own distribution where they do not.

    Parameters
    ----------
    before, now : Observed
        The reference's blocks, and the last batches.
    units : Units
        Of the traits.
    ruler : Yardstick
        From the blocks.

    Returns
    -------
    array of float, shape (n_traits,)
        Two-sided p-values; NaN with fewer than two values on either side.
    """
    b, m = before.count, now.count
    plain, weighted = now.mean - before.mean, now.weighted_mean - before.weighted_mean
    freedom = np.maximum(b + m - 2, 1)
    pooled = np.maximum((before.squares + now.squares) / freedom, _typical(before, units))
    known, skewness = units.difference(now.rows, before.rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(plain == 0, 0.0, np.abs(plain) / np.sqrt(pooled * (1 / b + 1 / m)))
        z = np.where(weighted == 0, 0.0, weighted / np.sqrt(known * ruler.effect))
    p_values = _two_sided(t, freedom, z, skewness, ruler)
    return np.where((b > 1) & (m > 1), p_values, np.nan)


def last_batches_reach(
    before: Observed, n_now: int, units: Units, ruler: Yardstick, *, floor: Floats
) -> Floats:
    """Chance that the mean of `n_now` ordinary batches differs by `floor` or more.

    Judged by the spread of the reference's blocks alone; 1 when there are fewer than two.
    """
    b = before.count
    freedom = np.maximum(b - 1, 1)
    spread = np.maximum(before.squares / freedom, _typical(before, units))
    known, skewness = units.difference(mean_known(before.sizes) * n_now, before.rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = floor / np.sqrt(spread * (1 / b + 1 / n_now))
        z = floor / np.sqrt(known * ruler.effect)
    return np.where(b > 1, _two_sided(t, freedom, z, skewness, ruler), 1.0)


def _typical(before: Observed, units: Units) -> Floats:
    """Variance of a usual block if rows were independent."""
    variance: Floats = units.variance / np.maximum(mean_known(before.sizes), 1)
    return variance


def _two_sided(
    t: Floats, freedom: NDArray[Any], z: Floats, skewness: Floats, ruler: Yardstick
) -> Floats:
    independent = mean_p(np.clip(z, -1e6, 1e6), skewness=skewness)
    return np.where(ruler.dependent, 2 * special.stdtr(freedom, -t), independent)


def gathered(before: Observed, now: Observed, units: Units, ruler: Yardstick) -> Floats:
    """Evidence of a change at some batch since the reference, gathered over all of them.

    Each batch is compared with the blocks and batches before it, and the p-value turned into
    a standard normal U (a t statistic where rows depend), so that the U of successive ordinary
    batches are independent whatever their mean and spread. exp(s U - s^2 / 2) is then an
    e-value for a change of s: its mean is 1. The Shiryaev-Roberts sum over all starts,
    R_t = (1 + R_(t-1)) e_t, grows by 1 a batch on average when nothing is wrong, so it takes
    c batches on average, at least, before it first reaches c.

    Parameters are those of `last_batches_p`, with all batches since the reference in the place of
    the last ones.

    Returns
    -------
    array of float, shape (n_traits,)
        R after the last batch, the mean over several sizes of change.

    References
    ----------
    Hawkins (1987), The Statistician 36(4): 423-429, for comparing with what came before.
    Pollak (1985), Ann. Stat. 13(1): 206-227, and Shin, Ramdas & Rinaldo (2024), NEJSDS 2(2),
    for the bound.
    """
    steps = np.concatenate([_STEPS, -_STEPS])[:, None]
    log_r = np.full((len(steps), before.values.shape[1]), -np.inf)
    for t in range(len(now.values)):
        batch = Observed(now.values[t : t + 1], now.sizes[t : t + 1])
        u = _against_the_past(before, batch, units, ruler)
        log_e = np.where(np.isfinite(u), steps * u - steps**2 / 2, 0.0)
        log_r = np.logaddexp(0.0, log_r) + log_e
        before = before.then(batch)
    evidence: Floats = np.exp(np.minimum(special.logsumexp(log_r, axis=0), 600)) / len(steps)
    return evidence


def _against_the_past(seen: Observed, batch: Observed, units: Units, ruler: Yardstick) -> Floats:
    """How unlike the past a batch is, as a standard normal value."""
    n, value, size = seen.count, batch.values[0], batch.sizes[0]
    freedom = np.maximum(n - 1, 1)
    variance, skewness = units.difference(size, seen.rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.maximum(seen.squares / freedom, units.variance / size)
        t = (value - seen.mean) / np.sqrt(spread * (1 + 1 / n))
        z = (value - seen.weighted_mean) / np.sqrt(ruler.effect * variance)
    tails = mean_tails(np.clip(z, -1e6, 1e6), skewness=skewness)
    below = np.where(ruler.dependent, special.stdtr(freedom, t), tails[0])
    above = np.where(ruler.dependent, special.stdtr(freedom, -t), tails[1])
    smaller = special.ndtri(np.clip(np.minimum(below, above), 1e-300, 0.5))
    return np.where(n > 1, np.where(below < above, smaller, -smaller), np.nan)


def batches_since(before: Observed, now: Observed) -> NDArray[np.intp]:
    """How many of the last batches the change takes in, by maximum likelihood.

    The start k that maximises k times the squared mean of the last k differences (Hinkley
    1970, Biometrika 57(1): 1-17).
    """
    differences = np.nan_to_num(now.values - before.mean)[::-1]
    count = np.arange(1, len(differences) + 1)[:, None]
    likelihood = np.cumsum(differences, axis=0) ** 2 / count
    return likelihood.argmax(axis=0) + 1 if len(differences) else np.empty(0, dtype=np.intp)


def mean_known(values: Floats) -> Floats:
    """Mean of each column over the values that are there; NaN where there are none."""
    count = np.isfinite(values).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)
