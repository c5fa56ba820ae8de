"""Estimated performance of a batch whose labels have not come, with an interval, or "cannot tell".

An estimate is drawn from the newest batches with labels. It assumes that the chance of a label (or
the size of an error), given the prediction, is what it was there; how far that was wrong of batches
before widens the interval, and where it was very wrong of the newest, no estimate is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from pipeline.columns import Floats, Matrix
from pipeline.monitoring.expectations import Cells, Expected, expect, names_of, realised

COVERAGE = 0.9
"""Share of realised values that an interval shall hold."""
EARLY, LATE = 4, 12
"""Batches with labels whose estimates are compared with them: the first, when the model was new,
and the newest."""
FEWEST = 3
"""Fewest batches with labels: estimates of two of them have to be compared with their labels."""
SURE = 0.95
"""A miss of the newest batch with labels that is larger than this share of misses would be, if
nothing had changed, is not explained."""
NORMAL = 1.4826
"""Standard deviation of normal numbers in middle distances from 0: half of them lie within the
quantile of 3/4, 0.6745 standard deviations, of which this is the inverse."""
SHARES = {"roc_auc", "accuracy"}
"""Metrics of at most 1."""
_LEAST = 1e-12


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


def estimate(current: Cells, known: Sequence[Cells], *, loss: str, gap: int = 1) -> list[Estimate]:
    """Estimate the metrics of a batch from the newest batches with labels.

    Three forecasts are combined: what labels of the newest three batches let expect of the
    predictions, what those of the newest twelve do, and what the newest batch showed (`expect`).
    Each is weighted by the inverse of its mean squared miss in the batches before. No random number
    is needed.

    Four variances are added: of the labels, given their chances; of the forecasts, which are
    estimated; the mean square of what such estimates missed by when the model was new; and the
    square of what the newest one missed by.

    Where the loss of the newest batch with labels was missed by more than the first three variances
    explain (with the middle of the early misses, at 95% by Student's t), nothing is said of any
    metric.

    Parameters
    ----------
    current : Cells
        The batch; no label of it is read.
    known : sequence of Cells
        Batches with labels, oldest first: parts of the held-out rows of training, then live ones.
    loss : str
        The metric that decides whether anything is said.
    gap : int
        Batches from the newest one with labels to this: 1 if it is the next. What estimates missed
        by is taken at this gap, or at half of the known batches if that is shorter.

    Returns
    -------
    list of Estimate
        One for each metric.

    References
    ----------
    Bates and Granger (1969), Operational Research Quarterly 20(4): 451-468, for the weights.
    """
    known = [batch for batch in known if batch.size]
    names = names_of(known)
    if len(known) < FEWEST or not current.size:
        reason = f"Only {len(known)} of the {FEWEST} batches with labels that it needs are known."
        if not current.size:
            reason = "The batch has no rows."
        return [Estimate(name, np.nan, np.nan, np.nan, reason) for name in names]
    gap = max(1, min(gap, len(known) // 2))
    compared = range(gap, len(known))
    places = sorted({*compared[:EARLY], *compared[-LATE:]})
    forecasts = [expect(known[k], known[: k - gap + 1]) for k in places]
    seen = [realised(known[k]) for k in places]
    now = expect(current, known)
    spans = {
        name: _span(
            now[name],
            [one[name] for one in forecasts],
            np.array([one[name] for one in seen]),
            [sum(other <= place - gap for other in places) for place in places],
        )
        for name in names
    }
    reason = spans[loss].doubt(loss)
    return [_judged(name, spans[name], reason) for name in names]


class _Span(NamedTuple):
    """An estimate, and what it may miss by.

    Attributes
    ----------
    value : float
        The estimate.
    explained : float
        Variance of what can be explained: labels, forecasts, and the misses of a new model.
    usual : float
        The same, with the middle miss of a new model: one early accident does not excuse later
        ones.
    newest : float
        What the newest estimate missed by.
    early : int
        Number of misses of a new model.
    """

    value: float
    explained: float
    usual: float
    newest: float
    early: int

    @property
    def reach(self) -> float:
        """Half of the width of the interval."""
        quantile = stats.norm.ppf((1 + COVERAGE) / 2)
        return float(quantile * np.sqrt(self.explained + self.newest**2))

    def doubt(self, loss: str) -> str:
        """Why the newest miss of the loss leaves nothing to say; empty: it does not."""
        limit = stats.t.ppf((1 + SURE) / 2, max(self.early, 1)) * np.sqrt(self.usual)
        if not abs(self.newest) > limit:
            return ""
        return (
            f"The newest batch with labels had a {loss} that is {abs(self.newest):.3g} "
            f"{'above' if self.newest > 0 else 'below'} its estimate, where {limit:.3g} can be "
            "explained: something changed that predictions do not show."
        )


def _span(
    now: Expected, forecasts: Sequence[Expected], seen: Floats, earlier: Sequence[int]
) -> _Span:
    """Combine the forecasts of a metric.

    Parameters
    ----------
    now : Expected
        Of the batch.
    forecasts : sequence of Expected
        Of batches with labels, oldest first.
    seen : array of float
        What these labels showed.
    earlier : sequence of int
        How many of these batches had labels when each was forecast.
    """
    values = np.array([one.values for one in forecasts])
    squares = np.square(values - seen[:, None])
    misses = np.array(
        [
            seen[place] - _weights(squares[:count]) @ values[place]
            for place, count in enumerate(earlier)
        ]
    )
    weights = _weights(squares)
    early = misses[:EARLY][np.isfinite(misses[:EARLY])]
    own = now.sampling + float(np.square(weights) @ now.fitted)
    square = float(np.square(early).mean()) if len(early) else np.nan
    middle = float(np.median(np.abs(early)) * NORMAL) ** 2 if len(early) else np.nan
    value, newest = float(weights @ now.values), float(misses[-1])
    return _Span(value, own + square, own + middle, newest, len(early))


def _weights(squares: Matrix) -> Floats:
    """Weights of forecasts by the inverse of their mean squared miss, shape (n_forecasts,).

    They are equal where nothing was missed yet.
    """
    known = squares[np.isfinite(squares).all(axis=1)]
    inverse = 1 / (known.mean(axis=0) + _LEAST) if len(known) else np.ones(squares.shape[1])
    weights: Floats = inverse / inverse.sum()
    return weights


def _judged(name: str, span: _Span, reason: str) -> Estimate:
    """A metric with its interval."""
    if not np.isfinite([span.value, span.reach]).all():
        one = "The metric is not defined in batches whose labels are of one class only."
        return Estimate(name, np.nan, np.nan, np.nan, one)
    high = span.value + span.reach
    if name in SHARES:
        high = min(high, 1.0)
    return Estimate(name, span.value, max(span.value - span.reach, 0.0), high, reason)
