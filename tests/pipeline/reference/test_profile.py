import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.reference.profile import GRID, MISSING, RARE, CategoricalProfile, NumericProfile

SOURCES = {
    "normal": lambda random, size: random.normal(3, 2, size),
    "lognormal": lambda random, size: random.lognormal(size=size),
    "counts": lambda random, size: random.poisson(2, size).astype(float),
    "mostly zero": lambda random, size: np.maximum(random.normal(-1, 1, size), 0),
}
sources = pytest.mark.parametrize("draw", SOURCES.values(), ids=SOURCES)
whole = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=100)
anything = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=50)
labelled = st.lists(st.sampled_from("abcdefgh"), max_size=50)


def two_samples(draw, n=5000, m=1500):
    random = np.random.default_rng(0)
    return draw(random, n), draw(random, m) * 1.2


def categorical(labels):
    found, counts = np.unique(np.asarray(labels, dtype="U1"), return_counts=True)
    return CategoricalProfile.fit(dict(zip(found.tolist(), counts.tolist(), strict=True)), 0)


@given(anything, anything)
def test_counts_match_the_cells_of_the_values_that_are_not_missing(before, now):
    profile, values = NumericProfile.fit(np.array(before)), np.array(now)
    cells = profile.cells(values)

    known = np.isfinite(values)
    expected = np.bincount(cells[known], minlength=2 * len(profile.grid) + 1)
    np.testing.assert_array_equal(profile.count(np.sort(values[known])), expected)
    np.testing.assert_array_equal(cells == MISSING, ~known)


@given(whole)
def test_the_value_of_a_cell_lies_in_that_cell(numbers):
    profile = NumericProfile.fit(np.array(numbers))
    cells = np.arange(1, 2 * len(profile.grid), dtype=np.uint16)

    np.testing.assert_array_equal(profile.cells(profile.values(cells)), cells)
    ends = profile.values(np.array([0, 2 * len(profile.grid), MISSING], dtype=np.uint16))
    np.testing.assert_array_equal(ends, [min(numbers), max(numbers), np.nan])


@given(*[whole.filter(lambda numbers: len(numbers) > 1)] * 2)
def test_the_distance_of_a_column_with_few_values_equals_scipys(before, now):
    profile = NumericProfile.fit(np.array(before))

    ours = profile.distance(profile.count(np.sort(now)))
    assert ours == pytest.approx(stats.ks_2samp(before, now, method="asymp").statistic)


@sources
def test_the_distance_on_the_grid_is_exact_to_within_a_grid_step(draw):
    before, now = two_samples(draw)
    profile = NumericProfile.fit(before)

    ours = profile.distance(profile.count(np.sort(now)))
    exact = stats.ks_2samp(before, now, method="asymp").statistic
    assert exact - 1.5 / GRID <= ours <= exact + 1e-12


@sources
def test_the_reference_itself_has_mean_zero_variance_one_and_no_distance(draw):
    before, _ = two_samples(draw)
    profile = NumericProfile.fit(before)
    counts = profile.count(np.sort(before))

    assert counts @ profile.normal_scores / len(before) == pytest.approx(0, abs=1e-9)
    assert profile.variance(counts) == pytest.approx(1)
    assert profile.distance(counts) == pytest.approx(0, abs=1e-12)


@sources
def test_moments_of_the_normal_scores_equal_scipys(draw):
    before, _ = two_samples(draw)
    profile = NumericProfile.fit(before)
    scored = profile.normal_scores[profile.cells(before)]

    assert profile.moments.skewness == pytest.approx(stats.skew(scored), abs=1e-9)
    assert profile.moments.kurtosis == pytest.approx(stats.kurtosis(scored, fisher=False))
    assert profile.moments.square_skewness == pytest.approx(stats.skew(scored**2))


def test_two_equally_frequent_values_have_finite_moments():
    profile = NumericProfile.fit(np.array([0.0, 1.0] * 50))

    assert profile.moments.kurtosis == pytest.approx(1)
    assert profile.moments.square_skewness == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0, 3.0, 50.0])
def test_wasserstein_equals_scipys_in_standard_deviations_also_beyond_the_range(shift):
    random = np.random.default_rng(1)
    before, now = random.random(20_000), 1.1 * random.random(3000) + shift
    profile = NumericProfile.fit(before)
    beyond = np.abs(now - np.clip(now, before.min(), before.max())).mean()

    ours = profile.wasserstein(profile.count(np.sort(now)), beyond=beyond)
    exact = stats.wasserstein_distance(before, now) / before.std()
    assert ours == pytest.approx(exact, rel=0.02)


@sources
def test_tenths_count_the_rows_between_deciles_of_the_reference(draw):
    before, now = two_samples(draw)
    profile = NumericProfile.fit(before)
    was, became = profile.tenths(profile.count(np.sort(now)))

    assert (was.sum(), became.sum()) == pytest.approx((len(before), len(now)))
    assert len(was) == len(became) <= 10
    before_rows, now_rows = profile.tenths(profile.count(np.sort(before)))
    np.testing.assert_allclose(before_rows, now_rows)


def test_tenths_of_a_continuous_column_hold_a_tenth_each():
    before, now = two_samples(SOURCES["normal"])
    profile = NumericProfile.fit(before)
    was, became = profile.tenths(profile.count(np.sort(now)))

    cuts = np.quantile(before, np.linspace(0.1, 0.9, 9))
    expected = np.bincount(np.searchsorted(cuts, now), minlength=10)
    np.testing.assert_allclose(was, len(before) / 10, atol=len(before) * 2 / GRID)
    np.testing.assert_allclose(became, expected, atol=len(now) * 4 / GRID)


