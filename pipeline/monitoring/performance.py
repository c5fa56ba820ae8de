"""Realised performance of a batch, once its labels have arrived, beside the held-out baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
PARTS = 7
"""Parts of a batch taken as the independent observations of its loss: days of a week."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Performance:
    """One batch's loss against the loss on the held-out rows.

    Attributes
    ----------
    batch : str
        The batch.
    rows : int
        Rows whose label arrived.
    scores : dict of str to float
        Realised scores, as at training.
    parts : tuple of float
        Mean loss of each seventh of the batch that holds rows.
    change : float
        Relative change of the loss of the last batches together; 0.05 is 5% worse than held
        out.
    at_least : float
        Lower end of the one-sided 95% interval of `change`.
    worse : bool
        Whether even that end is beyond what is allowed.
    """

    batch: str
    rows: int
    scores: dict[str, float]
    parts: tuple[float, ...]
    change: float
    at_least: float
    worse: bool


def realised(
    *,
    batch: str,
    scores: dict[str, float],
    current: pd.Series,
    heldout: pd.Series,
    length: pd.Timedelta,
    allowed: float,
    earlier: Sequence[Performance] = (),
) -> Performance:
    """Judge the losses of a batch, and of the last ones with it, against the held-out ones.

    Rows that share a day share its weather, so the mean of each seventh of a batch is one
    observation, and the two sides are compared by Welch's t. One bad day in one batch proves
    little; the same loss in every batch adds up.

    Parameters
    ----------
    batch : str
        The batch.
    scores : dict of str to float
        Its realised scores.
    current, heldout : Series of float, indexed by time
        Loss of each row.
    length : Timedelta
        Length of a batch.
    allowed : float
        Relative worsening that is still accepted.
    earlier : sequence of Performance
        Of the same champion's last batches, judged together with this one.
    """
    before, own = part_means(heldout, length / PARTS), part_means(current, length / PARTS)
    now = np.concatenate([*(one.parts for one in earlier), own])
    base = float(before.mean())
    difference = float(now.mean()) - base
    change = difference / base if base > 0 else float("nan")
    at_least = (difference - _margin(before, now)) / base if base > 0 else float("nan")
    return Performance(
        batch=batch,
        rows=len(current),
        scores=scores,
        parts=tuple(own.tolist()),
        change=change,
        at_least=at_least,
        worse=bool(at_least > allowed),
    )


def part_means(losses: pd.Series, part: pd.Timedelta) -> Floats:
    """Mean loss of each stretch of time that holds rows, in time order."""
    start = losses.index.min()
    means: Floats = losses.groupby((losses.index - start) // part).mean().to_numpy()
    return means


def _margin(before: Floats, now: Floats) -> float:
    """Half the width of Welch's one-sided interval; infinite when a spread is unknown."""
    if min(len(before), len(now)) < 2:  # noqa: PLR2004 -- a variance needs two
        return float("inf")
    parts = np.array([before.var(ddof=1) / len(before), now.var(ddof=1) / len(now)])
    if parts.sum() == 0:
        return 0.0
    freedom = parts.sum() ** 2 / (parts**2 / [len(before) - 1, len(now) - 1]).sum()
    return float(stats.t.ppf(CONFIDENCE, freedom) * np.sqrt(parts.sum()))
