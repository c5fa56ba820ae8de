import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.config import Categorical, Numeric
from pipeline.reference import Reference
from pipeline.reference.normal_scores import LARGEST_CORRELATION, fisher
from pipeline.reference.profile import NumericProfile

LABELS = ["a", "b", "c", "d"]


def mixed(n, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=n)
    return pd.DataFrame(
        {
            "x": x,
            "skewed": np.exp(0.6 * x + 0.8 * random.normal(size=n)),
            "count": random.poisson(np.exp(0.3 * x)),
            "label": pd.Series(random.choice(LABELS, n, p=[0.5, 0.3, 0.15, 0.05])),
            "flag": pd.Series(x + random.normal(size=n) > 1),
        }
    )


def fitted(frame, categorical=("label", "flag")):
    columns = {name: Categorical() if name in categorical else Numeric() for name in frame}
    return Reference.fit(frame, columns)


def scored(reference):
    """The sample as numbers, looked up one value at a time."""
    return np.column_stack(
        [
            [table[min(cell, len(table) - 1)] for cell in reference.cells[:, column]]
            for column, table in zip(
                reference.normal_scores.columns, reference.normal_scores.tables, strict=True
            )
        ]
    )


def test_scores_have_mean_zero_and_variance_one_over_the_reference():
    numbers = scored(fitted(mixed(3000)))

    np.testing.assert_allclose(numbers.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(numbers.var(axis=0), 1)


def test_a_missing_value_scores_zero():
    assert [table[-1] for table in fitted(mixed(500)).normal_scores.tables] == [0.0] * 7


def test_normal_scores_are_the_normal_quantiles_of_ranks():
    x = np.random.default_rng(1).lognormal(size=400)
    profile = NumericProfile.fit(x)
    quantiles = stats.norm.ppf((stats.rankdata(x) - 0.5) / len(x))

    scores = profile.normal_scores[profile.cells(x)]
    np.testing.assert_allclose(scores, quantiles / quantiles.std(), atol=1e-9)


def test_an_indicator_separates_one_label_from_the_rest():
    frame = mixed(2000)
    reference = fitted(frame)
    scores, numbers = reference.normal_scores, scored(reference)

    assert [label for label in scores.labels if label] == ["False", "a", "b", "c"]
    place = scores.labels.index("c")
    values, rows = np.unique(numbers[:, place].round(9), return_counts=True)
    assert len(values) == 2
    assert rows[1] == (frame["label"] == "c").sum()


def test_correlations_equal_numpys():
    reference = fitted(mixed(1000))
    numbers = np.corrcoef(scored(reference), rowvar=False)

    np.testing.assert_allclose(reference.normal_scores.correlation, numbers, atol=1e-12)
    np.testing.assert_allclose(
        reference.normal_scores.correlations(reference.cells), numbers, atol=1e-12
    )


def test_moments_equal_scipys_and_numpys():
    reference = fitted(mixed(1000))
    scores, numbers = reference.normal_scores, scored(reference)
    plain = numbers[:, scores.numeric]

    np.testing.assert_allclose(scores.skewness, stats.skew(numbers), atol=1e-9)
    np.testing.assert_allclose(scores.covariance, np.cov(plain, rowvar=False, ddof=0), atol=1e-9)


def test_the_variance_of_one_rows_correlation_is_one_when_both_are_normal():
    random = np.random.default_rng(2)
    x, y = random.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 10_000).T
    scores = fitted(pd.DataFrame({"x": x, "y": y})).normal_scores

    # About three standard errors of a fourth moment over ten thousand rows.
    assert scores.variance[0, 1] == pytest.approx(1, abs=0.1)


def heavy(random, shape):
    """Normal margins, but both columns are large in the same rows."""
    scale = np.sqrt(stats.chi2(4).rvs((*shape, 1), random_state=random) / 4)
    return random.multivariate_normal([0, 0], [[1, 0.4], [0.4, 1]], shape) / scale


