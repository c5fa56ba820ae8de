import datetime as dt
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from pipeline.config import Data, Training
from pipeline.errors import ConfigError, DataError
from pipeline.training.fitting import fit, train
from pipeline.training.metrics import compute_metrics, importance
from pipeline.training.predictions import PREDICTION, halves_of
from pipeline.training.unseen import cross_fit

FAST = {"n_estimators": 10, "max_depth": 3}
LINEAR = "sklearn.linear_model."
WEEK = pd.Timedelta("7D")


def fitted(rows, data, *, task="classification", holdout="14D", estimator=None, **params):
    default = "xgboost.XGBClassifier" if task == "classification" else "xgboost.XGBRegressor"
    training = Training(estimator=estimator or default, params=params, holdout=holdout)
    return train(rows, data, training, task=task)


@pytest.fixture(scope="session")
def spend(data):
    return Data.model_validate(data.model_dump() | {"target": "spend"})


@pytest.fixture(scope="session")
def trained(rows, data):
    return fitted(rows, data, **FAST)


@pytest.fixture(scope="session")
def older(rows):
    return rows[rows["at"] < rows["at"].max() - pd.Timedelta("14D")]


@pytest.mark.parametrize(
    ("estimator", "params", "weights"),
    [
        (None, FAST, {"scale_pos_weight": 9}),
        (LINEAR + "LogisticRegression", {}, {"class_weight": {0: 1, 1: 9}}),
    ],
)
def test_ones_that_weigh_more_are_predicted_with_higher_chances(
    rows, data, estimator, params, weights
):
    usual = fitted(rows, data, estimator=estimator, **params)
    weighted = fitted(rows, data, estimator=estimator, **params, **weights)

    assert (weighted.heldout[PREDICTION] > usual.heldout[PREDICTION]).mean() > 0.9
    assert weighted.metrics["log_loss"] > usual.metrics["log_loss"]


def test_the_newest_rows_are_held_out_and_the_final_fit_uses_all_rows(trained, rows, older):
    assert list(trained.heldout["id"]) == list(rows["id"][len(older) :])
    assert trained.fitted_rows == len(rows)


def test_held_out_rows_are_chosen_by_time_whatever_the_order_of_rows(rows, data, trained):
    mixed = fitted(rows.sample(frac=1, random_state=1), data, **FAST)

    assert set(mixed.heldout["id"]) == set(trained.heldout["id"])


@pytest.fixture(scope="session")
def memory():
    """An estimator that knows every row it was fitted on by heart."""
    return Training(estimator="sklearn.tree.DecisionTreeClassifier")


def test_cross_fits_predict_rows_that_they_have_not_seen(rows, data, memory):
    noise = rows.assign(churned=np.random.default_rng(0).integers(0, 2, len(rows)) * 1.0)
    model = train(noise, data, memory, task="classification").model

    learnt = model.predict(noise) == noise["churned"]
    _, predictions = cross_fit(model, noise, noise, data, memory, length=WEEK)
    assert learnt.mean() == 1
    assert (predictions == noise["churned"]).mean() < 0.6


def test_rows_without_a_label_are_predicted_by_cross_fits_as_well(rows, data, memory):
    known = rows[:-50]
    model = train(known, data, memory, task="classification").model

    _, predictions = cross_fit(model, known, rows, data, memory, length=WEEK)
    assert len(predictions) == len(rows)


@pytest.mark.parametrize("why", ["one stretch", "one class in a stretch"])
def test_stretches_that_cannot_be_fitted_are_replaced_by_halves_drawn_by_row(
    rows, data, memory, why
):
    noise = rows.assign(churned=np.random.default_rng(0).integers(0, 2, len(rows)) * 1.0)
    length = WEEK
    if why == "one stretch":
        length = pd.Timedelta("1000D")
    else:
        noise["churned"] *= (noise["at"] - noise["at"].min()) // WEEK % 2
    model = train(noise, data, memory, task="classification").model

    halves, predictions = cross_fit(model, noise, noise, data, memory, length=length)
    assert len(halves) == 2
    drawn = halves_of(noise["id"])
    for half in (0, 1):
        np.testing.assert_array_equal(
            predictions[drawn == half], halves[half].predict(noise[drawn == half])
        )
        # A tree repeats what it was fitted on, and knows nothing of the other half.
        fitted = halves[half].predict(noise[drawn != half])
        np.testing.assert_array_equal(fitted, noise["churned"][drawn != half])


