import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch

from pipeline.columns import as_text
from pipeline.config import Categorical, Numeric
from pipeline.errors import ConfigError, RegistryError
from pipeline.training.estimators import build_estimator, import_estimator
from pipeline.training.model import Model

CLASSIFIERS = [
    ("xgboost.XGBClassifier", {"n_estimators": 10}),
    ("xgboost.XGBRFClassifier", {"n_estimators": 5}),
    ("sklearn.linear_model.LogisticRegression", {}),
    ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 10}),
    ("sklearn.ensemble.RandomForestClassifier", {"n_estimators": 10}),
    ("sklearn.neighbors.KNeighborsClassifier", {}),
]
REGRESSORS = [
    ("xgboost.XGBRegressor", {"n_estimators": 10}),
    ("sklearn.linear_model.Ridge", {}),
    ("sklearn.ensemble.HistGradientBoostingRegressor", {"max_iter": 10}),
]
EVERY = [(path, "classification", params) for path, params in CLASSIFIERS] + [
    (path, "regression", params) for path, params in REGRESSORS
]


@pytest.fixture
def awkward(rows):
    frame = rows.head(5).copy()
    frame["city"] = ["Atlantis", None, "Oslo", "", "Bergen"]
    frame["plan"] = ["gold", None, "free", "pro", "team"]
    frame["age"] = [np.nan, 1, -1e9, 1e9, 0]
    frame["amount"] = [np.nan, 0, 100, 1e9, -1]
    return frame


@pytest.mark.parametrize(("path", "task", "params"), EVERY)
def test_a_loaded_model_predicts_the_same_bits_as_the_saved_model(
    tmp_path, rows, awkward, fit, *, path, task, params
):
    model = fit(path, task, **params)
    frame = pd.concat([rows, awkward])

    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")

    np.testing.assert_array_equal(loaded.predict(frame), model.predict(frame))
    assert (loaded.task, loaded.columns) == (model.task, model.columns)
    assert loaded.categories == model.categories


@pytest.mark.parametrize(("path", "task", "params"), EVERY)
def test_no_pickle_is_written(tmp_path, fit, path, task, params):
    fit(path, task, **params).save(tmp_path)

    assert {file.suffix for file in tmp_path.iterdir()} <= {".json", ".ubj", ".skops"}
    assert not [file for file in tmp_path.iterdir() if file.read_bytes()[:1] == b"\x80"]


@pytest.mark.parametrize(("path", "task", "params"), EVERY)
def test_nulls_and_unseen_labels_are_predicted(awkward, fit, path, task, params):
    predicted = fit(path, task, **params).predict(awkward)

    assert np.isfinite(predicted).all()


@pytest.mark.parametrize(("path", "params"), CLASSIFIERS)
def test_a_classifier_predicts_the_probability_of_one(rows, fit, path, params):
    model = fit(path, **params)

    theirs = model.estimator.predict_proba(model.encode(rows))[:, 1]

    np.testing.assert_allclose(model.predict(rows), theirs, rtol=1e-6)


