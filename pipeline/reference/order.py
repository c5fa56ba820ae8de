"""What the order of rows shows: how smoothly values continue, and how long they stay."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Floats
from pipeline.reference.profile import NumericProfile

ORDERED = 4_000
"""Number of rows at the start of a batch whose order is summarised."""
_MARGIN = 0.4
"""Part of the reference's interquartile range that counts as clear: about half an sd."""
_AROUND = 4
"""Number of rows before and after from which a value may continue."""
_NEIGHBOURS = 3
"""Fewest rows in which a row has a neighbour on both sides."""


class Order(NamedTuple):
    """How smoothly a column of numbers continues from row to row.

    Attributes
    ----------
    strays : float
        Share of values that stick out from between the values before and after.
    step : float
        Mean distance of a value from the value before, in interquartile ranges of the reference,
        or in the unit of the column where that range is 0.
    even : float
        Share of the most frequent step, steps being rounded to a ten thousandth of the range.
    """

    strays: float
    step: float
    even: float


class Stretch(NamedTuple):
    """Consecutive rows of a column that hold one value, or none.

    Attributes
    ----------
    start, stop : int
        Place of the first row, and of the row after the last.
    """

    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


class Stretches(NamedTuple):
    """The longest stretches of a column.

    Attributes
    ----------
    value, missing : Stretch
        Longest stretch of rows with one value, and of rows without a value.
    """

    value: Stretch
    missing: Stretch


def stretches(values: Floats | NDArray[np.intp], there: NDArray[np.bool_]) -> Stretches:
    """Find the longest stretches of rows with one value, and without one.

    Parameters
    ----------
    values : array of number, shape (n_rows,)
        Numbers, or places of labels, in the order of the rows.
    there : array of bool, shape (n_rows,)
        Rows that hold a value.
    """
    if not len(values):
        return Stretches(Stretch(0, 0), Stretch(0, 0))
    changes = (values[1:] != values[:-1]) & (there[1:] | there[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    stops = np.append(starts[1:], len(values))
    found = []
    for wanted in (there[starts], ~there[starts]):
        rows = np.where(wanted, stops - starts, 0)
        longest = rows.argmax()
        found.append(Stretch(int(starts[longest]), int(starts[longest] + rows[longest])))
    return Stretches(*found)


@np.errstate(over="ignore", invalid="ignore")  # extreme values overflow
def order_of(values: Floats, profile: NumericProfile) -> Order:
    """Measure how smoothly values continue from row to row; all 0 with fewer than two values.

    The parameters are those of `sticking_out`.
    """
    steps = np.diff(values) / (interquartile(profile) or 1.0)
    steps = steps[np.isfinite(steps)]
    step = float(np.abs(steps).mean()) if len(steps) else 0.0
    if not len(steps) or not np.isfinite(step):
        return Order(0.0, 0.0, 0.0)
    _, counts = np.unique(np.round(steps, 4), return_counts=True)
    strays = float(sticking_out(values, profile).mean())
    return Order(strays, step, float(counts.max() / len(steps)))


@np.errstate(over="ignore", invalid="ignore")
def sticking_out(values: Floats, profile: NumericProfile) -> NDArray[np.bool_]:
    """Find values that lie clearly beyond both neighbours and near no other row around.

    Where rows of several places or machines alternate, a value may continue from a row further
    away: four rows before and after are searched for a near value.

    Parameters
    ----------
    values : array of float, shape (n_rows,)
        Values in the order of the rows; NaN where missing.
    profile : NumericProfile
        The column in the reference. Two fifths of its interquartile range count as clear, and a
        fifth as near.
    """
    odd = np.zeros(len(values), dtype=bool)
    wide = interquartile(profile)
    if len(values) < _NEIGHBOURS or wide == 0:  # the column is mostly one value
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
    """Interquartile range of a column, in its own unit; 0 without values."""
    if profile.n == 0:
        return 0.0
    return float(np.subtract(*np.interp([0.75, 0.25], np.asarray(profile.upto), profile.points)))
