"""Batches as observations: how much ordinary batches differ, and whether the last ones do.

All functions take matrices with one row per block or batch, oldest first, and one column per
trait (a mean, a share, a correlation); an entry is NaN where a batch has no value.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from pipeline.columns import Floats
from pipeline.reference.statistics import difference_skewness, mean_p, mean_tails

_DEPENDENT = 0.05
"""Level of the test whether blocks differ more than independent rows would."""
_EXCEPTIONAL = 0.02
"""A trait counts as independent if no more dependent traits than this vary so little."""
_TINY = 1e-290
"""Shares of a distribution below this lose their digits."""
FEWEST_BLOCKS = 4
"""Fewest blocks of the reference with which persistence is judged."""
_STEPS = np.array([0.5, 1.0, 2.0, 4.0])
"""Sizes of change, in standard errors of one batch, for which evidence is accumulated."""


@dataclass(frozen=True)
class Observed:
    """Blocks or batches as observations.

    Attributes
    ----------
    values, sizes : array of float, shape (n_batches, n_traits)
        One row per batch, oldest first: values, NaN where undefined, and the number of rows of
        data behind each value.
    """

    values: Floats
    sizes: Floats

    def then(self, other: "Observed") -> "Observed":
        """Append later observations."""
        return Observed(
            np.vstack([self.values, other.values]), np.vstack([self.sizes, other.sizes])
        )

    @cached_property
    def count(self) -> NDArray[np.intp]:
        """Number of batches with a value, per trait."""
        there: NDArray[np.intp] = np.isfinite(self.values).sum(axis=0)
        return there

    @cached_property
    def usual_size(self) -> Floats:
        """Mean number of rows behind a value, per trait."""
        return mean_known(self.sizes)

    @cached_property
    def rows(self) -> Floats:
        """Number of rows behind all defined values, per trait."""
        rows: Floats = np.where(np.isfinite(self.values), self.sizes, 0.0).sum(axis=0)
        return rows

    @cached_property
    def mean(self) -> Floats:
        """Mean over batches, per trait; NaN without values."""
        return mean_known(self.values)

    @cached_property
    def weighted_mean(self) -> Floats:
        """Mean over rows, per trait: batches weighted by their rows."""
        with np.errstate(invalid="ignore", divide="ignore"):
            weights = np.where(np.isfinite(self.values), self.sizes, 0.0)
            mean: Floats = np.nansum(self.values * weights, axis=0) / self.rows
        return mean

    @cached_property
    def squares(self) -> Floats:
        """Sum of squared distances from the mean, per trait; exactly 0 where all values agree."""
        low = np.nanmin(self.values, axis=0, initial=np.inf)
        constant = np.nanmax(self.values, axis=0, initial=-np.inf) == low
        squares = np.nansum((self.values - self.mean) ** 2, axis=0)
        return np.where(constant, 0.0, squares)


@dataclass(frozen=True)
class Yardstick:
    """How much ordinary batches differ, with one value per trait.

    Attributes
    ----------
    effect : array of float
        Design effect: variance between blocks over that of independent rows; never below 1.
    freedom : array of float
        Degrees of freedom of the estimated effect; infinite where the blocks differ no more
        than independent rows would.
    measured : array of bool
        Whether there were enough blocks for an estimate.
    """

    effect: Floats
    freedom: Floats
    measured: NDArray[np.bool_]

    @property
    def dependent(self) -> NDArray[np.bool_]:
        """Traits in which rows of a block are known to depend on one another."""
        return np.isfinite(self.freedom)


def yardstick(
    blocks: Observed,
    units: "Units",
    *,
    kinds: NDArray[Any] | None = None,
    groups: NDArray[Any] | None = None,
) -> Yardstick:
    """Estimate from the reference's blocks how much more they differ than independent rows.

    Where the chi-square test of the blocks' differences rejects independent rows, the trait
    gets its own design effect with few degrees of freedom. All other traits share one design
    effect, because dependence too weak to be proved in one trait is plain in many.

    Parameters
    ----------
    blocks : Observed
        The reference's blocks.
    units : Units
        Contribution of a single row to each trait.
    kinds : array, shape (n_traits,), optional
        Kind of each trait. Design effects are shared within a kind; by default all traits are
        of one kind.
    groups : array, shape (n_traits,), optional
        Group of each trait. Rows that depend in one trait of a group count as dependent in all
        its traits; by default each trait is its own group.

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
    """Estimate a yardstick from sums of squares that are chi-square for independent rows.

    Parameters
    ----------
    squares : array of float, shape (n_traits,)
        Sum over blocks of squared standardised differences.
    freedom : array of int, shape (n_traits,)
        Degrees of freedom of each sum.
    kinds, groups : array, shape (n_traits,), optional
        As in `yardstick`.
    """
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
    """Mark traits that passed the test of independence but may be dependent all the same.

    Of the traits that failed the test, as many as chance may explain (99 times of 100) are left
    out. The others are taken to have a typical effect, the lower quartile of theirs. A trait is
    marked where more than `_EXCEPTIONAL` traits with that effect would vary as little as it does.
    The rule is Holdfast's own; its counts are those of a binomial and a chi-square distribution.
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
    """Estimate the design effect that traits which passed the test of independence share.

    Traits that failed the test are missing from the sample, so the mean of the others is compared
    with that of a chi-square value times the effect, cut off at the critical value of the test.
    Below c that mean is k F(c; k + 2) / F(c; k), with k degrees of freedom, since x times the
    density for k is k times the density for k + 2.
    """
    if len(squares) == 0:
        return 1.0
    cut = special.chdtri(freedom, _DEPENDENT)

    def excess(effect: float) -> float:
        inside = special.chdtr(freedom, cut / effect)
        further = special.chdtr(freedom + 2, cut / effect)
        # With hundreds of blocks both vanish, and their quotient is its limit.
        limit = cut / effect / (freedom + 2)
        mean = effect * freedom * np.divide(further, inside, out=limit, where=inside > _TINY)
        return float(mean.sum() - squares.sum())

    if excess(1.0) >= 0:
        return 1.0
    largest = 20.0
    return largest if excess(largest) <= 0 else float(optimize.brentq(excess, 1.0, largest))


def grown(effect: Floats, *, n: float | Floats, n_block: float | Floats) -> Floats:
    """Scale design effects of blocks of `n_block` rows to batches of `n` rows.

    What all rows of a batch share weighs more the more rows there are: 1 + (effect - 1)
    n / n_block (Kish 1965, Survey Sampling: 1 + (n - 1) roh, of many rows). Dependence between
    neighbouring rows does not grow like that, and which kind of dependence it is cannot be known,
    so batches shorter than a block keep the block's effect.
    """
    return 1 + (effect - 1) * np.maximum(n / n_block, 1.0)


@dataclass(frozen=True)
class Units:
    """What a single row contributes to each trait if rows are independent.

    Attributes
    ----------
    variance, skewness : array of float, shape (n_traits,)
        Second moment and third standardised moment of the contribution.
    """

    variance: Floats
    skewness: Floats

    def only(self, mask: NDArray[np.bool_]) -> "Units":
        """Select some of the traits."""
        return Units(self.variance[mask], self.skewness[mask])

    def difference(self, n: Floats, m: Floats) -> tuple[Floats, Floats]:
        """Variance and skewness of a mean of `n` rows less one of `m` rows."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.variance * (1 / n + 1 / m), self.skewness * difference_skewness(n, m)


