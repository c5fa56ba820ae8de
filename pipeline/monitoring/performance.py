"""Realised performance of a batch whose labels have arrived, against the rows of training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.monitoring.expectations import Cells
from pipeline.monitoring.means import (
    CONFIDENCE,
    HORIZON,
    Baseline,
    Sevenths,
    Side,
    before_and_between,
    compare,
    part_of,
    part_sums,
    together,
)
from pipeline.monitoring.slices import SliceLoss

RIVAL_LOSS = "previous_champion_loss"
"""Metric of a batch: the mean loss of the champion before, on the same rows."""
LIKELY = 0.8
"""Confidence with which a loss is larger by more than is allowed."""
FALSE_A_YEAR = 0.1
"""Episodes a year, at most, in which the loss of an unchanged model is called larger."""


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
    slices : tuple of SliceLoss
        Loss of each slice that the version has a baseline of.
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
    slices: tuple[SliceLoss, ...] = ()

    @property
    def observed(self) -> Sevenths:
        """Means of its sevenths, and rows of each as far as they are known."""
        rows = self.counts or (self.rows / max(len(self.parts), 1),) * len(self.parts)
        return np.array(self.parts), np.array(rows)


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
    before, between = before_and_between(baseline)
    sums, counts = part_sums(current.clip(upper=baseline.cap), part_of(current, length))
    own = Side.of(sums, counts)
    known = [one.observed for one in earlier]
    level = FALSE_A_YEAR * (length / pd.Timedelta("365D"))
    spans = sorted({1, persistence, HORIZON * persistence})
    changes = {
        span: _change(
            before,
            together(known[len(known) - min(span - 1, len(known)) :], own, between),
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


def _change(before: Side, now: Side, level: float) -> _Change:
    """Change of the mean with one-sided intervals by Welch's t."""
    found = compare(before, now)
    return _Change(found.mean, *(found.at_least(sure) for sure in (CONFIDENCE, LIKELY, 1 - level)))
