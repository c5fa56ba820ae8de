import math

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn import metrics

from pipeline.config import Costs
from pipeline.training.costs import costs_of, decide, decision_metrics


@pytest.mark.parametrize(("missed", "threshold"), [(1, 0.5), (9, 0.1), (0.25, 0.8)])
def test_no_other_threshold_of_true_chances_costs_less(missed, threshold):
    costs = Costs(false_positive=1, false_negative=missed)
    chance = (np.arange(100_000) + 0.5) / 100_000  # what each row costs on average is exact

    def expected(cut):
        return np.where(chance >= cut, 1 - chance, missed * chance).mean()

    assert costs.threshold == pytest.approx(threshold)
    for other in np.arange(1, 20) / 20:
        assert expected(costs.threshold) <= expected(other) + 1e-12


def test_a_row_at_the_threshold_is_decided_for_1():
    costs = Costs(false_positive=1, false_negative=3)

    assert decide(costs, np.array([0.24, 0.25, 0.26])).tolist() == [0, 1, 1]


def test_each_wrong_decision_costs_what_was_stated():
    costs = Costs(false_positive=2, false_negative=6)
    target, chance = np.array([0.0, 0, 0, 1, 1]), np.array([0.1, 0.3, 0.2, 0.9, 0.2])

    found = decision_metrics(costs, target, chance)

    assert found == {"cost": (2 + 6) / 5, "precision": 1 / 2, "recall": 1 / 2}


def test_precision_and_recall_equal_those_of_scikit_learn():
    costs = Costs(false_positive=1, false_negative=4)
    random = np.random.default_rng(0)
    chance = random.random(500)
    target = (random.random(500) < chance).astype(float)

    found = decision_metrics(costs, target, chance)

    assert found["precision"] == pytest.approx(metrics.precision_score(target, chance >= 0.2))
    assert found["recall"] == pytest.approx(metrics.recall_score(target, chance >= 0.2))


def test_what_is_never_decided_or_never_true_has_no_precision_or_recall():
    costs = Costs(false_positive=1, false_negative=1)

    found = decision_metrics(costs, np.zeros(3), np.zeros(3))

    assert found["cost"] == 0
    assert math.isnan(found["precision"])
    assert math.isnan(found["recall"])


def test_costs_are_read_back_from_a_manifest():
    costs = Costs(false_positive=1, false_negative=4)

    assert costs_of({"costs": costs.model_dump()}) == costs
    assert costs_of({}) is None


@pytest.mark.parametrize("cost", [0, -1, math.inf])
def test_a_cost_is_a_positive_number(cost):
    with pytest.raises(ValidationError, match="false_negative"):
        Costs(false_positive=1, false_negative=cost)
