from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.monitoring.means import Baseline, part_sums
from pipeline.monitoring.performance import Performance, realised

WEEK = pd.Timedelta("7D")


def loss(days, *, level=1.0, spread=0.3, per_day=50, seed=0, start="2026-01-01"):
    random = np.random.default_rng(seed)
    times = pd.date_range(start, periods=days * per_day, freq=pd.Timedelta("1D") / per_day)
    return pd.Series(random.normal(level, spread, len(times)), index=times)


def judge(current, heldout, allowed=0.05, *, heavy=False, **given):
    return realised(
        batch="2026-02-01",
        metrics={},
        current=current,
        baseline=Baseline.of(heldout, WEEK, heavy=heavy),
        length=WEEK,
        allowed=allowed,
        **given,
    )


def test_equal_losses_are_not_worse():
    judged = judge(loss(7), loss(7))

    assert judged.change == pytest.approx(0)
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
    judged = judge(loss(1, level=3.0, per_day=1), loss(14))

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


def test_part_sums_are_the_sums_of_pandas_resampling():
    losses = loss(10).sample(frac=0.2, random_state=0)
    gap = losses[(losses.index < "2026-01-04") | (losses.index >= "2026-01-07")]

    sums, counts = part_sums(gap, pd.Timedelta("1D"))

    resampled = gap.sort_index().resample("1D", origin=gap.index.min()).agg(["sum", "count"])
    expected = resampled[resampled["count"] > 0]
    np.testing.assert_allclose(sums, expected["sum"])
    np.testing.assert_array_equal(counts, expected["count"])


def test_a_day_counts_by_its_rows():
    crowded = loss(6, per_day=100)
    saturday = pd.Series([40.0], index=[pd.Timestamp("2026-01-07T12:00")])

    judged = judge(pd.concat([crowded, saturday]), loss(14))

    whole = pd.concat([crowded, saturday])
    assert judged.change == pytest.approx(whole.mean() / loss(14).mean() - 1)
    assert judged.change < 0.1


def test_one_row_decides_nothing_where_tails_are_heavy():
    random = np.random.default_rng(5)
    heldout, current = loss(28), loss(7)
    heldout[:] = random.lognormal(0, 1, len(heldout))
    current[:] = random.lognormal(0, 1, len(current))
    mansion = current.copy()
    mansion.iloc[100] = 5_000.0

    judged = judge(mansion, heldout, heavy=True)

    assert judge(mansion, heldout).change > 1
    assert judged.change == pytest.approx(judge(current, heldout, heavy=True).change, abs=0.05)


@pytest.mark.parametrize("known", ["1D", "2D", "7D"])
def test_a_part_of_a_batch_shows_that_a_model_is_much_worse(known):
    whole = loss(7, level=3.0, per_day=300)

    assert judge(whole[whole.index < whole.index[0] + pd.Timedelta(known)], loss(14)).worse


def earlier_batches(levels, seed=100):
    found = []
    for place, level in enumerate(levels):
        start = pd.Timestamp("2026-02-01") + place * WEEK
        current = loss(7, level=level, seed=seed + place, start=start)
        found.append(judge(current, loss(14), earlier=found))
    return found


def test_a_small_loss_that_goes_on_adds_up():
    *_, last = earlier_batches([1.09] * 12)
    first = earlier_batches([1.09])[0]

    assert last.worse
    assert last.at_least > first.at_least


def test_a_batch_that_is_as_good_as_before_ends_the_loss():
    *_, last, good = earlier_batches([1.3, 1.3, 1.3, 0.99])

    assert last.worse
    assert not good.worse


def test_batches_of_a_store_of_before_count_by_their_rows():
    judged = earlier_batches([1.2, 1.2])
    before = [
        Performance(j.batch, j.rows, {}, j.parts, j.change, j.at_least, j.worse) for j in judged
    ]

    now = loss(7, level=1.2, seed=9)

    assert judge(now, loss(14), earlier=before).change == pytest.approx(
        judge(now, loss(14), earlier=judged).change
    )


def unchanged_years(years, *, rows_a_day, spread):
    """Episodes in which an unchanged model is called worse; batches are weeks of unequal days."""
    found = 0
    for year in range(years):
        random = np.random.default_rng(year)

        def losses(days, random=random):
            level = np.repeat(1 + random.normal(scale=0.2, size=days), rows_a_day)
            times = pd.date_range("2026-01-01", periods=len(level), freq=f"{86_400 // rows_a_day}s")
            return pd.Series(level * random.gamma(1 / spread**2, spread**2, len(level)), times)

        heldout, judged = losses(70), []
        for _ in range(52):
            judged.append(judge(losses(7), heldout, earlier=judged[-11:], heavy=True))
        worse = [one.worse for one in judged]
        found += sum(now and not before for before, now in pairwise([False, *worse]))
    return found


@pytest.mark.parametrize(
    ("rows_a_day", "spread", "years"),
    [
        (100, 0.7, 10),
        pytest.param(5, 2.0, 100, marks=pytest.mark.statistics),
        pytest.param(100, 0.7, 100, marks=pytest.mark.statistics),
    ],
)
def test_an_unchanged_model_is_called_worse_a_tenth_of_a_time_a_year(years, rows_a_day, spread):
    """At 0.1 a year, ten years show more than four with chance 0.4%, a hundred more than 19."""
    found = unchanged_years(years, rows_a_day=rows_a_day, spread=spread)

    assert found <= (4 if years == 10 else 19)
