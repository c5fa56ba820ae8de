"""Columns that tell one another: rows that break the rule, and worlds that changed it."""

import numpy as np
import pandas as pd
import pytest

from pipeline.columns import infer_columns
from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.dependencies import rule_broken
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


@pytest.mark.parametrize("moved", [30, 100])
def test_cities_that_all_their_rows_put_in_another_state_are_the_world(reference, moved):
    state_of = (np.arange(CITIES) * 7919) % STATES
    chosen = np.random.default_rng(6).permutation(CITIES)[:moved]
    state_of[chosen] = (state_of[chosen] + 1) % STATES

    assert causes(reference, shop(1, 1_200, state_of)) == []


def test_one_state_for_all_rows_is_not_an_exchange(reference):
    found = causes(reference, shop(1, 1_200).assign(state="state 7"))

    assert [cause for cause, *_ in found] == ["stuck"]


def sessions(random, n):
    """Rows that come five at a time, of a customer who hardly ever returns, in one store."""
    customer = np.repeat(random.integers(60_000, size=n // 5), 5)
    store = np.repeat(random.integers(30, size=n // 5), 5)
    return pd.DataFrame(
        {"customer": [f"c{k}" for k in customer], "store": [f"s{k}" for k in store]}
    )


def few_shops(random, n, moved=()):
    """Thirty shops in fifteen regions, with errors in 1.8% of rows."""
    shop = random.integers(30, size=n)
    region = (shop % 15 + np.isin(shop, moved)) % 15
    region = np.where(random.random(n) < 0.018, random.integers(15, size=n), region)
    return pd.DataFrame({"shop": [f"shop {k}" for k in shop], "region": [f"r{k}" for k in region]})


def loose(random, n, share=0.02):
    """Cities in one state each, but for twenty that lie anywhere and may become more frequent."""
    city = np.where(
        random.random(n) < share, random.integers(280, 300, size=n), random.integers(280, size=n)
    )
    state = np.where(city < 280, city % 10, random.integers(10, size=n))
    return pd.DataFrame({"city": [f"c{k}" for k in city], "state": [f"s{k}" for k in state]})


@pytest.mark.parametrize(
    ("draw", "block", "rows", "changed"),
    [
        pytest.param(sessions, 2_000, 2_000, {}, id="labels of one block alone"),
        pytest.param(few_shops, 1_000, 2_000, {}, id="errors as ever"),
        pytest.param(few_shops, 1_000, 2_000, {"moved": (3, 17)}, id="two shops moved"),
        pytest.param(loose, 1_200, 1_200, {"share": 0.1}, id="more of labels without a rule"),
        pytest.param(loose, 1_200, 250, {}, id="few rows"),
    ],
)
def test_worlds_in_which_nothing_is_wrong_show_no_fault(draw, block, rows, changed):
    random = np.random.default_rng(8)
    frame = pd.concat([draw(random, block) for _ in range(6)], ignore_index=True)
    reference = Reference.fit(frame, infer_columns(frame), block=block)

    found = [causes(reference, draw(random, rows, **changed)) for _ in range(4)]

    assert found == [[]] * 4


def test_many_cities_that_moved_in_a_small_batch_are_the_world():
    random = np.random.default_rng(9)

    def draw(n, moved):
        city = random.integers(1_000, size=n)
        state = (city * 7919 + (city < moved)) % STATES
        return pd.DataFrame({"city": [f"c{k}" for k in city], "state": [f"s{k}" for k in state]})

    frame = draw(12_000, 0)
    reference = Reference.fit(frame, infer_columns(frame), block=1_200)

    assert [causes(reference, draw(250, moved=200)) for _ in range(4)] == [[]] * 4


def test_a_column_is_named_alone_where_it_breaks_two_rules():
    def draw(seed):
        rows = shop(seed, 12_000)
        return rows.assign(
            zone="zone " + (rows["city"].str.len() % 2).astype(str) + rows["state"].str[-1]
        )

    rows, now = draw(0), draw(1)[:1_200]
    reference = Reference.fit(rows, infer_columns(rows), block=1_200)
    now["city"] = np.random.default_rng(5).permutation(now["city"].to_numpy())

    assert causes(reference, now)[0] == ("shuffled", "city")


def test_a_rule_of_one_column_is_asked_for_with_the_columns_that_it_tells(reference):
    rows = shop(1, 1_200)
    rows["state"] = np.random.default_rng(5).permutation(rows["state"].to_numpy())
    tally = reference.tally(rows)
    summary = reference.summarise(tally)
    case = Case(reference, rows, tally, summary, (), (), asked=frozenset({"state"}))

    assert [cause.cause for cause in rule_broken(case)] == ["shuffled"]


def test_identifiers_beside_labels_are_no_rule():
    rows = shop(0, 3_000).assign(order=[f"order {k}" for k in range(3_000)])
    reference = Reference.fit(rows, infer_columns(rows), block=500)

    assert causes(reference, shop(1, 500).assign(order=[f"order {k}" for k in range(500)])) == []


def test_rows_that_obey_show_nothing(reference):
    assert [causes(reference, shop(seed, 1_200)) for seed in range(10, 30)] == [[]] * 20
