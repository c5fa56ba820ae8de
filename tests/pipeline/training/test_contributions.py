import numpy as np
import pandas as pd
import pytest
import xgboost

from pipeline.columns import encode, known_categories
from pipeline.config import Categorical, Numeric
from pipeline.errors import ConfigError
from pipeline.training.contributions import check_explainable, contributions
from pipeline.training.estimators import build_estimator
from pipeline.training.model import Model

COLUMNS = {"a": Numeric(nullable=True), "b": Categorical(nullable=True), "c": Numeric()}


@pytest.fixture(scope="module")
def frame():
    random = np.random.default_rng(0)
    a = np.where(random.random(400) < 0.2, np.nan, random.normal(size=400))
    b = pd.Series(random.choice(["x", "y", "z"], 400)).where(random.random(400) > 0.1)
    return pd.DataFrame({"a": a, "b": b, "c": random.normal(size=400)})


def fitted(frame, path, task, target, classes=()):
    estimator = build_estimator(path, {"n_estimators": 15, "max_depth": 4}, COLUMNS, seed=0)
    model = Model(task, COLUMNS, known_categories(frame, COLUMNS), estimator, classes=classes)
    matrix = encode(frame, COLUMNS, model.categories)
    model.fit(matrix, target)
    return model, matrix


def margins(model, matrix):
    kinds = ["q", "c", "q"]
    rows = xgboost.DMatrix(matrix, feature_types=kinds, enable_categorical=True)
    return model.estimator.get_booster().predict(rows, output_margin=True)


def score(frame):
    return np.nan_to_num(frame["a"]) * frame["c"] + (frame["b"] == "x")


def test_contributions_to_a_number_sum_to_it(frame):
    target = score(frame).to_numpy()
    model, matrix = fitted(frame, "xgboost.XGBRegressor", "regression", target)

    found = contributions(model, matrix)

    assert found.shape == (400, 4)
    np.testing.assert_allclose(found.sum(axis=1), model.predict_encoded(matrix), atol=1e-4)


def test_contributions_to_a_chance_sum_to_its_log_odds(frame):
    target = (score(frame) > 0.3).to_numpy(dtype=float)
    model, matrix = fitted(frame, "xgboost.XGBClassifier", "classification", target)

    found = contributions(model, matrix)

    np.testing.assert_allclose(found.sum(axis=1), margins(model, matrix), atol=1e-4)


def test_contributions_of_several_classes_are_those_to_the_likeliest(frame):
    target = pd.qcut(score(frame), 3, labels=False).to_numpy(dtype=float) + 1  # class 0 is unseen
    classes = ("none", "low", "mid", "high")
    model, matrix = fitted(frame, "xgboost.XGBClassifier", "classification", target, classes)

    found = contributions(model, matrix)

    np.testing.assert_allclose(found.sum(axis=1), margins(model, matrix).max(axis=1), atol=1e-4)


def test_a_column_without_any_part_contributes_nothing(frame):
    target = (frame["c"] > 0).to_numpy(dtype=float)
    model, matrix = fitted(frame, "xgboost.XGBClassifier", "classification", target)

    assert np.abs(contributions(model, matrix)[:, :2]).max() < 1e-6


def test_models_of_other_kinds_are_refused_in_a_sentence(frame):
    target = frame["c"].to_numpy()
    model, _ = fitted_forest(frame, target)

    with pytest.raises(ConfigError, match=r"for models of XGBoost only. Got HistGradientBoosting"):
        check_explainable(model)


def fitted_forest(frame, target):
    path = "sklearn.ensemble.HistGradientBoostingRegressor"
    estimator = build_estimator(path, {"max_iter": 2}, COLUMNS, seed=0)
    model = Model("regression", COLUMNS, known_categories(frame, COLUMNS), estimator)
    matrix = encode(frame, COLUMNS, model.categories)
    model.fit(matrix, target)
    return model, matrix
