import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.monitoring.indicators import compare_indicators
from pipeline.monitoring.means import PARTS, Baseline, difference

WEEK = pd.Timedelta("7D")
START = pd.Timestamp("2026-01-05")


def hours(weeks, *, since=START):
    return pd.date_range(since, periods=weeks * 168, freq="h")


def drawn(weeks, *, mean=0.2, seed=0, between=0.0):
    """Predictions of rows of an hour; those of a day may share a shift."""
    random = np.random.default_rng(seed)
    shift = np.repeat(random.normal(0, between, weeks * 7), 24)
    return pd.Series(random.beta(20 * mean, 20 * (1 - mean), weeks * 168) + shift, hours(weeks))


def compared(before, now):
    baseline = {"mean_prediction": Baseline.of(before, WEEK, heavy=False)}
    (found,) = compare_indicators(baseline, {"mean_prediction": now}, WEEK)
    return found


def test_the_interval_of_a_change_is_that_of_welchs_test_of_the_days():
    before, now = drawn(3, seed=1), drawn(1, mean=0.22, seed=2)  # too few weeks to count as one

    found = difference(Baseline.of(before, WEEK, heavy=False), now, WEEK)

    days = [rows.to_numpy().reshape(-1, 24).mean(axis=1) for rows in (now, before)]
    assert len(days[0]) == PARTS
    ends = stats.ttest_ind(*days, equal_var=False).confidence_interval(0.9)
    expected = np.array([ends.low, ends.high]) / before.mean()
    assert (found.at_least(0.95), found.at_most(0.95)) == pytest.approx(expected, rel=1e-9)
    assert found.mean == pytest.approx(now.mean() / before.mean() - 1)


@pytest.mark.parametrize("mean", [0.13, 0.27])
def test_a_mean_that_moved_up_or_down_is_found(mean):
    found = compared(drawn(10), drawn(1, mean=mean, seed=1))

    assert found.moved
    assert np.sign(found.change) == np.sign(mean - 0.2)
    assert found.before == pytest.approx(0.2, rel=0.02)


def test_a_change_within_the_limit_has_not_moved_however_sure_it_is():
    found = compared(drawn(10) * 1e-3 + 0.2, drawn(1, seed=1) * 1e-3 + 0.206)

    assert found.low > 0
    assert not found.moved


@pytest.mark.parametrize("between", [0.0, 0.03])
def test_means_that_have_not_changed_hardly_ever_move(between):
    """0.1 a year and twice as many in the tails of t: 2 of 520 weeks, over 6 in 1 of 200."""
    moved = 0
    for seed in range(52):
        rows = drawn(20, seed=seed, between=between)
        for week in range(10, 20):
            moved += compared(rows[: 10 * 168], rows[week * 168 : (week + 1) * 168]).moved

    assert moved <= 6


def test_an_indicator_that_was_zero_has_no_relative_change():
    found = compared(drawn(10) * 0, drawn(1))

    assert np.isnan(found.change)
    assert not found.moved


def test_an_indicator_without_rows_or_without_a_baseline_is_left_out():
    baseline = {"a": Baseline.of(drawn(6), WEEK, heavy=False)}

    assert compare_indicators(baseline, {"a": drawn(1)[:0], "b": drawn(1)}, WEEK) == ()


def test_a_batch_of_one_row_proves_nothing():
    assert not compared(drawn(10), drawn(1, mean=0.9)[:1]).moved
