"""Realised performance of a batch whose labels have arrived, against the held-out rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.columns import Floats

PARTS = 7
"""Parts of a batch that count as independent observations of its loss: days of a week."""
CONFIDENCE = 0.95
"""Level of the one-sided interval of the change of the loss."""


@dataclass(frozen=True)
class Performance:
    """Loss of a batch compared with the loss on the held-out rows.

    Attributes
    ----------
    batch : str
        Name of the batch.
    rows : int
        Number of rows whose label arrived.
    metrics : dict of str to float
        Realised metrics, by the names used at training.
    parts : tuple of float
        Mean loss of each seventh of the batch; sevenths without rows are left out.
    change : float
        Relative change of the loss of the last batches together; 0.05 is 5% worse than on the
        held-out rows.
    at_least : float
        Lower end of the one-sided 95% interval of `change`.
    worse : bool
        Whether even `at_least` is larger than allowed.
    """

    batch: str
    rows: int
    metrics: dict[str, float]
    parts: tuple[float, ...]
    change: float
    at_least: float
    worse: bool


def realised(
    *,
    batch: str,
    metrics: dict[str, float],
    current: pd.Series,
    heldout: pd.Series,
    length: pd.Timedelta,
    allowed: float,
    earlier: Sequence[Performance] = (),
) -> Performance:
    """Compare the losses of a batch and of the batches before it with the held-out losses.

    Rows of one day depend on one another, so the mean of each seventh of a batch is one
    observation, and the two sides are compared by Welch's t. A single bad day proves little, but
    an equal loss in every batch adds up.

    Parameters
    ----------
    batch : str
        Name of the batch.
    metrics : dict of str to float
        Realised metrics of the batch.
    current, heldout : Series of float, indexed by time
        Loss of each row.
    length : Timedelta
        Length of a batch.
    allowed : float
        Relative increase of the loss that is still accepted.
    earlier : sequence of Performance
        Performance of the champion's last batches, judged together with this batch.
    """
    before, own = part_means(heldout, length / PARTS), part_means(current, length / PARTS)
    now = np.concatenate([*(judged.parts for judged in earlier), own])
    base = float(before.mean())
    difference = float(now.mean()) - base
    change = difference / base if base > 0 else float("nan")
    at_least = (difference - _margin(before, now)) / base if base > 0 else float("nan")
    return Performance(
        batch=batch,
        rows=len(current),
        metrics=metrics,
        parts=tuple(own.tolist()),
        change=change,
        at_least=at_least,
        worse=bool(at_least > allowed),
    )


def part_means(losses: pd.Series, part: pd.Timedelta) -> Floats:
    """Mean loss of each stretch of length `part`, in time order; empty stretches are left out."""
    start = losses.index.min()
    means: Floats = losses.groupby((losses.index - start) // part).mean().to_numpy()
    return means


def _margin(before: Floats, now: Floats) -> float:
    """Margin of Welch's one-sided interval; infinite when a side has a single value."""
    if min(len(before), len(now)) < 2:  # noqa: PLR2004 -- a variance needs two
        return float("inf")
    parts = np.array([before.var(ddof=1) / len(before), now.var(ddof=1) / len(now)])
    if parts.sum() == 0:
        return 0.0
    freedom = parts.sum() ** 2 / (parts**2 / [len(before) - 1, len(now) - 1]).sum()
    return float(stats.t.ppf(CONFIDENCE, freedom) * np.sqrt(parts.sum()))
