import numpy as np
import pandas as pd
import pytest

from pipeline.config import Numeric
from pipeline.monitoring.drift import compare
from pipeline.monitoring.stored import drifted_of, rows_of, to_record
from pipeline.reference import Reference
from pipeline.reporting.wording import change, moves

N = 2_000


def said(before, now, kind, private=()):
    """What a report says of a kind of change of a column."""
    reference = Reference.fit(pd.DataFrame({"x": before}), {"x": Numeric()}, block=N // 4)
    found = compare(reference=reference, current=pd.DataFrame({"x": now}))
    record = to_record(found, private=private)
    shapes = {one["column"]: one for one in rows_of(record["shapes"])}
    (own,) = [one for one in drifted_of(record) if one["kind"] == kind and one["level"] == "rows"]
    return change(own, record["batches"], shapes)


def values(seed):
    return np.random.default_rng(seed).gamma(4, 10, N)


def test_a_move_is_said_in_the_numbers_of_the_column():
    before, now = values(0), values(1) + 3_882

    sentence = said(before, now, "location")

    assert sentence.startswith("x is higher, in this batch: median ")
    assert "100% of its values are larger than any in training" in sentence
    assert "standard deviations" not in sentence
    least, most = (float(one) for one in sentence.split("training lies in ")[1].split(" to "))
    assert [least, most] == pytest.approx(np.quantile(before, [0.25, 0.75]), rel=0.02)


def test_of_a_private_column_no_number_is_said_and_no_size_that_ends_with_the_scores():
    sentence = said(values(0), values(1) + 3_882, "location", private=["x"])

    assert sentence == "x is more than 2.5 standard deviations higher, in this batch"


def test_a_wider_spread_is_said_by_where_the_middle_half_lies():
    before, now = values(0), 40 + (values(1) - 40) * 3

    sentence = said(before, now, "spread")

    assert sentence.startswith("x spreads wider, in this batch: middle half ")
    low, high = (float(one) for one in sentence.split("\u2192 ")[1].split(" to "))
    assert [low, high] == pytest.approx(np.quantile(now, [0.25, 0.75]), rel=0.03)


def test_a_part_far_away_is_counted_where_the_median_does_not_show_it():
    before = np.random.default_rng(0).integers(0, 5, N).astype(float)
    now = np.where(np.random.default_rng(1).random(N) < 0.3, 9_999.0, before)

    sentence = said(before, np.where(now < 5, np.minimum(now, 2), now), "distribution")

    assert "% of its values are larger than any in training" in sentence
    assert float(sentence.split("; ")[1].split("%")[0]) == pytest.approx(30, abs=3)


def test_a_record_of_before_has_sentences_too():
    old = {"columns": ["x"], "kind": "location", "level": "rows", "statistic": 1.0, "name": "x"}
    record = {"batches": 3, "drifted": [old]}

    assert moves(record, [], 3) == ["x is 1.00 standard deviations higher, in this batch."]


def test_a_column_whose_middle_half_is_one_number_is_said_by_that_number():
    random = np.random.default_rng(0)
    before = np.where(random.random(N) < 0.9, 0.0, random.gamma(2, 3, N))

    sentence = said(before, random.gamma(2, 3, N), "location")

    assert sentence.endswith("at least half of training is 0")
