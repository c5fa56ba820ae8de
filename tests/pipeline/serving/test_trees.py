import json

import numpy as np
import pandas as pd
import pytest

from pipeline.columns import encode, known_categories
from pipeline.config import Categorical, Numeric
from pipeline.serving.served_version import ServedVersion
from pipeline.serving.trees import FEW, predictor
from pipeline.training import parity
from pipeline.training.estimators import build_estimator
from pipeline.training.model import Model
from pipeline.training.seals import seal

ESTIMATORS = {
    "xgboost.XGBClassifier": ("classification", {"n_estimators": 20}),
    "xgboost.XGBRegressor": ("regression", {"n_estimators": 20}),
    "xgboost.XGBRFClassifier": ("classification", {"n_estimators": 20}),
    "sklearn.linear_model.LogisticRegression": ("classification", {}),
    "sklearn.ensemble.HistGradientBoostingRegressor": ("regression", {"max_iter": 20}),
}


@pytest.mark.parametrize("path", ESTIMATORS)
@pytest.mark.parametrize("rows", [1, FEW, FEW + 1, 300])
def test_predictions_equal_those_of_the_model(columns, frame, path, rows):
    task, params = ESTIMATORS[path]
    categories = known_categories(frame, columns)
    estimator = build_estimator(path, params, columns, seed=0)
    matrix = encode(frame, columns, categories)
    target = (frame["hours-per-week"] > 50) ^ (frame["dest"] == "BOS")
    estimator.fit(matrix, target.astype(int))
    model = Model(task, columns, categories, estimator)
    asked = np.ascontiguousarray(matrix[:rows])

    predictions = predictor(model)(asked)

    expected = model.predict_encoded(asked)
    np.testing.assert_allclose(predictions, expected, rtol=0, atol=1e-6)
    if rows > FEW:
        np.testing.assert_array_equal(predictions, expected)


KINDS = {
    "shallow": {"max_depth": 1},
    "deep": {"max_depth": 12, "min_child_weight": 0},
    "too deep to walk": {"max_depth": 40, "min_child_weight": 0, "grow_policy": "lossguide"},
    "one label at a time": {"max_cat_to_onehot": 50},
    "pruned": {"gamma": 5.0},
    "a given base score": {"base_score": 0.9},
    "several trees a round": {"num_parallel_tree": 3, "subsample": 0.5},
    "other trees": {"booster": "dart", "rate_drop": 0.5},
    "no trees": {"n_estimators": 0},
}