def discrete(random, shape):
    x = random.normal(size=shape)
    return np.stack([np.floor(x + random.normal(size=shape)), x > 1], axis=-1).astype(float)


@pytest.mark.parametrize("source", [heavy, discrete])
def test_the_variance_of_fishers_z_equals_its_variance_over_many_samples(source):
    random = np.random.default_rng(3)
    x, y = source(random, (10_000,)).T
    reference = fitted(pd.DataFrame({"x": x, "y": y}))

    samples = source(random, (1500, 400))
    profiles = [reference.columns[name] for name in ("x", "y")]
    found = [
        reference.normal_scores.correlations(
            np.column_stack(
                [profile.cells(column) for profile, column in zip(profiles, s.T, strict=True)]
            )
        )[0, 1]
        for s in samples
    ]
    # Four standard errors of a variance over 1,500 samples.
    assert 400 * np.arctanh(found).var() == pytest.approx(
        reference.normal_scores.variance[0, 1], rel=0.16
    )


def test_axes_turn_dependent_scores_into_independent_ones():
    reference = fitted(mixed(4000))
    scores = reference.normal_scores
    turned = scored(reference)[:, scores.numeric] @ scores.axes(4000)

    np.testing.assert_allclose(np.cov(turned, rowvar=False, ddof=0), np.eye(3), atol=1e-9)


def test_axes_leave_out_rare_columns_and_directions_without_spread():
    frame = mixed(4000)
    frame["again"] = frame["x"] + 0.001 * frame["skewed"]
    frame["rare"] = np.arange(4000) < 100
    scores = fitted(frame.astype({"rare": float})).normal_scores
    names = sorted(frame)

    axes = scores.axes(400)
    rare = [names[scores.columns[i]] for i in scores.numeric].index("rare")
    assert axes.shape == (5, 3)
    assert not axes[rare].any()
    assert scores.axes(4000).shape == (5, 4)
    assert scores.axes(10).shape == (5, 0)


def test_a_constant_has_no_correlation():
    frame = mixed(500)
    reference = fitted(frame)
    held = reference.tally(frame.assign(x=1.0))

    column = reference.normal_scores.columns.index(reference.names.index("x"))
    assert np.isnan(held.correlation[column]).all()
    assert np.isnan(held.correlation[:, column]).all()
    assert np.isfinite(held.correlation).sum() == (len(held.correlation) - 1) ** 2


def test_a_constant_column_of_the_reference_has_no_score():
    reference = fitted(mixed(500).assign(x=1.0, label="a"))

    assert [reference.names[i] for i in reference.normal_scores.columns] == [
        "count",
        "flag",
        "skewed",
    ]


def test_every_two_scores_of_different_columns_are_paired_once():
    scores = fitted(mixed(500)).normal_scores
    i, j, starts = scores.pairs
    column = np.asarray(scores.columns)

    expected = {(a, b) for a in range(len(column)) for b in range(a) if column[a] != column[b]}
    assert len(i) == len(expected)
    assert {(max(pair), min(pair)) for pair in zip(i, j, strict=True)} == expected
    parts = [
        set(zip(column[a], column[b], strict=True))
        for a, b in zip(np.split(i, starts[1:]), np.split(j, starts[1:]), strict=True)
    ]
    assert starts[0] == 0
    assert [len(part) for part in parts] == [1] * 10
    assert len(set.union(*parts)) == 10


def test_the_leading_score_of_a_categorical_column_is_its_most_frequent_label():
    scores = fitted(mixed(500)).normal_scores

    assert [scores.labels[i] for i in scores.leading] == ["", "False", "a", "", ""]
    assert scores.of_leading(scores.correlation).shape == (10,)


def test_fishers_z_is_finite_for_a_perfect_correlation():
    r = np.array([-1.0, 0.3, 1.0])

    limit = np.arctanh(LARGEST_CORRELATION)
    np.testing.assert_allclose(fisher(r), [-limit, np.arctanh(0.3), limit])