def test_halves_that_cannot_be_fitted_leave_the_predictions_of_the_model(rows, data, memory):
    alike = rows.head(200)
    model = train(rows, data, memory, task="classification").model

    same = alike.assign(churned=0.0)
    halves, predictions = cross_fit(model, same, alike, data, memory, length=WEEK)
    assert halves == ()
    np.testing.assert_array_equal(predictions, model.predict(alike))


def test_a_half_is_drawn_for_a_key_once_and_for_all():
    keys = pd.Series(range(10_000))

    drawn = halves_of(keys)
    assert drawn.mean() == pytest.approx(0.5, abs=4 * 0.5 / 100)
    shuffled = keys.sample(frac=1, random_state=1)
    np.testing.assert_array_equal(halves_of(shuffled), drawn[shuffled])
    np.testing.assert_array_equal(halves_of(keys.astype("str")), drawn)


def test_the_judged_model_has_never_seen_a_held_out_row(rows, spend):
    shuffled = rows.assign(amount=np.random.default_rng(0).permutation(len(rows)) / 6.0)
    made = fitted(
        shuffled,
        spend,
        task="regression",
        estimator="sklearn.neighbors.KNeighborsRegressor",
        n_neighbors=1,
    )

    # One neighbour repeats what it was fitted on: without error where it saw the row.
    assert made.metrics["squared_error"] > 1
    np.testing.assert_allclose(made.model.predict(shuffled), shuffled["spend"])


def test_a_target_that_only_held_out_rows_show_cannot_be_learnt(rows, older, data):
    newest = ~rows["id"].isin(older["id"])
    leaked = rows.assign(
        amount=rows["amount"].where(~newest, rows["churned"] * 100),
        churned=rows["churned"],
    )
    made = fitted(leaked, data, **FAST)

    refit = compute_metrics(
        "classification", leaked["churned"][newest], made.model.predict(leaked[newest])
    )
    assert made.metrics["log_loss"] > 2 * refit["log_loss"]


def test_the_judged_model_does_not_know_labels_of_held_out_rows(rows, data):
    late = rows.assign(city=rows["city"].where(rows.index < len(rows) - 5, "Narvik"))
    made = fitted(late, data, **FAST)

    assert "Narvik" not in made.judged.categories["city"]
    assert "Narvik" in made.model.categories["city"]


def test_the_metrics_are_those_of_the_held_out_predictions(trained):
    held = trained.heldout

    assert trained.metrics["log_loss"] == pytest.approx(
        metrics.log_loss(held["churned"], held[PREDICTION])
    )
    assert trained.metrics["roc_auc"] == metrics.roc_auc_score(held["churned"], held[PREDICTION])
    np.testing.assert_array_equal(held[PREDICTION], trained.judged.predict(held))


def test_the_baseline_predicts_the_mean_of_the_older_targets(trained, older):
    held = trained.heldout["churned"]
    mean = older["churned"].mean()

    np.testing.assert_array_equal(trained.trivial, np.full(len(held), mean))
    assert trained.baseline["log_loss"] == pytest.approx(
        metrics.log_loss(held, np.full(len(held), mean))
    )
    assert trained.baseline["roc_auc"] == 0.5


def test_the_same_seed_gives_the_same_model(rows, data, trained):
    again = fitted(rows, data, **FAST)

    assert again.metrics == trained.metrics
    np.testing.assert_array_equal(again.model.predict(rows), trained.model.predict(rows))


def test_the_curve_of_boosting_ends_at_the_loss_of_the_judged_model(trained):
    curve = trained.curve

    assert curve.label == "boosting rounds"
    assert curve.steps == list(range(1, 11))
    assert len(curve.fitted) == len(curve.heldout) == 10
    assert curve.heldout[-1] == pytest.approx(trained.metrics["log_loss"], rel=1e-4)


def test_the_curve_of_boosted_regression_is_in_squared_error(rows, spend):
    made = fitted(rows, spend, task="regression", **FAST)

    assert made.curve.heldout[-1] == pytest.approx(made.metrics["squared_error"], rel=1e-4)


