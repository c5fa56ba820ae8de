import numpy as np
import pytest

from pipeline.reference.order import order_of, sticking_out, stretches
from pipeline.reference.profile import NumericProfile

HOURS = np.tile(np.arange(24.0), 50)


def profile(values):
    return NumericProfile.fit(np.asarray(values, dtype=float))


def test_a_clock_goes_in_even_steps_and_nothing_sticks_out():
    order = order_of(HOURS, profile(HOURS))

    assert order.strays == 0
    assert order.even == pytest.approx(23 / 24, abs=1e-3)
    step, wide = (23 * 1 + 1 * 23) / 24, 12  # half of the hours
    assert order.step == pytest.approx(step / wide, rel=0.05)


def test_independent_values_stick_out_as_often_as_theory_says():
    values = np.random.default_rng(0).normal(size=100_000)
    x = np.linspace(-8, 8, 20_001)
    density, margin = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), 0.4 * 1.34898
    below = np.cumsum(density) * (x[1] - x[0])
    near = np.interp(x + margin / 2, x, below) - np.interp(x - margin / 2, x, below)
    # Beyond both neighbours on one side, twice, and near to none of the next three on each side.
    beyond = density * np.interp(x - margin, x, below) ** 2
    expected = 2 * np.trapezoid(beyond * (1 - near) ** 6, x)

    found = sticking_out(values, profile(values)).mean()

    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected / len(values)))


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [np.nan] * 5, [3.0] * 5], ids=str)
def test_too_few_rows_have_zero_order_statistics(values):
    wide = profile(np.arange(100))
    order = order_of(np.asarray(values), wide)

    assert order.strays == 0
    assert order.step == (pytest.approx(1 / 49.5, rel=0.02) if values == [1.0, 2.0] else 0)
    assert not sticking_out(np.asarray(values), wide).any()


def test_a_missing_value_does_not_stick_out():
    values = np.asarray([1.0, np.nan, 1.0, 50.0, np.nan, np.inf, 50.0, 1.0, 99.0, 3.0])

    assert sticking_out(values, profile(np.arange(100))).nonzero()[0].tolist() == [8]


def test_alternating_rows_of_several_places_do_not_stick_out():
    values = np.tile([5.0, 50.0, 95.0], 30) + np.repeat(np.arange(30) / 10, 3)
    odd = values.copy()
    odd[45] = 30.0

    assert not sticking_out(values, profile(np.arange(100))).any()
    assert sticking_out(odd, profile(np.arange(100))).nonzero()[0].tolist() == [45]


def test_the_largest_numbers_overflow_without_a_warning():
    most = np.finfo(float).max
    values = np.tile([most, -most, most / 1_000, 0.0, -most, 3.0, np.inf], 10)

    order = order_of(values, profile(values))

    assert 0 <= order.strays <= 1
    assert 0 <= order.even <= 1


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], (0, 0)),
        ([1.0], (1, 0)),
        ([np.nan], (0, 1)),
        ([1, 1, 2, 2, 2, 1], (3, 0)),
        ([1, np.nan, 1, 1, np.nan, np.nan, np.nan, 2], (2, 3)),
    ],
    ids=str,
)
def test_stretches_are_the_longest_rows_of_one_value_and_without_one(values, wanted):
    values = np.asarray(values, dtype=float)

    found = stretches(values, ~np.isnan(values))

    assert tuple(stretch.rows for stretch in found) == wanted
    value, missing = (values[stretch.start : stretch.stop] for stretch in found)
    assert len(set(value)) == min(len(value), 1)
    assert np.isnan(missing).all()


def test_the_longest_stretch_of_fair_coins_is_as_long_as_theory_says():
    """The longest run of heads or tails of n tosses is log2(n) + 0.33 long on average.

    M. F. Schilling (1990), The longest run of heads: log2(n / 2) + 1.33 of either side.
    """
    random, n = np.random.default_rng(0), 4_096
    there = np.ones(n, dtype=bool)
    rows = [stretches(random.integers(2, size=n), there).value.rows for _ in range(1_000)]

    assert np.mean(rows) == pytest.approx(np.log2(n) + 0.33, abs=4 * 1.87 / np.sqrt(1_000))
