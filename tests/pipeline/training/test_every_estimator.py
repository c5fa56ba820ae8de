"""Every estimator of scikit-learn and XGBoost that can be named: it predicts as it does alone."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils import all_estimators

from pipeline.config import Training
from pipeline.errors import ConfigError, PipelineError
from pipeline.training.fitting import fit
from pipeline.training.model import Model

ROWS = 240
SMALLER = {"n_estimators": 5, "n_jobs": 1}
BOOSTERS = {
    "linear": {"booster": "gblinear", "n_estimators": 5},
    "dropped trees": {"booster": "dart", "n_estimators": 5, "rate_drop": 0.5},
    "another missing value": {"missing": -999, "n_estimators": 5},
    "stopped early": {"early_stopping_rounds": 2},
}
QUANTILES = {"objective": "reg:quantileerror", "n_estimators": 5, "n_jobs": 1}
REFUSED = {
    "asks for another estimator": (
        *("StackingClassifier", "StackingRegressor", "VotingClassifier", "VotingRegressor"),
        *("FixedThresholdClassifier", "TunedThresholdClassifierCV", "SelfTrainingClassifier"),
        *("OneVsOneClassifier", "OneVsRestClassifier", "OutputCodeClassifier"),
        *("ClassifierChain", "RegressorChain", "MultiOutputClassifier", "MultiOutputRegressor"),
    ),
    "gives no probability": (
        *("SVC", "NuSVC", "LinearSVC", "RidgeClassifier", "RidgeClassifierCV", "Perceptron"),
        *("PassiveAggressiveClassifier", "SGDClassifier"),
    ),
    "takes no negative number": ("CategoricalNB", "ComplementNB", "MultinomialNB"),
    "takes several targets, or a single column": (
        *("MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV"),
        *("CCA", "PLSCanonical", "IsotonicRegression"),
    ),
    "takes no columns that follow from others": ("QuadraticDiscriminantAnalysis",),
    "takes no labels": ("XGBClassifier linear", "XGBRegressor linear"),
    "needs held-out rows": ("XGBClassifier stopped early", "XGBRegressor stopped early"),
}
"""Estimators, with their defaults, that cannot be used on the tables here, and why."""
SAMPLE = {
    *("sklearn.linear_model.LogisticRegression", "sklearn.ensemble.RandomForestClassifier"),
    *("sklearn.svm.SVC", "sklearn.svm.LinearSVC", "sklearn.linear_model.Ridge"),
    *("sklearn.ensemble.HistGradientBoostingRegressor", "xgboost.XGBClassifier"),
}
"""Estimators that are tried with every change; at night all are."""


def cases():
    kinds = {"classifier": ("classification", "classes"), "regressor": ("regression",)}
    for kind, tasks in kinds.items():
        found = all_estimators(type_filter=kind)
        paths = [f"{one.__module__.partition('._')[0]}.{name}" for name, one in found]
        paths += [f"xgboost.XGB{middle}{kind.title()}" for middle in ("", "RF")]
        for task in tasks:
            for path in paths:
                yield path, task, ""
            yield from ((f"xgboost.XGB{kind.title()}", task, name) for name in BOOSTERS)


@pytest.fixture(scope="module")
def tables(rows, data, claims, claims_data):
    spend = rows["spend"] - rows["spend"].min() + 1  # some take positive numbers only
    regression = data.model_copy(update={"target": "spend"})
    found = {
        "classification": (rows, data),
        "classes": (claims, claims_data),
        "regression": (rows.assign(spend=spend), regression),
    }
    return {task: (table.head(ROWS), declared) for task, (table, declared) in found.items()}


@pytest.mark.parametrize(
    ("path", "task", "variant"),
    [
        pytest.param(*one, id=" ".join(one), marks=() if one[0] in SAMPLE else pytest.mark.night)
        for one in cases()
    ],
)
def test_it_predicts_as_it_does_alone_or_is_refused_in_a_sentence(
    tmp_path, tables, path, task, variant
):
    frame, declared = tables[task]
    kind = "regression" if task == "regression" else "classification"
    name = f"{path.rpartition('.')[2]} {variant}".strip()
    refused = name in {one for names in REFUSED.values() for one in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few rounds do not converge
        try:
            model = fit(
                frame, declared, Training(estimator=path, params=given(path, variant)), kind
            )
            model.save(tmp_path / "model")
            loaded = Model.load(tmp_path / "model")
        except PipelineError as error:
            assert (type(error), refused) == (ConfigError, True)  # noqa: PT017
            assert str(error).endswith(".")  # noqa: PT017
            return
        assert not refused
        matrix = model.encode(frame)
        alone = clone(model.estimator).fit(matrix, model.coded(frame[declared.target].to_numpy()))
        wanted = alone.predict(matrix) if task == "regression" else alone.predict_proba(matrix)

    wanted = wanted[:, 1] if task == "classification" else wanted
    got = loaded.predict(frame)
    got = got[:, model.seen] if task == "classes" else got
    np.testing.assert_array_equal(got, wanted.astype(np.float64))


def test_a_quantile_is_predicted_as_xgboost_predicts_it(tables):
    frame, declared = tables["regression"]
    params = QUANTILES | {"quantile_alpha": 0.9}
    training = Training(estimator="xgboost.XGBRegressor", params=params)

    model = fit(frame, declared, training, "regression")

    alone = clone(model.estimator).fit(model.encode(frame), frame[declared.target])
    assert model.estimator.get_params()["quantile_alpha"] == 0.9
    np.testing.assert_array_equal(model.predict(frame), alone.predict(model.encode(frame)))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"quantile_alpha": [0.1, 0.9]}, "Got 2 numbers for a row"),
        ({"quantile_alfa": 0.9}, r"Got quantile_alfa\. Did you mean quantile_alpha\?"),
    ],
)
def test_several_quantiles_and_misspelled_ones_are_refused(tables, params, said):
    training = Training(estimator="xgboost.XGBRegressor", params=QUANTILES | params)

    with pytest.raises(ConfigError, match=said):
        fit(*tables["regression"], training, "regression")


def test_the_documents_name_each_estimator_that_is_refused():
    page = (Path(__file__).parents[3] / "docs" / "training.md").read_text("utf-8")

    names = {one.partition(" ")[0] for names in REFUSED.values() for one in names}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


def given(path, variant):
    if variant:
        return BOOSTERS[variant] | {"n_jobs": 1}
    known = dict(all_estimators()).get(path.rpartition(".")[2])
    if known is None:
        return {"n_estimators": 5, "n_jobs": 1}
    names = known._get_param_names()
    return {name: value for name, value in SMALLER.items() if name in names}
