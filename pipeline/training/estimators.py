"""Estimators as a configuration names them: imported, built, and prepared for columns."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import BaseDecisionTree
from sklearn.utils import get_tags

from pipeline.config import Categorical, Columns, Data, Training
from pipeline.errors import ConfigError, PipelineError, first_line

_PLACE = re.compile(r"^\[\d+:\d+:\d+\] \S+:\d+: ")
"""Time and line of its own source, with which XGBoost begins its errors."""
_BOOSTING = (
    *("rate_drop", "one_drop", "skip_drop", "sample_type", "normalize_type"),
    *("quantile_alpha", "huber_slope", "tweedie_variance_power"),
    *("feature_selector", "top_k"),
)
"""Parameters of dropped trees, objectives and linear models, which XGBoost's estimators take
without listing them; of a misspelled one it would only warn."""

_TREES = (
    *(BaseDecisionTree, RandomForestClassifier, RandomForestRegressor),
    *(ExtraTreesClassifier, ExtraTreesRegressor),
)
"""Estimators that are given labels as codes: trees cut the range of codes as often as they need,
and nothing else can be trusted not to add codes up or to measure distances between them."""


@contextmanager
def suiting(path: str) -> Iterator[None]:
    """Report errors of an estimator as its parameters' fault: rows and target were checked.

    Parameters
    ----------
    path : str
        Import path of the estimator.

    Raises
    ------
    ConfigError
        In place of what an estimator raises.
    """
    try:
        yield
    except PipelineError:
        raise
    except (Exception, SystemExit) as error:  # estimators, and functions of users, raise anything
        got = _PLACE.sub("", first_line(error))
        message = f"training.params must suit {path}. Got: {got}. See its documentation."
        raise ConfigError(message) from error


def import_estimator(path: str) -> Any:
    """Import the class of an estimator by a path such as ``xgboost.XGBClassifier``.

    Raises
    ------
    ConfigError
        If the path names no class that can be imported.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
        if not callable(found):
            message = f"it is a {type(found).__name__}"
            raise TypeError(message)  # noqa: TRY301 -- said as below
    except (Exception, SystemExit) as error:  # a module of the user may raise anything
        message = (
            f"training.estimator must be the import path of an estimator. Got {path!r}: "
            f"{first_line(error)}. Use one such as xgboost.XGBClassifier."
        )
        raise ConfigError(message) from error
    return found


def build_estimator(path: str, params: dict[str, Any], columns: Columns, *, seed: int) -> Any:
    """Create an unfitted estimator for encoded matrices.

    An estimator that allows NaN and has a parameter for it learns which columns are labels, as
    XGBoost does. Trees and forests of scikit-learn get labels as codes. All others get one-hot
    encoding in front, and those that do not allow NaN imputation with an indicator, and scaling.
    A function may be named instead of a class; the pipeline that it returns prepares columns
    itself, which it gets by name.

    Raises
    ------
    ConfigError
        If the path or the parameters are wrong.
    """
    kind = import_estimator(path)
    _require_estimator(kind, path)
    labels = [isinstance(column, Categorical) for column in columns.values()]
    with suiting(path):
        estimator: BaseEstimator = kind()
        allowed = [*estimator.get_params()]
        allowed += _BOOSTING if hasattr(estimator, "get_booster") else ()
        arguments = _arguments(params, allowed, labels, seed)
        if isinstance(kind, type):
            estimator = kind(**arguments)
        elif set(params) <= set(allowed):
            estimator.set_params(**arguments)
    unknown = sorted(set(params) - set(allowed))
    if unknown:
        close = [match for name in unknown for match in get_close_matches(name, allowed, n=1)]
        cure = f"Did you mean {', '.join(close)}?" if close else "See its documentation."
        message = f"training.params must suit {path}. Got {', '.join(unknown)}. {cure}"
        raise ConfigError(message)
    if isinstance(estimator, Pipeline):
        return estimator
    nulls = _takes_nulls(estimator, path)
    native = {"feature_types", "categorical_features"} & {*allowed}
    if nulls and (native or isinstance(estimator, _TREES) or not any(labels)):
        return estimator
    return _prepared(estimator, labels, nulls=nulls)


def _require_estimator(kind: Any, path: str) -> None:
    """Check that a class, or what a function returns, is an estimator.

    Raises
    ------
    ConfigError
        If not.
    """
    got = ""
    if isinstance(kind, type):
        found = kind
    else:
        try:
            found = kind()
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- a user's function raises anything
            found, got = None, f"a call without arguments raises {first_line(error)}"
    if not (hasattr(found, "get_params") and hasattr(found, "fit")):
        message = (
            "training.estimator must be the import path of an estimator, or of a function that "
            f"returns one. Got {path!r}: {got or 'it has no fit and get_params'}. Use one such as "
            "xgboost.XGBClassifier."
        )
        raise ConfigError(message)


def unfitted(data: Data, training: Training, task: str) -> Any:
    """Create the estimator of a model.

    Raises
    ------
    ConfigError
        If the estimator or its parameters are wrong, or do not suit the task.
    """
    estimator = build_estimator(
        training.estimator, training.params, data.features, seed=training.seed
    )
    if getattr(estimator, "early_stopping_rounds", None) is not None:
        message = (
            "training.params must not hold early_stopping_rounds: held-out rows would choose the "
            f"rounds. Got {estimator.early_stopping_rounds}. Set n_estimators."
        )
        raise ConfigError(message)
    rounds = getattr(estimator, "n_estimators", None)
    if hasattr(estimator, "get_booster") and isinstance(rounds, int) and rounds < 1:
        message = (  # XGBoost itself would fit nothing, and predict one number for all rows
            f"training.params.n_estimators must be at least 1. Got {rounds}. Correct it, or leave "
            "it out."
        )
        raise ConfigError(message)
    suits = is_regressor if task == "regression" else is_classifier
    if suits(estimator) and (task == "regression" or hasattr(estimator, "predict_proba")):
        return estimator
    wanted = "a regressor" if task == "regression" else "a classifier with predict_proba"
    message = (
        f"training.estimator must be {wanted} for the task {task}. Got {training.estimator}. "
        "Name another or change task."
    )
    raise ConfigError(message)


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
        if given.get("objective") in ("multi:softmax", "multi:softprob"):
            del given["objective"]  # it is taken by itself, and would fail on a half of two classes
    if "categorical_features" in allowed:
        given.setdefault("categorical_features", labels)
    return given


def _prepared(estimator: BaseEstimator, labels: list[bool], *, nulls: bool) -> Pipeline:
    numbers = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    onehot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    steps = ColumnTransformer(
        [
            (
                "numbers",
                "passthrough" if nulls else numbers,
                [i for i, label in enumerate(labels) if not label],
            ),
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
