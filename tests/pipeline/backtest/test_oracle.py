from itertools import combinations

import numpy as np
import pytest

from pipeline.backtest.oracle import best_retrains


def loss_of(losses, rows, retrains):
    starts, total = [0, *retrains], 0.0
    for place, start in enumerate(starts):
        end = [*starts[1:], len(rows)][place]
        total += (losses[start, start:end] * rows[start:end]).sum()
    return total


@pytest.mark.parametrize("seed", range(20))
def test_no_other_set_of_as_many_retrains_is_better(seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 8))
    losses, rows = random.random((n, n)), random.integers(1, 100, n).astype(float)

    found = best_retrains(losses, rows)

    assert len(found) == n
    for k, retrains in enumerate(found):
        sets = [one for size in range(k + 1) for one in combinations(range(1, n), size)]
        assert len(retrains) <= k
        assert loss_of(losses, rows, retrains) == pytest.approx(
            min(loss_of(losses, rows, one) for one in sets)
        )


def test_a_model_that_never_pays_is_not_trained():
    losses = np.triu(np.ones((5, 5)))
    losses[1:] += 1

    assert best_retrains(losses, np.ones(5))[4] == ()


def test_a_batch_without_labels_says_nothing():
    losses = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, 2.0], [np.nan, np.nan, 1.0]])

    assert best_retrains(losses, np.array([10.0, 0.0, 10.0]))[1] == (2,)
