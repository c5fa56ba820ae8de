"""Realised performance of a batch whose labels have arrived, against the rows of training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.columns import Floats
from pipeline.monitoring.expectations import Cells

PARTS = 7
"""Parts of a batch that count as independent observations of its loss: days of a week."""
FEWEST_BLOCKS = 5
"""Blocks of the baseline from which on these, not their parts, count as its observations."""
CONFIDENCE = 0.95
"""Level of the one-sided interval of the change of the loss."""
RIVAL_LOSS = "previous_champion_loss"
"""Metric of a batch: the mean loss of the champion before, on the same rows."""
LIKELY = 0.8
"""Confidence with which a loss is larger by more than is allowed."""
FALSE_A_YEAR = 0.1
"""Episodes a year, at most, in which the loss of an unchanged model is called larger."""
HORIZON = 4
"""The longest stretch that is judged together, in multiples of `persistence`: slow decline."""
TAIL = 0.99
"""Losses of a regression beyond this quantile of the baseline's losses count as the quantile."""


@dataclass(frozen=True)
class Performance:
    """Loss of a batch compared with the loss on rows of training that the model had not seen.

    Attributes
    ----------
    batch : str
        Name of the batch.
    rows : int
        Number of rows whose label has arrived.
    metrics : dict of str to float
        Realised metrics, by the names used at training.
    parts : tuple of float
        Mean loss of each seventh of the batch; sevenths without rows are left out.
    change : float
        Relative change of the loss of the last batches together; 0.05 is 5% worse than the
        baseline.
    at_least : float
        Lower end of the one-sided 95% interval of `change`.
    worse : bool
        Whether the loss is surely larger than the baseline, and larger by more than is allowed
        with 80% confidence.
    counts : tuple of int
        Labelled rows of each of the `parts`; empty in stores of before, where all count alike.
    of : int
        Rows of the batch that labels can arrive for; 0 in stores of before.
    faults : dict of str to str
        Faults of labels that came after their batch was judged, each with a sentence.
    digest : str
        Of the labels that it was computed from.
    cells : Cells or None
        The labelled rows, summed for estimates of later batches; None in stores of before, and
        where nothing is estimated.
    """

    batch: str
    rows: int
    metrics: dict[str, float]
    parts: tuple[float, ...]
    change: float
    at_least: float
    worse: bool
    counts: tuple[int, ...] = ()
    of: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    cells: Cells | None = None

    @property
    def weights(self) -> tuple[float, ...]:
        """Rows of each of the `parts`, as far as they are known."""
        return self.counts or (self.rows / max(len(self.parts), 1),) * len(self.parts)


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


def realised(
    *,
    batch: str,
    metrics: dict[str, float],
    current: pd.Series,
    baseline: Baseline,
    length: pd.Timedelta,
    allowed: float,
    earlier: Sequence[Performance] = (),
    persistence: int = 3,
    of: int = 0,
    digest: str = "",
    cells: Cells | None = None,
) -> Performance:
    """Compare the losses of a batch and of the batches before it with those of training.

    Rows of one day depend on one another, so a seventh of a batch is one observation, weighted by
    its rows: the mean is a ratio of two sums over the sevenths (Cochran 1977, section 6.3). Days of
    one week depend on one another as well. Where training has at least five blocks as long as a
    batch, these are the observations of the baseline, and what blocks differ by, beyond their days,
    is added to the variance of the batches. The two sides are compared by Welch's t.

    A single bad day proves little, but an equal loss in every batch adds up, so three stretches are
    judged: the batch, the last `persistence` batches, and four times as many. A stretch counts only
    as long as the batch itself is worse than allowed.

    The loss is called larger if it is so by more than `allowed` with 80% confidence, and if a
    model that has not changed would show that at most 0.1 times a year: Bonferroni over the
    stretches, of which a year has the fewer the longer they are.

    Parameters
    ----------
    batch : str
        Name of the batch.
    metrics : dict of str to float
        Realised metrics of the batch.
    current : Series of float, indexed by time
        Loss of each row.
    baseline : Baseline
        Losses of training.
    length : Timedelta
        Length of a batch.
    allowed : float
        Relative increase of the loss that is still accepted.
    earlier : sequence of Performance
        Performance of the champion on the batches before, oldest first.
    persistence : int
        Batches that are judged together.
    of : int
        Rows of the batch that labels can arrive for.
    digest : str
        Of its labels.
    cells : Cells or None
        Its labelled rows, summed for estimates of later batches.

    References
    ----------
    Cochran (1977), Sampling Techniques, 3rd ed.; Welch (1947), Biometrika 34: 28-35.
    """
    before, between = _before(baseline)
    sums, counts = part_sums(current.clip(upper=baseline.cap), _part(current, length))
    own = _Side.of(sums, counts)
    level = FALSE_A_YEAR * (length / pd.Timedelta("365D"))
    spans = sorted({1, persistence, HORIZON * persistence})
    changes = {
        span: _change(
            before,
            _together(earlier, own, span - 1, between),
            min(level * span / len(spans), 1 - CONFIDENCE),
        )
        for span in spans
    }
    now = own.mean / before.mean - 1 if before.mean > 0 else np.nan
    convinced = [
        change
        for change in changes.values()
        if now > allowed and change.likely > allowed and change.surely > 0
    ]
    shown = max(convinced, key=lambda one: one.at_least, default=changes[persistence])
    return Performance(
        batch=batch,
        rows=len(current),
        metrics=metrics,
        parts=tuple((sums / counts).tolist()),
        change=shown.mean,
        at_least=shown.at_least,
        worse=bool(convinced),
        counts=tuple(counts.tolist()),
        of=of,
        digest=digest,
        cells=cells,
    )


