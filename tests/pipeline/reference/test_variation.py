import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.reference.variation import (
    Observed,
    Units,
    Yardstick,
    _against_the_past,
    batches_since,
    chi_square_yardstick,
    gathered,
    grown,
    last_batches_p,
    last_batches_reach,
    yardstick,
)

ROWS = 100
ENOUGH = 600


def band(alpha, trials):
    """Shares of rejections that a test of size alpha shows in 99.8% of simulations."""
    return stats.binom.ppf([0.001, 0.999], trials, alpha) / trials


def observed(values, rows=ROWS):
    return Observed(np.asarray(values, float), np.full(np.shape(values), float(rows)))


def standard(traits, *, variance=1.0, skewness=0.0):
    return Units(np.full(traits, variance), np.full(traits, skewness))


def independent(traits, *, effect=1.0):
    return Yardstick(np.full(traits, effect), np.full(traits, np.inf), np.ones(traits, dtype=bool))


def shocked(traits, *, effect, blocks):
    freedom = np.full(traits, blocks - 1)
    return Yardstick(np.full(traits, float(effect)), freedom, np.ones(traits, dtype=bool))


def test_one_trait_in_twenty_of_independent_rows_is_called_dependent():
    random = np.random.default_rng(1)
    rulers = [
        yardstick(observed(random.normal(scale=0.1, size=(10, 1))), standard(1))
        for _ in range(2000)
    ]
    low, high = band(0.05, 2000)

    assert low <= np.mean([ruler.dependent[0] for ruler in rulers]) <= high


def test_blocks_of_different_lengths_are_weighed_by_their_rows():
    random = np.random.default_rng(2)
    sizes = np.tile(random.integers(20, 2000, size=(10, 1)), 2000).astype(float)
    blocks = Observed(random.normal(size=(10, 2000)) / np.sqrt(sizes), sizes)

    distances = (blocks.values - blocks.weighted_mean) ** 2 * sizes
    assert stats.kstest(distances.sum(axis=0), stats.chi2(9).cdf).pvalue > 0.001
    wide = yardstick(Observed(3 * blocks.values, sizes), standard(2000))
    assert wide.effect.mean() == pytest.approx(9, rel=0.05)


@pytest.mark.parametrize("trials", [1000, pytest.param(20_000, marks=pytest.mark.statistics)])
def test_independent_traits_are_taken_for_dependent_at_most_one_time_in_a_hundred(
    share_band, trials
):
    """It is once in 300. 1,000 trials see a rate of 3% in nine of ten runs."""
    random = np.random.default_rng(3)
    squares = random.chisquare(9, size=(trials, 30))
    rulers = [chi_square_yardstick(row, np.full(30, 9)) for row in squares]

    low, high = share_band(trials, 0.002, 0.01)
    assert low <= np.mean([ruler.dependent.mean() > 0.5 for ruler in rulers]) <= high


def test_blocks_with_shocks_of_their_own_are_dependent_with_their_own_effect():
    random = np.random.default_rng(4)
    values = random.normal(size=(10, 30)) * np.sqrt(0.01 + 0.09)
    ruler = yardstick(observed(values), standard(30))

    assert ruler.dependent.all()
    np.testing.assert_allclose(ruler.effect, values.var(axis=0, ddof=1) * ROWS)
    assert (ruler.freedom == 9).all()


def test_dependence_too_weak_to_prove_in_a_trait_is_estimated_from_all_traits():
    cut = stats.chi2(9).isf(0.05)
    drawn = 1.5 * np.random.default_rng(5).chisquare(9, size=1000)
    squares = drawn[drawn < cut]
    ruler = chi_square_yardstick(squares, np.full(len(squares), 9))

    (effect,) = np.unique(ruler.effect)
    model = stats.chi2(9, scale=effect)
    assert model.expect(lb=0, ub=cut, conditional=True) == pytest.approx(squares.mean(), rel=1e-6)
    # Four standard errors: the expectation grows by its variance over twice the effect squared.
    error = 2 * 1.5**2 / squares.std() / np.sqrt(len(squares))
    assert effect == pytest.approx(1.5, abs=4 * error)
    assert not ruler.dependent.any()


@pytest.mark.parametrize("effect", [1.0, 1.2, 1.5, 2.0])
def test_the_mean_effect_of_thirty_traits_is_that_of_their_blocks(effect):
    random = np.random.default_rng(6)
    squares = effect * random.chisquare(9, size=(200, 30))
    rulers = [chi_square_yardstick(row, np.full(30, 9)) for row in squares]

    # No effect is below 1, so that small ones come out larger, never smaller.
    assert effect - 0.05 <= np.mean([ruler.effect.mean() for ruler in rulers]) <= effect + 0.25


