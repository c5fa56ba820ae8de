import numpy as np
import pytest

from pipeline.monitoring.diagnoses.clocks import cycle
from pipeline.monitoring.diagnoses.sequences import mean_run
from pipeline.reference.profile import NumericProfile


def profile(values, weights=None):
    random = np.random.default_rng(0)
    return NumericProfile.fit(random.choice(np.asarray(values, dtype=float), 5_000, p=weights))


@pytest.mark.parametrize(
    ("values", "length", "step"),
    [
        (range(24), 24, 1),
        (range(1, 13), 12, 1),
        (range(7), 7, 1),
        (range(1, 8), 7, 1),
        (range(60), 60, 1),
        (range(5, 24), 24, 1),
        (np.arange(48) / 2, 48, 0.5),
        (np.arange(48) / 47, 48, 1 / 47),
    ],
    ids=str,
)
def test_steps_of_a_clock_are_a_cycle(values, length, step):
    found = cycle(profile(values))

    assert (found.length, found.step) == (length, pytest.approx(step))


def test_a_clock_without_its_first_hours_still_begins_at_hour_zero():
    assert cycle(profile(range(5, 24))).first == 0
    assert cycle(profile(range(2, 13))).first == 1


@pytest.mark.parametrize(
    "values",
    [
        [0, 1],
        [1, 2, 5, 10, 20, 50, 100],
        [3, 7, 8, 20, 22, 23],
        range(18, 71),
        range(18, 66),
        range(1, 32),
        range(101),
        np.linspace(0, 1, 5_000),
        np.random.default_rng(1).normal(size=5_000),
        np.random.default_rng(1).poisson(6, 5_000),
        np.random.default_rng(1).geometric(0.3, 5_000),
    ],
    ids=[
        "flag",
        "coins",
        "odd",
        "ages",
        "48 ages",
        "days",
        "percent",
        "even",
        "normal",
        "count",
        "tail",
    ],
)
def test_other_numbers_are_not_a_clock(values):
    assert cycle(profile(values)) is None


def test_a_clock_with_rare_hours_is_a_cycle():
    weights = np.where(np.arange(24) < 5, 0.001, 0.995 / 19)

    assert cycle(profile(range(24), weights)) == (24, 0, 1)


def test_a_column_without_values_is_not_a_clock():
    assert cycle(NumericProfile.fit(np.full(10, np.nan))) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "by", "part"),
    [
        ("hour", 5, "all"),
        ("weekday", 1, "all"),
    ],
)
def test_a_moved_clock_is_recognised_with_its_steps(shop, batch, column, by, part):
    mask, length = shop.touch(batch, part), 24 if column == "hour" else 7
    report = shop.judge(shop.put(batch, column, mask, (batch[column] + by) % length))

    figure = f"moved by {by:+g} round its {length}"
    shop.assert_named(report, "shifted", column, figure=figure, mask=mask, part=part)
    assert report.causes[0].evidence["moved by"] == by


def test_a_weekday_moved_in_some_rows_is_blamed_on_no_column_but_the_two_that_contradict(
    shop, batch
):
    mask = shop.touch(batch, "some")
    report = shop.judge(shop.put(batch, "weekday", mask, (batch["weekday"] + 1) % 7))

    # Only Friday as Saturday and Sunday as Monday show, 8% of all rows; either may be in error.
    assert report.outcome in {"moved", "broken"}
    assert {name for cause in report.causes for name in cause.columns} <= {"weekday", "working"}


@pytest.mark.slow
def test_days_counted_from_one_are_a_moved_clock(shop, batch):
    report = shop.judge(batch.assign(weekday=batch["weekday"] + 1))

    shop.assert_named(
        report, "shifted", "weekday", figure="moved by +1 round its 7 days of the week"
    )


def test_fewer_orders_at_night_are_not_a_moved_clock(shop, batch):
    day = batch[(batch["hour"] > 6) | (np.arange(len(batch)) % 3 == 0)]

    assert shop.judge(day).causes == ()


@pytest.mark.slow
def test_a_clock_moved_in_a_part_of_the_rows_is_recognised(shop, batch):
    mask = shop.touch(batch, "some")
    report = shop.judge(shop.put(batch, "hour", mask, (batch["hour"] + 6) % 24))

    shop.assert_named(report, "shifted", "hour", figure="moved by +6 round its 24")
    assert report.causes[0].share == pytest.approx(mask.mean(), rel=1 / 3)


def test_consecutive_rows_with_equal_values_count_as_one_row(shop):
    # The same rows by day and at random: what 28 days say is less than what 1,344 rows say.
    days = np.repeat(np.arange(28) % 7, 48)
    frame = shop.draw(3, n=len(days)).assign(weekday=days)

    assert mean_run(shop.case(frame), "weekday") == 48
    assert mean_run(shop.case(frame.sample(frac=1, random_state=0)), "weekday") < 1.5


@pytest.mark.parametrize(("by", "part"), [(3, "all"), (3, "some"), (-4, "some"), (9, "some")])
def test_hours_that_run_on_beyond_the_day_say_how_far_they_were_moved(shop, batch, by, part):
    mask = shop.touch(batch, part)
    report = shop.judge(shop.put(batch, "hour", mask, batch["hour"] + by))

    shop.assert_named(report, "shifted", "hour", figure=f"moved by {by:+g} round its 24")
    assert report.causes[0].share == pytest.approx(mask.mean(), rel=1 / 3)


@pytest.mark.parametrize("value", [24, 31, 46])
def test_one_value_beyond_the_day_is_no_moved_clock(shop, batch, value):
    mask = shop.touch(batch, "some") & (np.arange(len(batch)) % 2 == 0)
    report = shop.judge(shop.put(batch, "hour", mask, value))

    assert "shifted" not in [cause.cause for cause in report.causes]


def test_any_values_beyond_the_day_are_no_moved_clock(shop, batch):
    mask, random = shop.touch(batch, "some"), np.random.default_rng(0)
    report = shop.judge(shop.put(batch, "hour", mask, random.integers(24, 100, len(batch))))

    assert "shifted" not in [cause.cause for cause in report.causes]
