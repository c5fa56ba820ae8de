"""Which pairs of columns are followed in a table with too many columns for all pairs."""

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Floats

FOLLOWED = 5_000
"""Most pairs of columns that are followed: all pairs of up to 100 columns."""
_CLEAR, _CERTAIN = 0.3, 5.0
"""Least correlation that is clear, and its least ratio to its standard error.

Of a million pairs, chance alone brings none that far. Among pairs that chance brought further than
the others, a batch would seem to have lost a correlation that never was."""
_STEPS = 10.0
"""Number of classes of clear correlations. Within a class size does not count, as chance does."""
Ints = NDArray[np.intp]
Followed = tuple[tuple[str, str], ...] | None
"""The pairs of columns that are followed; None for all pairs."""


def too_many(columns: int) -> bool:
    """Whether a table has too many columns for all of its pairs to be followed."""
    return columns * (columns - 1) // 2 > FOLLOWED


def choose(correlation: Floats, importance: Floats, *, rows: int) -> tuple[Ints, Ints]:
    """Choose `FOLLOWED` pairs of columns, in the order of the columns.

    Half of the pairs may be those of the most important columns. The clearest correlations of each
    column follow, then the next clearest, of important columns first. What is left goes to
    neighbours in the order of the columns, so that all columns have about equally many.

    Parameters
    ----------
    correlation : array of float, shape (n_columns, n_columns)
        Correlation of every two columns.
    importance : array of float, shape (n_columns,)
        How much the model relies on each column; 0 where that is not known.
    rows : int
        Number of rows behind the correlations.

    Returns
    -------
    two arrays of int, shape (n_pairs,)
        Places of the first and of the second column of each pair.
    """
    n = len(correlation)
    i, j = np.triu_indices(n, 1)
    size, least = np.abs(correlation), max(_CLEAR, _CERTAIN / np.sqrt(max(rows, 1)))
    clear = np.where(size >= least, np.ceil(size * _STEPS), 0.0)
    np.fill_diagonal(clear, 0.0)
    distance = np.abs(np.arange(n)[:, None] - np.arange(n))
    distance = np.minimum(distance, n - distance)
    order = np.argsort(distance - n * clear, axis=1, kind="stable")
    rank = np.empty((n, n), dtype=np.int32)
    np.put_along_axis(rank, order, np.arange(n, dtype=np.int32)[None], axis=1)
    related = clear[i, j] > 0
    turn = np.where(related, np.minimum(rank[i, j], rank[j, i]), n)
    weight = importance[i] + importance[j]
    leading = _leading(importance)
    first = leading[i] & leading[j]
    chosen = np.lexsort((distance[i, j], -weight, turn, ~first))[:FOLLOWED]
    chosen.sort()  # pairs are in the order of the columns already
    return i[chosen], j[chosen]


def _leading(importance: Floats) -> NDArray[np.bool_]:
    """Mark the most important columns, so many that their pairs are half of those followed."""
    most = int(np.sqrt(FOLLOWED))
    leading = np.zeros(len(importance), dtype=bool)
    leading[np.argsort(-importance, kind="stable")[:most]] = True
    return leading & (importance > 0)


def in_both(one: Followed, other: Followed) -> Followed:
    """Pairs that two references follow; None for all pairs."""
    if one is None or other is None:
        return one if other is None else other
    known = set(other)
    return tuple(pair for pair in one if pair in known)