def test_the_curve_of_other_estimators_counts_rows_and_ends_with_all(rows, data, older):
    made = fitted(rows, data, estimator=LINEAR + "LogisticRegression")

    n = len(older)
    assert made.curve.label == "rows fitted"
    assert made.curve.steps == [n // 4, n // 2, n]
    assert made.curve.heldout[-1] == pytest.approx(made.metrics["log_loss"])


def test_the_curve_of_a_few_rows_has_only_the_steps_that_can_be_fitted(rows, older, spend):
    few = rows[len(older) - 3 :]
    made = fitted(few, spend, task="regression", estimator=LINEAR + "Ridge")

    assert made.curve.steps == [3]


def test_every_column_has_an_importance_largest_first(trained, data):
    values = list(trained.importance.values())

    assert set(trained.importance) == set(data.features)
    assert values == sorted(values, reverse=True)


def test_a_constant_column_has_no_importance(rows, data):
    constant = rows.assign(plan="free")
    made = fitted(constant, data, **FAST)

    assert made.importance["plan"] == 0
    assert made.importance["age"] > 0
    again, _ = importance(made.judged, made.heldout, "churned", loss="log_loss", seed=0)
    assert again == made.importance


@pytest.mark.parametrize("estimator", [None, LINEAR + "Ridge"])
def test_regression_beats_its_baseline(rows, spend, estimator):
    params = FAST if estimator is None else {}
    made = fitted(rows, spend, task="regression", estimator=estimator, **params)

    assert set(made.metrics) == {"squared_error", "rmse", "mae", "r2"}
    assert made.metrics["squared_error"] < 0.8 * made.baseline["squared_error"]


@pytest.mark.parametrize(
    "kind", ["bool", "Int64", "boolean", "float32", "int8", "str", "category", object]
)
def test_the_dtype_of_a_target_of_zeros_and_ones_does_not_matter(rows, data, trained, kind):
    made = fitted(rows.astype({"churned": "int8"}).astype({"churned": kind}), data, **FAST)

    assert made.metrics == pytest.approx(trained.metrics)


@pytest.mark.parametrize(
    "spelled",
    [
        lambda target: target.map(lambda value: Decimal(str(value))),
        lambda target: target.astype("category"),
        lambda target: pd.to_timedelta(target, unit="s").astype("timedelta64[ns]"),
        lambda target: target.astype("str"),
    ],
)
def test_numbers_of_a_regression_are_read_in_every_type(rows, spend, spelled):
    rounded = rows.assign(spend=rows["spend"].round(6))
    expected = fitted(rounded, spend, task="regression", **FAST)

    made = fitted(rounded.assign(spend=spelled(rounded["spend"])), spend, task="regression", **FAST)

    assert made.metrics == pytest.approx(expected.metrics)
    assert made.heldout["spend"].dtype == "float64"


@pytest.mark.parametrize(
    ("target", "got"),
    [
        ([0, 2], "2"),
        ([0.0, 0.5], "0.5"),
        (["yes", 1.0], "'yes'"),
        (["yes", "no"], "'yes', 'no'"),
        (pd.to_timedelta([0, 1], unit="h").tolist(), "Timedelta.*"),
        (pd.to_datetime([0, 1]).tolist(), "Timestamp.*"),
        ([1.0, np.nan], "nan"),
    ],
)
def test_a_target_other_than_zero_and_one_is_refused(rows, data, target, got):
    wrong = rows.assign(churned=target * (len(rows) // 2))

    with pytest.raises(DataError, match=rf"^Target 'churned' must hold 0 and 1 only\. Got {got}\."):
        fitted(wrong, data)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("a", "'a'"),
        (np.inf, "inf"),
        (1e39, r"1e\+39"),
        (-1e300, r"-1e\+300"),
        (np.nan, "nan"),
        (dt.date(2026, 1, 1), "datetime.*"),
        (pd.Timestamp("2026-01-01"), "Timestamp.*"),
    ],
)
def test_a_target_that_is_not_finite_or_too_large_for_a_booster_is_refused(rows, spend, value, got):
    wrong = rows.assign(spend=[1.0, value] * (len(rows) // 2))
    rule = r"must hold finite numbers from -3\.4e\+38 to 3\.4e\+38"

    with pytest.raises(DataError, match=rf"^Target 'spend' {rule} only\. Got {got}\."):
        fitted(wrong, spend, task="regression")


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_single_class_is_refused(rows, data, value):
    with pytest.raises(DataError, match=rf"at least two values .* Got {value} in all 600\."):
        fitted(rows.assign(churned=value), data)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("estimator", [None, LINEAR + "LogisticRegression"])
def test_a_single_class_before_the_holdout_is_refused(rows, older, data, estimator, value):
    target = np.where(rows.index < len(older), value, 1 - value)

    with pytest.raises(DataError, match=r"in the rows before training\.holdout\. Got"):
        fitted(rows.assign(churned=target), data, estimator=estimator)


def test_a_window_shorter_than_the_holdout_is_refused(rows, data):
    with pytest.raises(DataError, match=r"longer than training\.holdout \(60D\)\. Got 0 rows"):
        fitted(rows, data, holdout="60D")


def test_a_window_without_labelled_rows_is_refused(rows, data):
    with pytest.raises(DataError, match="has no labelled rows"):
        fitted(rows[:0], data)


@pytest.mark.parametrize(
    ("estimator", "params"),
    [
        (None, {"max_depth": "deep"}),
        (None, {"learning_rate": -1}),
        (LINEAR + "LogisticRegression", {"C": "big"}),
        ("sklearn.ensemble.RandomForestClassifier", {"max_depth": "deep"}),
    ],
)
def test_a_bad_parameter_is_named_in_one_line(rows, data, estimator, params):
    named = rf"^training\.params must suit .* Got: .*{next(iter(params))}.*\.$"

    with pytest.raises(ConfigError, match=named) as caught:
        fitted(rows, data, estimator=estimator, **params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "got"),
    [
        ({"objective": "rank:pairwise"}, "numbers from -"),
        ({"objective": "binary:logitraw"}, "numbers from -"),
        ({"learning_rate": float("nan")}, "nan"),
    ],
)
def test_a_model_that_predicts_no_probabilities_is_refused(rows, data, params, got):
    said = rf"^training\.estimator must predict a probability from 0 to 1 of each row\. Got {got}"

    with pytest.raises(ConfigError, match=said):
        fitted(rows, data, **params)
    with pytest.raises(ConfigError, match=said):
        fit(rows, data, Training(params=params), "classification")


def test_a_model_that_predicts_no_finite_numbers_is_refused(rows, spend):
    with pytest.raises(ConfigError, match=r"^training\.estimator must predict a finite number of"):
        fitted(rows, spend, task="regression", learning_rate=1e30)


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Writes the module `mine`, which can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    yield (tmp_path / "mine.py").write_text
    sys.modules.pop("mine", None)


@pytest.mark.parametrize(
    "text",
    [
        "import nowhere_to_be_found",
        "def made(:",
        "1 / 0",
        "raise SystemExit(3)",
        "made = 3",
        "def made(): import nowhere_to_be_found",
        "def made(): open('/nowhere/to/be/found')",
        "def made(): raise SystemExit(3)",
        "class Odd(Exception): pass\ndef made(): raise Odd",
    ],
)
def test_whatever_a_module_of_the_user_raises_is_a_sentence(rows, data, write_module, text):
    write_module(text)

    with pytest.raises(ConfigError, match=r"^training\.estimator must .* Got.*\.$"):
        fitted(rows, data, estimator="mine.made")


def test_an_objective_that_does_not_exist_is_refused(rows, data):
    with pytest.raises(ConfigError, match="Got: Unknown objective function: `multi:nothing`"):
        fitted(rows, data, objective="multi:nothing")


@pytest.mark.parametrize("rounds", [0, -1])
def test_a_booster_without_a_round_is_refused(rows, data, rounds):
    with pytest.raises(ConfigError, match=rf"n_estimators must be at least 1\. Got {rounds}\."):
        fitted(rows, data, n_estimators=rounds)


def test_the_place_in_the_source_of_xgboost_is_not_quoted(rows, spend):
    with pytest.raises(ConfigError, match=r"Got: label must be positive for gamma regression\."):
        fitted(rows, spend, task="regression", objective="reg:gamma")


def test_early_stopping_on_the_held_out_rows_is_refused(rows, data):
    with pytest.raises(ConfigError, match="must not hold early_stopping_rounds"):
        fitted(rows, data, early_stopping_rounds=5)


@pytest.mark.parametrize(
    ("task", "estimator"),
    [
        ("classification", "xgboost.XGBRegressor"),
        ("classification", LINEAR + "Ridge"),
        ("classification", "sklearn.svm.LinearSVC"),
        ("regression", "xgboost.XGBClassifier"),
        ("regression", LINEAR + "LogisticRegression"),
    ],
)
def test_an_estimator_of_the_other_task_is_refused(rows, data, spend, task, estimator):
    columns = data if task == "classification" else spend

    with pytest.raises(ConfigError, match=rf"for the task {task}\. Got {estimator}\."):
        fitted(rows, columns, task=task, estimator=estimator)
