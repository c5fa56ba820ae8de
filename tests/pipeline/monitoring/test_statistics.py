import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import signal, stats

from pipeline.monitoring.statistics import (
    blocks_p,
    blocks_reach,
    calibrated,
    design_effect,
    homogeneity_p,
    kolmogorov_p,
    novelty_p,
    proportions_p,
    psi,
    total_variation_reach,
)

counts = st.integers(0, 400)
shares = st.lists(st.floats(0.01, 1), min_size=2, max_size=8).map(lambda x: np.array(x) / sum(x))


def at_most(alpha, trials):
    """Largest share of rejections that a test of size alpha shows in 99.9% of simulations."""
    return stats.binom.ppf(0.999, trials, alpha) / trials


@pytest.mark.parametrize(("n", "m", "off"), [(50, 50, 0.4), (400, 100, 0.2), (4000, 500, 0.05)])
def test_kolmogorov_p_is_scipys_within_a_stated_share(n, m, off):
    random = np.random.default_rng(n)
    method = "exact" if n < 1000 else "asymp"

    for shift in np.linspace(0, 3 / np.sqrt(m), 20):
        theirs = stats.ks_2samp(random.normal(size=n), random.normal(shift, size=m), method=method)
        ours = kolmogorov_p(theirs.statistic, n_reference=n, n_current=m)
        assert ours == pytest.approx(theirs.pvalue, rel=off, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_kolmogorov_p_keeps_its_size_without_drift(alpha):
    random = np.random.default_rng(1)
    distances = [
        stats.ks_2samp(random.normal(size=800), random.normal(size=200), method="asymp").statistic
        for _ in range(1000)
    ]
    p_values = np.array([kolmogorov_p(d, n_reference=800, n_current=200) for d in distances])

    assert (p_values <= alpha).mean() <= at_most(alpha, 1000)


def test_ties_make_kolmogorov_p_larger_never_smaller():
    random = np.random.default_rng(2)
    rounded = [
        stats.ks_2samp(random.poisson(1, 800), random.poisson(1, 200), method="asymp").statistic
        for _ in range(500)
    ]
    p_values = np.array([kolmogorov_p(d, n_reference=800, n_current=200) for d in rounded])

    assert (p_values <= 0.05).mean() <= 0.05


def test_homogeneity_p_is_pearsons_where_no_label_is_rare():
    table = np.array([[300.0, 500.0, 200.0], [40.0, 40.0, 20.0]])

    assert homogeneity_p(*table) == pytest.approx(stats.chi2_contingency(table).pvalue)


def test_homogeneity_p_pools_labels_until_five_rows_are_expected():
    reference, current = np.array([500.0, 480.0, 12.0, 8.0]), np.array([90.0, 106.0, 1.0, 3.0])
    pooled = np.array([[500.0, 500.0], [90.0, 110.0]])

    expected = stats.chi2_contingency(pooled, correction=False).pvalue
    assert homogeneity_p(reference, current) == pytest.approx(expected)


@pytest.mark.parametrize("rows", [50, 200, 500])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_homogeneity_p_keeps_its_size_with_a_very_rare_label(rows, alpha):
    random, chances = np.random.default_rng(rows), [0.5, 0.499, 0.001]
    tables = zip(
        random.multinomial(4000, chances, size=2000).astype(float),
        random.multinomial(rows, chances, size=2000).astype(float),
        strict=True,
    )
    p_values = np.array([homogeneity_p(before, now) for before, now in tables])

    # Pearson's statistic takes steps: half as much again is granted to five expected rows.
    assert (p_values <= alpha).mean() <= at_most(1.5 * alpha, 2000)


def test_one_label_cannot_differ():
    assert homogeneity_p(np.array([90.0]), np.array([10.0])) == 1


@given(counts, counts, counts, counts)
def test_proportions_p_is_fishers_within_a_factor_of_three_and_exactly_with_small_counts(
    a, b, c, d
):
    assume(a + b > 0 and c + d > 0)
    ours = proportions_p(reference=a, n_reference=a + b, current=c, n_current=c + d)
    exact = stats.fisher_exact([[a, b], [c, d]]).pvalue

    assert exact / 3 - 1e-4 <= ours <= 3 * exact + 1e-4
    assert ours == exact or min(a, b, c, d) > 20


@pytest.mark.parametrize("share", [0.002, 0.06, 0.5])
def test_proportions_p_keeps_its_size(share):
    random = np.random.default_rng(3)
    pairs = zip(random.binomial(4000, share, 2000), random.binomial(500, share, 2000), strict=True)
    p_values = np.array(
        [proportions_p(reference=a, n_reference=4000, current=b, n_current=500) for a, b in pairs]
    )

    assert (p_values <= 0.01).mean() <= at_most(0.01, 2000)
    assert (p_values <= 0.05).mean() <= at_most(0.05, 2000)


@pytest.mark.parametrize(("rare", "batch"), [(50, 500), (300, 500), (2000, 500), (2000, 2000)])
def test_novelty_p_keeps_its_size_when_the_source_has_many_rare_labels(rare, batch):
    random = np.random.default_rng(rare)
    chances = np.append(np.full(rare, 0.3 / rare), 0.7)
    p_values = []
    for _ in range(1000):
        before, now = random.multinomial(4000, chances), random.multinomial(batch, chances)
        unseen, singletons = int(now[before == 0].sum()), int((before == 1).sum())
        p_values.append(
            novelty_p(unseen=unseen, n_current=batch, singletons=singletons, n_reference=4000)
        )

    # Rows of one new label come in clumps: half as much again is granted.
    assert np.mean(np.array(p_values) <= 0.01) <= at_most(0.015, 1000)


def test_two_percent_of_unseen_rows_are_found():
    assert novelty_p(unseen=20, n_current=1000, singletons=0, n_reference=4000) < 1e-9
    assert novelty_p(unseen=0, n_current=1000, singletons=0, n_reference=4000) == 1


@pytest.mark.parametrize(
    "p_value",
    [
        kolmogorov_p(0.5, n_reference=0, n_current=5),
        homogeneity_p(np.array([5.0]), np.array([0.0])),
        proportions_p(reference=0, n_reference=5, current=0, n_current=0),
        novelty_p(unseen=0, n_current=0, singletons=0, n_reference=5),
        design_effect([0.5])[0],
        blocks_p(np.array([1.0, 2.0]), np.array([1.0]), sampling_variance=0.0)[0],
    ],
)
def test_what_an_empty_side_leaves_undefined_is_nan(p_value):
    assert np.isnan(p_value)


def test_the_design_effect_of_independent_blocks_is_about_one():
    random = np.random.default_rng(4)
    effects, dependent = zip(*(design_effect(random.random(8)) for _ in range(2000)), strict=True)

    assert np.mean(effects) == pytest.approx(1, abs=0.05)
    assert np.mean(dependent) <= at_most(0.05, 2000)


def kolmogorov_of_shocked(random, shock):
    return kolmogorov_of_parts(random.normal(size=(9, 400)) + shock * random.normal(size=(9, 1)))


def kolmogorov_of_parts(parts):
    """A reference's blocks against the others, and one more batch against all of them."""
    *reference, batch = parts
    blocks, rows = len(reference), len(batch)

    def p_value(part, others):
        distance = stats.ks_2samp(np.concatenate(others), part, method="asymp").statistic
        return kolmogorov_p(distance, n_reference=len(others) * rows, n_current=rows)

    own = [p_value(reference[i], reference[:i] + reference[i + 1 :]) for i in range(blocks)]
    effect, dependent = design_effect(own)
    judged = calibrated(
        p_value(batch, reference), effect=effect, dependent=dependent, n_blocks=blocks
    )
    return effect, dependent, judged


def test_blocks_with_shocks_of_their_own_are_known_as_dependent():
    effect, dependent, _ = kolmogorov_of_shocked(np.random.default_rng(5), shock=0.35)

    assert effect > 5
    assert dependent


@pytest.mark.slow
@pytest.mark.parametrize(("shock", "size"), [(0.0, 0.01), (0.1, 0.02), (0.35, 0.02)])
def test_calibrated_p_values_keep_at_most_twice_their_size_under_shocks(shock, size):
    random = np.random.default_rng(6)
    found = [kolmogorov_of_shocked(random, shock)[2] <= 0.01 for _ in range(400)]

    assert np.mean(found) <= at_most(size, 400)


@pytest.mark.slow
def test_calibrated_p_values_keep_their_size_when_rows_follow_one_another():
    random, steps = np.random.default_rng(7), np.sqrt(1 - 0.9**2)

    def following(size):
        return signal.lfilter([steps], [1, -0.9], random.normal(size=size), axis=1)

    found = [kolmogorov_of_parts(following((9, 500))[:, 100:])[2] <= 0.01 for _ in range(400)]
    assert np.mean(found) <= at_most(0.01, 400)


def test_calibrated_leaves_the_p_values_of_independent_blocks_alone():
    assert calibrated(0.001, effect=1.4, dependent=False, n_blocks=8) == 0.001
    assert np.isnan(calibrated(float("nan"), effect=9.0, dependent=True, n_blocks=8))


@given(st.integers(2, 12), st.integers(2, 6), st.integers(0, 1000))
def test_blocks_p_is_students_t_above_the_sampling_floor(b, m, seed):
    random = np.random.default_rng(seed)
    reference, current = random.normal(size=b), random.normal(0.5, size=m)
    p_value, difference = blocks_p(reference, current, sampling_variance=0.0)

    assert p_value == pytest.approx(stats.ttest_ind(current, reference, equal_var=True).pvalue)
    assert difference == pytest.approx(current.mean() - reference.mean())


def test_blocks_that_happen_to_agree_do_not_make_a_certainty():
    reference, current = np.zeros(8), np.full(3, 0.01)

    assert blocks_p(reference, current, sampling_variance=0.01)[0] > 0.5
    assert blocks_p(reference, current, sampling_variance=0.0)[0] == 0
    assert blocks_p(reference, reference, sampling_variance=0.0)[0] == 1


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_psi_is_the_jeffreys_divergence_of_two_coins(p, q):
    logit = np.log(p / (1 - p)) - np.log(q / (1 - q))

    index = psi(reference=np.array([p, 1 - p]), current=np.array([q, 1 - q]))
    assert index == pytest.approx((p - q) * logit, abs=1e-12)


@given(shares, shares)
def test_psi_is_symmetric_and_zero_for_the_same(one, other):
    size = min(len(one), len(other))
    one, other = one[:size] / one[:size].sum(), other[:size] / other[:size].sum()

    there, back = psi(reference=one, current=other), psi(reference=other, current=one)
    assert there == pytest.approx(back, abs=1e-12)
    assert psi(reference=one, current=one) == 0


def test_total_variation_reach_bounds_how_often_the_floor_is_reached():
    random = np.random.default_rng(5)
    shares, floor = np.full(4, 0.25), 0.06
    one, other = (random.multinomial(500, shares, size=4_000) for _ in range(2))

    reached = (np.abs(one / 500 - other / 500).sum(axis=1) / 2 >= floor).mean()

    bound = total_variation_reach(np.full(4, 125.0), np.full(4, 125.0), floor)
    assert reached <= bound <= 6 * reached


def test_blocks_reach_is_how_often_ordinary_batches_differ_by_the_floor():
    random = np.random.default_rng(6)
    worlds = random.normal(size=(4_000, 11))
    blocks, batches = worlds[:, :8], worlds[:, 8:]

    said = [blocks_reach(row, 3, 1.0, sampling_variance=0.0) for row in blocks]

    # The bound judges each spread by its own blocks, so that it is right on the whole.
    reached = (np.abs(batches.mean(axis=1) - blocks.mean(axis=1)) >= 1.0).mean()
    assert reached <= np.mean(said) <= 1.5 * reached
