"""A first estimator that suits the task and the number of rows."""

from typing import Any, Final

_SMALL: Final = 2_000
"""Rows below which boosted trees find more chance than pattern."""
_SIZES: Final = ((10_000, 4, 10, 200), (50_000, 5, 20, 300), (10**12, 6, 50, 400))
"""For up to so many rows: depth of a tree, smallest weight of a leaf, trees."""


def estimator_of(task: str, rows: int) -> tuple[str, dict[str, Any], str]:
    """Choose an estimator, its parameters and the reason.

    Parameters
    ----------
    task : str
        ``classification`` or ``regression``.
    rows : int
        Labelled rows to fit.
    """
    if rows < _SMALL:
        why = f"{rows:,} rows to fit are few for boosted trees"
        if task == "classification":
            return "sklearn.linear_model.LogisticRegression", {"C": 0.1, "max_iter": 1000}, why
        alphas = [0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5]
        return "sklearn.linear_model.RidgeCV", {"alphas": alphas}, why
    depth, weight, trees = next(sizes for most, *sizes in _SIZES if rows <= most)
    params = {
        "n_estimators": trees,
        "learning_rate": 0.05,
        "max_depth": depth,
        "min_child_weight": weight,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
    }
    kind = "Classifier" if task == "classification" else "Regressor"
    return f"xgboost.XGB{kind}", params, f"small steps and shallow trees, for {rows:,} rows to fit"
