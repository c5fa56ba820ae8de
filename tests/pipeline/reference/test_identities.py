"""Arithmetic of columns that all rows obey."""

import numpy as np
import pytest

from pipeline.reference.identities import find, implied_by, kept_by_both

ROWS, BLOCKS = 3_000, 10


def orders(seed=0, rows=ROWS):
    """Orders of a shop in cents, with rounded tax and rates, and columns of chance."""
    random = np.random.default_rng(seed)
    price = np.round(random.lognormal(3, 1, rows), 2)
    quantity = random.integers(1, 9, rows).astype(float)
    net = np.round(price * quantity, 2)
    tax = np.round(net * random.choice([0.07, 0.19], rows), 2)
    shipping = random.choice([0.0, 4.9, 9.9], rows)
    opened = random.integers(0, 20_000, rows).astype(float)
    return {
        "price": price,
        "quantity": quantity,
        "net": net,
        "tax": tax,
        "shipping": shipping,
        "total": np.round(net + tax + shipping, 2),
        "opened": opened,
        "closed": opened + np.floor(random.exponential(40, rows)),
        "age": np.round(random.normal(40, 12, rows)),
        "score": random.normal(size=rows),
    }


def rules_of(values, blocks=None):
    rows = len(next(iter(values.values())))
    blocks = np.arange(rows) * BLOCKS // rows if blocks is None else blocks
    return {(rule.kind, *rule.columns): rule for rule in find(values, blocks)}


def test_sums_products_and_orders_are_found_and_nothing_of_columns_of_chance():
    found = rules_of(orders())

    assert ("product", "net", "price", "quantity") in found
    assert ("sum", "total", "net", "tax", "shipping") in found
    assert ("order", "opened", "closed") in found
    assert not any({"age", "score"} & set(rule[1:]) for rule in found)


def test_a_rounded_quotient_is_found_with_its_rounding():
    values = orders()
    values["each"] = np.round(values["tax"] / values["quantity"], 1)

    rule = rules_of(values)["quotient", "each", "tax", "quantity"]

    assert rule.tolerance == pytest.approx(0.05, rel=0.01)


def test_columns_that_are_equal_are_a_rule_and_a_column_of_zeros_adds_nothing():
    values = orders() | {"again": orders()["price"], "fee": np.zeros(ROWS)}

    found = rules_of(values)

    assert ("sum", "price", "again") in found
    assert not any("fee" in rule for rule in found)


@pytest.mark.parametrize("seed", range(20))
def test_unrelated_columns_obey_no_rule(seed):
    random = np.random.default_rng(seed)
    values = {f"count{i}": random.poisson(1 + i, ROWS).astype(float) for i in range(6)}
    values |= {f"flag{i}": random.integers(0, 2, ROWS).astype(float) for i in range(4)}
    values |= {f"amount{i}": np.round(random.lognormal(i, 1, ROWS), 2) for i in range(6)}

    assert rules_of(values) == {}


def test_a_gap_between_related_columns_is_no_bound():
    random = np.random.default_rng(0)
    cold = random.normal(10, 5, ROWS)
    values = {"cold": cold, "warm": cold + random.normal(12, 2, ROWS)}

    assert rules_of(values) == {}


def test_a_rule_that_a_single_block_breaks_is_none():
    values, blocks = orders(), np.arange(ROWS) * BLOCKS // ROWS
    odd = (blocks == 4) & (np.arange(ROWS) % 10 == 0)
    values["net"] = np.where(odd, values["net"] + 1, values["net"])

    assert ("product", "net", "price", "quantity") not in rules_of(values)
    assert ("order", "opened", "closed") in rules_of(values)


def test_rows_that_lack_a_column_are_not_judged():
    values = orders()
    values["tax"] = np.where(np.arange(ROWS) % 3 == 0, np.nan, values["tax"])
    rule = rules_of({name: values[name] for name in ("net", "price", "quantity", "tax")})[
        "product", "net", "price", "quantity"
    ]

    judged, breaks = rule.broken(values | {"net": np.where(np.arange(ROWS) < 9, np.nan, 1e9)})

    assert judged.sum() == ROWS - 9
    assert breaks.sum() == ROWS - 9


@pytest.mark.parametrize("name", ["net", "price", "quantity", "total", "tax"])
def test_what_a_rule_tells_of_a_column_is_what_it_holds(name):
    values = orders()
    rules = tuple(rules_of(values).values())

    implied, sources = implied_by(rules, name, set(values) - {name}, values.__getitem__)

    np.testing.assert_allclose(implied, values[name], rtol=0.02, atol=0.011)
    assert name not in sources


def test_a_rule_with_a_column_that_may_not_tell_tells_nothing():
    values = orders()

    assert (
        implied_by(tuple(rules_of(values).values()), "price", {"net"}, values.__getitem__) is None
    )


@pytest.mark.filterwarnings("error")
def test_a_column_without_values_follows_from_nothing():
    values = orders()
    rules = tuple(rules_of(values).values())
    empty = values | {"price": np.full(ROWS, np.nan)}

    assert implied_by(rules, "price", set(values) - {"price"}, empty.__getitem__) is None


def test_two_references_keep_what_both_obey():
    one = find(orders(), np.zeros(ROWS, dtype=int))
    other = find(orders(1) | {"net": orders(1)["price"] * 1.5}, np.zeros(ROWS, dtype=int))

    kept = kept_by_both(one, other)

    assert ("order", ("opened", "closed")) in {(rule.kind, rule.columns) for rule in kept}
    assert not any("net" in rule.columns for rule in kept)


def test_a_sum_of_three_is_found_beside_columns_that_are_never_there_together():
    values, card = orders(), np.arange(ROWS) % 2 == 0
    values["valid"] = np.where(card, 12.0 + np.arange(ROWS) % 31, np.nan)
    values["days"] = np.where(card, np.nan, 1.0 + np.arange(ROWS) % 5)

    assert ("sum", "total", "net", "tax", "shipping") in rules_of(values)


def test_a_sum_of_three_is_found_beside_an_amount_that_follows_from_its_terms():
    random = np.random.default_rng(0)
    values = {
        name: random.poisson(mean, ROWS) * 1.0 for name, mean in zip("abc", (30, 8, 6), strict=True)
    }
    values["sold"] = values["a"] + values["b"] + values["c"]
    values["revenue"] = 11.5 * values["a"] + 7.5 * values["b"] + 9.5 * values["c"]

    assert ("sum", "sold", "a", "b", "c") in rules_of(values)