class _Change(NamedTuple):
    """Relative change of a mean loss.

    Attributes
    ----------
    mean, at_least : float
        The change, and the lower end of its 95% interval.
    likely, surely : float
        Lower ends at 80%, and at the level that leaves few false decisions a year.
    """

    mean: float
    at_least: float
    likely: float
    surely: float


class _Part(NamedTuple):
    """A part of a variance, with its degrees of freedom."""

    variance: float
    freedom: float


class _Side(NamedTuple):
    """Mean loss of some rows, its observations with their sizes, and its variance in parts."""

    means: Floats
    counts: Floats
    mean: float
    parts: tuple[_Part, ...]

    @classmethod
    def of(cls, sums: Floats, counts: Floats) -> Self:
        total, k = float(counts.sum()), len(counts)
        mean = float(sums.sum()) / total
        if k < 2:  # noqa: PLR2004 -- a variance needs two
            return cls(sums / counts, counts, mean, (_Part(np.inf, 1.0),))
        variance = k / (k - 1) * float(np.square(sums - mean * counts).sum()) / total**2
        # Observations of unequal size tell less than as many of equal size (Kish 1965).
        freedom = max(total**2 / float(np.square(counts).sum()) - 1, 1.0)
        return cls(sums / counts, counts, mean, (_Part(variance, freedom),))


def _before(baseline: Baseline) -> tuple[_Side, _Part]:
    """The baseline, and the variance of the mean of a block beyond that of its parts."""
    parts = baseline.parts
    by_part = _Side.of(parts["loss"].to_numpy(), parts["rows"].to_numpy(np.float64))
    blocks = parts.groupby("block")[["loss", "rows"]].sum()
    k = len(blocks)
    if k < FEWEST_BLOCKS:
        return by_part, _Part(0.0, 1.0)
    by_block = _Side.of(blocks["loss"].to_numpy(), blocks["rows"].to_numpy(np.float64))
    beyond = k * (by_block.parts[0].variance - by_part.parts[0].variance)
    return by_block, _Part(max(beyond, 0.0), by_block.parts[0].freedom)


def _together(earlier: Sequence[Performance], own: _Side, more: int, between: _Part) -> _Side:
    """The batch and up to `more` batches before it as one side."""
    chosen = earlier[len(earlier) - min(more, len(earlier)) :]
    means = np.concatenate([*(judged.parts for judged in chosen), own.means])
    counts = np.concatenate([*(judged.weights for judged in chosen), own.counts])
    side = _Side.of(means * counts, counts)
    rows = np.array([*(sum(judged.weights) for judged in chosen), own.counts.sum()])
    shared = between.variance * float(np.square(rows / rows.sum()).sum())
    return side._replace(parts=(*side.parts, _Part(shared, between.freedom)))


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
    before, between = _before(baseline)
    own = _Side.of(*part_sums(current.clip(upper=baseline.cap), _part(current, length)))
    return _difference(before, _together((), own, 0, between))


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


def _difference(before: _Side, now: _Side) -> Difference:
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


def _change(before: _Side, now: _Side, level: float) -> _Change:
    """Change of the mean with one-sided intervals by Welch's t."""
    found = _difference(before, now)
    return _Change(found.mean, *(found.at_least(sure) for sure in (CONFIDENCE, LIKELY, 1 - level)))


def _part(losses: pd.Series, length: pd.Timedelta) -> pd.Timedelta:
    """A seventh of a batch, or of what is known of it where that is less than half."""
    known = losses.index.max() - losses.index.min()
    part: pd.Timedelta = (length if known >= length / 2 else known) / PARTS
    return max(part, pd.Timedelta("1us"))


def part_sums(losses: pd.Series, part: pd.Timedelta) -> tuple[Floats, Floats]:
    """Sum of the losses and number of rows of each stretch of length `part`, in time order.

    Stretches without rows are left out.
    """
    start = losses.index.min()
    grouped = losses.groupby((losses.index - start) // part)
    sums: Floats = grouped.sum().to_numpy()
    return sums, grouped.count().to_numpy().astype(np.float64)
