"""Two-sample statistics and their null distributions, each with its source.

Every test returns a p-value that is uniform, or larger, when rows are independent draws.
Real batches are not: `calibrated` corrects for that with the reference's own blocks.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]
_DEPENDENT = 0.05
"""Level of the test that decides whether blocks differ more than independent rows would."""


def kolmogorov_p(distance: float, *, n_reference: int, n_current: int) -> float:
    """Chance of a Kolmogorov-Smirnov distance this large between samples of one source.

    The asymptotic distribution with Stephens' correction for small samples; ties make it
    larger than it need be. NaN when a side is empty.

    References
    ----------
    Stephens (1970), J. R. Stat. Soc. B 32(1): 115-122.
    """
    if n_reference == 0 or n_current == 0:
        return float("nan")
    root = np.sqrt(n_reference * n_current / (n_reference + n_current))
    return float(special.kolmogorov((root + 0.12 + 0.11 / root) * distance))


def homogeneity_p(reference: Floats, current: Floats) -> float:
    """Chance of label counts this different from one source, by Pearson's chi-square.

    Labels with fewer than five expected rows on either side are counted together, and with
    the next rarest label while they are still too few, so that the asymptotic distribution
    holds.

    Parameters
    ----------
    reference, current : array of float, shape (n_labels,)
        Rows per label on either side.

    References
    ----------
    Cochran (1954), Biometrics 10(4): 417-451, for the rule of five.
    """
    table = np.vstack([reference, current])
    if (table.sum(axis=1) == 0).any():
        return float("nan")
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    fewest = expected.min(axis=0)
    rare = fewest < 5  # noqa: PLR2004 -- Cochran's rule
    if 0 < fewest[rare].sum() < 5 and not rare.all():  # noqa: PLR2004 -- the same
        rare[np.argmin(np.where(rare, np.inf, fewest))] = True
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:  # noqa: PLR2004 -- one label cannot differ
        return 1.0
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def total_variation_reach(reference: Floats, current: Floats, floor: float) -> float:
    """Bound of the chance that label shares of one source differ by `floor` or more.

    Half the sum of absolute differences is at most half the root of chi-square over the
    effective number of rows (Cauchy and Schwarz), whose distribution is known.
    """
    n, m = reference.sum(), current.sum()
    labels = int((reference + current > 0).sum())
    if n == 0 or m == 0:
        return float("nan")
    return float(stats.chi2.sf(4 * n * m / (n + m) * floor**2, max(labels - 1, 1)))


def proportions_p(*, reference: int, n_reference: int, current: int, n_current: int) -> float:
    """Chance of two shares this different from one source.

    Fisher's exact test, two-sided, as scipy has it, and where all counts are large the
    chi-square with Yates' correction, which agrees; NaN when a side is empty.
    """
    if n_reference == 0 or n_current == 0:
        return float("nan")
    table = [[reference, n_reference - reference], [current, n_current - current]]
    if min(min(row) for row in table) > 20:  # noqa: PLR2004 -- exact and normal agree by then
        return float(stats.chi2_contingency(table, correction=True).pvalue)
    return float(stats.fisher_exact(table).pvalue)


def novelty_p(*, unseen: int, n_current: int, singletons: int, n_reference: int) -> float:
    """Chance of this many rows with labels that the reference never held.

    The chance that one more row of the same source brings a new label is about the share of
    labels seen once (Good 1953). That share is estimated as well, so the count is predicted
    by a negative binomial; one is added to the singletons, so that a reference without them
    leaves room for one.

    References
    ----------
    Good (1953), Biometrika 40(3-4): 237-264.
    """
    if n_reference == 0 or n_current == 0:
        return float("nan")
    share = n_reference / (n_reference + n_current)
    return float(stats.nbinom.sf(unseen - 1, singletons + 1, share)) if unseen else 1.0


def design_effect(p_values: Sequence[float]) -> tuple[float, bool]:
    """How much more the reference's blocks differ from one another than independent rows do.

    Parameters
    ----------
    p_values : sequence of float
        Textbook p-value of each block against the other blocks.

    Returns
    -------
    effect : float
        Mean of the chi-square values with one degree of freedom that the p-values stand for:
        about 1 for independent rows; NaN with fewer than two blocks.
    dependent : bool
        Whether the sum of those values is too large for independent rows.

    References
    ----------
    Kish (1965), Survey Sampling, section 8.2, for the design effect.
    """
    values = _chi_square(np.asarray([p for p in p_values if np.isfinite(p)]))
    if len(values) < 2:  # noqa: PLR2004 -- one block has no spread
        return float("nan"), False
    dependent = bool(stats.chi2.sf(values.sum(), len(values)) < _DEPENDENT)
    return float(values.mean()), dependent


def calibrated(p_value: float, *, effect: float, dependent: bool, n_blocks: int) -> float:
    """A textbook p-value, judged by the spread of the reference's blocks where rows depend.

    The chi-square value behind the p-value is divided by the design effect and referred to
    F(1, n_blocks - 1), because that effect was estimated from few blocks.
    """
    if not dependent or not np.isfinite(p_value):
        return p_value
    value = float(_chi_square(np.asarray([p_value]))[0])
    return float(stats.f.sf(value / effect, 1, n_blocks - 1))


def _chi_square(p_values: Floats) -> Floats:
    values: Floats = stats.chi2.isf(np.clip(p_values, 1e-300, 1.0), 1)
    return values


def blocks_p(
    reference: Floats, current: Floats, *, sampling_variance: float
) -> tuple[float, float]:
    """Two-sample t test in which a batch is one observation.

    Parameters
    ----------
    reference, current : array of float
        One value per block and per recent batch.
    sampling_variance : float
        Variance of one value if its rows were independent; the pooled variance is not taken
        below it, so that blocks that happen to agree do not make a certainty.

    Returns
    -------
    p_value : float
        Two-sided; NaN with fewer than two values on either side.
    difference : float
        Mean of `current` less mean of `reference`.
    """
    reference = reference[np.isfinite(reference)]
    current = current[np.isfinite(current)]
    b, m = len(reference), len(current)
    if min(b, m) < 2:  # noqa: PLR2004 -- a variance needs two
        return float("nan"), float("nan")
    difference = float(current.mean() - reference.mean())
    freedom = b + m - 2
    pooled = ((b - 1) * reference.var(ddof=1) + (m - 1) * current.var(ddof=1)) / freedom
    variance = max(pooled, sampling_variance) * (1 / b + 1 / m)
    if variance == 0:
        return (1.0 if difference == 0 else 0.0), difference
    return float(2 * stats.t.sf(abs(difference) / np.sqrt(variance), freedom)), difference


def blocks_reach(
    reference: Floats, n_current: int, floor: float, *, sampling_variance: float
) -> float:
    """Chance that the mean of `n_current` ordinary batches differs by `floor` or more.

    Judged by the spread of the reference's blocks alone, with Student's t; 1 when there are
    fewer than two.
    """
    reference = reference[np.isfinite(reference)]
    b = len(reference)
    if b < 2:  # noqa: PLR2004 -- a variance needs two
        return 1.0
    variance = max(float(reference.var(ddof=1)), sampling_variance) * (1 / b + 1 / n_current)
    return float(2 * stats.t.sf(floor / np.sqrt(variance), b - 1)) if variance > 0 else 0.0


def psi(*, reference: Floats, current: Floats) -> float:
    """Population stability index of bin shares, in nats; 0 means the same shares.

    Shares must be positive. It grows with the number of bins and shrinks with the number of
    rows, so no fixed cut means anything: it is drawn, never tested.

    References
    ----------
    Yurdakul & Naranjo (2020), J. Risk Model Validation 14(4).

    Examples
    --------
    >>> round(psi(reference=np.array([0.5, 0.5]), current=np.array([0.6, 0.4])), 4)
    0.0405
    """
    return float(np.sum((current - reference) * np.log(current / reference)))