def make_rows(n, *, labels=True, seed=0):
    """Rows with missing values in all columns, their columns, and a target that depends on them."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({name: random.normal(size=n).round(2) for name in "abc"})
    columns = dict.fromkeys("abc", Numeric(nullable=True))
    if labels:
        frame["d"] = random.choice(list("klmnopqrst"), n)
        frame["e"] = random.choice(["x", "y"], n)
        columns |= dict.fromkeys("de", Categorical(nullable=True))
    target = frame["a"].gt(0.3) ^ frame["b"].round().eq(0) ^ random.random(n).__lt__(0.2)
    if labels:
        target ^= frame["d"].isin(list("lnq"))
    for name in frame:
        frame.loc[random.random(n) < 0.2, name] = np.nan
    target ^= frame["a"].isna() | frame["c"].isna()
    return frame, columns, target


@pytest.mark.slow
@pytest.mark.parametrize("labels", [True, False], ids=["labels", "numbers"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror", "count:poisson"])
def test_walked_trees_predict_as_xgboost_does(kind, objective, labels):
    frame, columns, target = make_rows(2_000, labels=labels)
    categories = known_categories(frame, columns)
    path = "XGBClassifier" if objective == "binary:logistic" else "XGBRegressor"
    # Threads wait for each other on a busy machine: forty times as long for the deepest trees.
    params = {"n_estimators": 20, "n_jobs": 1, "objective": objective} | KINDS[kind]
    estimator = build_estimator(f"xgboost.{path}", params, columns, seed=0)
    matrix = encode(frame, columns, categories)
    estimator.fit(matrix, target.astype(int))
    model = Model("regression", columns, categories, estimator)
    asked = np.concatenate([matrix[:400], _at_the_bounds(estimator, matrix)])

    predict = predictor(model)
    predictions = [predict(asked[i : i + n]) for n in (1, FEW) for i in range(0, len(asked), n)]

    expected = np.tile(estimator.get_booster().inplace_predict(asked), 2)
    np.testing.assert_allclose(np.concatenate(predictions), expected, rtol=1e-6, atol=1e-6)


OWN = {
    "another missing value": {"missing": -9.0},
    "linear": {"booster": "gblinear"},
    "stopped early": {"early_stopping_rounds": 2, "n_estimators": 200},
    "dart": {"booster": "dart", "rate_drop": 0.5},
    "a margin of its own": {"base_score": 0.9, "scale_pos_weight": 3.0},
    "random forest": {"num_parallel_tree": 5, "subsample": 0.5, "n_estimators": 1},
}


@pytest.mark.parametrize("labels", [True, False], ids=["labels", "numbers"])
@pytest.mark.parametrize("kind", OWN)
def test_a_stored_model_predicts_as_the_estimator_that_was_fitted_does(kind, labels, tmp_path):
    if kind == "linear" and labels:
        return  # XGBoost's linear booster takes no labels
    frame, columns, target = make_rows(600, labels=labels)
    categories = known_categories(frame, columns)
    params = {"n_estimators": 20, "n_jobs": 1} | OWN[kind]
    estimator = build_estimator("xgboost.XGBClassifier", params, columns, seed=0)
    matrix = encode(frame, columns, categories)
    if kind == "another missing value":
        matrix[::3, 0] = -9.0
    part = {"eval_set": [(matrix[:200], target[:200].astype(int))], "verbose": False}
    given = part if kind == "stopped early" else {}
    estimator.fit(matrix, target.astype(int), **given)
    expected = estimator.predict_proba(matrix)[:, 1]

    Model("classification", columns, categories, estimator).save(tmp_path)
    stored = Model.load(tmp_path)

    np.testing.assert_array_equal(stored.predict_encoded(matrix), expected)
    predict = predictor(stored)
    one_by_one = np.concatenate([predict(matrix[i : i + 1]) for i in range(len(matrix))])
    np.testing.assert_allclose(one_by_one, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(predict(matrix), expected, rtol=1e-6, atol=1e-6)


def _at_the_bounds(estimator, matrix):
    """Rows with the numbers that nodes split at, and the numbers next to them."""
    learner = json.loads(estimator.get_booster().save_raw("json"))["learner"]
    booster = learner["gradient_booster"]
    bounds = [
        bound
        for tree in booster.get("model", booster.get("gbtree", {}).get("model"))["trees"]
        for left, bound in zip(tree["left_children"], tree["split_conditions"], strict=True)
        if left >= 0
    ][:50]
    rows = []
    for bound in np.float32(bounds):
        for value in (bound, np.nextafter(bound, -np.inf), np.nextafter(bound, np.inf)):
            row = matrix[len(rows) % len(matrix)].copy()
            row[:3] = np.float32(value)
            rows.append(row)
    return np.array(rows).reshape(-1, matrix.shape[1])


def test_two_models_do_not_mix_their_predictions(model, frame, columns):
    other = build_estimator("xgboost.XGBClassifier", {"n_estimators": 3}, columns, seed=1)
    matrix = model.encode(frame)
    other.fit(matrix, frame["hours-per-week"] > 20)
    first = predictor(model)
    second = predictor(Model("classification", columns, model.categories, other))

    before = first(matrix)
    second(matrix)

    np.testing.assert_array_equal(before, model.predict_encoded(matrix))


def test_a_regression_whose_leaves_cancel_out_is_served(tmp_path):
    """Counts between 0 and 1,000: near 0, hundreds of leaves add up to little."""
    random = np.random.default_rng(0)
    rows = pd.DataFrame({name: random.normal(size=6_000) for name in "abcd"})
    mean = np.exp(4 + rows["a"] + np.sin(3 * rows["b"])).clip(0, 1_000)
    columns = dict.fromkeys("abcd", Numeric())
    params = {"n_estimators": 400, "max_depth": 6, "learning_rate": 0.05}
    estimator = build_estimator("xgboost.XGBRegressor", params, columns, seed=0)
    model = Model("regression", columns, {}, estimator)
    model.fit(model.encode(rows), random.poisson(mean).astype(float))
    model.save(tmp_path / "model")
    parity.make(model, rows).save(tmp_path / "golden")
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "counts", "version": "1"}))
    seal(tmp_path)

    served = ServedVersion.load(tmp_path)

    few = served.predict([dict(rows.iloc[i]) for i in range(FEW)]).predictions
    np.testing.assert_allclose(few, model.predict(rows[:FEW]), rtol=1e-5, atol=1e-2)
