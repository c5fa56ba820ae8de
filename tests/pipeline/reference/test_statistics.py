import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance
from sklearn.metrics import roc_auc_score

from pipeline.reference.statistics import (
    beyond_p,
    calibrated,
    homogeneity,
    hotelling_p,
    jensen_shannon,
    kolmogorov_p,
    mean_p,
    mean_tails,
    novelty_p,
    proportions_p,
    psi,
    separation,
    total_variation,
)

counts = st.integers(0, 400)
shares = st.lists(st.floats(0.01, 1), min_size=2, max_size=8).map(lambda x: np.array(x) / sum(x))
rows_per_label = st.lists(st.integers(0, 50), min_size=2, max_size=6).map(
    lambda x: np.array(x, dtype=float)
)
LENGTHS = np.linspace(-6, 6, 49)


def at_night(trials):
    return pytest.param(trials, marks=pytest.mark.statistics)


def test_a_mean_without_skewness_has_normal_tails():
    below, above = mean_tails(LENGTHS)

    np.testing.assert_allclose(below, stats.norm.cdf(LENGTHS), rtol=1e-12)
    np.testing.assert_allclose(above, stats.norm.sf(LENGTHS), rtol=1e-12)


@pytest.mark.parametrize("skewness", [-3, -1, -0.1, -0.002, 0.002, 0.5, 2, 5])
def test_a_skewed_mean_has_the_tails_of_scipys_pearson3(skewness):
    below, above = mean_tails(LENGTHS, skewness=skewness)

    theirs = stats.pearson3(skewness)
    np.testing.assert_allclose(below, theirs.cdf(LENGTHS), rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(above, theirs.sf(LENGTHS), rtol=1e-9, atol=1e-300)


@given(st.floats(-30, 30), st.floats(-5, 5))
def test_the_two_tails_of_a_mean_make_one_and_swap_with_the_sign(z, skewness):
    below, above = mean_tails(z, skewness=skewness)

    assert below + above == pytest.approx(1)
    assert mean_tails(-z, skewness=-skewness) == (above, below)
    assert mean_p(z, skewness=skewness) == min(2 * min(below, above), 1)


@pytest.mark.parametrize(("n", "share"), [(1000, 0.002), (2000, 0.005), (10_000, 0.002)])
def test_the_tail_of_rare_rows_is_within_a_factor_of_two_of_the_binomial_tail(n, share):
    rows = np.arange(int(n * share) + 1, 60)
    exact = stats.binom.sf(rows - 1, n, share)
    spread = np.sqrt(n * share * (1 - share))

    _, above = mean_tails((rows - n * share) / spread, skewness=(1 - 2 * share) / spread)
    ratio = (above / exact)[exact > 1e-6]
    assert 0.5 < ratio.min() <= ratio.max() < 2
    assert (stats.norm.sf((rows - n * share) / spread) / exact)[exact > 1e-6].min() < 0.1


@pytest.mark.parametrize(("n", "m", "off"), [(50, 50, 0.4), (400, 100, 0.2), (4000, 500, 0.05)])
def test_kolmogorov_p_equals_scipys_within_a_stated_share(n, m, off):
    random = np.random.default_rng(n)
    method = "exact" if n < 1000 else "asymp"

    for shift in np.linspace(0, 3 / np.sqrt(m), 20):
        theirs = stats.ks_2samp(random.normal(size=n), random.normal(shift, size=m), method=method)
        ours = kolmogorov_p(theirs.statistic, n_reference=n, n_current=m)
        assert ours == pytest.approx(theirs.pvalue, rel=off, abs=1e-6)


@pytest.mark.parametrize("trials", [1000, at_night(20_000)])
def test_kolmogorov_p_rejects_as_often_as_its_level_says(share_band, trials):
    """1,000 trials see a level of 5% that is really 2% or 9% in five of six runs."""
    random = np.random.default_rng(1)
    distances = [
        stats.ks_2samp(random.normal(size=800), random.normal(size=200), method="asymp").statistic
        for _ in range(trials)
    ]
    p_values = kolmogorov_p(distances, n_reference=800, n_current=200)

    for alpha in (0.05, 0.01):
        low, high = share_band(trials, 0.9 * alpha, 1.1 * alpha)
        assert low <= (p_values <= alpha).mean() <= high


def test_ties_make_kolmogorov_p_larger_never_smaller():
    random = np.random.default_rng(2)
    rounded = [
        stats.ks_2samp(random.poisson(1, 800), random.poisson(1, 200), method="asymp").statistic
        for _ in range(500)
    ]
    p_values = kolmogorov_p(rounded, n_reference=800, n_current=200)

    assert (p_values <= 0.05).mean() <= 0.05


def test_homogeneity_equals_pearsons_chi_square_without_rare_labels():
    table = np.array([[300.0, 500.0, 200.0], [40.0, 40.0, 20.0]])

    theirs = stats.chi2_contingency(table, correction=False)
    assert homogeneity(*table) == pytest.approx((theirs.statistic, theirs.dof))


def test_homogeneity_pools_labels_until_five_rows_are_expected():
    reference, current = np.array([500.0, 480.0, 12.0, 8.0]), np.array([90.0, 106.0, 1.0, 3.0])
    pooled = np.array([[500.0, 500.0], [90.0, 110.0]])

    theirs = stats.chi2_contingency(pooled, correction=False)
    assert homogeneity(reference, current) == pytest.approx((theirs.statistic, theirs.dof))


@pytest.mark.parametrize("trials", [2000, at_night(50_000)])
@pytest.mark.parametrize("rows", [50, 200, 500])
def test_homogeneity_rejects_as_often_as_its_level_says_with_a_very_rare_label(
    share_band, rows, trials
):
    """2,000 trials see a level of 5% that is really 2.5% or 8% in nine of ten runs."""
    random, chances = np.random.default_rng(rows), [0.5, 0.499, 0.001]
    tables = zip(
        random.multinomial(4000, chances, size=trials).astype(float),
        random.multinomial(rows, chances, size=trials).astype(float),
        strict=True,
    )
    p_values = np.array([stats.chi2.sf(*homogeneity(before, now)) for before, now in tables])

    for alpha in (0.05, 0.01):  # Pearson's statistic takes steps: a tenth is granted
        low, high = share_band(trials, 0.9 * alpha, 1.1 * alpha)
        assert low <= (p_values <= alpha).mean() <= high


def test_a_single_label_cannot_differ():
    assert homogeneity(np.array([90.0]), np.array([10.0])) == (0, 0)


@given(rows_per_label, rows_per_label)
def test_total_variation_is_the_largest_difference_of_any_set_of_labels(one, other):
    size = min(len(one), len(other))
    one, other = one[:size], other[:size]
    assume(one.sum() > 0 and other.sum() > 0)

    apart = one / one.sum() - other / other.sum()
    assert total_variation(reference=one, current=other) == pytest.approx(apart[apart > 0].sum())


def both_tails_of_fisher(table):
    one_sided = (stats.fisher_exact(table, side).pvalue for side in ("less", "greater"))
    return min(2 * min(one_sided), 1)


@given(st.tuples(st.integers(0, 20), counts, counts, counts).flatmap(st.permutations))
def test_proportions_p_is_never_below_fishers_when_a_count_is_small(table):
    a, b, c, d = table
    assume(a + b > 0 and c + d > 0)
    ours = proportions_p(reference=a, n_reference=a + b, current=c, n_current=c + d)
    exact = both_tails_of_fisher([[a, b], [c, d]])

    # The binomial bounds the tails; next to the middle the two cross.
    assert ours >= exact * (0.98 if exact < 0.02 else 0.75)


@pytest.mark.parametrize("current", [10, 20, 21, 22, 30, 40, 60])
@pytest.mark.parametrize(("reference", "n"), [(250, 10_000), (50, 10_000), (500, 100_000)])
def test_proportions_p_is_twice_the_hypergeometric_tail(reference, n, current):
    ours = proportions_p(reference=reference, n_reference=n, current=current, n_current=1000)

    rows = stats.hypergeom(n + 1000, reference + current, 1000)
    exact = min(2 * min(rows.sf(current - 1), rows.cdf(current)), 1)
    assert 0.9 * exact <= ours <= 5 * exact


@pytest.mark.parametrize("trials", [2000, at_night(50_000)])
@pytest.mark.parametrize(("share", "least"), [(0.002, 0.15), (0.06, 0.65), (0.5, 0.8)])
def test_proportions_p_rejects_at_most_as_often_as_its_level_says(share_band, share, least, trials):
    """Counts take steps: of a level, `least` is reached.

    2,000 trials see a level of 5% that is really 7.5% in nine of ten runs.
    """
    random = np.random.default_rng(3)
    p_values = proportions_p(
        reference=random.binomial(4000, share, trials),
        n_reference=4000,
        current=random.binomial(500, share, trials),
        n_current=500,
    )

    for alpha in (0.05, 0.01):
        low, high = share_band(trials, least * alpha, alpha)
        assert low <= (p_values <= alpha).mean() <= high


@pytest.mark.parametrize("trials", [1000, at_night(20_000)])
@pytest.mark.parametrize(
    ("rare", "batch", "least"), [(50, 500, 0), (300, 500, 0.8), (2000, 500, 0.5), (2000, 2000, 0.8)]
)
def test_novelty_p_rejects_at_most_as_often_as_its_level_says_with_many_rare_labels(
    share_band, rare, batch, least, trials
):
    """All of 50 labels are seen; of the others, `least` of a level is reached.

    1,000 trials see a level of 5% that is really 10% in nine of ten runs.
    """
    random = np.random.default_rng(rare)
    chances = np.append(np.full(rare, 0.3 / rare), 0.7)
    p_values = []
    for _ in range(trials):
        before, now = random.multinomial(4000, chances), random.multinomial(batch, chances)
        unseen, singletons = int(now[before == 0].sum()), int((before == 1).sum())
        p_values.append(
            novelty_p(unseen=unseen, n_current=batch, singletons=singletons, n_reference=4000)
        )

    for alpha, granted in ((0.05, 1.15), (0.01, 1.65)):  # rows of one new label come in clumps
        low, high = share_band(trials, least * alpha, granted * alpha)
        assert low <= np.mean(np.array(p_values) <= alpha) <= high


def test_two_percent_of_unseen_rows_are_found():
    assert novelty_p(unseen=20, n_current=1000, singletons=0, n_reference=4000) < 1e-9
    assert novelty_p(unseen=0, n_current=1000, singletons=0, n_reference=4000) == 1


@given(st.integers(0, 1000), st.integers(2, 60), st.integers(2, 60), st.integers(1, 40))
def test_separation_equals_scikit_learns_area_and_scipys_rank_sum(seed, zeros, ones, values):
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat([False, True], [zeros, ones]))
    scores = random.integers(values + 1, size=len(labels)).astype(float)
    assume(len(np.unique(scores)) > 1)

    area, p_value = separation(labels, scores)
    theirs = stats.mannwhitneyu(
        scores[labels],
        scores[~labels],
        alternative="greater",
        method="asymptotic",
        use_continuity=False,
    )
    assert area == pytest.approx(roc_auc_score(labels, scores))
    assert p_value == pytest.approx(theirs.pvalue)


