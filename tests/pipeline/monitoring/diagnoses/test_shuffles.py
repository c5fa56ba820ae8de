import numpy as np
import pandas as pd
import pytest

from pipeline.config import Numeric
from pipeline.monitoring.diagnoses.shuffles import shuffled
from pipeline.monitoring.drift import compare


def shuffle(shop, frame, column, mask, seed=4):
    values = frame[column].copy()
    values[mask] = np.random.default_rng(seed).permutation(values[mask])
    return shop.put(frame, column, mask, values)


@pytest.mark.slow
@pytest.mark.parametrize(("column", "part"), [("temp", "all"), ("region", "all")])
def test_values_in_other_rows_are_recognised(shop, batch, column, part):
    mask = shop.touch(batch, part)
    report = shop.judge(shuffle(shop, batch, column, mask))

    shop.assert_named(report, "shuffled", column, mask=mask, part=part)


@pytest.mark.slow
@pytest.mark.parametrize(("column", "part"), [("temp", "some"), ("region", "some")])
def test_a_part_of_the_values_in_other_rows_is_recognised(shop, batch, column, part):
    mask = shop.touch(batch, part)
    after = shuffle(shop, batch, column, mask)
    report = shop.judge(after)

    shop.assert_named(report, "shuffled", column, figure="do not fit the other columns")
    # A value that came to a row it would fit as well does not show.
    assert 0.3 * mask.mean() < report.causes[0].share < 1.2 * mask.mean()


def draw_pair(seed, link):
    a, noise = np.random.default_rng(seed).normal(size=(2, 2_000))
    return pd.DataFrame({"a": a, "b": link * a + np.sqrt(1 - link**2) * noise})


@pytest.mark.parametrize(("before", "outcome"), [(None, "broken"), (0.5, "broken"), (0, "moved")])
def test_a_steady_relation_may_drift_away_but_not_vanish_at_once(shop, before, outcome):
    rows = pd.concat([draw_pair(seed, 0.5) for seed in range(8)], ignore_index=True)
    reference = shop.fit(rows, {"a": Numeric(), "b": Numeric()})
    earlier = [] if before is None else [reference.summarise(draw_pair(20, before))]
    report = compare(reference=reference, current=draw_pair(21, 0), recent=earlier)

    assert report.outcome == outcome
    assert {cause.cause for cause in report.causes} <= {"shuffled"}


@pytest.mark.parametrize("link", [0.5, 0.4, 0.3, 0.2])
def test_less_correlated_columns_are_not_shuffled(shop, link):
    assert not list(shuffled(shop.case(shop.draw(5, link=link))))


@pytest.mark.slow
def test_a_relation_that_moved_in_all_rows_is_not_a_shuffle_of_a_part(shop, batch):
    after = batch.assign(temp=(batch["temp"] + 6 * np.sign(batch["dewp"] - 40)).round(1))

    assert not [cause for cause in shop.judge(after).causes if cause.cause == "shuffled"]


@pytest.mark.slow
def test_only_the_shuffled_column_is_blamed_not_its_partners(shop, batch):
    everything = np.ones(len(batch), dtype=bool)
    for column in ("temp", "dewp"):
        report = shop.judge(shuffle(shop, batch, column, everything))
        assert [cause.columns for cause in report.causes] == [(column,)]


@pytest.mark.parametrize("column", ["a", "b"])
def test_two_columns_related_only_to_each_other_are_both_named(shop, column):
    rows = pd.concat([draw_pair(seed, 0.95) for seed in range(8)], ignore_index=True)
    reference = shop.fit(rows, {"a": Numeric(), "b": Numeric()})
    now = draw_pair(21, 0.95)
    some = np.random.default_rng(2).random(len(now)) < 0.3
    values = np.where(some, np.random.default_rng(3).permutation(now[column]), now[column])
    (cause,) = compare(reference=reference, current=now.assign(**{column: values})).causes

    assert (cause.cause, set(cause.columns)) == ("shuffled", {"a", "b"})
    assert "do not fit one another" in cause.sentence
