"""Count a batch with the profiles of a reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import Floats, as_number, require
from pipeline.reference.normal_scores import NormalScores
from pipeline.reference.order import ORDERED, Order, Stretches, order_of, stretches
from pipeline.reference.profile import CategoricalProfile, Cells, NumericProfile, Profile
from pipeline.reference.sampling import NO_CODES, canonical, draw, read_codes, repeats, to_cells

OUTLYING = 3.0
"""Distance from the median, relative to that of the outermost training row, of an outlier."""
QUANTILES = 201
"""Quantiles kept of a batch's numeric column, evenly spaced."""
NO_REPEATS: NDArray[np.intp] = np.empty(0, dtype=np.intp)
_NAMED = 5
"""New labels of a column that are named, the most frequent ones."""


@dataclass(frozen=True)
class Tally:
    """Counts of one batch, by the cells of a reference's profiles.

    Attributes
    ----------
    rows : int
        Number of rows of the batch.
    counts : dict of str to array of float
        Rows per cell of each numeric column; of each categorical column, rows per label of the
        reference and, last, with any other label.
    beyond : dict of str to float
        Mean distance of a numeric column's values outside of the reference's range.
    outliers : dict of str to int
        Number of a numeric column's values that lie `OUTLYING` times as far from its median as
        any training row on that side, or, where half of these are equal to it, on the other side.
    absent, extra : tuple of str
        Columns that the batch lacks, and columns that the reference does not know.
    chosen : array of int, shape (n_rows or `SAMPLE`,)
        Positions of rows drawn at random.
    cells : array of uint16, shape (n_rows or `SAMPLE`, n_columns)
        Cells of the drawn rows, columns in alphabetical order.
    correlation : array of float, shape (n_scores, n_scores)
        Correlation of the normal scores of the drawn rows; NaN where a score is constant.
    repeats : array of int, shape (n_distinct,)
        How often each distinct row of features occurs, in descending order; empty of a sample.
    order : dict of str to Order
        How the first values of each numeric column continue from row to row; empty of a sample.
    stretches : dict of str to Stretches
        Longest stretches of rows with one value of each column; empty of a sample.
    quantiles : dict of str to array of float, shape (`QUANTILES`,)
        Quantiles of each numeric column; empty where the batch holds no value.
    novel : dict of str to dict of str to int
        Rows per label that the reference does not hold, by column; the most frequent ones.
    """

    rows: int
    counts: dict[str, Floats]
    beyond: dict[str, float]
    outliers: dict[str, int]
    absent: tuple[str, ...]
    extra: tuple[str, ...]
    chosen: NDArray[np.intp]
    cells: Cells
    correlation: Floats
    repeats: NDArray[np.intp]
    order: dict[str, Order]
    stretches: dict[str, Stretches]
    quantiles: dict[str, Floats]
    novel: dict[str, dict[str, int]]

    def known(self, name: str) -> float:
        """Number of rows with a value in a column."""
        return float(self.counts[name].sum())


def count_batch(
    frame: pd.DataFrame,
    columns: Mapping[str, Profile],
    normal_scores: NormalScores,
    *,
    features: Sequence[str] | None,
    seed: int,
) -> Tally:
    """Count the rows of a batch, one column at a time.

    Parameters
    ----------
    frame : DataFrame
        The batch; it may lack columns and hold others.
    columns : mapping of str to Profile
        The reference's columns.
    normal_scores : NormalScores
        The reference's normal scores, whose correlations are computed.
    features : sequence of str or None
        Columns in which rows must agree to be repeats of one another; None if the rows are a
        sample, of which neither repeats nor the order tell anything.
    seed : int
        Random seed of the draw of rows.

    Raises
    ------
    DataError
        If a column name occurs twice.
    """
    require(frame, [])
    names = sorted(columns)
    codes = read_codes(frame, columns)
    counts, beyond, outliers, order = {}, {}, {}, {}
    quantiles, novel, longest = {}, {}, {}
    for name in names:
        profile = columns[name]
        if isinstance(profile, NumericProfile):
            values = _values(frame, name)
            there = np.isfinite(values)
            if features is not None:
                order[name] = order_of(values[:ORDERED], profile)
                longest[name] = stretches(values, there)
            known = np.sort(values[there])
            counts[name] = profile.count(known)
            beyond[name] = _beyond(profile, known)
            outliers[name] = _outliers(profile, known)
            places = np.linspace(0, len(known) - 1, QUANTILES).round().astype(np.intp)
            quantiles[name] = known[places] if len(known) else known
        else:
            places = codes.get(name, NO_CODES)[0]
            if features is not None:
                longest[name] = stretches(places, places >= 0)
            counts[name] = profile.count(*codes.get(name, NO_CODES))
            novel[name] = _novel(profile, *codes.get(name, NO_CODES)) if counts[name][-1] else {}
    chosen = canonical(frame, columns, codes)[draw(len(frame), seed)]
    cells = to_cells(frame, columns, codes, chosen)
    return Tally(
        rows=len(frame),
        counts=counts,
        beyond=beyond,
        outliers=outliers,
        absent=tuple(name for name in names if name not in frame.columns),
        extra=tuple(sorted(str(name) for name in frame.columns if name not in columns)),
        chosen=chosen,
        cells=cells,
        correlation=normal_scores.correlations(cells),
        repeats=NO_REPEATS if features is None else repeats(frame, features, codes),
        order=order,
        stretches=longest,
        quantiles=quantiles,
        novel=novel,
    )


def _novel(
    profile: CategoricalProfile, places: NDArray[np.intp], labels: Sequence[str]
) -> dict[str, int]:
    """Rows per label that a profile does not hold, of the most frequent labels."""
    rows = np.bincount(places + 1, minlength=len(labels) + 1)[1:].tolist()
    new = [pair for pair in zip(labels, rows, strict=True) if pair[0] not in profile.counts]
    return dict(sorted(new, key=lambda pair: (-pair[1], pair[0]))[:_NAMED])


def _values(frame: pd.DataFrame, name: str) -> Floats:
    if name not in frame.columns:
        return np.empty(0)
    values: Floats = as_number(frame[name]).to_numpy(dtype=np.float64)
    return values


def _outliers(profile: NumericProfile, known: Floats) -> int:
    """Count values so far from the median that no training row prepares for them."""
    if not len(profile.points):
        return 0
    low, high = profile.points[[0, -1]]
    median = profile.points[np.searchsorted(profile.upto, 0.5)]
    with np.errstate(over="ignore"):
        above, below = high - median, median - low
        if not above + below:  # a constant has no spread to compare with
            return 0
        far = OUTLYING * (above or below), OUTLYING * (below or above)
        return int(np.count_nonzero((known > median + far[0]) | (known < median - far[1])))


def _beyond(profile: NumericProfile, known: Floats) -> float:
    if len(known) == 0 or profile.n == 0:
        return 0.0
    low, high = profile.points[0], profile.points[-1]
    with np.errstate(over="ignore"):
        below, above = known[known < low], known[known > high]
        return float(((low - below).sum() + (above - high).sum()) / len(known))
