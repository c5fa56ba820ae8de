"""All numeric columns of a batch judged together, by Hotelling's test."""

from typing import NamedTuple

import numpy as np

from pipeline.columns import Floats
from pipeline.reference.statistics import hotelling_p


class JointShift(NamedTuple):
    """Shift of all locations together.

    Attributes
    ----------
    size : float
        Root mean square of the shift over the axes, in standard deviations, less what chance
        adds. NaN when there is nothing to judge, as are the two chances.
    p_value, reach : float
        Textbook chances of a size as large as this, and as large as the floor.
    """

    size: float
    p_value: float
    reach: float


def joint_shift(
    locations: Floats,
    axes: Floats,
    *,
    rows: float,
    n_reference: int,
    n_covariance: int,
    floor: float,
    inside: bool,
) -> JointShift:
    """Measure how far the means of a batch lie from the reference, along independent axes.

    Parameters
    ----------
    locations : array of float, shape (n_numeric,)
        Mean normal score of each column in the batch.
    axes : array of float, shape (n_numeric, n_axes)
        Directions in which the reference has variance 1, from `NormalScores.axes`.
    rows, n_reference : float, int
        Rows of the batch and of the reference.
    n_covariance : int
        Rows that the axes were estimated from.
    floor : float
        Size of shift whose chance is asked for.
    inside : bool
        Whether the rows of the batch are part of the reference.
    """
    freedom = axes.shape[1]
    noise = (1 / rows if rows else np.inf) + (-1 if inside else 1) / max(n_reference, 1)
    if not 0 < freedom < n_covariance or not 0 < noise < np.inf:
        return JointShift(float("nan"), float("nan"), float("nan"))
    squared = float(((locations @ axes) ** 2).sum())
    chances = hotelling_p(
        np.asarray([squared, freedom * (floor**2 + noise)]) / noise,
        freedom=freedom,
        n_covariance=n_covariance,
    )
    size = float(np.sqrt(max(squared / freedom - noise, 0.0)))
    return JointShift(size, float(chances[0]), float(chances[1]))