def test_equal_scores_separate_nothing():
    assert separation(np.array([True, False, True]), np.zeros(3)) == (0.5, 1.0)


@pytest.mark.parametrize(("freedom", "rows"), [(3, 12), (10, 40)])
def test_hotelling_p_is_uniform_when_the_covariance_is_estimated(freedom, rows):
    random = np.random.default_rng(freedom)
    difference = random.normal(size=(2000, freedom))
    sample = random.normal(size=(2000, rows, freedom))
    covariance = np.stack([np.cov(rows, rowvar=False) for rows in sample])
    solved = np.linalg.solve(covariance, difference[:, :, None])[:, :, 0]

    p_values = hotelling_p((difference * solved).sum(axis=1), freedom=freedom, n_covariance=rows)
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.floats(0, 1e6))
def test_beyond_p_bounds_the_t_test_of_any_observations_within_the_range(seen, widths):
    n, spread = len(seen), max(np.std(seen, ddof=1), 1e-12)
    t = (1 + widths - np.mean(seen)) / (spread * np.sqrt(1 + 1 / n))

    assert 2 * stats.t.sf(t, n - 1) <= beyond_p(widths, blocks=n) * (1 + 1e-6)


@pytest.mark.parametrize(("near", "far"), [(2, 1), (3, 1), (5, 2), (5, 4)])
def test_beyond_p_is_reached_by_observations_at_both_ends_of_the_range(near, far):
    seen, n = np.repeat([1.0, 0.0], [near, far]), near + far
    widths = far / (near - far)  # the distance at which these shares vary most
    t = (1 + widths - seen.mean()) / (seen.std(ddof=1) * np.sqrt(1 + 1 / n))

    assert beyond_p(widths, blocks=n) == pytest.approx(2 * stats.t.sf(t, n - 1))