def last_batches_p(before: Observed, now: Observed, units: Units, ruler: Yardstick) -> Floats:
    """Test whether the mean of the last batches differs from that of the reference's blocks.

    Where rows depend on one another, uses Student's t with the pooled spread of blocks and
    batches, which is never taken below that of independent rows; where they do not, uses the
    distribution of the mean itself.

    Parameters
    ----------
    before, now : Observed
        The reference's blocks, and the last batches.
    units : Units
        Contribution of a single row to each trait.
    ruler : Yardstick
        Estimated from the blocks.

    Returns
    -------
    array of float, shape (n_traits,)
        Two-sided p-values; NaN where either side has fewer than two values.

    References
    ----------
    Fisher (1925), Metron 5: 90-104, for t of two samples with a pooled spread.
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

    It is judged by the spread of the reference's blocks alone; 1 with fewer than two blocks.
    """
    b = before.count
    freedom = np.maximum(b - 1, 1)
    spread = np.maximum(before.squares / freedom, _typical(before, units))
    known, skewness = units.difference(before.usual_size * n_now, before.rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = floor / np.sqrt(spread * (1 / b + 1 / n_now))
        z = floor / np.sqrt(known * ruler.effect)
    return np.where(b > 1, _two_sided(t, freedom, z, skewness, ruler), 1.0)


def _typical(before: Observed, units: Units) -> Floats:
    """Variance between blocks of the usual size if rows were independent, per trait."""
    variance: Floats = units.variance / np.maximum(before.usual_size, 1)
    return variance


def _two_sided(
    t: Floats, freedom: NDArray[Any], z: Floats, skewness: Floats, ruler: Yardstick
) -> Floats:
    independent = mean_p(np.clip(z, -1e6, 1e6), skewness=skewness)
    return np.where(ruler.dependent, 2 * special.stdtr(freedom, -t), independent)


def gathered(before: Observed, now: Observed, units: Units, ruler: Yardstick) -> Floats:
    """Accumulate evidence of a change at any batch since the reference.

    Each batch is compared with the blocks and batches before it, and the p-value (of a t
    statistic where rows depend) is turned into a standard normal U, so that the U of successive
    ordinary batches are independent for any mean and spread. exp(s U - s^2 / 2) is then an
    e-value for a change of s: its mean is 1. The Shiryaev-Roberts sum over all starts,
    R_t = (1 + R_(t-1)) e_t, grows by 1 per batch on average when nothing changes, so that it
    takes at least c batches on average before it first reaches c.

    The parameters are those of `last_batches_p`, but `now` holds all batches since the reference.

    Returns
    -------
    array of float, shape (n_traits,)
        R after the last batch: the mean over several sizes of change.

    References
    ----------
    Hawkins (1987), The Statistician 36(4), for comparing with what came before.
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
    """How unlike the past a batch is, as a standard normal value per trait."""
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
    """Estimate how many of the last batches a change covers, by maximum likelihood.

    The number k maximises k times the squared mean of the last k differences (Hinkley 1970,
    Biometrika 57(1): 1-17).
    """
    differences = np.nan_to_num(now.values - before.mean)[::-1]
    count = np.arange(1, len(differences) + 1)[:, None]
    likelihood = np.cumsum(differences, axis=0) ** 2 / count
    return likelihood.argmax(axis=0) + 1 if len(differences) else np.empty(0, dtype=np.intp)


def mean_known(values: Floats) -> Floats:
    """Mean of each column over its defined values; NaN without any."""
    count = np.isfinite(values).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)
