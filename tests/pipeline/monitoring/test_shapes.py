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


def test_values_in_another_unit_widen_the_drawn_range():
    values = np.random.default_rng(0).gamma(4, 10, N)

    shape = drawn(values, values * 100)

    assert shape.ends[1] > 5_000
    assert shape.before[0] == pytest.approx(1, abs=0.01)


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
