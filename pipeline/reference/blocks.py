"""Cut training rows into blocks as long as a live batch: examples of ordinary batches."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.reference.profile import Cells
from pipeline.reference.statistics import novelty_p

NO_BLOCK = 65_535
"""Block number of a row that lies in no block."""


def cut(
    order: pd.Series | None, block: str | pd.Timedelta | int | None, canonical: NDArray[np.intp]
) -> list[NDArray[np.intp]]:
    """Find the rows of each block, in time order.

    A block with fewer than half the rows of the median block is left out.

    Parameters
    ----------
    order : Series of datetime, shape (n_rows,), or None
        Times of the rows; with None the rows keep the order they have.
    block : str, Timedelta, int or None
        Length of a block: a length of time (needs `order`) or a number of rows.
    canonical : array of int, shape (n_rows,)
        Positions of the rows in an order that depends on their content alone.

    Raises
    ------
    ValueError
        If `block` is a length of time and `order` is None.
    """
    n = len(canonical)
    if block is None or n == 0:
        return []
    if isinstance(block, int):
        if order is None:
            rank = np.arange(n)
        else:
            # Rows with equal times are put in canonical order, so that their order has no effect.
            rank = np.empty(n, dtype=np.intp)
            rank[canonical[order.iloc[canonical].argsort(kind="stable")]] = np.arange(n)
        number = rank // block
    elif order is None:
        message = (
            f"A block given as a length of time needs the time of each row. Got {block!r} and no "
            "times. Pass the times, or give the block as a number of rows."
        )
        raise ValueError(message)
    else:
        start = order.min().normalize()
        number = ((order - start) // pd.Timedelta(block)).to_numpy()
    parts = [np.flatnonzero(number == k) for k in np.unique(number)]
    usual = np.median([len(part) for part in parts])
    return [part for part in parts if len(part) >= usual / 2]


def numbered(parts: Sequence[NDArray[np.intp]], n: int) -> Cells:
    """Block number of each of `n` rows, given the rows of each block; else `NO_BLOCK`."""
    numbers = np.full(n, NO_BLOCK, dtype="<u2")
    for number, part in enumerate(parts):
        numbers[part] = min(number, NO_BLOCK - 1)
    return numbers


def novelties(places: NDArray[np.intp], parts: list[NDArray[np.intp]]) -> tuple[float, ...]:
    """For each block, test how many rows hold labels that no other block holds.

    Parameters
    ----------
    places : array of int, shape (n_rows,)
        Label of each row, as a place in a list; -1 for a missing label.
    parts : list of array of int
        Positions of the rows of each block.

    Returns
    -------
    tuple of float
        P-values of the blocks that hold labels.
    """
    whole = np.bincount(places + 1)[1:]
    p_values = []
    for part in parts:
        inside = np.bincount(places[part] + 1, minlength=len(whole) + 1)[1:]
        rest = whole - inside
        p_values.append(
            novelty_p(
                unseen=int(inside[rest == 0].sum()),
                n_current=int(inside.sum()),
                singletons=int((rest == 1).sum()),
                n_reference=int(rest.sum()),
            )
        )
    return tuple(p for p in p_values if np.isfinite(p))
