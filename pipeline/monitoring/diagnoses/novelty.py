"""Values that the reference never held."""

import numpy as np
import pandas as pd

from pipeline.columns import Floats, as_codes, as_number
from pipeline.monitoring.diagnoses.likelihood import Mask, Places
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.reference.profile import MISSING, CategoricalProfile, NumericProfile


def new_values(
    profile: NumericProfile | CategoricalProfile, values: pd.Series
) -> tuple[Places, Mask]:
    """Number the distinct values of a column, and mark those that the reference never held.

    Returns
    -------
    places : array of int, shape (n_rows,)
        Number of the value of each row; -1 where there is none.
    new : array of bool, shape (n_values,)
        Those that are new.
    """
    if isinstance(profile, CategoricalProfile):
        places, labels = as_codes(values)
        return places, np.asarray([label not in profile.counts for label in labels], dtype=bool)
    places, numbers = pd.factorize(as_number(values))
    return places, new_numbers(profile, np.asarray(numbers))


def share_of_new_values(profile: NumericProfile | CategoricalProfile, values: pd.Series) -> float:
    """Share of the values of a column that the reference never held; 0 without values."""
    places, new = new_values(profile, values)
    known = places[places >= 0]
    return float(new[known].mean()) if len(known) else 0.0


def new_numbers(profile: NumericProfile, values: Floats) -> Mask:
    """Mark numbers that the reference never held; what is not finite is not marked.

    These lie beyond its range or, of a column whose numbers repeat, between its values.
    """
    if not len(profile.points):
        return np.isfinite(values)
    cells = profile.cells(values)
    there = cells != MISSING
    beyond = (values < profile.points[0]) | (values > profile.points[-1])
    empty = profile.weights[np.where(there, cells, 0)] <= 0
    new: Mask = there & (beyond | (empty & repeats(profile)))
    return new


def repeats(profile: NumericProfile) -> bool:
    """Whether the numbers of a column repeat, as hours, tariffs and counts do."""
    often = profile.n >= SHARED.seen * len(profile.points)
    between = profile.weights[::2].sum()  # rows between the points of the grid
    return bool(often and between < SHARED.rare)
