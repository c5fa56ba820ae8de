import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.monitoring.performance import part_means, realised

WEEK = pd.Timedelta("7D")


def loss(days, *, level=1.0, spread=0.3, per_day=50, seed=0, start="2026-01-01"):
    random = np.random.default_rng(seed)
    times = pd.date_range(start, periods=days * per_day, freq=pd.Timedelta("1D") / per_day)
    return pd.Series(random.normal(level, spread, len(times)), index=times)


def judge(current, heldout, allowed=0.05):
    return realised(
        batch="2026-02-01",
        metrics={},
        current=current,
        heldout=heldout,
        length=WEEK,
        allowed=allowed,
    )


def test_equal_losses_are_not_worse():
    judged = judge(loss(7), loss(7))

    assert judged.change == 0
    assert not judged.worse


def test_losses_a_fifth_higher_are_worse():
    judged = judge(loss(7, level=1.2, seed=1), loss(14))

    assert judged.change == pytest.approx(0.2, abs=0.05)
    assert judged.worse


def test_losses_higher_by_no_more_than_is_allowed_are_not_worse():
    assert not judge(loss(7, level=1.2, seed=1), loss(14), allowed=0.25).worse


def test_a_few_noisy_parts_are_not_worse():
    current = loss(2, level=1.2, seed=2) + np.repeat([0.4, -0.4], 50)

    assert not judge(current, loss(14)).worse


def test_a_single_part_is_not_evidence():
    judged = judge(loss(1, level=3.0), loss(14))

    assert judged.at_least == -np.inf
    assert not judged.worse


def test_a_baseline_without_loss_gives_no_relative_change():
    judged = judge(loss(7), loss(14) * 0)

    assert np.isnan(judged.change)
    assert not judged.worse


@given(st.integers(2, 7), st.floats(0.1, 5), st.floats(0, 2), st.integers(0, 100))
def test_the_lower_end_is_never_above_the_change(days, level, spread, seed):
    judged = judge(loss(days, level=level, spread=spread, seed=seed, per_day=5), loss(14))

    assert judged.at_least <= judged.change
    assert judged.rows == days * 5


def test_part_means_are_the_means_of_pandas_resampling():
    losses = loss(10).sample(frac=0.2, random_state=0)
    gap = losses[(losses.index < "2026-01-04") | (losses.index >= "2026-01-07")]

    resampled = gap.sort_index().resample("1D", origin=gap.index.min()).mean().dropna()
    np.testing.assert_allclose(part_means(gap, pd.Timedelta("1D")), resampled)


@pytest.mark.parametrize("trials", [500, pytest.param(5000, marks=pytest.mark.statistics)])
def test_a_model_as_good_as_before_is_called_worse_in_a_batch_of_twenty(share_band, trials):
    """500 trials see a rate of 1% or 11% in nine of ten runs."""
    random = np.random.default_rng(0)
    worse = []
    for seed in range(trials):
        heldout = loss(14, seed=seed, per_day=10)
        current = loss(7, seed=trials + seed, per_day=10)
        days = np.repeat(random.normal(scale=0.3, size=21), 10)
        shocked = judge(current + days[140:], heldout + days[:140], allowed=0.0)
        worse.append(shocked.worse)

    low, high = share_band(trials, 0.045, 0.055)
    assert low <= np.mean(worse) <= high
