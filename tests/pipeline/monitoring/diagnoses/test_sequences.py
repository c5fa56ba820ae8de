import numpy as np
import pandas as pd
import pytest

from pipeline.config import Numeric
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference

COLUMNS = {name: Numeric() for name in ("hour", "weekday", "load", "price")}
WEEKS, HOURS = 12, 24 * 7


def draw(seed, weeks=WEEKS):
    """A load that has its day and wanders, hour by hour, and a price that is any; unrelated."""
    random = np.random.default_rng(seed)
    n = weeks * HOURS
    wander = np.convolve(random.normal(size=n + 11), np.ones(12) / 12, mode="valid")
    return pd.DataFrame(
        {
            "hour": np.arange(n) % 24.0,
            "weekday": np.arange(n) // 24 % 7.0,
            "load": 30 * wander,
            "price": random.normal(size=n),
        }
    )


@pytest.fixture(scope="module")
def reference():
    rows = pd.concat([draw(seed) for seed in range(8)], ignore_index=True)
    return Reference.fit(rows, COLUMNS, block=WEEKS * HOURS)


def some(seed=2):
    return np.random.default_rng(seed).random(WEEKS * HOURS) < 0.3


def test_values_that_no_other_column_predicts_are_found_by_neighbouring_rows(reference):
    rows = draw(20)
    moved = rows["load"].where(~some(), np.random.default_rng(3).permutation(rows["load"]))
    report = compare(reference=reference, current=rows.assign(load=moved))

    assert report.outcome == "broken"
    assert [cause.name for cause in report.causes] == ["shuffled (load)"]
    assert "of the rows before and after" in report.causes[0].sentence


@pytest.mark.parametrize("by", [1, 5, -9])
def test_a_clock_out_of_step_is_recognised_with_its_hours_and_share(reference, by):
    rows = draw(20)
    moved = rows["hour"].where(~some(), (rows["hour"] + by) % 24)
    (cause,) = compare(reference=reference, current=rows.assign(hour=moved)).causes

    assert cause.name == "shifted (hour)"
    assert cause.evidence["moved by"] == by
    assert cause.share == pytest.approx(some().mean(), rel=1 / 3)
    assert f"moved by {by:+d} round its 24 hours" in cause.sentence


@pytest.mark.parametrize("order", ["hour", "load", "price", "at random"])
def test_reordered_rows_are_not_a_fault(reference, order):
    rows = draw(20)
    turned = (
        rows.sample(frac=1, random_state=1) if order == "at random" else rows.sort_values(order)
    )

    assert compare(reference=reference, current=turned.reset_index(drop=True)).causes == ()


def test_unchanged_rows_are_not_a_fault(reference):
    assert [compare(reference=reference, current=draw(seed)).causes for seed in (30, 31, 32)] == [
        ()
    ] * 3


def test_unordered_training_rows_give_no_verdict_on_order():
    rows = pd.concat([draw(seed) for seed in range(8)], ignore_index=True)
    mixed = Reference.fit(rows.sample(frac=1, random_state=1), COLUMNS, block=WEEKS * HOURS)
    moved = draw(20)["hour"].where(~some(), (draw(20)["hour"] + 5) % 24)

    assert compare(reference=mixed, current=draw(20).assign(hour=moved)).causes == ()


def test_a_column_is_not_at_fault_when_all_columns_lose_their_smoothness(reference):
    rows = draw(20)
    pairs = np.arange(len(rows)).reshape(2, -1).T.ravel()  # two halves, row by row in turn

    assert (
        compare(reference=reference, current=rows.iloc[pairs].reset_index(drop=True)).causes == ()
    )
