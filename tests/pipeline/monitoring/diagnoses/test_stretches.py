"""Columns that hold one value, or none, for far more rows in a row than ever before."""

import numpy as np
import pandas as pd
import pytest

from pipeline.columns import infer_columns
from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.stretches import missing_in_a_row, stuck_in_a_row
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference

ROWS, BLOCKS = 600, 10


def held(random, values, n, mean_rows):
    """Draw values that each hold for a geometric number of rows."""
    changes = random.random(n) < 1 / mean_rows
    return np.asarray(values)[random.integers(len(values), size=n)[np.cumsum(changes)]]


def plant(random, n):
    """Readings of one machine after the other: some columns hold for some rows by nature."""
    temp = 20 + np.cumsum(random.normal(size=n)) / 20 + random.normal(size=n)
    return pd.DataFrame(
        {
            "temp": temp.round(2),
            "state": held(random, ["run", "idle", "stop"], n, mean_rows=3),
            "kind": random.choice(["a", "b", "c", "d"], n, p=[0.5, 0.3, 0.15, 0.05]),
            "rain": np.where(held(random, [0, 0, 0, 1], n, 15), random.exponential(2, n), 0),
            "flag": random.choice(["no", "yes"], n, p=[0.97, 0.03]),
            "note": np.where(random.random(n) < 0.4, np.nan, random.normal(size=n)),
        }
    )


@pytest.fixture(scope="module")
def reference():
    rows = plant(np.random.default_rng(0), BLOCKS * ROWS)
    return Reference.fit(rows, infer_columns(rows), block=ROWS)


def said(reference, rows, recent=()):
    case = Case(reference, rows, reference.tally(rows), reference.summarise(rows), recent, [])
    return [*stuck_in_a_row(case), *missing_in_a_row(case)]


@pytest.mark.parametrize(
    ("name", "value", "cause"),
    [
        ("temp", 21.37, "stuck"),
        ("kind", "d", "stuck"),
        ("kind", "a", "stuck"),
        ("state", "idle", "stuck"),
        ("temp", None, "nulls"),
        ("kind", None, "nulls"),
        ("note", None, "nulls"),
    ],
)
def test_a_third_of_the_rows_with_one_value_is_named_with_its_place(reference, name, value, cause):
    rows = plant(np.random.default_rng(1), ROWS)
    rows.loc[199:378, name] = value

    (found,) = compare(reference=reference, current=rows).causes

    assert (found.cause, found.columns) == (cause, (name,))
    assert found.share == pytest.approx(0.3, abs=0.05)
    if cause == "stuck" or name == "note":  # elsewhere the share of missing rows says it already
        assert 180 <= found.evidence["rows in a row"] <= 185  # the rows around may hold it as well


@pytest.mark.parametrize(
    ("batches", "most"), [(200, 2), pytest.param(1_000, 5, marks=pytest.mark.statistics)]
)
def test_what_holds_by_nature_is_not_stuck(reference, batches, most):
    """Sound batches; stretches of rain and of states are in every block."""
    random, wrong = np.random.default_rng(2), 0
    for _ in range(batches):
        wrong += bool(said(reference, plant(random, ROWS)))
    assert wrong <= most


def test_rows_that_arrive_sorted_are_not_stuck(reference):
    rows = plant(np.random.default_rng(3), ROWS)

    for name in rows:
        assert not said(reference, rows.sort_values(name, ignore_index=True))


def test_many_rows_of_one_customer_are_not_a_fault_of_its_columns():
    random = np.random.default_rng(4)
    city = random.integers(40, size=200)

    def orders(n):
        customer = random.integers(200, size=n)
        customer[:n] = np.repeat(customer, 1 + random.poisson(1, n))[:n]
        return pd.DataFrame(
            {
                "city": [f"city {k}" for k in city[customer]],
                "age": 20 + customer % 50,
                "amount": random.exponential(50, n).round(2),
            }
        )

    rows = orders(BLOCKS * ROWS)
    reference = Reference.fit(rows, infer_columns(rows), block=ROWS)
    batch = orders(ROWS)
    batch.loc[100:250, ["city", "age"]] = batch.loc[100, ["city", "age"]].to_numpy()

    assert not said(reference, batch)


def test_a_label_that_is_new_is_another_matter(reference):
    rows = plant(np.random.default_rng(5), ROWS)
    rows.loc[100:300, "kind"] = "e"

    assert not said(reference, rows)


def test_blocks_that_were_fitted_without_stretches_tell_nothing(reference):
    rows = plant(np.random.default_rng(6), ROWS)
    rows.loc[100:300, "kind"] = "c"
    older = [
        type(block)({k: v for k, v in block.items() if k.kind not in {"stretch", "gap"}})
        for block in reference.blocks
    ]

    assert said(reference, rows)
    assert not said(reference.with_blocks(older), rows)