def test_a_trait_that_passes_among_strongly_dependent_traits_counts_as_dependent():
    proved = 4 * np.random.default_rng(7).chisquare(9, size=40)
    ruler = chi_square_yardstick(np.append(proved, [5.0, 12.0, 15.0]), np.full(43, 9))

    assert ruler.dependent[-3:].all()
    np.testing.assert_allclose(ruler.effect[-3:], [1, 12 / 9, 15 / 9])


def test_a_clear_exception_among_strongly_dependent_traits_stays_independent():
    proved = 100 * np.random.default_rng(8).chisquare(9, size=40)
    ruler = chi_square_yardstick(np.append(proved, 8.0), np.full(41, 9))

    assert ruler.dependent[:40].all()
    assert not ruler.dependent[40]
    assert ruler.effect[40] == 1


@pytest.mark.parametrize("blocks", [50, 200, 1_000])
def test_hundreds_of_blocks_share_the_effect_that_they_show(blocks):
    freedom = np.full(30, blocks - 1)

    ruler = chi_square_yardstick(1.02 * freedom, freedom)

    assert 1.02 <= ruler.effect.max() <= 1.2


def test_three_blocks_are_too_few_for_a_yardstick():
    ruler = yardstick(observed([[0.0], [5.0], [-5.0]]), standard(1))

    assert not ruler.measured[0]
    assert ruler.effect[0] == 1


def test_a_shock_shared_by_a_batch_weighs_more_the_longer_it_is():
    tau, noise = 0.1, 1.0
    of_block, of_batch = (1 + tau**2 * n / noise for n in (100, 400))

    assert grown(np.array([of_block]), n=400, n_block=100) == pytest.approx(of_batch)
    assert grown(np.array([of_block]), n=50, n_block=100) == pytest.approx(of_block)


@given(st.integers(2, 12), st.integers(2, 6), st.integers(0, 1000))
def test_dependent_batches_are_tested_by_students_t(b, m, seed):
    random = np.random.default_rng(seed)
    before, now = random.normal(size=(b, 3)), random.normal(0.5, size=(m, 3))
    ruler = shocked(3, effect=100, blocks=b)

    ours = last_batches_p(observed(before), observed(now), standard(3, variance=1e-9), ruler)
    np.testing.assert_allclose(ours, stats.ttest_ind(now, before, equal_var=True).pvalue)


def test_blocks_that_happen_to_agree_do_not_make_a_test_certain():
    before, now = observed(np.zeros((8, 1))), observed(np.full((3, 1), 0.01))
    dependent = shocked(1, effect=100, blocks=8)

    assert last_batches_p(before, now, standard(1), dependent) > 0.5
    assert last_batches_p(before, now, standard(1, variance=1e-9), dependent) < 1e-9
    assert last_batches_p(before, before, standard(1, variance=0.0), dependent) == 1
    assert np.isnan(last_batches_p(before, observed([[0.01]]), standard(1), dependent))


RULERS = {
    "independent": lambda n: (0.1, independent(n)),
    "weakly dependent": lambda n: (0.2, independent(n, effect=4.0)),
    "dependent": lambda n: (1.0, shocked(n, effect=100, blocks=8)),
}
rulers = pytest.mark.parametrize("ruler_of", RULERS.values(), ids=RULERS)


@rulers
def test_the_p_values_of_ordinary_last_batches_are_uniform(ruler_of):
    random, n = np.random.default_rng(9), 4000
    scale, ruler = ruler_of(n)
    before, now = random.normal(scale=scale, size=(8, n)), random.normal(scale=scale, size=(3, n))

    p_values = last_batches_p(observed(before), observed(now), standard(n), ruler)
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


@rulers
def test_ordinary_batches_are_standard_normal_given_the_batches_before(ruler_of):
    random, n = np.random.default_rng(14), 40_000
    scale, ruler = ruler_of(n)
    seen, batch = random.normal(scale=scale, size=(8, n)), random.normal(scale=scale, size=(1, n))

    u = _against_the_past(observed(seen), observed(batch), standard(n), ruler)
    assert stats.kstest(u, "norm").pvalue > 0.001


def test_means_of_exponential_rows_are_standard_normal_given_a_long_past():
    random, n = np.random.default_rng(15), 4000
    means = random.gamma(5, size=(1, n)) / 5
    past = observed(np.ones((10, n)), rows=10**9)

    u = _against_the_past(past, observed(means, rows=5), standard(n, skewness=2.0), independent(n))
    assert stats.kstest(u, "norm").pvalue > 0.001


