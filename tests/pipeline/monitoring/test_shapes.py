import numpy as np
import pandas as pd
import pytest

from pipeline.config import Categorical, Numeric
from pipeline.monitoring.shapes import BINS, shapes
from pipeline.reference import Reference

N = 4_000


def drawn(before, now, column=None):
    """A column of a reference and of a batch, as it is drawn."""
    columns = {"x": column or Numeric(nullable=True)}
    reference = Reference.fit(pd.DataFrame({"x": before}), columns)
    tally = reference.tally(pd.DataFrame({"x": now}))
    (shape,) = shapes(reference, tally, tally)
    return shape


def test_shares_are_those_of_a_histogram():
    random = np.random.default_rng(0)
    before, now = random.normal(size=N), random.normal(1, 2, size=N)

    shape = drawn(before, now)

    edges = np.linspace(*shape.ends, BINS + 1)
    edges[[0, -1]] = -np.inf, np.inf
    for values, shares in ((before, shape.before), (now, shape.now)):
        assert shares == pytest.approx(np.histogram(values, edges)[0] / N, abs=0.006)
        assert sum(shares) == pytest.approx(1)
    assert shape.quarters == pytest.approx(
        [*np.quantile(before, [0.25, 0.5, 0.75]), *np.quantile(now, [0.25, 0.5, 0.75])], abs=0.02
    )


def test_a_few_whole_numbers_have_a_bin_each():
    random = np.random.default_rng(0)
    before = random.integers(0, 7, N)

    shape = drawn(before, before[before != 3])

    assert (shape.ends, len(shape.before)) == ((0.0, 6.0), 7)
    assert shape.before == pytest.approx(np.bincount(before) / N, abs=0.006)
    assert shape.now[3] == pytest.approx(0, abs=0.006)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda values, _: values * 100, 2),
        (lambda values, _: -5_000 - values, 2),
        (lambda values, odd: np.where(odd, 9_999, values), 2),
        (lambda values, _: (values - 40) * 30, 3),
    ],
)
def test_a_batch_far_outside_breaks_the_axis_so_that_both_sides_are_seen(change, parts):
    random = np.random.default_rng(0)
    values, odd = random.gamma(4, 10, N), random.random(N) < 0.3
    now = change(values, odd)

    shape = drawn(values, now)

    assert len(shape.ends) == 2 * parts
    bins = len(shape.before) // parts
    own = slice(bins, 2 * bins) if np.min(now) < values.min() else slice(bins)
    ends = [shape.ends[place : place + 2] for place in range(0, 2 * parts, 2)]
    assert sum(share > 0.02 for share in shape.before[own]) > bins / 2
    assert sum(shape.before[own]) == pytest.approx(1, abs=0.01)
    for place, (low, high) in enumerate(ends):
        known = np.mean((now >= low) & (now <= high))
        assert sum(shape.now[place * bins : (place + 1) * bins]) == pytest.approx(known, abs=0.02)
    outside = [np.mean(now < values.min()), np.mean(now > values.max())]
    assert shape.beyond == pytest.approx(outside)


def test_whole_numbers_of_a_broken_axis_have_a_bin_each():
    before = np.random.default_rng(0).integers(0, 7, N)

    shape = drawn(before, np.where(before == 3, 9_999, np.where(before == 6, 7, before)))

    assert shape.ends == (0.0, 7.0, 9_999.0, 9_999.0)
    assert shape.before[:7] == pytest.approx(np.bincount(before) / N, abs=0.006)
    assert max(shape.now[10:]) == pytest.approx(np.mean(before == 3), abs=0.01)


def test_labels_are_drawn_with_new_ones_last():
    before = ["a"] * 70 + ["b"] * 30
    now = ["a"] * 50 + ["new"] * 40 + [None] * 10

    shape = drawn(before, now, Categorical(nullable=True))

    assert shape.labels == ("a", "b", "new")
    assert shape.before == pytest.approx((0.7, 0.3, 0.0))
    assert shape.now == pytest.approx((5 / 9, 0.0, 4 / 9))
    assert shape.missing == pytest.approx((0.0, 0.1))
    assert shape.new == {"new": 40}


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([1.0, 2.0], []),
        ([np.nan, np.nan], [1.0]),
        ([1.0, 2.0], [np.nan]),
        ([-1e308, 0.0, 1e308], [0.0]),
        ([1.0, 2.0], [-1e308, 1e308]),
    ],
)
def test_what_cannot_be_drawn_has_no_bars(before, now):
    shape = drawn(before, np.asarray(now, dtype=float))

    assert (shape.before, shape.now) == ((), ())


def test_a_constant_is_drawn():
    shape = drawn([2.5] * 10, [2.5] * 10)

    assert max(shape.before) == max(shape.now) == 1


def test_a_column_at_fault_is_drawn_as_it_arrived():
    reference = Reference.fit(pd.DataFrame({"x": np.arange(100.0)}), {"x": Numeric()})
    valid = reference.tally(pd.DataFrame({"x": np.arange(50.0)}))
    arrived = reference.tally(pd.DataFrame({"x": np.arange(50.0, 150.0)}))

    (shape,) = shapes(reference, valid, arrived, at_fault={"x"})

    assert shape.arrived
    assert shape.quarters[4] == pytest.approx(100, abs=1)
