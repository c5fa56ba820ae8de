import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from pipeline.config import Data, Training
from pipeline.data.labels import join_labels, labelled
from pipeline.errors import ConfigError, DataError
from pipeline.training.fitting import PREDICTION, out_of_sample, train
from pipeline.training.metrics import evaluate, importance, losses

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


def test_the_newest_rows_are_held_out_and_all_are_fitted_in_the_end(trained, rows, older):
    assert list(trained.heldout["id"]) == list(rows["id"][len(older) :])
    assert trained.fitted_rows == len(rows)


def test_held_out_rows_are_found_by_time_however_the_rows_lie(rows, data, trained):
    mixed = fitted(rows.sample(frac=1, random_state=1), data, **FAST)

    assert set(mixed.heldout["id"]) == set(trained.heldout["id"])


@pytest.fixture(scope="session")
def memory():
    """An estimator that knows every row it was fitted on by heart."""
    return Training(estimator="sklearn.tree.DecisionTreeClassifier")


def test_predictions_out_of_sample_come_from_fits_that_have_not_seen_the_row(rows, data, memory):
    noise = rows.assign(churned=np.random.default_rng(0).integers(0, 2, len(rows)) * 1.0)
    model = train(noise, data, memory, task="classification").model

    learnt = model.predict(noise) == noise["churned"]
    unseen = out_of_sample(model, noise, noise, data, memory, length=WEEK) == noise["churned"]
    assert learnt.mean() == 1
    assert unseen.mean() < 0.6


def test_rows_without_a_label_yet_are_predicted_as_well(rows, data, memory):
    known = rows[:-50]
    model = train(known, data, memory, task="classification").model

    assert len(out_of_sample(model, known, rows, data, memory, length=WEEK)) == len(rows)


def test_a_half_that_cannot_be_fitted_alone_leaves_the_models_own_answers(rows, data, memory):
    alike = rows.assign(churned=(rows["at"] < rows["at"].min() + pd.Timedelta("7D")) * 1.0)
    model = train(alike, data, memory, task="classification").model

    answers = out_of_sample(model, alike, alike, data, memory, length=WEEK)
    assert (answers == model.predict(alike)).all()


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
    assert made.scores["squared_error"] > 1
    np.testing.assert_allclose(made.model.predict(shuffled), shuffled["spend"])


def test_a_target_that_only_held_out_rows_show_cannot_be_learnt(rows, older, data):
    newest = ~rows["id"].isin(older["id"])
    leaked = rows.assign(
        amount=rows["amount"].where(~newest, rows["churned"] * 100),
        churned=rows["churned"],
    )
    made = fitted(leaked, data, **FAST)

    refit = evaluate(
        "classification", leaked["churned"][newest], made.model.predict(leaked[newest])
    )
    assert made.scores["log_loss"] > 2 * refit["log_loss"]


def test_labels_the_held_out_rows_bring_are_unknown_to_the_judged_model(rows, data):
    late = rows.assign(city=rows["city"].where(rows.index < len(rows) - 5, "Narvik"))
    made = fitted(late, data, **FAST)

    assert "Narvik" not in made.judged.categories["city"]
    assert "Narvik" in made.model.categories["city"]


def test_the_scores_are_those_of_the_held_out_predictions(trained):
    held = trained.heldout

    assert trained.scores["log_loss"] == pytest.approx(
        metrics.log_loss(held["churned"], held[PREDICTION])
    )
    assert trained.scores["roc_auc"] == metrics.roc_auc_score(held["churned"], held[PREDICTION])
    np.testing.assert_array_equal(held[PREDICTION], trained.judged.predict(held))


def test_the_baseline_predicts_the_mean_of_the_older_targets(trained, older):
    held = trained.heldout["churned"]
    mean = older["churned"].mean()

    assert trained.trivial == mean
    assert trained.baseline["log_loss"] == pytest.approx(
        metrics.log_loss(held, np.full(len(held), mean))
    )
    assert trained.baseline["roc_auc"] == 0.5


