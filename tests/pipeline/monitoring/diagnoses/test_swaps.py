import numpy as np
import pandas as pd
import pytest

from pipeline.config import Numeric
from pipeline.monitoring.drift import compare
from pipeline.monitoring.findings import Cause
from pipeline.reference import Reference


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other", "part"),
    [
        ("east", "north", "all"),
        ("region", "product", "all"),
        ("region", "product", "working = 0"),
    ],
)
def test_columns_with_each_others_values_are_recognised(shop, batch, one, other, part):
    mask = shop.touch(batch, part)
    after = shop.put(shop.put(batch, one, mask, batch[other]), other, mask, batch[one])

    shop.assert_named(shop.judge(after), "swapped", one, other, mask=mask, part=part)


def test_less_correlated_columns_are_not_swapped(shop):
    report = shop.judge(shop.draw(5, link=0.3))

    assert report.causes == ()


@pytest.mark.slow
def test_an_exchange_with_missing_values_is_named_as_an_exchange(shop, batch):
    gaps = np.random.default_rng(6).random(len(batch)) < 0.4
    trained = shop.put(shop.trained, "humid", np.arange(len(shop.trained)) % 5 < 2, np.nan)
    reference = shop.fit(trained)
    after = shop.put(batch, "humid", gaps, np.nan)
    after = after.assign(humid=after["temp"], temp=after["humid"])
    (cause,) = compare(reference=reference, current=after).causes

    assert (cause.cause, set(cause.columns)) == ("swapped", {"temp", "humid"})


@pytest.mark.parametrize("by", [-6, 4, 12])
def test_whole_numbers_that_drift_within_a_shared_range_are_not_swapped(shop, by):
    # Two unrelated columns of whole numbers between 18 and 100: each fits the other's range.
    def draw(seed, by=0):
        random = np.random.default_rng(seed)
        age = np.clip(np.round(random.normal(40, 13, 2_000) + by), 18, 95)
        percent = np.clip(np.round(random.normal(64, 14, 2_000)), 5, 100)
        return pd.DataFrame({"age": age, "percent": percent})

    rows = pd.concat([draw(seed) for seed in range(10)], ignore_index=True)
    columns = {"age": Numeric(), "percent": Numeric()}
    reference = shop.fit(rows, columns)
    report = compare(reference=reference, current=draw(50, by))

    assert (report.outcome, report.causes) == ("moved", ())


@pytest.mark.slow
def test_a_continuing_exchange_takes_less_evidence_and_ends_with_its_batches(shop):
    # Two unrelated columns that differ by 1.2 standard deviations, and drift by half of one.
    def draw(seed, by=0):
        random = np.random.default_rng(seed)
        one, other = random.normal(40 + by, 10, 2_000), random.normal(52 + by, 10, 2_000)
        return pd.DataFrame({"one": one, "other": other})

    rows = pd.concat([draw(seed) for seed in range(10)], ignore_index=True)
    reference = shop.fit(rows, {"one": Numeric(), "other": Numeric()})
    exchanged = draw(50, 5).rename(columns={"one": "other", "other": "one"})
    before = Cause("swapped", ("other", "one"), "", {}, "", share=0.98)

    assert compare(reference=reference, current=exchanged).causes == ()
    (cause,) = compare(reference=reference, current=exchanged, standing=[before]).causes
    assert (cause.name, cause.share) == ("swapped (one, other)", 1.0)
    for ended in (draw(51), draw(52, 5), draw(53, -5)):
        assert compare(reference=reference, current=ended, standing=[before]).causes == ()


def test_values_with_the_decimals_of_another_column_were_exchanged_and_not_rounded():
    random, n = np.random.default_rng(0), 4_000
    load, temp = random.normal(40, 8, n), random.normal(12, 6, n)
    rows = pd.DataFrame(
        {
            "load": load,
            "temp": temp.round(1),
            "at": pd.date_range("2026-01-05", periods=n, freq="30min"),
        }
    )
    columns = dict.fromkeys(["load", "temp"], Numeric())
    reference = Reference.fit(rows, columns, time="at", block="7D")
    after = rows[:336].assign(load=rows["temp"], temp=rows["load"])

    (cause,) = compare(reference=reference, current=after[["load", "temp"]]).causes

    assert (cause.cause, {*cause.columns}) == ("swapped", {"load", "temp"})
