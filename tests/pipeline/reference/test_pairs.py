import numpy as np
import pandas as pd
import pytest

from pipeline.columns import infer_columns
from pipeline.reference import Reference
from pipeline.reference.pairs import FOLLOWED, choose, too_many
from pipeline.reference.serialised import reference_from_dict, reference_to_dict

WIDE = 160


def names(n=WIDE):
    return [f"x{i:03}" for i in range(n)]


def wide(rows, seed=0):
    """Independent columns, but for two pairs with a correlation of 0.8 that lie far apart."""
    values = np.random.default_rng(seed).normal(size=(rows, WIDE))
    values[:, 90] = 0.8 * values[:, 3] + 0.6 * values[:, 90]
    values[:, 131] = -0.8 * values[:, 40] + 0.6 * values[:, 131]
    return pd.DataFrame(values, columns=names())


def fitted(frame, **options):
    return Reference.fit(frame, infer_columns(frame), block=200, **options)


def test_all_pairs_of_a_hundred_columns_are_followed():
    assert not too_many(100)
    assert too_many(101)
    assert FOLLOWED >= 100 * 99 // 2


def test_clear_correlations_are_followed_and_all_columns_about_equally_often():
    reference = fitted(wide(1_000))

    assert len(reference.followed) == FOLLOWED
    assert {("x003", "x090"), ("x040", "x131")} <= set(reference.followed)
    counts = pd.Series([name for pair in reference.followed for name in pair]).value_counts()
    assert len(counts) == WIDE
    assert counts.max() - counts.min() <= 6


def test_pairs_of_the_most_important_columns_are_followed_first():
    important = {"x001": 0.2, "x060": 0.3, "x120": 0.1}
    reference = fitted(wide(1_000), importance=important)

    assert ("x001", "x060") in reference.followed
    assert {("x001", "x120"), ("x060", "x120")} <= set(reference.followed)
    assert ("x001", "x060") not in fitted(wide(1_000)).followed


def test_chance_does_not_choose_among_pairs_without_a_clear_correlation():
    r = np.random.default_rng(0).uniform(-0.29, 0.29, size=(WIDE, WIDE))
    nothing, chance = np.eye(WIDE), np.triu(r, 1) + np.triu(r, 1).T + np.eye(WIDE)
    unknown = np.zeros(WIDE)

    np.testing.assert_array_equal(
        choose(nothing, unknown, rows=1_000), choose(chance, unknown, rows=1_000)
    )


def test_traits_hold_the_followed_pairs_in_their_order():
    reference = fitted(wide(1_000))
    pairs = tuple(t.columns for t in reference.traits.all if t.kind == "correlation")

    assert pairs == reference.followed
    assert {t.columns for t in reference.blocks[0] if t.kind == "correlation"} == set(pairs)


def test_correlations_and_their_variances_are_those_of_all_pairs():
    reference = fitted(wide(1_000))
    scores = reference.normal_scores.of(reference.cells)
    one, other = reference.normal_scores.followed
    r = np.corrcoef(scores, rowvar=False)[one, other]
    z = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    influence = z[:, one] * z[:, other] - r * (z[:, one] ** 2 + z[:, other] ** 2) / 2
    expected = (influence**2).mean(axis=0) / (1 - r**2) ** 2

    np.testing.assert_allclose(
        reference.normal_scores.of_leading(reference.normal_scores.correlation), r, atol=1e-9
    )
    np.testing.assert_allclose(
        reference.normal_scores.of_leading(reference.normal_scores.variance), expected, rtol=1e-6
    )


def test_the_followed_pairs_are_stored():
    reference = fitted(wide(1_000), importance={"x001": 1.0, "x060": 1.0})

    assert reference_from_dict(reference_to_dict(reference)) == reference


def test_a_wide_reference_that_stored_all_pairs_is_read():
    values = reference_to_dict(fitted(wide(1_000)))
    del values["followed"]

    assert len(reference_from_dict(values).followed) == FOLLOWED


def test_a_merged_reference_follows_the_pairs_that_both_follow():
    one = fitted(wide(1_000, seed=1), importance={"x001": 1.0, "x060": 1.0})
    other = fitted(wide(1_000, seed=2))
    merged = one.merge(other)

    assert set(merged.followed) == set(one.followed) & set(other.followed)
    assert len(merged.blocks) == 10


@pytest.mark.parametrize("columns", [5, 100])
def test_narrow_tables_follow_all_pairs(columns):
    frame = pd.DataFrame(
        np.random.default_rng(0).normal(size=(300, columns)), columns=names(columns)
    )
    reference = fitted(frame)

    assert reference.followed is None
    assert len(reference.normal_scores.followed[0]) == columns * (columns - 1) / 2
