"""Values that the reference never held."""

import numpy as np
import pandas as pd

from pipeline.columns import as_codes, as_number
from pipeline.monitoring.diagnoses.likelihood import Mask, Places
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
        Labels that the reference does not hold, and numbers where no row of it lies.
    """
    if isinstance(profile, CategoricalProfile):
        places, labels = as_codes(values)
        return places, np.asarray([label not in profile.counts for label in labels], dtype=bool)
    places, numbers = pd.factorize(as_number(values))
    cells = profile.cells(np.asarray(numbers))
    there = cells != MISSING
    return places, there & (profile.weights[np.where(there, cells, 0)] <= 0)
