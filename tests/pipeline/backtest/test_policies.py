import numpy as np
import pytest

from pipeline.backtest.policies import (
    ALWAYS,
    NEVER,
    ORACLE,
    Run,
    cost_of_retrain,
    evenly,
    outcomes,
    run_of,
    scheduled,
)

ONES = np.ones(6)


def aging(n, each=1.0):
    """A model loses `each` more with every batch of age."""
    age = np.arange(n) - np.arange(n)[:, None]
    return np.where(age >= 0, 1 + each * age, np.nan)


def turned(n, at):
    """The world turns round once, before batch `at`."""
    fitted, served = np.arange(n)[:, None], np.arange(n)
    found = np.where((fitted < at) & (served >= at), 2.0, 1.0)
    return np.where(served >= fitted, found, np.nan)


def of(policy, found):
    return next(one for one in found if one.policy == policy)


def test_a_model_serves_until_the_next_retrain():
    run = run_of("two", aging(6), (2, 5))

    assert run.losses.tolist() == [1, 2, 1, 2, 3, 1]


def test_a_cadence_retrains_before_every_kth_batch_and_never_before_the_first():
    runs = {run.policy: run.retrains for run in scheduled(aging(6))}

    assert runs == {
        NEVER: (),
        "every 4 batches": (4,),
        "every 2 batches": (2, 4),
        ALWAYS: (1, 2, 3, 4, 5),
    }


@pytest.mark.parametrize(
    ("retrains", "places"), [(0, ()), (1, (3,)), (2, (2, 4)), (5, (1, 2, 3, 4, 5))]
)
def test_retrains_are_spread_evenly(retrains, places):
    assert evenly(aging(6), retrains).retrains == places


def test_gain_is_a_share_of_that_of_a_retrain_before_every_batch():
    found = outcomes(scheduled(aging(6)), aging(6), ONES)

    assert of(NEVER, found).kept == 0
    assert of(ALWAYS, found).kept == 1
    assert of("every 2 batches", found).kept == pytest.approx((3.5 - 1.5) / 2.5)


def test_batches_count_by_their_rows():
    rows = np.array([1.0, 1, 1, 1, 1, 5])

    found = outcomes([Run(NEVER, aging(6)[0], ())], aging(6), rows)

    assert of(NEVER, found).loss == pytest.approx((1 + 2 + 3 + 4 + 5 + 6 * 5) / 10)


def test_a_batch_without_labels_counts_for_nothing():
    losses, rows = aging(4), np.array([1.0, 1, 0, 1])
    losses[:, 2] = np.nan

    found = outcomes(scheduled(losses), losses, rows)

    assert of(NEVER, found).loss == pytest.approx((1 + 2 + 4) / 3)


def test_the_oracle_retrains_once_where_the_world_turns_once():
    found = outcomes(scheduled(turned(6, 4)), turned(6, 4), ONES)

    assert of(ORACLE, found).retrains == 1
    assert of(ORACLE, found).kept == 1


def test_the_delay_counts_from_the_retrain_of_the_oracle_with_as_many():
    losses = turned(6, 2)

    found = outcomes([run_of("late", losses, (4,)), run_of("early", losses, (1,))], losses, ONES)

    assert (of("late", found).delay, of("late", found).followed) == (2, 1)
    assert np.isnan(of("early", found).delay)
    assert of("early", found).followed == 0


def test_a_cost_makes_the_oracle_retrain_less():
    free, dear = (outcomes([], aging(6), ONES, cost=cost)[-1] for cost in (0.0, 10.0))

    assert (free.retrains, dear.retrains) == (5, 0)


def test_a_cost_is_a_share_of_the_first_models_loss_on_one_batch():
    losses = np.full((5, 5), 2.0)

    run = run_of("twice", losses, (1, 3))
    (found, _) = outcomes([run], losses, np.ones(5), cost=0.5)

    assert cost_of_retrain(losses, np.ones(5), 0.5) == pytest.approx(0.2)
    assert found.cost == pytest.approx(2 + 2 * 0.2)


def test_there_is_no_share_of_a_gain_that_is_none():
    (found, _) = outcomes([run_of(NEVER, ONES * np.ones((6, 1)), ())], np.ones((6, 6)), ONES)

    assert np.isnan(found.kept)