def test_beyond_p_is_one_inside_the_range_and_falls_with_the_distance():
    p_values = beyond_p(np.concatenate([[0.0], np.geomspace(1e-9, 1e30, 200)]), blocks=8)

    assert p_values[0] == 1
    assert (np.diff(p_values) < 0).all()


@given(st.floats(1e-6, 1), st.floats(1, 50), st.integers(1, 30))
def test_calibrated_refers_the_chi_square_over_its_effect_to_f(p_value, effect, freedom):
    ours = calibrated(p_value, effect=effect, freedom=freedom)
    known = calibrated(p_value, effect=effect, freedom=np.inf)

    value = stats.chi2.isf(p_value, 1) / effect
    assert ours == pytest.approx(stats.f.sf(value, 1, freedom))
    assert known == pytest.approx(stats.chi2.sf(value, 1))
    assert ours >= known * (1 - 1e-9) >= p_value * (1 - 2e-9)


def test_calibrated_leaves_independent_rows_and_undefined_chances_alone():
    assert calibrated(1e-320, effect=1.0, freedom=np.inf) == 1e-320
    assert np.isnan(calibrated(float("nan"), effect=9.0, freedom=8))


@pytest.mark.parametrize(
    "value",
    [
        mean_p(np.nan),
        mean_p(np.nan, skewness=2.0),
        kolmogorov_p(0.5, n_reference=0, n_current=5),
        homogeneity(np.array([5.0]), np.array([0.0]))[0],
        total_variation(reference=np.array([0.0]), current=np.array([1.0])),
        proportions_p(reference=0, n_reference=5, current=0, n_current=0),
        novelty_p(unseen=0, n_current=0, singletons=0, n_reference=5),
    ],
)
def test_statistics_of_an_empty_side_are_nan(value):
    assert np.isnan(value)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_psi_is_the_jeffreys_divergence_of_two_coins(p, q):
    logit = np.log(p / (1 - p)) - np.log(q / (1 - q))

    index = psi(reference=np.array([p, 1 - p]), current=np.array([q, 1 - q]))
    assert index == pytest.approx((p - q) * logit, abs=1e-12)


@given(shares, shares)
def test_psi_is_symmetric_and_zero_for_equal_shares(one, other):
    size = min(len(one), len(other))
    one, other = one[:size] / one[:size].sum(), other[:size] / other[:size].sum()

    there, back = psi(reference=one, current=other), psi(reference=other, current=one)
    assert there == pytest.approx(back, abs=1e-12)
    assert psi(reference=one, current=one) == 0


@given(rows_per_label, rows_per_label)
def test_jensen_shannon_equals_scipys_in_bits(one, other):
    size = min(len(one), len(other))
    one, other = one[:size], other[:size]
    assume(one.sum() > 0 and other.sum() > 0)
    one, other = one / one.sum(), other / other.sum()

    ours = jensen_shannon(reference=one, current=other)
    assert ours == pytest.approx(distance.jensenshannon(one, other, base=2), abs=1e-7)