@pytest.mark.parametrize("effect", [1.0, 4.0])
def test_the_reach_of_independent_batches_is_how_often_they_differ_by_the_floor(effect):
    random = np.random.default_rng(10)
    means = random.normal(scale=0.1 * np.sqrt(effect), size=(11, 20_000))
    apart = np.abs(means[:8].mean(axis=0) - means[8:].mean(axis=0))
    floor, ruler = np.array([0.05, 0.1, 0.15]), independent(3, effect=effect)

    said = last_batches_reach(observed(means[:8, :3]), 3, standard(3), ruler, floor=floor)
    for chance, edge in zip(said, floor, strict=True):
        low, high = band(chance, 20_000)
        assert low <= (apart >= edge).mean() <= high


def test_the_reach_of_dependent_batches_bounds_how_often_they_differ_by_the_floor():
    random, n = np.random.default_rng(11), 4000
    before, now = random.normal(size=(8, n)), random.normal(size=(3, n))
    ruler = shocked(n, effect=100, blocks=8)
    said = last_batches_reach(observed(before), 3, standard(n), ruler, floor=np.ones(n))

    # Each spread is judged by its own blocks, so that the bound is right on the whole.
    reached = (np.abs(now.mean(axis=0) - before.mean(axis=0)) >= 1).mean()
    assert reached <= said.mean() <= 1.5 * reached


def first_reached(before, now, units, ruler, rows=ROWS):
    """Batches until the evidence first reaches `ENOUGH`; infinite where it does not."""
    first = np.full(now.shape[1], np.inf)
    for t in range(1, len(now) + 1):
        evidence = gathered(observed(before, rows), observed(now[:t], rows), units, ruler)
        first = np.where((evidence >= ENOUGH) & np.isinf(first), t, first)
    return first


@pytest.mark.slow
@pytest.mark.parametrize("n", [400, pytest.param(20_000, marks=pytest.mark.statistics)])
@pytest.mark.parametrize("kind", ["independent", "dependent", "rare"])
def test_ordinary_batches_gather_enough_evidence_no_sooner_than_the_run_length_says(
    share_band, kind, n
):
    """The run length allows 10% within 60 batches; 3% gather it. 400 trials see 18% or 0.2%."""
    random = np.random.default_rng(12)
    ruler = shocked(n, effect=100, blocks=10) if kind == "dependent" else independent(n)
    if kind == "rare":
        share, rows = 0.002, 500
        values = random.binomial(rows, share, size=(70, n)) / rows
        variance = share * (1 - share)
        units = standard(n, variance=variance, skewness=(1 - 2 * share) / np.sqrt(variance))
    else:
        rows, units = ROWS, standard(n)
        values = random.normal(scale=1.0 if kind == "dependent" else 0.1, size=(70, n))

    first = first_reached(values[:10], values[10:], units, ruler, rows)
    low, high = share_band(n, 0.025, 60 / ENOUGH)
    assert low <= (first <= 60).mean() <= high


@pytest.mark.parametrize("dependent", [True, False])
def test_a_change_of_two_standard_errors_is_found_within_ten_batches(dependent):
    random, n = np.random.default_rng(13), 400
    scale = 1.0 if dependent else 0.1
    values = random.normal(scale=scale, size=(50, n))
    values[40:] -= 2 * scale
    ruler = shocked(n, effect=100, blocks=40) if dependent else independent(n)

    first = first_reached(values[:40], values[40:], standard(n), ruler)
    assert np.median(first) <= 7
    assert (first <= 10).mean() > 0.8


def test_evidence_without_change_grows_by_one_per_batch():
    now = observed(np.full((30, 1), np.nan))

    evidence = gathered(observed(np.zeros((10, 1))), now, standard(1), independent(1))
    assert evidence == pytest.approx(30)


@given(st.integers(1, 20), st.integers(0, 20), st.sampled_from([-1.0, 1.0]))
def test_the_start_of_a_step_is_found(moved, ordinary, size):
    noise = np.random.default_rng(moved).normal(scale=0.01, size=(10 + ordinary + moved, 1))
    noise[10 + ordinary :] += size

    assert batches_since(observed(noise[:10]), observed(noise[10:])) == moved


def test_without_batches_there_is_no_start_of_a_change():
    assert len(batches_since(observed(np.zeros((4, 3))), observed(np.empty((0, 3))))) == 0