@pytest.fixture
def by_name(tmp_path, monkeypatch):
    """The import path of a function of the user's that selects columns by name."""
    (tmp_path / "preparing.py").write_text(
        """
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

PLANS = [["team", "free", "pro"]]


def make():
    steps = [
        ("plans", OrdinalEncoder(categories=PLANS), ["plan"]),
        ("cities", OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ("numbers", SimpleImputer(), ["age", "amount"]),
    ]
    return make_pipeline(ColumnTransformer(steps), LogisticRegression())
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "preparing.make"


def test_a_pipeline_gets_its_columns_by_name(tmp_path, rows, data, fit, by_name):
    ours = fit(by_name, logisticregression__C=0.1)
    theirs = import_estimator(by_name)().set_params(logisticregression__C=0.1)
    theirs.fit(rows[list(data.features)], rows["churned"])
    live = rows.head(5).assign(city=["Atlantis", None, "Oslo", "Bergen", "Oslo"])

    ours.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")

    expected = theirs.predict_proba(live.replace("Atlantis", None))[:, 1]
    np.testing.assert_allclose(ours.predict(live), expected, rtol=1e-12)
    np.testing.assert_array_equal(loaded.predict(live), ours.predict(live))


def test_a_parameter_that_a_function_does_not_take_is_refused(data, by_name):
    with pytest.raises(ConfigError, match=r"must suit preparing\.make\. Got depth\."):
        build_estimator(by_name, {"depth": 3}, data.features, seed=0)


def test_a_frame_without_rows_gets_no_predictions(rows, model):
    assert model.predict(rows[:0]).shape == (0,)


def test_codes_train_the_same_model_as_pandas_categories(rows, data, fit):
    ours = fit(n_estimators=20, max_depth=4)
    frame = rows[list(data.features)].copy()
    for name, labels in ours.categories.items():
        frame[name] = pd.Categorical(as_text(frame[name]), categories=labels)
    theirs = xgboost.XGBClassifier(
        n_estimators=20, max_depth=4, enable_categorical=True, random_state=0
    ).fit(frame, rows["churned"])

    np.testing.assert_allclose(ours.predict(rows), theirs.predict_proba(frame)[:, 1], atol=1e-6)


@pytest.mark.parametrize(
    "columns",
    [
        {"amount": Numeric(), "age": Numeric(nullable=True)},
        {"plan": Categorical(), "city": Categorical(nullable=True)},
    ],
)
@pytest.mark.parametrize(("path", "params"), CLASSIFIERS)
def test_columns_of_a_single_type_can_be_trained_on(rows, fit, path, params, columns):
    assert np.isfinite(fit(path, columns=columns, **params).predict(rows)).all()


def foreign(values):
    return values


class Estimator(LogisticRegression):
    pass


@pytest.mark.parametrize(
    "estimator",
    [
        FunctionTransformer(foreign),
        FunctionTransformer(np.testing.rundocs),
        FunctionTransformer(json.loads),
        FunctionTransformer(Bunch),  # a class of scikit-learn, but not of a model
        Estimator(),
    ],
)
def test_types_outside_of_scikit_learn_are_not_loaded(tmp_path, model, estimator):
    replace(model, estimator=estimator).save(tmp_path)

    with pytest.raises(RegistryError, match="must hold types of scikit-learn and numpy only"):
        Model.load(tmp_path)


def test_a_card_that_names_another_class_runs_no_code(tmp_path, model):
    model.save(tmp_path)
    card = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(card | {"estimator": "os.abort"}))

    with pytest.raises(RegistryError, match=r"must name a model of XGBoost\. Got 'os.abort'"):
        Model.load(tmp_path)


@pytest.mark.parametrize(
    "path", ["xgboost.XGBClassifier", "sklearn.linear_model.LogisticRegression"]
)
@pytest.mark.parametrize("share", [0, 0.5])
def test_a_damaged_file_is_refused(tmp_path, fit, path, share):
    fit(path).save(tmp_path)
    for file in tmp_path.iterdir():
        whole = file.read_bytes()
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(RegistryError, match="is damaged or incomplete"):
            Model.load(tmp_path)
        file.write_bytes(whole)


@pytest.mark.parametrize("card", ["[]", "{}", '{"estimator": "x"}'])
def test_a_card_without_its_entries_is_refused(tmp_path, model, card):
    model.save(tmp_path)
    (tmp_path / "model.json").write_text(card)

    with pytest.raises(RegistryError):
        Model.load(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(RegistryError, match="is damaged or incomplete"):
        Model.load(tmp_path)


@pytest.mark.parametrize("path", ["nowhere.Model", "sklearn.svm.Nothing", "word", "", "sklearn."])
def test_a_bad_import_path_is_a_config_error(path):
    with pytest.raises(ConfigError, match=r"training\.estimator must be the import path"):
        import_estimator(path)


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("xgboost.XGBClassifier", {"max_dept": 3}),
        ("sklearn.linear_model.LogisticRegression", {"c": 3}),
        ("sklearn.ensemble.VotingClassifier", {}),
    ],
)
def test_bad_parameters_are_a_config_error(data, path, params):
    with pytest.raises(ConfigError, match=r"training\.params must suit"):
        build_estimator(path, params, data.features, seed=0)


NEAREST = """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics.pairwise import nan_euclidean_distances


class Nearest(ClassifierMixin, BaseEstimator):
    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, matrix, target):
        self.classes_, self.matrix_, self.target_ = np.unique(target), matrix, target
        return self

    def predict_proba(self, matrix):
        nearest = nan_euclidean_distances(matrix, self.matrix_).argmin(axis=1)
        return np.eye(2)[self.target_[nearest].astype(int)]
"""


def test_distances_between_labels_do_not_follow_from_their_order(tmp_path, monkeypatch):
    (tmp_path / "nearest_rows.py").write_text(NEAREST)
    monkeypatch.syspath_prepend(tmp_path)
    columns = {"size": Numeric(nullable=True), "city": Categorical()}
    matrix = np.array([[0.0, 0], [0, 3], [5, np.nan], [np.nan, 0]])

    estimator = build_estimator("nearest_rows.Nearest", {}, columns, seed=0)
    estimator.fit(matrix, np.array([0.0, 1, 1, 0]))

    # By codes the label 2 would be nearer to 3, whose row has the class 1, than to 0.
    assert estimator.predict_proba([[0.0, 2]])[0].tolist() == [1, 0]
    assert np.isnan(estimator[-1].matrix_[3, 0])
    assert estimator[-1].matrix_[:, 1:].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("path", "widths"),
    [
        ("sklearn.ensemble.RandomForestClassifier", None),
        ("sklearn.tree.DecisionTreeRegressor", None),
        ("sklearn.ensemble.BaggingClassifier", 2),
        ("sklearn.linear_model.LogisticRegression", 2),
    ],
)
def test_only_trees_are_given_labels_as_codes(path, widths):
    columns = {"size": Numeric(), "city": Categorical()}

    estimator = build_estimator(path, {}, columns, seed=0)

    assert (len(estimator) if isinstance(estimator, Pipeline) else None) == widths


NO_ESTIMATORS = ["json.loads", "pathlib.Path", "builtins.print", "sklearn.base.BaseEstimator"]


@pytest.mark.parametrize("path", NO_ESTIMATORS)
def test_an_import_path_of_something_else_than_an_estimator_is_refused(data, path):
    sentence = rf"training\.estimator must be .* Got '{path}': (it|a call) "
    with pytest.raises(ConfigError, match=sentence):
        build_estimator(path, {}, data.features, seed=0)


def test_the_seed_makes_training_repeatable(rows, fit):
    path = "sklearn.ensemble.RandomForestClassifier"

    np.testing.assert_array_equal(fit(path).predict(rows), fit(path).predict(rows))


def test_a_configured_random_state_overrides_the_seed(data):
    estimator = build_estimator("xgboost.XGBRegressor", {"random_state": 7}, data.features, seed=0)

    assert estimator.random_state == 7
