"""Means of a number that every row has, such as its loss: of training, of batches, and compared.

Rows of one day depend on one another, so a seventh of a batch (a day of a week) is one observation.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.columns import Floats

PARTS = 7
"""Parts of a batch that count as independent observations of its loss: days of a week."""
FEWEST_BLOCKS = 5
"""Blocks of the baseline from which on these, not their parts, count as its observations."""
TAIL = 0.99
"""Losses of a regression beyond this quantile of the baseline's losses count as the quantile."""
HORIZON = 4
"""The longest stretch that is judged together, in multiples of `persistence`: slow decline."""
CONFIDENCE = 0.95
"""Level of the one-sided interval of a change."""

Sevenths = tuple[Floats, Floats]
"""Means of the sevenths of a batch, and their rows."""


@dataclass(frozen=True)
class Baseline:
    """Losses on rows of training by models that had not seen them.

    Attributes
    ----------
    parts : DataFrame
        One row for each seventh of a batch with rows, in time order: its ``block`` (a stretch as
        long as a batch), sum of the losses (``loss``) and number of ``rows``.
    cap : float
        Larger losses count as this; infinite where tails are not heavy.
    """

    parts: pd.DataFrame
    cap: float = np.inf

    @classmethod
    def of(cls, losses: pd.Series, length: pd.Timedelta, *, heavy: bool) -> Self:
        """Sum the losses of rows by sevenths of a batch.

        Parameters
        ----------
        losses : Series of float, indexed by time
            Loss of each row.
        length : Timedelta
            Length of a batch.
        heavy : bool
            Whether losses have heavy tails, as squared errors do. Then those beyond the 99%
            quantile count as that quantile, or one row could decide everything.
        """
        cap = float(losses.quantile(TAIL)) if heavy else np.inf
        part = ((losses.index - losses.index.min()) // (length / PARTS)).to_numpy()
        summed = losses.clip(upper=cap).groupby(part).agg(["sum", "count"])
        summed = summed.set_axis(["loss", "rows"], axis=1).reset_index(names="block")
        return cls(summed.assign(block=summed["block"] // PARTS), cap)

    @property
    def mean(self) -> float:
        """Mean of all rows."""
        return float(self.parts["loss"].sum() / self.parts["rows"].sum())

    @property
    def deviation(self) -> float:
        """Standard deviation of the means of sevenths of a batch, weighted by their rows."""
        means, rows = self.parts["loss"] / self.parts["rows"], self.parts["rows"]
        return float(np.sqrt(np.average(np.square(means - self.mean), weights=rows)))

    def to_dict(self) -> dict[str, Any]:
        """The baseline as it is stored."""
        cap = self.cap if np.isfinite(self.cap) else None
        return {"cap": cap, "parts": self.parts.to_dict("list")}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        cap = np.inf if stored["cap"] is None else float(stored["cap"])
        return cls(pd.DataFrame(stored["parts"]), cap)


class Part(NamedTuple):
    """A part of a variance, with its degrees of freedom."""

    variance: float
    freedom: float


class Side(NamedTuple):
    """Mean loss of some rows, its observations with their sizes, and its variance in parts."""

    means: Floats
    counts: Floats
    mean: float
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, sums: Floats, counts: Floats) -> Self:
        """A side of observations, each a sum over some rows; its mean is a ratio of two sums.

        References
        ----------
        Cochran (1977), Sampling Techniques, 3rd ed., section 6.3.
        """
        total, k = float(counts.sum()), len(counts)
        mean = float(sums.sum()) / total
        if k < 2:  # noqa: PLR2004 -- a variance needs two
            return cls(sums / counts, counts, mean, (Part(np.inf, 1.0),))
        variance = k / (k - 1) * float(np.square(sums - mean * counts).sum()) / total**2
        # Observations of unequal size tell less than as many of equal size (Kish 1965).
        freedom = max(total**2 / float(np.square(counts).sum()) - 1, 1.0)
        return cls(sums / counts, counts, mean, (Part(variance, freedom),))


def before_and_between(baseline: Baseline) -> tuple[Side, Part]:
    """The baseline, and the variance of the mean of a block beyond that of its parts.

    Elementary: the mean of k independent blocks varies 1/k as much as a block, so that k times
    what it varies beyond its parts is what a block varies beyond its parts.
    """
    parts = baseline.parts
    by_part = Side.of(parts["loss"].to_numpy(), parts["rows"].to_numpy(np.float64))
    blocks = parts.groupby("block")[["loss", "rows"]].sum()
    k = len(blocks)
    if k < FEWEST_BLOCKS:
        return by_part, Part(0.0, 1.0)
    by_block = Side.of(blocks["loss"].to_numpy(), blocks["rows"].to_numpy(np.float64))
    beyond = k * (by_block.parts[0].variance - by_part.parts[0].variance)
    return by_block, Part(max(beyond, 0.0), by_block.parts[0].freedom)


def together(earlier: Iterable[Sevenths], own: Side, between: Part) -> Side:
    """A batch and some batches before it as one side.

    What batches vary beyond their parts adds up by their squared shares of the rows, as does the
    variance of any weighted mean of independent values (Kish 1965, Survey Sampling).

    Parameters
    ----------
    earlier : iterable of Sevenths
        The batches before.
    own : Side
        The batch.
    between : Part
        Variance of the mean of a batch beyond that of its sevenths.
    """
    chosen = [*earlier, (own.means, own.counts)]
    means = np.concatenate([one for one, _ in chosen])
    counts = np.concatenate([one for _, one in chosen])
    side = Side.of(means * counts, counts)
    rows = np.array([float(np.sum(one)) for _, one in chosen])
    shared = between.variance * float(np.square(rows / rows.sum()).sum())
    return side._replace(parts=(*side.parts, Part(shared, between.freedom)))


def difference(baseline: Baseline, current: pd.Series, length: pd.Timedelta) -> "Difference":
    """Change of the mean of a number that every row has, from training to a batch.

    Parameters
    ----------
    baseline : Baseline
        Of the rows of training; any number may stand for the losses.
    current : Series of float, indexed by time
        The number of each row of the batch.
    length : Timedelta
        Length of a batch.

    Returns
    -------
    Difference
        Relative to the size of the mean of training; NaN where that is 0.
    """
    before, between = before_and_between(baseline)
    own = Side.of(*part_sums(current.clip(upper=baseline.cap), part_of(current, length)))
    return compare(before, together((), own, between))


class Difference(NamedTuple):
    """Relative change of a mean, its standard error, and the degrees of freedom of that.

    Attributes
    ----------
    mean, error, freedom : float
        By Welch (1947).
    """

    mean: float
    error: float
    freedom: float

    def at_least(self, confidence: float) -> float:
        """Lower end of the one-sided interval, by Student's t."""
        if not np.isfinite(self.error):
            return -self.error
        return self.mean - float(stats.t.ppf(confidence, self.freedom)) * self.error

    def at_most(self, confidence: float) -> float:
        """Upper end of the one-sided interval."""
        return 2 * self.mean - self.at_least(confidence)


def compare(before: Side, now: Side) -> Difference:
    """Change of a mean relative to its size before, with Welch's degrees of freedom; NaN from 0."""
    scale = abs(before.mean)
    if not scale > 0:
        return Difference(np.nan, np.nan, 1.0)
    change = (now.mean - before.mean) / scale
    variances, freedoms = np.array([*before.parts, *now.parts]).T
    whole = float(variances.sum())
    if not np.isfinite(whole):
        return Difference(change, np.inf, 1.0)
    freedom = whole**2 / float((variances**2 / freedoms).sum()) if whole else 1.0
    return Difference(change, float(np.sqrt(whole)) / scale, freedom)


def part_of(losses: pd.Series, length: pd.Timedelta) -> pd.Timedelta:
    """A seventh of a batch, or of what is known of it where that is less than half."""
    known = losses.index.max() - losses.index.min()
    part: pd.Timedelta = (length if known >= length / 2 else known) / PARTS
    return max(part, pd.Timedelta("1us"))


def part_sums(losses: pd.Series, part: pd.Timedelta, start: Any = None) -> tuple[Floats, Floats]:
    """Sum of the losses and number of rows of each stretch of length `part`, in time order.

    Stretches without rows are left out. The first one begins at `start`, by default at the first
    row.
    """
    times = losses.index - (losses.index.min() if start is None else start)
    grouped = losses.groupby(times // part)
    sums: Floats = grouped.sum().to_numpy()
    return sums, grouped.count().to_numpy().astype(np.float64)
