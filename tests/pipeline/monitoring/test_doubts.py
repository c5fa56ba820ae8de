"""A cause has to break with the last sound batches, and the own blocks must not show it."""

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Categorical, Numeric
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference

COLUMNS = {"amount": Numeric(), "weight": Numeric(), "rate": Numeric(), "plan": Categorical()}
WEEK, WEEKS = 1_000, 10


def rows(random, weeks=1, *, rate=None):
    n = weeks * WEEK
    amount = random.lognormal(3, 0.5, n)
    return pd.DataFrame(
        {
            "amount": amount,
            "weight": amount * random.lognormal(0, 0.3, n),
            "rate": np.repeat(random.normal(5, 1, weeks) if rate is None else [rate], WEEK),
            "plan": random.choice(["free", "pro", "team"], n),
        }
    )


def fit(frame):
    moments = pd.Series(
        pd.Timestamp("2026-01-05") + pd.to_timedelta(np.arange(len(frame)) // WEEK, "W")
    )
    return Reference.fit(frame, COLUMNS, time=moments, block="7D")


@pytest.fixture(scope="module")
def reference():
    return fit(rows(np.random.default_rng(0), WEEKS))


def names(report):
    return [cause.name for cause in report.causes]


def test_a_fault_breaks_with_the_reference_and_with_the_last_batches(reference):
    random = np.random.default_rng(1)
    recent = [reference.summarise(rows(random)) for _ in range(8)]
    batch = rows(random)

    report = compare(
        reference=reference, current=batch.assign(amount=batch["amount"] * 100), recent=recent
    )

    assert names(report) == ["unit (amount)"]


def test_growth_that_batches_before_showed_is_no_fault(reference):
    random = np.random.default_rng(2)
    recent = []
    for factor in (60, 70, 80, 85, 90, 94, 97, 99):
        batch = rows(random)
        recent.append(reference.summarise(batch.assign(amount=batch["amount"] * factor)))
    batch = rows(random)
    now = batch.assign(amount=batch["amount"] * 100)

    assert names(compare(reference=reference, current=now)) == ["unit (amount)"]
    report = compare(reference=reference, current=now, recent=recent)
    assert names(report) == []
    assert report.outcome == "moved"


def test_a_rate_of_each_week_that_takes_another_level_is_no_fault(reference):
    random = np.random.default_rng(3)

    report = compare(reference=reference, current=rows(random, rate=9.5))

    assert names(report) == []


def brackets(random, weeks, first=0):
    """Incomes in brackets that are adjusted every week, beside an independent column."""
    week = np.repeat(np.arange(first, first + weeks), WEEK)
    income = random.choice(20, len(week)) * 2_500 * 1.02**week
    return pd.DataFrame({"income": income.round(2), "amount": random.lognormal(3, 0.5, len(week))})


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, []), (0.5, ["stuck (income)"]), (1.0, ["stuck (income)"])]
)
def test_values_that_every_week_renews_may_not_all_be_one(share, expected):
    random = np.random.default_rng(3)
    columns = {"income": Numeric(), "amount": Numeric()}
    frame = brackets(random, WEEKS)
    moments = pd.Timestamp("2026-01-05") + pd.to_timedelta(np.arange(len(frame)) // WEEK, "W")
    reference = Reference.fit(frame, columns, time=pd.Series(moments), block="7D")
    batch = brackets(random, 1, first=WEEKS)
    batch.loc[batch.index < share * WEEK, "income"] = batch["income"].iloc[0]

    assert names(compare(reference=reference, current=batch)) == expected


@pytest.mark.parametrize("value", [3, 6, 9])
def test_one_value_in_all_rows_is_stuck_wherever_it_lies(value):
    random = np.random.default_rng(4)
    n = (WEEKS + 1) * WEEK
    right = np.asarray([7, 21, 36, 63, 107, 161, 214, 155, 101, 78, 57]) / 1_000
    score = random.choice(11.0 * np.arange(11), n, p=right)
    frame = pd.DataFrame({"score": score, "amount": random.random(n)})
    columns = {"score": Numeric(), "amount": Numeric()}
    reference = Reference.fit(frame[:-WEEK], columns, block=WEEK)
    batch = frame[-WEEK:].assign(score=11.0 * value)

    assert names(compare(reference=reference, current=batch)) == ["stuck (score)"]


def prices(random, level):
    """A week of prices that follow one index, and the turnover."""
    index = level * np.exp(np.linspace(-0.2, 0.2, WEEK) + random.normal(0, 0.1, WEEK))
    high = index * (1 + random.exponential(0.01, WEEK))
    turnover = index * random.lognormal(3, 0.3, WEEK)
    return pd.DataFrame({"price": index, "high": high, "turnover": turnover})


LEVELS = (23, 43, 56, 71, 92, 98, 95, 101, 134, 236, 337, 457, 951, 1_157, 1_520, 2_261)
"""Medians of an index of shares: ten weeks of training, and the next six."""


@pytest.fixture(scope="module")
def growing():
    random = np.random.default_rng(5)
    weeks = [prices(random, level) for level in LEVELS]
    columns = dict.fromkeys(weeks[0], Numeric())
    frame = pd.concat(weeks[:WEEKS], ignore_index=True)
    return Reference.fit(frame, columns, block=WEEK), weeks[WEEKS:]


def test_prices_that_grow_far_beyond_the_training_rows_are_the_world(growing):
    reference, batches = growing
    recent, found = [], []
    for batch in batches:
        report = compare(reference=reference, current=batch, recent=recent)
        found += names(report)
        recent.append(report.summary)

    assert found == []


@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_another_unit_of_prices_that_grow_is_named(growing, factor):
    reference, batches = growing
    batch = batches[0].assign(price=batches[0]["price"] * factor)

    report = compare(reference=reference, current=batch)

    assert "unit (price)" in names(report)
