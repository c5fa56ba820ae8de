"""Two-sample statistics and their null distributions, each with its source.

Tests return p-values that are uniform when rows are independent draws, exactly or as rows
become many; counts and ties make them larger, and `cauchy_p` of tests that depend on one another
may be a tenth smaller. The rows of real batches are not independent: `calibrated` corrects for
that with the reference's own blocks. Functions of `ArrayLike` take many tests at once.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pipeline.columns import Floats

_SYMMETRIC = 1e-3
"""Skewness below which the gamma distribution, of a shape in the millions, is normal."""
_LARGE = 20
"""Expected rows of the rarer outcome, on the smaller side, above which they are not few."""


def mean_tails(z: ArrayLike, *, skewness: ArrayLike = 0.0) -> tuple[Floats, Floats]:
    """Chances of a standardised mean at most, and at least, as large as this.

    Uses the Pearson III distribution (a shifted gamma) with the skewness of the mean, which is
    the normal distribution when that is zero. Sums of skewed values, above all counts of rare
    rows, have one long tail, and the small levels that hundreds of tests need lie far out in it.

    Parameters
    ----------
    z : array of float
        Differences over their standard errors.
    skewness : array of float
        Third standardised moment of `z` when nothing is wrong.

    References
    ----------
    Pearson (1916), Phil. Trans. A 216: 429-457.
    """
    z, skewness = np.broadcast_arrays(np.asarray(z, float), np.asarray(skewness, float))
    flat = np.abs(skewness) < _SYMMETRIC
    shape = 4 / np.where(flat, 1.0, skewness) ** 2
    # A negative skewness is mirrored to a positive skewness.
    turned = np.where(flat, 0.0, z * np.sign(skewness))
    x = np.maximum(shape + turned * np.sqrt(shape), 0.0)
    long, short = special.gammaincc(shape, x), special.gammainc(shape, x)
    mirrored = skewness < 0
    below = np.where(flat, special.ndtr(z), np.where(mirrored, long, short))
    above = np.where(flat, special.ndtr(-z), np.where(mirrored, short, long))
    unknown = ~np.isfinite(z)
    tails: tuple[Floats, Floats] = (
        np.where(unknown, np.nan, below),
        np.where(unknown, np.nan, above),
    )
    return tails


def mean_p(z: ArrayLike, *, skewness: ArrayLike = 0.0) -> Floats:
    """Chance of a standardised mean this far from zero, in either direction: `mean_tails`."""
    below, above = mean_tails(z, skewness=skewness)
    p_values: Floats = np.minimum(2 * np.minimum(below, above), 1.0)
    return p_values


def difference_skewness(n: ArrayLike, m: ArrayLike) -> Floats:
    """Skewness of a mean of `n` values less a mean of `m`, relative to that of a single value.

    Elementary: cumulants of independent sums add up, so that the third one of the difference is
    that of a value times 1/n^2 - 1/m^2, and its variance that of a value times 1/n + 1/m.
    """
    n, m = np.asarray(n, float), np.asarray(m, float)
    skewness: Floats = (1 / n**2 - 1 / m**2) / (1 / n + 1 / m) ** 1.5
    return skewness


def kolmogorov_p(distance: ArrayLike, *, n_reference: ArrayLike, n_current: ArrayLike) -> Floats:
    """Chance of a Kolmogorov-Smirnov distance this large between samples of one source.

    Uses the asymptotic distribution with Stephens' correction for small samples. With ties the
    p-value is larger than the exact p-value. NaN when a side is empty.

    References
    ----------
    Stephens (1970), J. R. Stat. Soc. B 32(1): 115-122.
    """
    n, m = np.asarray(n_reference, float), np.asarray(n_current, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(n * m / (n + m))
        p_values = special.kolmogorov((root + 0.12 + 0.11 / root) * np.asarray(distance))
    return np.where((n > 0) & (m > 0), p_values, np.nan)


def homogeneity(reference: Floats, current: Floats) -> tuple[float, int]:
    """Pearson's chi-square of two sets of label counts, and its degrees of freedom.

    Labels with fewer than five expected rows on either side are counted together, and with
    the next rarest label while they are still too few, so that the asymptotic distribution
    holds. NaN when a side is empty, zero degrees when one label is left.

    Parameters
    ----------
    reference, current : array of float, shape (n_labels,)
        Rows per label on either side.

    References
    ----------
    Cochran (1954), Biometrics 10(4): 417-451, for the rule of five.
    """
    table = np.vstack([reference, current])
    sides = table.sum(axis=1)
    if (sides == 0).any():
        return float("nan"), 0
    expected = np.outer(sides, table.sum(axis=0)) / table.sum()
    fewest = expected.min(axis=0)
    rare = fewest < 5  # noqa: PLR2004 -- Cochran's rule
    if 0 < fewest[rare].sum() < 5 and not rare.all():  # noqa: PLR2004 -- the rule of five again
        rare[np.argmin(np.where(rare, np.inf, fewest))] = True
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    expected = np.outer(sides, table.sum(axis=0)) / table.sum()
    return float(((table - expected) ** 2 / expected).sum()), table.shape[1] - 1


def total_variation(*, reference: Floats, current: Floats) -> float:
    """Half the sum of absolute differences of shares, from 0 to 1; NaN when a side is empty.

    It is the largest difference of the chances that both sides give one set of labels, which is
    the definition of this distance. Takes rows per label of both sides.
    """
    if reference.sum() == 0 or current.sum() == 0:
        return float("nan")
    shares = reference / reference.sum() - current / current.sum()
    return float(np.abs(shares).sum() / 2)


def proportions_p(
    *, reference: ArrayLike, n_reference: ArrayLike, current: ArrayLike, n_current: ArrayLike
) -> Floats:
    """Chance of two shares this different when both sides have the same source.

    Given the total of both sides, the count of the current side is hypergeometric. Where few
    rows are expected it is bounded by the binomial distribution; elsewhere `mean_tails` is used
    with the skewness of the count and Yates' correction. NaN when a side is empty.

    References
    ----------
    Fisher (1935), J. R. Stat. Soc. 98(1): 39-82, for conditioning on the total.
    """
    k, n, j, m = np.broadcast_arrays(
        *(np.asarray(x, float) for x in (reference, n_reference, current, n_current))
    )
    flip = k + j > (n + m) / 2  # the rarer of the two outcomes
    total = np.where(flip, n + m - k - j, k + j)
    mine = np.where(flip, m - j, j)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = m / (n + m)
        above = special.betainc(np.maximum(mine, 1), total - mine + 1, share)
        above = np.where(mine == 0, 1.0, above)  # at least as many
        below = special.betaincc(mine + 1, np.maximum(total - mine, 1), share)
        below = np.where(mine == total, 1.0, below)  # at most as many
        exact = np.minimum(2 * np.minimum(above, below), 1.0)
        pooled = total / (n + m)
        large = pooled * np.minimum(n, m) > _LARGE
        gap = np.maximum(np.abs(mine - m * pooled) - 0.5, 0) * np.sign(mine - m * pooled)
        variance = m * pooled * (1 - pooled) * (1 - share)
        skewness = (1 - 2 * pooled) * (1 - 2 * share) / np.sqrt(variance)
        normal = mean_p(gap / np.sqrt(variance), skewness=np.where(large, skewness, 0.0))
    p_values = np.where(large, normal, exact)
    return np.where((n > 0) & (m > 0), p_values, np.nan)


def novelty_p(*, unseen: int, n_current: int, singletons: int, n_reference: int) -> float:
    """Chance of at least this many rows with labels that the reference never held.

    The chance that one more row of the same source brings a new label is about the share of
    labels seen once (Good 1953). Because that share is itself an estimate, the count is predicted
    by a negative binomial distribution. One is added to the number of singletons, so that new
    labels stay possible where the reference has none.

    References
    ----------
    Good (1953), Biometrika 40(3-4): 237-264.
    """
    if n_reference == 0 or n_current == 0:
        return float("nan")
    share = n_reference / (n_reference + n_current)
    return float(special.nbdtrc(unseen - 1, singletons + 1, share)) if unseen else 1.0


def separation(labels: NDArray[np.bool_], scores: Floats) -> tuple[float, float]:
    """Area under the ROC curve, and the chance of an area this large by guessing.

    Given the scores, every labelling is equally likely when nothing differs, so the area is a
    rank sum with known mean and variance, ties included. No training set, fold or overfit enters.

    Parameters
    ----------
    labels : array of bool, shape (n_rows,)
        Which rows are of the current side.
    scores : array of float, shape (n_rows,)
        Predictions of a classifier; larger for the current side.

    References
    ----------
    Mann & Whitney (1947), Ann. Math. Stat. 18(1): 50-60. Lopez-Paz & Oquab (2017), ICLR, for
    the classifier two-sample test.
    """
    ones, n = int(labels.sum()), len(labels)
    zeros = n - ones
    _, place, ties = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[place]
    area = (ranks[labels].sum() - ones * (ones + 1) / 2) / (ones * zeros)
    tied = float((ties.astype(float) ** 3 - ties).sum()) / (n * (n - 1))
    variance = (n + 1 - tied) / (12 * ones * zeros)
    if variance <= 0:
        return 0.5, 1.0
    return float(area), float(special.ndtr(-(area - 0.5) / np.sqrt(variance)))


def cauchy_p(p_values: ArrayLike) -> float:
    """Combine p-values of tests that may depend on one another.

    Each becomes a standard Cauchy variable; their mean is Cauchy again, exactly if they are
    independent or equal, and in its tail whatever their dependence: a level of 5% may become
    5.5%, one of 0.1% stays. NaN if any is unknown.

    References
    ----------
    Liu & Xie (2020), J. Am. Stat. Assoc. 115(529): 393-402.

    Examples
    --------
    >>> round(cauchy_p([0.01, 0.01]), 4)
    0.01
    """
    clipped: Floats = np.clip(np.asarray(p_values, float), 1e-15, 1 - 1e-15)
    return float(special.stdtr(1, -np.mean(1 / np.tan(np.pi * clipped))))


def beyond_p(widths: ArrayLike, *, blocks: ArrayLike) -> Floats:
    """Bound of the chance that one more observation lies this far beyond all earlier ones.

    Student's t of a new observation that lies k widths beyond a range, which B earlier observations
    lie in, is smallest where the share k / (1 + 2k) of these is at the far end and the others are
    at the near end. It is then 2 root(k (k + 1) (B - 1) / (B + 1)), with B - 1 degrees of freedom,
    however much the observations differ. The bound is 1 inside the range, and falls without end.

    Parameters
    ----------
    widths : array of float
        Distance beyond the range, in widths of the range; 0 inside it.
    blocks : array of int
        Number of earlier observations, at least 2.

    References
    ----------
    Popoviciu (1935), Mathematica 9: 129-145, for the largest variance within a range; Student
    (1908), Biometrika 6(1): 1-25, for t.
    """
    k, blocks = np.asarray(widths, float), np.asarray(blocks, float)
    with np.errstate(over="ignore"):
        t = 2 * np.sqrt(k) * np.sqrt(k + 1) * np.sqrt((blocks - 1) / (blocks + 1))
    p_values: Floats = 2 * special.stdtr(blocks - 1, -t)
    return p_values


def hotelling_p(squared: ArrayLike, *, freedom: int, n_covariance: int) -> Floats:
    """Chance of a squared Mahalanobis length this large.

    Parameters
    ----------
    squared : array of float
        Squared length of a difference of means, in units of its standard error.
    freedom : int
        Number of dimensions of the difference.
    n_covariance : int
        Rows that the covariance was estimated from; more than `freedom`.

    References
    ----------
    Hotelling (1931), Ann. Math. Stat. 2(3): 360-378.
    """
    rest = n_covariance - freedom
    p_values: Floats = special.fdtrc(
        freedom, rest, np.asarray(squared) * rest / (freedom * (n_covariance - 1))
    )
    return p_values


def calibrated(p_value: ArrayLike, *, effect: ArrayLike, freedom: ArrayLike) -> Floats:
    """Correct a textbook p-value by the spread of the reference's blocks.

    The chi-square value behind the p-value is divided by the design effect and referred to
    F(1, freedom), because the effect was estimated from few blocks; with infinite freedom it is
    referred to the chi-square distribution.

    References
    ----------
    Kish (1965), Survey Sampling, section 8.2, for the design effect.
    """
    p_value, effect, freedom = np.broadcast_arrays(p_value, effect, freedom)
    value = special.chdtri(1, np.clip(p_value, 1e-300, 1.0)) / effect
    known = np.isinf(freedom)
    few: Floats = special.fdtrc(1, np.where(known, 1.0, freedom), value)
    adjusted = np.where(known, special.chdtrc(1, value), few)
    unchanged = (known & (effect == 1)) | ~np.isfinite(p_value)
    return np.where(unchanged, p_value, adjusted)


def psi(*, reference: Floats, current: Floats) -> float:
    """Population stability index of bin shares, in nats; 0 means equal shares.

    Shares must be positive. The index grows with the number of bins and shrinks with the number
    of rows, so that no fixed cut has a meaning: it is shown, never tested.

    References
    ----------
    Yurdakul & Naranjo (2020), J. Risk Model Validation 14(4).

    Examples
    --------
    >>> round(psi(reference=np.array([0.5, 0.5]), current=np.array([0.6, 0.4])), 4)
    0.0405
    """
    return float(np.sum((current - reference) * np.log(current / reference)))


def jensen_shannon(*, reference: Floats, current: Floats) -> float:
    """Jensen-Shannon distance of bin shares, from 0 (equal) to 1 (nothing in common).

    It is the square root of the divergence in bits.

    References
    ----------
    Endres & Schindelin (2003), IEEE Trans. Inf. Theory 49(7): 1858-1860.

    Examples
    --------
    >>> jensen_shannon(reference=np.array([1.0, 0.0]), current=np.array([0.0, 1.0]))
    1.0
    """
    middle = (reference + current) / 2
    bits = special.rel_entr(reference, middle).sum() + special.rel_entr(current, middle).sum()
    return float(np.sqrt(max(bits, 0.0) / (2 * np.log(2))))
