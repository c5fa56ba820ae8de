"""Targets of three or more classes: fitted, measured, stored and judged."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from pipeline.columns import known_categories
from pipeline.config import Training
from pipeline.errors import ConfigError, DataError, RegistryError
from pipeline.training import parity
from pipeline.training.fitting import train
from pipeline.training.gate import prediction_problems
from pipeline.training.golden import Golden
from pipeline.training.metrics import class_metrics, compute_metrics, losses
from pipeline.training.model import Model
from pipeline.training.predictions import (
    BASELINE,
    CONFIDENCE,
    PREDICTION,
    as_cells,
    figures,
    in_columns,
    of_cells,
)
from pipeline.training.soundness import require_sound
from pipeline.training.unseen import cross_fit, forward

FAST = {"n_estimators": 8, "max_depth": 3, "n_jobs": 1}
ESTIMATORS = {
    "xgboost.XGBClassifier": FAST,
    "sklearn.ensemble.HistGradientBoostingClassifier": {"max_iter": 5},
    "sklearn.linear_model.LogisticRegression": {},
    "sklearn.ensemble.RandomForestClassifier": {"n_estimators": 10},
}


@pytest.fixture(scope="module")
def trained(claims, claims_data):
    training = Training(params=FAST, holdout="10D")
    return train(claims, claims_data, training, task="classification")


@pytest.fixture(scope="module")
def guesses():
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, 300).astype(float)
    chances = random.dirichlet(np.ones(4), 300)
    chances[:30] = np.eye(4)[random.integers(0, 4, 30)]  # sure, and often wrong
    return truth, chances


def test_the_metrics_of_classes_equal_those_of_scikit_learn(guesses):
    truth, chances = guesses
    said = chances.argmax(axis=1)
    clipped = np.clip(chances, 1e-7, 1 - 1e-7)[np.arange(300), truth.astype(int)]

    found = compute_metrics("classification", truth, chances)

    assert found == pytest.approx(
        {
            "log_loss": -np.log(clipped).mean(),
            "roc_auc": metrics.roc_auc_score(truth, chances, multi_class="ovr"),
            "brier": metrics.brier_score_loss(truth, chances, labels=range(4), scale_by_half=False),
            "accuracy": metrics.accuracy_score(truth, said),
        }
    )
    of_classes = class_metrics(truth, chances, tuple("abcd"))
    recalls = metrics.recall_score(truth, said, average=None)
    precisions = metrics.precision_score(truth, said, average=None)
    for place, label in enumerate(tuple("abcd")):
        assert of_classes[f"recall/{label}"] == pytest.approx(recalls[place])
        assert of_classes[f"precision/{label}"] == pytest.approx(precisions[place])
        assert of_classes[f"share/{label}"] == pytest.approx((truth == place).mean())


def test_a_class_that_a_model_does_not_know_had_no_chance(guesses):
    truth, chances = (some[30:] for some in guesses)
    narrow = chances[:, :3] / chances[:, :3].sum(axis=1, keepdims=True)

    lost = losses("log_loss", truth, narrow)

    assert lost[truth == 3] == pytest.approx(-np.log(1e-7))
    assert compute_metrics("classification", truth, narrow)["log_loss"] == lost.mean()
    assert class_metrics(truth, narrow, tuple("abcd"))["recall/d"] == 0


def test_classes_that_do_not_occur_have_no_recall():
    found = class_metrics(np.zeros(5), np.tile([0.2, 0.7, 0.1], (5, 1)), "abc")

    assert found == {"share/a": 1, "recall/a": 0, "precision/b": 0}
    assert np.isnan(compute_metrics("classification", np.zeros(5), np.ones((5, 3)))["roc_auc"])


@pytest.mark.parametrize(("path", "params"), ESTIMATORS.items(), ids=lambda one: str(one)[-20:])
def test_an_estimator_predicts_a_row_of_chances_in_the_declared_order(
    fit_claims, claims, path, params, tmp_path
):
    model = fit_claims(path, **params)
    predicted = model.predict(claims)

    assert predicted.shape == (len(claims), 5)
    assert predicted.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert compute_metrics("classification", claims["kind"].to_numpy(), predicted)["roc_auc"] > 0.7
    assert model.predict(claims[:0]).shape == (0, 5)
    model.save(tmp_path)
    assert np.array_equal(Model.load(tmp_path).predict(claims), predicted)


@pytest.mark.parametrize("path", ESTIMATORS)
@pytest.mark.parametrize("missing", [[3], [0, 2, 3]])
def test_a_class_without_a_row_has_no_chance_and_keeps_its_column(
    fit_claims, claims, path, missing, tmp_path
):
    some = claims[~claims["kind"].isin(missing)]

    model = fit_claims(path, rows=some, **ESTIMATORS[path])
    model.save(tmp_path)
    predicted = Model.load(tmp_path).predict(claims)

    assert (predicted[:, missing] == 0).all()
    assert predicted.sum(axis=1) == pytest.approx(1, abs=1e-5)
    known = [place for place in range(5) if place not in missing]
    likeliest = predicted[:, known].mean(axis=0).argmax()
    assert known[likeliest] == some["kind"].mode()[0]


@pytest.mark.parametrize("objective", ["multi:softmax", "multi:softprob"])
@pytest.mark.parametrize("missing", [[], [0, 2, 3]])
def test_objectives_of_several_classes_give_the_chances_that_none_gives(
    fit_claims, claims, objective, missing, tmp_path
):
    some = claims[~claims["kind"].isin(missing)]
    model = fit_claims(rows=some, objective=objective, **FAST)

    model.save(tmp_path)
    stored = Model.load(tmp_path).predict(claims)

    assert np.array_equal(stored, model.predict(claims))
    assert np.array_equal(stored, fit_claims(rows=some, **FAST).predict(claims))


def test_one_column_of_chances_is_not_spread_over_all_classes(claims, claims_data):
    class Certain:
        def predict_proba(self, matrix):
            return np.ones((len(matrix), 1))

    features = claims_data.features
    known = known_categories(claims, features)
    classes = tuple(claims_data.classes)
    model = Model(
        "classification", features, known, Certain(), classes=classes, seen=[0, 1, 2, 3, 4]
    )

    with pytest.raises(ConfigError, match=r"Got: predict_proba of shape \(900, 1\) where \(900, 5"):
        require_sound(model, model.encode(claims), Training(estimator="mine.Certain"))


def test_training_judges_a_version_by_its_chances(trained, claims):
    heldout = of_cells(trained.heldout[PREDICTION])
    shares = trained.trivial[0]

    assert heldout.shape == trained.trivial.shape == (len(trained.heldout), 5)
    assert trained.metrics["log_loss"] < trained.baseline["log_loss"]
    older = claims[: len(claims) - len(trained.heldout)]["kind"]
    assert shares == pytest.approx([(older == place).mean() for place in range(5)])
    assert {"recall/refund", "share/0"} <= set(trained.of_classes)
    assert trained.curve.heldout[-1] < trained.curve.heldout[0]
    assert max(trained.importance, key=trained.importance.get) == "amount"


def test_a_class_that_first_occurs_in_the_held_out_rows_is_judged_and_learnt(claims, claims_data):
    rows = claims.copy()
    rows.loc[rows.index < 850, "kind"] = rows["kind"].replace(4.0, 0.0)
    rows.loc[rows.index >= 880, "kind"] = 4.0

    found = train(rows, claims_data, Training(params=FAST, holdout="10D"), task="classification")

    assert 4 not in found.judged.seen
    assert 4 in found.model.seen
    assert found.metrics["log_loss"] > np.log(5)


def test_earlier_stretches_are_predicted_with_the_shares_of_classes_as_baseline(
    claims, claims_data
):
    training = Training(params=FAST, holdout="10D")
    found = forward(
        claims, claims_data, training, task="classification", since=claims["at"].iloc[100]
    )

    assert of_cells(found[PREDICTION]).shape == of_cells(found[BASELINE]).shape == (len(found), 5)
    assert len(found) > 100


def test_half_fits_predict_all_classes_whatever_each_has_seen(claims, claims_data):
    rows = claims.copy()
    rows.loc[rows["kind"] == 4, "kind"] = 0.0
    rows.loc[0, "kind"] = 4.0
    training = Training(params=FAST)
    model = train(rows, claims_data, training, task="classification").model

    halves, predicted = cross_fit(
        model, rows, rows, claims_data, training, length=pd.Timedelta("7D")
    )

    assert sorted(len(half.seen) for half in halves) == [4, 5]
    assert predicted.shape == (len(rows), 5)


def test_a_label_that_is_none_of_the_classes_is_refused_in_training(claims, claims_data):
    rows = claims.assign(kind=claims["kind"].astype(object))
    rows.loc[3, "kind"] = "refnud"

    with pytest.raises(DataError, match=r"hold refund, repair, .* and 0 only\. Got 'refnud'\."):
        train(rows, claims_data, Training(params=FAST), task="classification")


def test_golden_rows_hold_the_chances_of_all_classes(trained, claims, tmp_path):
    golden = parity.make(trained.model, claims)
    golden.save(tmp_path)
    again = Golden.load(tmp_path)

    assert np.array_equal(again.predictions, golden.predictions)
    parity.replay(trained.model, again)
    again.predictions[2, [0, 1]] += [0.01, -0.01]
    with pytest.raises(RegistryError, match=r"predicts 1 of \d+ golden rows differently"):
        parity.replay(trained.model, again)


@pytest.mark.parametrize(
    "change",
    [{"seen": [0, 1, 7]}, {"seen": [1, 0]}, {"seen": []}, {"classes": ["a", "a", "b"]}],
)
def test_a_stored_model_whose_classes_do_not_fit_is_refused(trained, tmp_path, change):
    trained.model.save(tmp_path)
    card = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(card | change))

    with pytest.raises(RegistryError, match="damaged"):
        Model.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda chances: chances, None),
        (lambda chances: np.where(chances > 0.9, np.nan, chances), "must be finite numbers"),
        (lambda chances: chances / 2, "of a row must sum to 1. Got sums up to 0.5"),
        (lambda chances: chances * 0 + 0.25, "are the same"),
    ],
)
def test_chances_that_are_none_are_refused_by_the_gate(guesses, change, problem):
    found = prediction_problems(change(guesses[1]), chances=True)

    assert not found if problem is None else problem in found[0]


def test_predictions_are_kept_one_cell_to_a_row(guesses, tmp_path):
    _, chances = guesses
    frame = pd.DataFrame({"a": range(300)}).assign(p=as_cells(chances))
    frame[::-1].to_parquet(tmp_path / "p.parquet")

    assert np.array_equal(of_cells(pd.read_parquet(tmp_path / "p.parquet")["p"])[::-1], chances)
    assert of_cells(frame["p"][:0]).shape == (0,)
    assert np.array_equal(of_cells(pd.Series(as_cells(chances[:, 0]))), chances[:, 0])


def test_what_is_compared_is_the_likeliest_class_and_its_chance(guesses):
    _, chances = guesses
    shown = in_columns(chances, tuple("abcd"))

    assert shown[PREDICTION].tolist() == ["abcd"[place] for place in chances.argmax(axis=1)]
    assert np.array_equal(shown[CONFIDENCE], chances.max(axis=1))
    assert sum(figures(chances, tuple("abcd")).values()) == pytest.approx(1)
    assert figures(chances, tuple("abcd"))["predicted/b"] == (chances.argmax(axis=1) == 1).mean()
