"""What the labels of training rows must hold, whatever the model."""

import pandas as pd

from pipeline.columns import LARGEST, as_target, require
from pipeline.config import Data
from pipeline.errors import DataError


def checked_target(
    rows: pd.DataFrame, data: Data, task: str, *, nullable: bool = True
) -> pd.Series:
    """Labels of training rows as numbers.

    Raises
    ------
    DataError
        If the target column is missing, a value is not a label, or a label is null and may not be.
    """
    require(rows, [data.target])
    target = rows[data.target]
    labels, strays = as_target(target, task, data.class_count)
    wrong = strays if nullable else labels.isna()
    if wrong.any():
        got = ", ".join(list(dict.fromkeys(map(repr, target[wrong].tolist())))[:5])
        rule, cure = _RULES[task]
        if data.classes:
            *others, last = data.classes
            rule = f"{', '.join(others)} and {last}"
            cure = "Correct data.classes or the source."
        message = f"Target {data.target!r} must hold {rule} only. Got {got}. {cure}"
        raise DataError(message)
    return labels


_RULES = {
    "classification": (
        "0 and 1",
        "Write 0 and 1 in the source, and leave a label empty that is not known.",
    ),
    "regression": (
        f"finite numbers from -{LARGEST:.1e} to {LARGEST:.1e}",
        "Convert it in the source, and leave a label empty that is not known.",
    ),
}


def check_logarithm(target: pd.Series, loss: str) -> None:
    """Refuse a target of which an error after a logarithm is not defined.

    Raises
    ------
    DataError
        If a label is -1 or less and the loss is ``squared_log_error``.
    """
    if loss == "squared_log_error" and target.min() <= -1:
        message = (
            f"Target {target.name!r} must hold numbers above -1, as training.loss is log. "
            f"Got {target.min():g}. Choose another loss, or shift the target."
        )
        raise DataError(message)


def check_variety(rows: pd.DataFrame, data: Data, where: str) -> None:
    """Refuse a target that holds a single value.

    Raises
    ------
    DataError
        With `where`, which says what rows these are.
    """
    target = rows[data.target]
    if target.nunique() < 2:  # noqa: PLR2004 -- nothing to learn from one value
        message = (
            f"Target {data.target!r} must hold at least two values in the rows {where}. "
            f"Got {target.iloc[0]} in all {len(target)}. Give more history."
        )
        raise DataError(message)
