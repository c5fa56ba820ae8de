import numpy as np
import pytest
from sklearn import metrics

from pipeline.training.metrics import compute_metrics, losses


def test_the_metrics_equal_those_of_scikit_learn():
    random = np.random.default_rng(0)
    truth, chance, number = random.integers(0, 2, 200), random.random(200), random.normal(size=200)
    classified = compute_metrics("classification", truth.astype(float), chance)
    estimated = compute_metrics("regression", number, chance)

    assert classified == pytest.approx(
        {
            "log_loss": metrics.log_loss(truth, chance),
            "roc_auc": metrics.roc_auc_score(truth, chance),
            "average_precision": metrics.average_precision_score(truth, chance),
            "brier": metrics.brier_score_loss(truth, chance),
            "accuracy": metrics.accuracy_score(truth, chance >= 0.5),
            "calibration_error": calibration_error(truth, chance),
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


def calibration_error(truth, chance):
    """By hand, class by class of the prediction."""
    whole = 0.0
    for lower in np.arange(10) / 10:
        inside = (chance >= lower) & (chance < lower + 0.1)
        if inside.any():
            whole += abs(chance[inside].mean() - truth[inside].mean()) * inside.mean()
    return whole


def test_the_mean_loss_equals_the_metric_of_its_name():
    random = np.random.default_rng(1)
    truth, chance = random.integers(0, 2, 200).astype(float), random.random(200)

    for task, name in (
        ("classification", "log_loss"),
        ("regression", "squared_error"),
        ("regression", "mae"),
        ("regression", "squared_log_error"),
    ):
        mean = losses(name, truth, chance).mean()
        assert mean == pytest.approx(compute_metrics(task, truth, chance)[name])


def test_the_logarithmic_error_is_that_of_scikit_learn():
    random = np.random.default_rng(2)
    truth, guess = random.lognormal(size=200), random.lognormal(size=200)

    assert losses("squared_log_error", truth, guess).mean() == pytest.approx(
        metrics.mean_squared_log_error(truth, guess)
    )


def test_a_certain_but_wrong_prediction_has_a_finite_loss():
    assert losses("log_loss", np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(
        -np.log(1e-7), rel=1e-6
    )


def test_the_ranking_of_a_single_class_is_undefined():
    found = compute_metrics("classification", np.ones(5), np.full(5, 0.9))

    assert np.isnan(found["roc_auc"])
    assert np.isnan(found["average_precision"])
    assert found["log_loss"] == pytest.approx(-np.log(0.9))
