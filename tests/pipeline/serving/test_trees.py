import numpy as np
import pytest

from pipeline.columns import encode, known_categories
from pipeline.model import Model, build_estimator
from pipeline.serving.trees import FEW, predictor

ESTIMATORS = {
    "xgboost.XGBClassifier": ("classification", {"n_estimators": 20}),
    "xgboost.XGBRegressor": ("regression", {"n_estimators": 20}),
    "xgboost.XGBRFClassifier": ("classification", {"n_estimators": 20}),
    "sklearn.linear_model.LogisticRegression": ("classification", {}),
    "sklearn.ensemble.HistGradientBoostingRegressor": ("regression", {"max_iter": 20}),
}


@pytest.mark.parametrize("path", ESTIMATORS)
@pytest.mark.parametrize("rows", [1, FEW, FEW + 1, 300])
def test_predictions_are_those_of_the_model(columns, frame, path, rows):
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


def test_two_models_do_not_mix_their_answers(model, frame, columns):
    other = build_estimator("xgboost.XGBClassifier", {"n_estimators": 3}, columns, seed=1)
    matrix = model.encode(frame)
    other.fit(matrix, frame["hours-per-week"] > 20)
    first = predictor(model)
    second = predictor(Model("classification", columns, model.categories, other))

    before = first(matrix)
    second(matrix)

    np.testing.assert_array_equal(before, model.predict_encoded(matrix))
