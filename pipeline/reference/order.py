"""What the order of rows says: numbers that go on from row to row, and one that does not."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.reference.profile import Floats, NumericProfile

ORDERED = 4_000
"""First rows of a batch whose order is looked at in its summary."""
_MARGIN = 0.4
"""Of the interquartile range of the reference, about half a standard deviation."""
_AROUND = 4
"""Rows before and after that a value may go on from."""
_NEIGHBOURS = 3
"""Rows of which one has a row before and one after."""


class Order(NamedTuple):
    """How a column of numbers goes on from row to row.

    Attributes
    ----------
    strays : float
        Share of values that stick out from between those before and after.
    step : float
        Mean distance of a value from the one before, in interquartile ranges of the reference, or
        in its own unit where that is 0.
    even : float
        Share of the steps that are the most frequent one, to a ten thousandth of that range.
    """

    strays: float
    step: float
    even: float


def order_of(values: Floats, profile: NumericProfile) -> Order:
    """How numbers go on from row to row; all 0 without two of them.

    Parameters are those of `sticking_out`.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # absurd values overflow
        steps = np.diff(values) / (interquartile(profile) or 1.0)
        steps = steps[np.isfinite(steps)]
        step = float(np.abs(steps).mean()) if len(steps) else 0.0
    if not len(steps) or not np.isfinite(step):
        return Order(0.0, 0.0, 0.0)
    _, counts = np.unique(np.round(steps, 4), return_counts=True)
    strays = float(sticking_out(values, profile).mean())
    return Order(strays, step, float(counts.max() / len(steps)))


def sticking_out(values: Floats, profile: NumericProfile) -> NDArray[np.bool_]:
    """Which values lie clearly beyond both their neighbours, and near to none of the rows around.

    Rows of several places or machines in turn go on from one of their own to the next.

    Parameters
    ----------
    values : array of float, shape (n_rows,)
        In the order of the rows; NaN where missing.
    profile : NumericProfile
        Of the reference: two fifths of its interquartile range are clear, and half of that near.
    """
    odd = np.zeros(len(values), dtype=bool)
    wide = interquartile(profile)
    if len(values) < _NEIGHBOURS or wide == 0:  # mostly one value
        return odd
    values = np.where(np.isfinite(values), values, np.nan)
    before, now, after = values[:-2], values[1:-1], values[2:]
    margin = _MARGIN * wide
    odd[1:-1] = (now > np.maximum(before, after) + margin) | (
        now < np.minimum(before, after) - margin
    )
    places = np.flatnonzero(odd)
    for far in range(2, _AROUND + 1):
        for other in (places - far, places + far):
            inside = (other >= 0) & (other < len(values))
            near = np.abs(values[places] - values[np.where(inside, other, 0)]) < margin / 2
            odd[places[inside & near]] = False
    return odd


def interquartile(profile: NumericProfile) -> float:
    """Distance of a column's quartiles, in its unit; 0 without values."""
    if profile.n == 0:
        return 0.0
    return float(np.subtract(*np.interp([0.75, 0.25], np.asarray(profile.upto), profile.points)))
