"""The best moments to retrain, for somebody who knows the future: dynamic programming."""

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Floats, Matrix


def best_retrains(losses: Matrix, rows: Floats) -> list[tuple[int, ...]]:
    """Find the best retrains for each number of retrains that is allowed.

    A model that is fitted before batch i serves until the next retrain, so the batches fall into
    segments whose losses add up, and the best cut of the batches from i on does not depend on what
    came before (Bellman 1961). It takes n cubed steps.

    Parameters
    ----------
    losses : array of float, shape (n_batches, n_batches)
        In row i and column j, the mean loss on batch j of a model that is fitted before batch i;
        only j >= i is read. The first model is fitted before batch 0, which is no retrain.
    rows : array of float, shape (n_batches,)
        Weight of each batch; losses of batches that weigh nothing are not read.

    Returns
    -------
    list of tuple of int
        At place k, the batches before which to retrain at most k times; k goes from 0 to
        n_batches - 1. Of equally good sets it is the smaller one.

    References
    ----------
    Bellman (1961), On the approximation of curves by line segments using dynamic programming.
    """
    n = len(rows)
    served = _segments(losses, rows)
    left = served[:, n].copy()  # by the number of retrains: loss of the batches from i on
    following: list[NDArray[np.intp]] = []  # ... and the batch before which the next retrain is
    found: list[tuple[int, ...]] = [()] * min(n, 1)
    for k in range(1, n):
        split = served[:, 1:n] + left[1:n]
        next_one = split.argmin(axis=1) + 1
        best = split.min(axis=1)
        better = best < left
        following.append(np.where(better, next_one, n))
        left = np.where(better, best, left)
        found.append(_walked(following, k, n))
    return found


def _segments(losses: Matrix, rows: Floats) -> Matrix:
    """Loss of batches i to j - 1 by a model that is fitted before batch i; infinite for j <= i."""
    n = len(rows)
    weighed = np.triu(np.where(rows > 0, losses, 0.0) * rows)
    sums = np.concatenate([np.zeros((n, 1)), weighed.cumsum(axis=1)], axis=1)
    later = np.arange(n + 1) > np.arange(n)[:, None]
    return np.where(later, sums, np.inf)


def _walked(following: list[NDArray[np.intp]], k: int, n: int) -> tuple[int, ...]:
    """Follow the best next retrains from batch 0 on, with at most k retrains left."""
    place, retrains = 0, list[int]()
    while k:
        ahead = int(following[k - 1][place])
        k -= 1
        if ahead < n:
            retrains.append(ahead)
            place = ahead
    return tuple(retrains)
