"""One batch, counted through the profiles of a reference."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.reference.order import Order
from pipeline.reference.profile import Cells, Floats


@dataclass(frozen=True)
class Tally:
    """One batch, counted through the profiles of a reference.

    Attributes
    ----------
    rows : int
        Rows of the batch.
    counts : dict of str to array of float
        Rows per cell, or per label of the reference and then with any other label.
    beyond : dict of str to float
        Mean distance of a numeric column's values outside of the reference's range.
    absent, extra : tuple of str
        Columns the batch lacks, and those the reference does not know.
    chosen : array of int, shape (n_rows or `SAMPLE`,)
        Positions of rows drawn at random.
    cells : array of uint16, shape (n_rows or `SAMPLE`, n_columns)
        Those rows, columns in alphabetical order.
    correlation : array of float, shape (n_scores, n_scores)
        Of the scores of those rows; NaN where one is constant.
    repeats : array of int, shape (n_distinct,)
        How often each distinct row of features comes, most often first.
    order : dict of str to Order
        How the numbers of the first rows go on from row to row.
    """

    rows: int
    counts: dict[str, Floats]
    beyond: dict[str, float]
    absent: tuple[str, ...]
    extra: tuple[str, ...]
    chosen: NDArray[np.intp]
    cells: Cells
    correlation: Floats
    repeats: NDArray[np.intp]
    order: dict[str, Order]

    def known(self, name: str) -> float:
        """Rows with a value in a column."""
        return float(self.counts[name].sum())