@given(whole, whole)
def test_merging_columns_with_few_values_equals_fitting_all_rows(one, other):
    merged = NumericProfile.fit(np.array(one)).merge(NumericProfile.fit(np.array(other)))
    together = NumericProfile.fit(np.array(one + other))

    assert (merged.n, merged.grid) == (together.n, together.grid)
    assert (merged.mean, merged.sd) == pytest.approx((together.mean, together.sd), abs=1e-9)
    np.testing.assert_allclose(merged.edges, together.edges)


@sources
def test_a_merged_distribution_is_exact_to_two_steps_of_the_grid(draw):
    before, now = two_samples(draw)
    gaps = np.array([np.nan, np.inf])
    merged = NumericProfile.fit(before).merge(NumericProfile.fit(np.append(now, gaps)))
    both = np.sort(np.append(before, now))

    assert (merged.n, merged.missing) == (len(both), 2)
    assert (merged.mean, merged.sd) == pytest.approx((both.mean(), both.std()))
    assert merged.distance(merged.count(both)) <= 2 / GRID
    assert (merged.grid[0], merged.grid[-1]) == (both[0], both[-1])


@given(whole)
def test_merging_with_an_empty_column_only_adds_missing_values(numbers):
    profile, empty = NumericProfile.fit(np.array(numbers)), NumericProfile.fit(np.full(3, np.nan))

    for merged in (profile.merge(empty), empty.merge(profile)):
        assert merged.missing == 3
        assert (merged.n, merged.grid, merged.edges.tolist()) == (
            profile.n,
            profile.grid,
            profile.edges.tolist(),
        )


@given(st.lists(st.integers(-50, 50).map(float), min_size=2, max_size=100, unique=True))
def test_ranks_hide_that_a_value_is_a_quantile_or_an_extreme_of_the_reference(numbers):
    profile, own = NumericProfile.fit(np.array(numbers)), np.sort(numbers)
    ranks = profile.ranks(profile.cells(own))

    np.testing.assert_array_equal(ranks, profile.ranks(profile.cells(own - 0.5)))
    assert ranks[0] == ranks[1] == profile.ranks(profile.cells(own[:1] - 99))
    assert ranks[-1] == profile.ranks(profile.cells(own[-1:] + 99))
    assert (np.diff(ranks[1:]) == 1).all()
    assert np.isnan(profile.ranks(profile.cells(np.array([np.nan]))))


@pytest.mark.parametrize("n", [20, 3_000])
@pytest.mark.parametrize("part", [1, 2, 7, 20])
def test_the_span_holds_the_median_of_any_part_of_the_rows(n, part):
    values = np.sort(np.random.default_rng(n).lognormal(size=n))
    low, high = NumericProfile.fit(values).span(part / (2 * n))

    assert low <= np.median(values[:part])
    assert np.median(values[-part:]) <= high
    assert (low, high) == (values[0], values[-1]) or part > 2


def test_ranks_hide_labels_that_are_rare_or_were_never_held():
    profile = CategoricalProfile.fit({"a": 500, "b": RARE, "c": RARE - 1, "d": 1}, missing=3)
    labels = ["b", "c", "d", "new", "a"]

    ranks = profile.ranks(profile.cells(np.array([0, 1, 2, 3, 4, -1]), labels))
    np.testing.assert_array_equal(ranks, [1, 2, 2, 2, 0, np.nan])


def test_labels_are_ordered_by_rows_and_then_by_name():
    profile = CategoricalProfile.fit({"z": 2, "b": 5, "a": 2, "c": 9}, missing=1)

    assert list(profile.counts.items()) == [("c", 9), ("b", 5), ("a", 2), ("z", 2)]
    assert (profile.n, profile.missing) == (18, 1)


@pytest.mark.parametrize(
    ("labels", "followed", "scored"),
    [("", "", ""), ("a", "", ""), ("ab", "ab", "a"), ("abcdefgh", "abcde", "abcde")],
)
def test_a_single_label_has_no_share_and_the_last_label_no_pairs(labels, followed, scored):
    profile = categorical(list(labels))

    assert profile.followed == list(followed)
    assert profile.scored == list(scored)


@given(labelled, labelled)
def test_labels_are_counted_by_rank_with_unknown_labels_last(before, now):
    profile = categorical(before)
    names = sorted(set(now), reverse=True)
    places = np.array([names.index(label) for label in now] + [-1], dtype=np.intp)

    counts = profile.count(places, names)
    expected = [now.count(label) for label in profile.counts]
    others = sum(label not in profile.counts for label in now)
    assert counts.tolist() == [*expected, others]
    cells = profile.cells(places, names)
    assert cells[-1] == MISSING
    np.testing.assert_array_equal(np.bincount(cells[:-1], minlength=len(counts)), counts)


@given(labelled, labelled)
def test_merging_categorical_columns_equals_fitting_all_rows(one, other):
    assert categorical(one).merge(categorical(other)) == categorical(one + other)


def test_a_column_without_values_has_empty_counts():
    profile = NumericProfile.fit(np.array([np.nan, np.inf]))

    assert (profile.n, profile.missing, profile.rarest) == (0, 2, 0)
    assert profile.count(np.array([1.0, 2.0])).tolist() == [2]
    assert np.isnan(profile.values(profile.cells(np.array([1.0])))).all()


def test_a_constant_column_scores_zero_for_any_value():
    profile = NumericProfile.fit(np.full(99, 7.0))

    assert not profile.normal_scores.any()
    assert profile.rarest == 0
    assert np.isnan(profile.wasserstein(profile.count(np.array([7.0, 8.0])), beyond=0.5))
