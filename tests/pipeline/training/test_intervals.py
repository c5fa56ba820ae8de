from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from pipeline.errors import ConfigError
from pipeline.training.intervals import Margins, Sets, promise_of, promised


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
    assert promise_of({"interval": asdict(margins)}) == margins
    assert promise_of({}) is None


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


def heldout(target, predicted, task="regression"):
    return promised(task, target, predicted, 0.9)[1]


def test_the_newer_half_shows_what_time_does_to_intervals():
    random = np.random.default_rng(0)
    calm, wild = random.normal(size=2_000), 3 * random.normal(size=2_000)

    steady = heldout(np.r_[calm, calm[::-1]], np.zeros(4_000))
    moved = heldout(np.r_[calm, wild], np.zeros(4_000))

    assert steady["interval_coverage"] == pytest.approx(0.9, abs=0.002)
    assert steady["interval_width"] == pytest.approx(2 * stats.norm.ppf(0.95), abs=0.15)
    inside = 2 * stats.norm.cdf(stats.norm.ppf(0.95) / 3) - 1
    assert moved["interval_coverage"] == pytest.approx(inside, abs=0.03)
    assert "interval_coverage" not in heldout(calm[:30], np.zeros(30))


def drawn(random, n, classes, sure):
    """Classes and the chances of a model, which are right where `sure` is 1."""
    odds = 1.5 * random.normal(size=(n, classes))
    target = (odds + random.gumbel(size=odds.shape)).argmax(axis=1)
    powers = np.exp(sure * odds)
    chances = powers / powers.sum(axis=1, keepdims=True)
    return target.astype(float), chances if classes > 2 else chances[:, 1]


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("sure", [1, 5, 0.1, -1], ids=["right", "too sure", "not sure", "turned"])
@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_sets_hold_as_many_new_targets_as_was_asked_for_by_a_good_and_by_a_bad_model(
    classes, sure, coverage
):
    random = np.random.default_rng(0)

    found = []
    for _ in range(300):
        target, chances = drawn(random, 199, classes, sure)
        sets = Sets.of(target[:99], chances[:99], coverage)
        found.append(sets.covered(target[99:], chances[99:]) * 100)

    # Of one split, the rows that sets hold are 100 draws by a chance that is itself Beta.
    rank = np.ceil(100 * coverage)
    hits = stats.betabinom(100, rank, 100 - rank)
    band = 3.3 * hits.std() / np.sqrt(len(found))
    assert np.mean(found) >= 100 * coverage - band
    if classes > 2 and sure == 1 and coverage == 0.9:
        # Nothing is added to most of these sets, so that they hold no more either.
        assert np.mean(found) <= hits.mean() + band


def test_the_threshold_is_the_chance_of_the_truth_that_a_hand_finds():
    chances = np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.45, 0.35, 0.2])
    target = np.array([1.0, 1, 0, 1, 0, 1, 1, 0, 0])
    # Of the truth: .9 .8 .3 .6 .45 .5 .45 .65 .8; sorted: .9 .8 .8 .65 .6 .5 .45 .45 .3

    def threshold(coverage):
        return Sets.of(target, chances, coverage).threshold

    assert threshold(0.9) == pytest.approx(0.3)  # the 9th of 9: ceil(10 * 0.9)
    assert threshold(0.8) == pytest.approx(0.45)  # the 8th
    assert threshold(0.6) == pytest.approx(0.5)  # the 6th
    assert threshold(0.51) == pytest.approx(0.5)  # ceil(5.1) is 6 as well


def test_a_set_holds_the_likeliest_class_and_each_that_reaches_the_threshold():
    sets = Sets(coverage=0.9, threshold=0.5, rows=99)
    several = np.array([[0.5, 0.5, 0.0], [0.4, 0.35, 0.25], [0.1, 0.2, 0.7]])

    held = sets.holding(several).astype(int).tolist()

    assert held == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]  # the second would be empty
    assert sets.size(several) == pytest.approx(4 / 3)
    assert sets.covered(np.array([1.0, 1.0, 2.0]), several) == pytest.approx(2 / 3)
    assert sets.holding(np.array([0.2, 0.5, 0.9])).tolist() == [
        [True, False],
        [True, True],
        [False, True],
    ]
    assert promise_of({"sets": asdict(sets)}) == sets


def test_a_class_that_a_model_never_saw_widens_the_sets_of_all_rows():
    target = np.array([0.0] * 8 + [2.0] * 2)
    chances = np.array([[0.9, 0.1, 0.0]] * 10)

    assert Sets.of(target, chances, 0.9).holding(chances).all()
    assert Sets.of(target, chances, 0.5).size(chances) == 1


def test_too_few_rows_for_the_coverage_of_sets_are_refused():
    assert Sets.of(np.ones(9), np.arange(1, 10) / 10, 0.9).threshold == 0.1
    with pytest.raises(ConfigError, match=r"a coverage of 0.9 needs 9 of them. Got 8. Lower it"):
        Sets.of(np.ones(8), np.full(8, 0.5), 0.9)


def test_the_newer_half_shows_what_time_does_to_sets():
    random = np.random.default_rng(0)
    target, chances = drawn(random, 4_000, 5, 1)
    wrong = np.r_[target[:2_000], (target[2_000:] + 1) % 5]

    steady = heldout(target, chances, "classification")

    assert steady["set_coverage"] == pytest.approx(0.9, abs=0.025)
    assert 1 < steady["set_size"] < 4
    assert heldout(wrong, chances, "classification")["set_coverage"] < 0.7
    assert "set_coverage" not in heldout(target[:17], chances[:17], "classification")