def test_the_same_seed_gives_the_same_model(rows, data, trained):
    again = fitted(rows, data, **FAST)

    assert again.scores == trained.scores
    np.testing.assert_array_equal(again.model.predict(rows), trained.model.predict(rows))


def test_the_curve_of_boosting_ends_at_the_loss_of_the_judged_model(trained):
    curve = trained.curve

    assert curve.label == "boosting rounds"
    assert curve.steps == list(range(1, 11))
    assert len(curve.fitted) == len(curve.heldout) == 10
    assert curve.heldout[-1] == pytest.approx(trained.scores["log_loss"], rel=1e-4)


def test_the_curve_of_boosted_regression_is_in_squared_error(rows, spend):
    made = fitted(rows, spend, task="regression", **FAST)

    assert made.curve.heldout[-1] == pytest.approx(made.scores["squared_error"], rel=1e-4)


def test_the_curve_of_other_estimators_counts_rows_and_ends_with_all(rows, data, older):
    made = fitted(rows, data, estimator=LINEAR + "LogisticRegression")

    n = len(older)
    assert made.curve.label == "rows fitted"
    assert made.curve.steps == [n // 4, n // 2, n]
    assert made.curve.heldout[-1] == pytest.approx(made.scores["log_loss"])


def test_a_handful_of_older_rows_gives_a_curve_of_what_can_be_fitted(rows, older, spend):
    few = rows[len(older) - 3 :]
    made = fitted(few, spend, task="regression", estimator=LINEAR + "Ridge")

    assert made.curve.steps == [3]


def test_every_column_has_an_importance_largest_first(trained, data):
    values = list(trained.importance.values())

    assert set(trained.importance) == set(data.features)
    assert values == sorted(values, reverse=True)


def test_a_column_the_model_cannot_use_has_no_importance(rows, data):
    constant = rows.assign(plan="free")
    made = fitted(constant, data, **FAST)

    assert made.importance["plan"] == 0
    assert made.importance["age"] > 0
    again = importance(made.judged, made.heldout, "churned", seed=0)
    assert again == made.importance


@pytest.mark.parametrize("estimator", [None, LINEAR + "Ridge"])
def test_regression_beats_its_baseline(rows, spend, estimator):
    params = FAST if estimator is None else {}
    made = fitted(rows, spend, task="regression", estimator=estimator, **params)

    assert set(made.scores) == {"squared_error", "rmse", "mae", "r2"}
    assert made.scores["squared_error"] < 0.8 * made.baseline["squared_error"]


@pytest.mark.parametrize("kind", ["bool", "Int64", "boolean", "float32", "int8"])
def test_the_type_that_holds_zero_and_one_does_not_matter(rows, data, trained, kind):
    made = fitted(rows.astype({"churned": "int8"}).astype({"churned": kind}), data, **FAST)

    assert made.scores == pytest.approx(trained.scores)


@pytest.mark.parametrize(
    ("target", "got"),
    [
        ([0, 2], "2"),
        ([0.0, 0.5], "0.5"),
        (["yes", 1.0], "'yes'"),
        (["0", "1"], "'0', '1'"),
        ([1.0, np.nan], "nan"),
    ],
)
def test_a_target_other_than_zero_and_one_is_refused(rows, data, target, got):
    wrong = rows.assign(churned=target * (len(rows) // 2))

    with pytest.raises(DataError, match=rf"^Target 'churned' must hold 0 and 1 only\. Got {got}\."):
        fitted(wrong, data)


@pytest.mark.parametrize(("value", "got"), [("a", "'a'"), (np.inf, "inf"), (np.nan, "nan")])
def test_a_target_that_is_no_finite_number_is_refused(rows, spend, value, got):
    wrong = rows.assign(spend=[1.0, value] * (len(rows) // 2))

    with pytest.raises(DataError, match=rf"must hold finite numbers only\. Got {got}\."):
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


def test_no_labelled_rows_are_refused(rows, data):
    with pytest.raises(DataError, match="must hold labelled rows"):
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
def test_a_bad_value_of_a_parameter_is_one_line_naming_it(rows, data, estimator, params):
    named = rf"^training\.params must suit .* Got: .*{next(iter(params))}.*\.$"

    with pytest.raises(ConfigError, match=named) as caught:
        fitted(rows, data, estimator=estimator, **params)
    assert "\n" not in str(caught.value)


def test_stopping_early_on_the_held_out_rows_is_refused(rows, data):
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


def test_labels_join_by_key_and_keep_every_row_in_its_order(rows, data):
    labels = rows[["id", "churned"]].sample(100, random_state=0)
    joined = join_labels(rows, labels, data)

    expected = rows["churned"].where(rows["id"].isin(labels["id"]))
    assert list(joined["id"]) == list(rows["id"])
    pd.testing.assert_series_equal(joined["churned"], expected)


def test_the_newest_label_of_a_key_wins(rows, data):
    labels = pd.DataFrame({"id": ["r0", "r1", "r0"], "churned": [0.0, 1.0, 1.0]})

    assert list(join_labels(rows[:2], labels, data)["churned"]) == [1, 1]


def test_keys_that_read_the_same_are_one_key(rows, data):
    numbered = rows[:3].assign(id=["1", "2", "3"])
    labels = pd.DataFrame({"id": pd.Series([1, "1", 2.0], dtype=object), "churned": [0, 1, 0]})
    joined = join_labels(numbered, labels, data)

    assert list(joined["id"]) == ["1", "2", "3"]
    assert list(joined["churned"][:2]) == [1, 0]


def test_labels_without_key_or_target_are_refused(rows, data):
    with pytest.raises(DataError, match="id, churned"):
        join_labels(rows, pd.DataFrame({"x": [1]}), data)


def test_a_label_is_used_from_its_delay_on_and_not_before(rows, data):
    delayed = Data.model_validate(data.model_dump() | {"label_delay": "3D"})
    as_of = pd.Timestamp("2026-01-11")

    newest = labelled(rows, delayed, as_of=as_of)["at"].max()
    assert newest == pd.Timestamp("2026-01-08")
    assert labelled(rows, data, as_of=as_of)["at"].max() == as_of


def test_rows_whose_label_never_came_are_left_out(rows, data):
    half = rows.assign(churned=rows["churned"].where(rows.index % 2 == 0))

    assert len(labelled(half, data, as_of=rows["at"].max())) == len(rows) / 2


def test_rows_without_the_target_are_refused(rows, data):
    with pytest.raises(DataError, match="must hold the target 'churned'"):
        labelled(rows.drop(columns="churned"), data, as_of=rows["at"].max())


def test_scores_are_scikit_learns():
    random = np.random.default_rng(0)
    truth, chance, number = random.integers(0, 2, 200), random.random(200), random.normal(size=200)
    classified = evaluate("classification", truth.astype(float), chance)
    estimated = evaluate("regression", number, chance)

    assert classified == pytest.approx(
        {
            "log_loss": metrics.log_loss(truth, chance),
            "roc_auc": metrics.roc_auc_score(truth, chance),
            "brier": metrics.brier_score_loss(truth, chance),
        }
    )
    assert estimated == pytest.approx(
        {
            "squared_error": metrics.mean_squared_error(number, chance),
            "rmse": metrics.root_mean_squared_error(number, chance),
            "mae": metrics.mean_absolute_error(number, chance),
            "r2": metrics.r2_score(number, chance),
        }
    )


def test_mean_losses_are_the_scores_they_stand_for():
    random = np.random.default_rng(1)
    truth, chance = random.integers(0, 2, 200).astype(float), random.random(200)

    for task, name in (("classification", "log_loss"), ("regression", "squared_error")):
        mean = losses(task, truth, chance).mean()
        assert mean == pytest.approx(evaluate(task, truth, chance)[name])


def test_a_certain_and_wrong_prediction_costs_a_finite_loss():
    assert losses("classification", np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(
        -np.log(1e-7), rel=1e-6
    )


def test_scores_of_one_class_leave_the_ranking_undefined():
    scores = evaluate("classification", np.ones(5), np.full(5, 0.9))

    assert np.isnan(scores["roc_auc"])
    assert scores["log_loss"] == pytest.approx(-np.log(0.9))
