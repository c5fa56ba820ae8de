"""Faults of the target: labels in another unit, flipped, recoded or stuck.

A faulty target looks like lost performance and would be learnt. The reference is of the labels
beside predictions by models that had not seen them, which tell what each label should be like.
"""

import pandas as pd
from numpy.typing import ArrayLike

from pipeline.columns import as_text
from pipeline.config import Categorical, Columns, Numeric
from pipeline.monitoring.drift import compare
from pipeline.monitoring.findings import Cause
from pipeline.reference import Reference
from pipeline.reference.profile import CategoricalProfile

PREDICTED = "prediction of the target"
"""Column of the predictions beside the target."""


def describe_target(
    target: pd.Series,
    predictions: ArrayLike,
    *,
    labels: bool,
    time: pd.Series,
    block: pd.Timedelta,
    seed: int,
) -> Reference:
    """Describe the labels of training rows beside their predictions.

    Parameters
    ----------
    target : Series
        Labels, named as the target.
    predictions : array of float, shape (n_rows,)
        By models that were not fitted on the rows.
    labels : bool
        Whether the labels are classes, not numbers.
    time : Series
        Time of each row.
    block : Timedelta
        Length of a live batch.
    seed : int
        Random seed of the draw of rows.
    """
    name = str(target.name)
    columns: Columns = {name: Categorical() if labels else Numeric(), PREDICTED: Numeric()}
    return Reference.fit(
        _beside(target, predictions, labels=labels), columns, time=time, block=block, seed=seed
    )


def target_faults(
    reference: Reference, target: pd.Series, predictions: ArrayLike, *, broken_alpha: float
) -> tuple[Cause, ...]:
    """Faults of the labels of a batch, which the labels themselves have to show.

    Where only their relation to the predictions is lost, the world may have changed; that is lost
    performance.

    Parameters
    ----------
    reference : Reference
        By `describe_target`.
    target : Series
        Labels that have arrived, named as the target.
    predictions : array of float, shape (n_rows,)
        As the reference's were made.
    broken_alpha : float
        As of `compare`.
    """
    name = str(target.name)
    labels = isinstance(reference.columns[name], CategoricalProfile)
    report = compare(
        reference=reference,
        current=_beside(target, predictions, labels=labels),
        broken_alpha=broken_alpha,
    )
    moved = any(found.drifted and found.columns == (name,) for found in report.findings)
    return tuple(cause for cause in report.causes if moved and cause.columns == (name,))


def _beside(target: pd.Series, predictions: ArrayLike, *, labels: bool) -> pd.DataFrame:
    shown = as_text(target) if labels else target
    return pd.DataFrame({str(target.name): shown.to_numpy(), PREDICTED: predictions})
