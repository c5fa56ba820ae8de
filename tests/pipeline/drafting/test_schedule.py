import numpy as np
import pandas as pd
import pytest

from pipeline.drafting.schedule import arrival_of, schedule

TODAY = pd.Timestamp("2026-06-01")
WEEK = pd.Timedelta("7D")


def planned(every, periods):
    times = pd.Series(pd.date_range("2025-01-01", freq=every, periods=periods))
    return schedule(times, times)


@pytest.mark.parametrize(
    ("every", "periods", "batch"),
    [
        ("1h", 24 * 365, "7D"),
        ("1min", 60 * 24 * 365, "7D"),
        ("6h", 4 * 365 * 3, "31D"),
        ("1D", 365 * 20, "366D"),
        ("5min", 12 * 24 * 30, "1D"),
        ("1min", 60 * 24 * 5, "6h"),
        ("31D", 300, "366D"),
    ],
)
def test_a_batch_is_the_shortest_round_length_with_enough_rows(every, periods, batch):
    assert planned(every, periods).batch == pd.Timedelta(batch)


def test_a_batch_is_long_enough_for_the_rate_of_the_newest_rows():
    busy = pd.date_range("2024-01-01", "2025-06-01", freq="1h")
    calm = pd.date_range("2025-06-01", "2026-06-01", freq="270min")
    times = pd.Series([*busy, *calm])

    assert schedule(times, times).batch == pd.Timedelta("31D")


@pytest.mark.parametrize("periods", [300, 2000, 30_000])
def test_the_windows_of_a_schedule_fit_into_the_history(periods):
    plan = planned("1h", periods)
    span = pd.Timedelta("1h") * periods

    start = pd.Timestamp("2025-01-01")
    assert start < plan.until - plan.holdout < plan.until < start + span
    assert 1 <= plan.live <= 8
    assert plan.held >= 20
    assert plan.min_rows is None or 20 <= plan.min_rows <= plan.held


def test_the_last_batch_ends_with_the_last_day():
    plan = planned("1h", 24 * 365)

    assert plan.until + plan.live * plan.batch == pd.Timestamp("2026-01-01")


def test_labels_that_are_known_later_are_not_held_out():
    times = pd.Series(pd.date_range("2025-01-01", freq="1h", periods=24 * 365))

    late = schedule(times, times + pd.Timedelta("60D"))

    assert late.fitted + late.held == (times + pd.Timedelta("60D") < late.until).sum()


@pytest.mark.parametrize("rows", [100, 178, 442, 569, 3000, 30_000, 48_842, 5_000_000])
def test_rows_without_a_time_fill_batches_of_a_week(rows):
    arrival = arrival_of(rows, TODAY)

    assert arrival.start + rows * arrival.every == TODAY
    assert rows < 170 or rows / (WEEK / arrival.every) >= 12 or rows > 10**6
    per_batch = WEEK / arrival.every
    assert per_batch >= 150 or np.ceil(rows / 150) <= 24
