"""Repeats that are found part by part, beside pandas on all rows at once."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.repeats import Counted, Seen

TEXTS = st.lists(st.sampled_from(["", "a", "b", "1", "Ø"]) | st.none() | st.text(), max_size=40)


def parts_of(rows, size):
    return [rows[i : i + size] for i in range(0, len(rows), size)]


@given(TEXTS, st.integers(1, 9))
def test_rows_that_repeat_one_of_an_earlier_part_are_found(texts, size):
    rows, seen = pd.DataFrame({"id": pd.Series(texts, dtype="str")}), Seen()

    found = [seen.again(part) for part in parts_of(rows, size)]

    place = np.arange(len(rows))
    began = pd.Series(place).groupby(rows["id"].astype(object), dropna=False).transform("min")
    assert np.concatenate([[], *found]).tolist() == (began // size < place // size).tolist()


@given(TEXTS, st.integers(1, 9))
def test_equal_texts_are_counted_from_part_to_part(texts, size):
    rows, counted = pd.Series([text or "" for text in texts], dtype="str"), Counted()

    found = [counted.before(part) for part in parts_of(rows, size)]

    assert [n for part in found for n in part] == rows.groupby(rows).cumcount().tolist()


@pytest.mark.parametrize("columns", [["id"], ["id", "at"]])
def test_among_many_rows_each_repeat_is_found_and_nothing_else(columns):
    ids = np.random.default_rng(0).permutation(np.r_[np.arange(60_000), np.arange(500)])
    rows = pd.DataFrame({"id": ids.astype(str), "at": pd.Timestamp("2026-01-01")})
    seen = Seen()

    found = np.concatenate([seen.again(part[columns]) for part in parts_of(rows, 1_001)])

    within = np.concatenate([part.duplicated(columns) for part in parts_of(rows, 1_001)])
    assert (found | within).tolist() == rows.duplicated(columns).tolist()
    assert found.sum() > 400


def test_rows_that_share_half_of_a_hash_are_distinguished_by_the_other(monkeypatch):
    def halves(rows, *, hash_key, **_):
        second = rows["id"].astype("uint64") if hash_key.endswith("2") else 0 * rows["id"]
        return second.astype("uint64")

    monkeypatch.setattr(pd.util, "hash_pandas_object", halves)
    seen = Seen()

    assert not seen.again(pd.DataFrame({"id": [1, 2, 3]})).any()
    assert seen.again(pd.DataFrame({"id": [4, 2, 1, 5]})).tolist() == [False, True, True, False]
