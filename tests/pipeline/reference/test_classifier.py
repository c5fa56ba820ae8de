import numpy as np
import pytest
from scipy import stats

from pipeline.reference.classifier import separate
from pipeline.reference.profile import NumericProfile
from pipeline.reference.statistics import cauchy_p

SIZES = pytest.mark.parametrize("trials", [300, pytest.param(5000, marks=pytest.mark.statistics)])
"""300 trials see a level of 5% that is really 0.5% or 12.5% in eight of ten runs."""


def correlated(random, n, rho):
    table = random.normal(size=(n, 4))
    table[:, 1] = rho * table[:, 0] + np.sqrt(1 - rho**2) * table[:, 1]
    return table.astype(np.float32)


@SIZES
def test_rows_of_one_source_are_separated_as_often_as_chance_says(share_band, trials):
    random = np.random.default_rng(1)
    tables = (random.normal(size=(450, 4)).astype(np.float32) for _ in range(trials))
    p_values = [separate(table[:300], table[300:], seed=0).p_value for table in tables]

    # The two halves depend on one another, so that only the tail is as it would be without that.
    for level in (0.05, 0.01):
        low, high = share_band(trials, 0.8 * level, 1.1 * level)
        assert low <= np.mean(np.array(p_values) < level) <= high


@SIZES
def test_the_quantiles_of_a_reference_separate_it_from_new_rows_as_often_as_chance_says(
    share_band, trials
):
    random = np.random.default_rng(2)
    p_values = []
    for _ in range(trials):
        table = random.lognormal(size=(600, 2))
        profiles = [NumericProfile.fit(column) for column in table[:400].T]
        ranks = np.column_stack(
            [
                profile.ranks(profile.cells(column))
                for profile, column in zip(profiles, table.T, strict=True)
            ]
        )
        p_values.append(separate(ranks[:400], ranks[400:], seed=0).p_value)

    low, high = share_band(trials, 0.04, 0.05)
    assert low <= np.mean(np.array(p_values) < 0.05) <= high


def test_a_flipped_sign_of_a_correlation_is_found_in_the_columns_that_it_joins():
    random = np.random.default_rng(3)
    found = separate(correlated(random, 2000, 0.7), correlated(random, 2000, -0.7), seed=0)

    assert found.area > 0.75
    assert found.p_value < 1e-9
    assert set(found.columns[:2]) == {0, 1}


def test_rows_known_by_where_they_miss_a_value_are_found():
    random = np.random.default_rng(4)
    before, now = random.normal(size=(2, 400, 3)).astype(np.float32)
    now[:, 2] = np.nan
    found = separate(before, now, seed=0)

    assert found.area == 1
    assert found.columns == (2,)


def test_a_small_shifted_batch_is_separated_from_a_large_reference():
    random = np.random.default_rng(5)
    now = correlated(random, 150, 0.0)
    now[:, 3] += 1

    assert separate(correlated(random, 5000, 0.0), now, seed=0).p_value < 0.01


def test_the_chance_of_a_floor_is_that_of_scipys_rank_sum():
    random = np.random.default_rng(6)
    found = separate(random.normal(size=(400, 2)), random.normal(size=(200, 2)), seed=0)
    theirs = stats.norm.sf(0.03 / np.sqrt((100 + 200 + 1) / (12 * 100 * 200)))

    assert found.rows == (200, 100)
    assert found.chance(0.03) == pytest.approx(theirs)


@pytest.mark.parametrize("rho", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("level", "most"), [(0.05, 0.055), (0.001, 0.001)])
def test_combined_p_values_hold_their_level_in_the_tail(share_band, rho, level, most):
    random = np.random.default_rng(8)
    shared, *own = random.normal(size=(3, 100_000))
    z = [np.sqrt(rho) * shared + np.sqrt(1 - rho) * each for each in own]
    combined = [cauchy_p(pair) for pair in zip(*stats.norm.sf(z), strict=True)]

    assert np.mean(np.asarray(combined) < level) <= share_band(100_000, level, most)[1]


def test_the_same_rows_give_the_same_verdict_again():
    before, now = np.random.default_rng(7).normal(size=(2, 300, 3))

    assert separate(before, now, seed=1) == separate(before, now, seed=1)


@pytest.mark.parametrize(("n", "m", "columns"), [(19, 500, 2), (500, 19, 2), (500, 500, 0)])
def test_no_classifier_is_trained_on_few_rows_or_without_columns(n, m, columns):
    found = separate(np.zeros((n, columns)), np.ones((m, columns)), seed=0)

    assert np.isnan(found.p_value)
    assert np.isnan(found.chance(0.03))
    assert found.columns == ()
