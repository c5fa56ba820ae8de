"""Columns that tell one another: rows that break the rule, and worlds that changed it."""

import numpy as np
import pandas as pd
import pytest

from pipeline.columns import infer_columns
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference

CITIES, STATES = 300, 30
SHARES = np.random.default_rng(3).dirichlet(np.ones(CITIES) * 2)


def shop(seed, n, state_of=None):
    """Orders from cities, each in one state and with one dialling code."""
    random = np.random.default_rng(seed)
    city = random.choice(CITIES, n, p=SHARES)
    state = (city * 7919) % STATES if state_of is None else state_of[city]
    return pd.DataFrame(
        {
            "city": [f"city {k}" for k in city],
            "state": [f"state {k}" for k in state],
            "amount": random.exponential(50, n),
        }
    )


@pytest.fixture(scope="module")
def reference():
    rows = shop(0, 12_000)
    return Reference.fit(rows, infer_columns(rows), block=1_200)


def causes(reference, rows):
    return [(x.cause, *x.columns) for x in compare(reference=reference, current=rows).causes]


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_values_in_other_rows_are_found_where_no_label_is_frequent(reference, share):
    rows = shop(1, 1_200)
    touched = np.random.default_rng(2).random(len(rows)) < share
    values = rows.loc[touched, "city"].to_numpy()
    rows.loc[touched, "city"] = np.random.default_rng(3).permutation(values)

    (cause,) = compare(reference=reference, current=rows).causes

    assert (cause.cause, cause.columns) == ("shuffled", ("city", "state"))
    # Some values come back to their own city's state, and the share reckons with that.
    assert cause.share == pytest.approx(touched.mean(), abs=0.03)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_another_code_book_is_told_from_values_in_other_rows(reference, share):
    rows = shop(1, 1_200)
    touched = np.random.default_rng(2).random(len(rows)) < share
    labels = sorted(rows["city"].unique())
    book = dict(zip(labels, np.random.default_rng(4).permutation(labels), strict=True))
    rows.loc[touched, "city"] = rows.loc[touched, "city"].map(book)

    assert causes(reference, rows) == [("permuted", "city", "state")]


def test_a_third_column_that_still_fits_one_of_the_two_names_the_other():
    rows = shop(0, 12_000)
    rows["code"] = "+" + rows["city"]
    reference = Reference.fit(rows, infer_columns(rows), block=1_200)
    now = shop(1, 1_200)
    now["code"] = "+" + now["city"]
    now["state"] = np.random.default_rng(5).permutation(now["state"].to_numpy())

    found = causes(reference, now)

    assert found
    assert {name for _, *names in found for name in names} == {"state"}


@pytest.mark.parametrize("moved", [8, 100])
def test_cities_that_all_their_rows_put_in_another_state_are_the_world(reference, moved):
    state_of = (np.arange(CITIES) * 7919) % STATES
    chosen = np.random.default_rng(6).permutation(CITIES)[:moved]
    state_of[chosen] = (state_of[chosen] + 1) % STATES

    assert causes(reference, shop(1, 1_200, state_of)) == []


def test_one_state_for_all_rows_is_not_an_exchange(reference):
    found = causes(reference, shop(1, 1_200).assign(state="state 7"))

    assert [cause for cause, *_ in found] == ["stuck"]


def test_rows_that_obey_show_nothing(reference):
    assert [causes(reference, shop(seed, 1_200)) for seed in range(10, 30)] == [[]] * 20
