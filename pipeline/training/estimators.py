"""Estimators as a configuration names them: imported, built, and prepared for columns."""

from collections.abc import Collection
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import get_tags

from pipeline.config import Categorical, Columns
from pipeline.errors import ConfigError


def import_estimator(path: str) -> Any:
    """Import the class of an estimator by a path such as ``xgboost.XGBClassifier``.

    Raises
    ------
    ConfigError
        If the path names no class that can be imported.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        message = (
            f"training.estimator must be the import path of an estimator. Got {path!r}: {error}. "
            "Use one such as xgboost.XGBClassifier."
        )
        raise ConfigError(message) from error


def build_estimator(path: str, params: dict[str, Any], columns: Columns, *, seed: int) -> Any:
    """Create an unfitted estimator for encoded matrices.

    XGBoost handles labels and nulls itself. Any other estimator that allows NaN is used
    directly, and learns which columns are labels if it has a parameter for that. The rest get
    one-hot encoding, imputation with an indicator, and scaling in front. A function may be named
    instead of a class; the pipeline that it returns prepares columns itself, which it gets by name.

    Raises
    ------
    ConfigError
        If the path or the parameters are wrong.
    """
    kind = import_estimator(path)
    labels = [isinstance(column, Categorical) for column in columns.values()]
    try:
        estimator: BaseEstimator = kind()
        allowed = estimator.get_params()
        arguments = _arguments(params, allowed, labels, seed)
        if isinstance(kind, type):
            estimator = kind(**arguments)
        elif set(params) <= set(allowed):
            estimator.set_params(**arguments)
    except (TypeError, ValueError, AttributeError) as error:
        message = f"training.params must suit {path}. Got: {error}. See its documentation."
        raise ConfigError(message) from error
    unknown = sorted(set(params) - set(allowed))
    if unknown:
        close = [match for name in unknown for match in get_close_matches(name, allowed, n=1)]
        cure = f"Did you mean {', '.join(close)}?" if close else "See its documentation."
        message = f"training.params must suit {path}. Got {', '.join(unknown)}. {cure}"
        raise ConfigError(message)
    if isinstance(estimator, Pipeline) or _takes_nulls(estimator, path):
        return estimator
    return _prepared(estimator, labels)


def _takes_nulls(estimator: BaseEstimator, path: str) -> bool:
    try:
        return bool(get_tags(estimator).input_tags.allow_nan)
    except AttributeError as error:  # its tags are those of an estimator that it was not given
        message = (
            f"training.estimator must not ask for another estimator. Got {path}. Name a function "
            "of yours that returns a pipeline with both, or another estimator."
        )
        raise ConfigError(message) from error


def _arguments(
    params: dict[str, Any], allowed: Collection[str], labels: list[bool], seed: int
) -> dict[str, Any]:
    """Parameters of an estimator, with the seed and the columns that are labels."""
    given = dict(params)
    if "random_state" in allowed:
        given.setdefault("random_state", seed)
    if "feature_types" in allowed:
        given |= {"feature_types": ["c" if label else "q" for label in labels]}
        given |= {"enable_categorical": True}
    if "categorical_features" in allowed:
        given.setdefault("categorical_features", labels)
    return given


def _prepared(estimator: BaseEstimator, labels: list[bool]) -> Pipeline:
    numbers = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    onehot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    steps = ColumnTransformer(
        [
            ("numbers", numbers, [i for i, label in enumerate(labels) if not label]),
            ("labels", onehot, [i for i, label in enumerate(labels) if label]),
        ]
    )
    return make_pipeline(steps, estimator)


def wants_names(estimator: Any) -> bool:
    """Whether it is fitted to columns by name: a pipeline of the user's, none of `_prepared`."""
    return isinstance(estimator, Pipeline) and not _selects_by_place(estimator)


def _selects_by_place(pipeline: Pipeline) -> bool:
    first = pipeline.steps[0][1]
    return isinstance(first, ColumnTransformer) and all(
        isinstance(place, int) for _, _, places in first.transformers for place in places
    )
