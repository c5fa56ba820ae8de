"""Estimated performance of a batch whose labels have not come, with an interval, or "cannot tell".

An estimate is drawn from the newest batches with labels. It assumes that the chance of a label (or
the size of an error), given the prediction, is what it was there; how far that was wrong of batches
before widens the interval, and where it was very wrong of the newest, no estimate is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from scipy import stats

from pipeline.monitoring.expectations import Cells, Expected, expect, names_of, realised

COVERAGE = 0.9
"""Share of realised values that an interval shall hold."""
USUAL = 4
"""At least so many of the first misses say what estimates of a new model miss by."""
SHARES = {"roc_auc", "accuracy"}
"""Metrics of at most 1."""
FEWEST = 3
"""Fewest batches with labels: estimates of two of them have to be compared with their labels."""
SURPRISE = 2.0
"""An error of the newest batch with labels beyond so many standard deviations is not explained."""


@dataclass(frozen=True)
class Estimate:
    """An estimated metric of a batch.

    Attributes
    ----------
    metric : str
        ``roc_auc``, ``accuracy`` and ``log_loss`` of two classes, or a loss of a regression.
    value : float
        The estimate; NaN where there is none.
    low, high : float
        Ends of its 90% interval.
    reason : str
        Why nothing can be said, in a sentence; empty: the estimate holds as far as it assumes.
    """

    metric: str
    value: float
    low: float
    high: float
    reason: str = ""


def estimate(
    current: Cells, known: Sequence[Cells], *, loss: str, held_out: int = 0, gap: int = 1
) -> list[Estimate]:
    """Estimate the metrics of a batch from the newest batches with labels.

    Of two classes, the predicted chances are calibrated on the newest batches with labels (beta
    calibration). Of a regression, the size of the error is their mean in each of ten cells of the
    prediction. The estimate is the mean of what these let expect and of what the newest batch with
    labels showed. It needs no random number.

    Four variances are added: of the labels, given their chances; of the chances, which are
    estimated; the mean square of what such estimates missed by when the model was new; and the
    square of what the newest one missed by. The quantile is that of Student's t with as many
    degrees of freedom as there are misses.

    Where the loss of the newest batch with labels was missed by more than two standard deviations
    of the first three, nothing is said of any metric.

    Parameters
    ----------
    current : Cells
        The batch; no label of it is read.
    known : sequence of Cells
        Batches with labels, oldest first: parts of the held-out rows of training, then live ones.
    loss : str
        The metric that decides whether anything is said.
    held_out : int
        How many of `known` are held-out rows.
    gap : int
        Batches from the newest one with labels to this: 1 if it is the next. What estimates missed
        by is taken at this gap, or at half of the known batches if that is shorter.

    Returns
    -------
    list of Estimate
        One for each metric.

    References
    ----------
    Kull, Silva Filho and Flach (2017), AISTATS, for beta calibration.
    """
    lengths = [batch.size for batch in known[:held_out]]
    held_out = sum(length > 0 for length in lengths)
    known = [batch for batch in known if batch.size]
    names = names_of(known)
    if len(known) < FEWEST or not current.size:
        reason = f"Labels of {len(known)} batches are known, and {FEWEST} are needed."
        if not current.size:
            reason = "The batch has no rows."
        return [Estimate(name, np.nan, np.nan, np.nan, reason) for name in names]
    gap = max(1, min(gap, len(known) // 2))
    now = expect(current, known)
    early = range(gap, min(gap + max(USUAL, held_out - gap), len(known)))
    misses = {k: _missed(known, k, gap) for k in {*early, len(known) - 1}}
    spans = {
        name: _Span.of(now[name], [misses[k][name] for k in early], misses[len(known) - 1][name])
        for name in names
    }
    reason = spans[loss].doubt(loss)
    return [_judged(name, now[name].value, spans[name], reason) for name in names]


def _missed(known: Sequence[Cells], place: int, gap: int) -> dict[str, float]:
    """Realised less estimated metrics of a batch, from labels that were known `gap` before it."""
    guesses = expect(known[place], known[: place - gap + 1])
    seen = realised(known[place])
    return {name: seen[name] - one.value for name, one in guesses.items()}


class _Span(NamedTuple):
    """What an estimate may miss by.

    Attributes
    ----------
    explained : float
        Variance of what can be explained: labels, chances, and the misses of a new model.
    newest : float
        What the newest estimate missed by.
    freedom : float
        Number of misses.
    """

    explained: float
    newest: float
    freedom: float

    @classmethod
    def of(cls, now: Expected, early: Sequence[float], newest: float) -> Self:
        usual = np.array(early)[np.isfinite(early)]
        square = float(np.square(usual).mean()) if len(usual) else np.nan
        return cls(now.sampling + now.fitted + square, newest, len(usual) + 1.0)

    @property
    def reach(self) -> float:
        """Half of the width of the interval."""
        quantile = stats.t.ppf((1 + COVERAGE) / 2, self.freedom)
        return float(quantile * np.sqrt(self.explained + self.newest**2))

    def doubt(self, loss: str) -> str:
        """Why the newest miss of the loss leaves nothing to say; empty: it does not."""
        limit = SURPRISE * np.sqrt(self.explained)
        if not abs(self.newest) > limit:
            return ""
        return (
            f"The newest batch with labels had a {loss} that is {abs(self.newest):.3g} "
            f"{'above' if self.newest > 0 else 'below'} its estimate, where {limit:.3g} can be "
            "explained: something changed that predictions do not show."
        )


def _judged(name: str, value: float, span: _Span, reason: str) -> Estimate:
    """A metric with its interval."""
    if not np.isfinite([value, span.reach]).all():
        one = "The metric is not defined in batches whose labels are of one class only."
        return Estimate(name, np.nan, np.nan, np.nan, one)
    high = value + span.reach
    if name in SHARES:
        high = min(high, 1.0)
    return Estimate(name, value, max(value - span.reach, 0.0), high, reason)
