"""A stored model of XGBoost against XGBoost's own estimator that reads the same file."""

import json

import numpy as np
import pytest
import xgboost

from pipeline.errors import RegistryError
from pipeline.training.boosters import StoredBooster

RANDOM = np.random.default_rng(0)
X = np.where(RANDOM.random((400, 4)) < 0.1, np.nan, RANDOM.normal(size=(400, 4)))
CODED = np.where(np.isnan(X), -1, X)
TARGET = np.nansum(X, axis=1) + RANDOM.normal(size=400)
TWO, THREE = (TARGET > 0).astype(int), np.digitize(TARGET, [-1, 1])
FITS = {
    "trees": (xgboost.XGBClassifier(n_estimators=8), X, TWO),
    "three classes": (xgboost.XGBClassifier(n_estimators=8), X, THREE),
    "stopped early": (xgboost.XGBClassifier(n_estimators=200, early_stopping_rounds=2), X, TWO),
    "another missing value": (xgboost.XGBClassifier(n_estimators=8, missing=-1), CODED, TWO),
    "dropped trees": (xgboost.XGBClassifier(n_estimators=8, booster="dart", rate_drop=0.5), X, TWO),
    "linear": (xgboost.XGBClassifier(n_estimators=8, booster="gblinear"), X, TWO),
    "forest": (xgboost.XGBRFClassifier(n_estimators=8), X, TWO),
    "regression": (xgboost.XGBRegressor(n_estimators=8), X, TARGET),
    "counts": (xgboost.XGBRegressor(n_estimators=8, objective="count:poisson"), X, THREE),
}


@pytest.mark.parametrize("kind", FITS)
def test_it_predicts_to_the_bit_as_the_estimator(tmp_path, kind):
    estimator, matrix, target = FITS[kind]
    watched = {"eval_set": [(matrix[300:], target[300:])], "verbose": False}
    estimator.fit(matrix[:300], target[:300], **(watched if kind == "stopped early" else {}))
    file = tmp_path / "estimator.ubj"
    estimator.save_model(file)
    theirs = type(estimator)(missing=estimator.missing)
    theirs.load_model(file)

    path = f"xgboost.{type(estimator).__name__}"
    ours = StoredBooster.load(file, path=path, missing=estimator.missing)

    rounds = estimator.best_iteration + 1 if kind == "stopped early" else 0
    assert ours.rounds == rounds < 200
    wanted = "predict" if isinstance(estimator, xgboost.XGBRegressor) else "predict_proba"
    np.testing.assert_array_equal(getattr(ours, wanted)(matrix), getattr(theirs, wanted)(matrix))


def test_a_file_of_another_task_is_refused(tmp_path):
    file = tmp_path / "estimator.ubj"
    xgboost.XGBRegressor(n_estimators=2).fit(X, TARGET).save_model(file)

    with pytest.raises(RegistryError, match=r"must be a XGBClassifier\. Got a regressor\."):
        StoredBooster.load(file, path="xgboost.XGBClassifier", missing=np.nan)


def test_the_file_of_an_estimator_says_its_task(tmp_path):
    """XGBoost writes it; if a later one does not, the refusal above has nothing to go by."""
    xgboost.XGBRegressor(n_estimators=2).fit(X, TARGET).save_model(tmp_path / "estimator.ubj")

    written = xgboost.Booster(model_file=tmp_path / "estimator.ubj").attr("scikit_learn")

    assert json.loads(written)["_estimator_type"] == "regressor"
