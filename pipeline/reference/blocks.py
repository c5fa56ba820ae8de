"""Training rows cut into blocks of a live batch's length, as examples of ordinary batches."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.reference.profile import Cells
from pipeline.reference.statistics import novelty_p

NO_BLOCK = 65_535
"""Number of no block."""


def cut(
    order: pd.Series | None, block: str | pd.Timedelta | int | None, canonical: NDArray[np.intp]
) -> list[NDArray[np.intp]]:
    """Positions of the rows of each block, in time; a block under half the usual is left out.

    Parameters
    ----------
    order : Series of datetime, shape (n_rows,), or None
        Times of the rows; None: they are taken as they lie.
    block : str, Timedelta, int or None
        Length of a block, as a length of time (needs `order`) or a number of rows.
    canonical : array of int, shape (n_rows,)
        Positions of the rows in an order that their own does not change.

    Raises
    ------
    ValueError
        If a length of time is asked for without times.
    """
    n = len(canonical)
    if block is None or n == 0:
        return []
    if isinstance(block, int):
        if order is None:
            rank = np.arange(n)
        else:
            # Rows of one time lie in canonical order.
            rank = np.empty(n, dtype=np.intp)
            rank[canonical[order.iloc[canonical].argsort(kind="stable")]] = np.arange(n)
        number = rank // block
    elif order is None:
        message = "A block given as a length of time needs the time of each row."
        raise ValueError(message)
    else:
        start = order.min().normalize()
        number = ((order - start) // pd.Timedelta(block)).to_numpy()
    parts = [np.flatnonzero(number == k) for k in np.unique(number)]
    usual = np.median([len(part) for part in parts])
    return [part for part in parts if len(part) >= usual / 2]


def numbered(parts: Sequence[NDArray[np.intp]], n: int) -> Cells:
    """Number of the block of each row; `NO_BLOCK` where it lies in none."""
    numbers = np.full(n, NO_BLOCK, dtype="<u2")
    for number, part in enumerate(parts):
        numbers[part] = min(number, NO_BLOCK - 1)
    return numbers


def novelties(places: NDArray[np.intp], parts: list[NDArray[np.intp]]) -> tuple[float, ...]:
    """P-value of the rows of each block whose labels no other block holds."""
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
