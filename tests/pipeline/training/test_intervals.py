import numpy as np
import pytest
from scipy import stats

from pipeline.errors import ConfigError
from pipeline.training.intervals import Margins, held_out_metrics


@pytest.mark.parametrize(("rows", "coverage"), [(19, 0.9), (99, 0.9), (99, 0.5), (399, 0.99)])
def test_intervals_hold_as_many_new_targets_as_the_theory_says(rows, coverage):
    random = np.random.default_rng(0)
    rank = int(np.floor((rows + 1) * (1 - coverage) / 2 + 1e-9))
    # What two order statistics of n residuals hold is Beta(n + 1 - 2k, 2k), whatever they are.
    held = stats.beta(rows + 1 - 2 * rank, 2 * rank)
    residual = stats.gamma(2)

    found = []
    for _ in range(500):
        target = residual.rvs(rows, random_state=random)
        margins = Margins.of(target, np.zeros(rows), coverage)
        found.append(residual.cdf(margins.high) - residual.cdf(margins.low))

    assert stats.kstest(found, held.cdf).pvalue > 1e-4
    assert held.mean() >= coverage - 1e-12


def test_both_ends_leave_out_as_many_rows_of_a_skewed_target():
    target = np.random.default_rng(0).exponential(size=999)

    margins = Margins.of(target, np.zeros(999), 0.9)

    lower, upper = margins.around(np.zeros(1))[0]
    assert (np.sum(target < lower), np.sum(target > upper)) == (49, 49)
    assert margins.covered(target, np.zeros(999)) == pytest.approx((999 - 98) / 999)
    assert Margins.read({"interval": margins.to_dict()}) == margins
    assert Margins.read({}) is None


def test_the_ends_belong_to_an_interval_whatever_is_rounded():
    random = np.random.default_rng(0)
    predicted = random.normal(size=99) * 1e6
    target = predicted + random.normal(size=99) / 3

    margins = Margins.of(target, predicted, 0.5)

    assert margins.covered(target, predicted) == pytest.approx((99 - 48) / 99)


def test_too_few_rows_for_a_coverage_are_refused():
    assert Margins.of(np.arange(19.0), np.zeros(19), 0.9).low == 0
    with pytest.raises(ConfigError, match=r"a coverage of 0.9 needs 19 of them. Got 18. Lower it"):
        Margins.of(np.arange(18.0), np.zeros(18), 0.9)


def test_the_newer_half_shows_what_time_does_to_intervals():
    random = np.random.default_rng(0)
    calm, wild = random.normal(size=2_000), 3 * random.normal(size=2_000)

    steady = held_out_metrics(np.r_[calm, calm[::-1]], np.zeros(4_000), 0.9)
    moved = held_out_metrics(np.r_[calm, wild], np.zeros(4_000), 0.9)

    assert steady["interval_coverage"] == pytest.approx(0.9, abs=0.002)
    assert steady["interval_width"] == pytest.approx(2 * stats.norm.ppf(0.95), abs=0.15)
    inside = 2 * stats.norm.cdf(stats.norm.ppf(0.95) / 3) - 1
    assert moved["interval_coverage"] == pytest.approx(inside, abs=0.03)
    assert "interval_coverage" not in held_out_metrics(calm[:30], np.zeros(30), 0.9)
