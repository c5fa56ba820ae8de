"""Faults of the target: labels in another unit, flipped, recoded or stuck.

A faulty target looks like lost performance and would be learnt. The reference is of the labels
beside predictions by models that had not seen them, which tell what each label should be like.
"""

from collections.abc import Sequence
from pathlib import Path

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
    classes: Sequence[str] = (),
    time: pd.Series,
    block: pd.Timedelta,
    seed: int,
) -> Reference:
    """Describe the labels of training rows beside their predictions.

    Parameters
    ----------
    target : Series
        Labels, named as the target.
    predictions : array, shape (n_rows,)
        By models that were not fitted on the rows: numbers, or labels of several `classes`.
    labels : bool
        Whether the labels are classes, not numbers.
    classes : sequence of str
        Labels of a target of three or more classes, which holds their places; else empty.
    time : Series
        Time of each row.
    block : Timedelta
        Length of a live batch.
    seed : int
        Random seed of the draw of rows.
    """
    name = str(target.name)
    columns: Columns = {
        name: Categorical() if labels else Numeric(),
        PREDICTED: Categorical() if classes else Numeric(),
    }
    frame = _beside(target, predictions, labels=labels, classes=classes)
    return Reference.fit(frame, columns, time=time, block=block, seed=seed)


def target_faults(
    reference: Reference,
    target: pd.Series,
    predictions: ArrayLike,
    *,
    broken_alpha: float,
    classes: Sequence[str] = (),
    kept: Path | None = None,
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
    broken_alpha, kept
        As of `compare`.
    classes : sequence of str
        As of `describe_target`.
    """
    name = str(target.name)
    labels = isinstance(reference.columns[name], CategoricalProfile)
    report = compare(
        reference=reference,
        current=_beside(target, predictions, labels=labels, classes=classes),
        broken_alpha=broken_alpha,
        kept=kept,
    )
    moved = any(found.drifted and found.columns == (name,) for found in report.findings)
    return tuple(cause for cause in report.causes if moved and cause.columns == (name,))


def _beside(
    target: pd.Series, predictions: ArrayLike, *, labels: bool, classes: Sequence[str]
) -> pd.DataFrame:
    shown = as_text(target) if labels else target
    if classes:  # a value that is none of the classes stays as it came
        names = {str(place): label for place, label in enumerate(classes)}
        shown = shown.map(names).fillna(shown)
    return pd.DataFrame({str(target.name): shown.to_numpy(), PREDICTED: predictions})
