import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.config import Categorical, Numeric
from pipeline.errors import DataError
from pipeline.reference import GRID, Reference, cumulative, grid_distance

NUMBER = {"x": Numeric()}
anything = st.floats(allow_nan=True, allow_infinity=True)


def numbers(values):
    return pd.DataFrame({"x": pd.Series(values, dtype="float64")})


def through_json(reference):
    return Reference.from_dict(json.loads(json.dumps(reference.to_dict(), allow_nan=False)))


def test_a_reference_with_blocks_survives_json(rows, data):
    nullable = {name: data.features[name] for name in ("age", "city")}
    reference = Reference.fit(rows, nullable, time="at", block="7D")

    assert through_json(reference) == reference


@given(st.lists(anything, max_size=30), st.lists(st.none() | st.text(max_size=3), max_size=30))
def test_any_reference_survives_json(x, labels):
    n = min(len(x), len(labels))
    frame = pd.DataFrame({"x": x[:n], "label": pd.Series(labels[:n], dtype=object)})
    reference = Reference.fit(frame, {"x": Numeric(), "label": Categorical()}, block=5)

    assert through_json(reference).to_dict() == reference.to_dict()


@given(st.integers(0, 1000), st.sampled_from(["normal", "ties", "heavy"]))
def test_the_distance_on_the_grid_is_the_exact_one_within_its_step(seed, kind):
    random = np.random.default_rng(seed)
    draw = {
        "normal": random.normal,
        "ties": lambda loc, size: random.poisson(3 + loc, size=size),
        "heavy": lambda loc, size: loc + random.standard_cauchy(size=size),
    }[kind]
    before, now = np.sort(draw(0, size=3000)), np.sort(draw(0.2, size=400))
    profile = Reference.fit(numbers(before), NUMBER).columns["x"]
    grid = np.asarray(profile.grid)

    ours = grid_distance(grid, np.asarray(profile.below), np.asarray(profile.upto), now)
    exact = stats.ks_2samp(before, now, method="asymp").statistic
    assert exact - 1.5 / GRID <= ours <= exact + 1e-12


def test_cumulative_shares_are_below_and_up_to_each_point():
    below, upto = cumulative(np.array([1.0, 2.0, 2.0, 3.0]), np.array([2.0]))

    assert (below[0], upto[0]) == (0.25, 0.75)


def test_the_profile_counts_null_and_infinite_values_as_missing():
    profile = Reference.fit(numbers([1, 2, np.nan, np.inf]), NUMBER).columns["x"]

    assert (profile.n, profile.missing, profile.mean, profile.sd) == (2, 2, 1.5, 0.5)


@pytest.mark.parametrize("value", [0.1, 1e-300, 1e308, 0.0])
def test_a_constant_has_exactly_no_spread(value):
    reference = Reference.fit(numbers([value] * 999), NUMBER, block=100)

    assert reference.columns["x"].mean == value
    assert reference.columns["x"].sd == 0
    assert set(reference.blocks[0]) == {"|rows", "x|missing"}


def test_moments_are_those_of_numpy_and_never_overflow():
    values = np.random.default_rng(0).normal(3, 2, 500)
    profile = Reference.fit(numbers(values), NUMBER).columns["x"]
    huge = Reference.fit(numbers([1e308, -1e308] * 50), NUMBER, block=10).columns["x"]

    assert (profile.mean, profile.sd) == pytest.approx((values.mean(), values.std()))
    assert huge.sd == pytest.approx(1e308)


def test_the_design_effect_compares_each_block_with_the_other_blocks():
    random = np.random.default_rng(3)
    parts = [random.normal(0.3 * random.normal(), 1, 400) for _ in range(4)]
    effect = Reference.fit(numbers(np.concatenate(parts)), NUMBER, block=400).columns["x"].values

    p_values = [
        stats.ks_2samp(part, np.concatenate(parts[:i] + parts[i + 1 :])).pvalue
        for i, part in enumerate(parts)
    ]
    assert effect.effect == pytest.approx(stats.chi2.isf(p_values, 1).mean(), rel=0.05)
    assert effect.dependent


def test_labels_are_counted_most_frequent_first():
    frame = pd.DataFrame({"k": ["b", "a", "c", "a", None, "c"]})
    profile = Reference.fit(frame, {"k": Categorical()}).columns["k"]

    assert list(profile.counts.items()) == [("a", 2), ("c", 2), ("b", 1)]
    assert (profile.n, profile.missing) == (5, 1)


def test_a_block_holds_the_rows_of_its_time_however_they_lie(rows, data):
    mixed = rows.sample(frac=1, random_state=1)
    by_time = Reference.fit(rows, data.features, time="at", block="7D")

    assert [block["|rows"] for block in by_time.blocks] == [84] * 7
    again = Reference.fit(mixed, data.features, time="at", block="7D")
    for block, same in zip(by_time.blocks, again.blocks, strict=True):
        assert block == pytest.approx(same)


def test_a_block_under_half_the_usual_is_left_out():
    reference = Reference.fit(numbers(range(1040)), NUMBER, block=100)

    assert [block["|rows"] for block in reference.blocks] == [100] * 10


def test_a_number_of_rows_and_its_length_of_time_make_the_same_blocks(rows, data):
    by_rows = Reference.fit(rows, data.features, time="at", block=84)

    by_time = Reference.fit(rows, data.features, time="at", block="7D")
    assert by_rows.blocks[:7] == by_time.blocks


def test_blocks_of_a_length_of_time_need_the_time_of_each_row():
    with pytest.raises(ValueError, match="needs the time of each row"):
        Reference.fit(numbers([1, 2]), NUMBER, block="7D")


def test_a_summary_measures_in_standard_deviations_of_the_reference():
    reference = Reference.fit(numbers([-2, 2] * 50), NUMBER)
    summary = reference.summarise(numbers([0, 4, np.nan, np.nan]))

    assert summary["x|location"] == 1
    assert summary["x|spread"] == 0
    assert summary["x|missing"] == 0.5


def test_one_wild_value_moves_a_location_by_a_bounded_step():
    reference = Reference.fit(numbers([-1, 1] * 50), NUMBER)

    assert reference.summarise(numbers([0] * 99 + [1e300]))["x|location"] == 0.05


def test_all_missing_and_doubled_columns_are_refused_in_one_error(rows, data):
    doubled = pd.concat([rows.drop(columns=["age", "city"]), rows[["plan"]]], axis=1)

    with pytest.raises(DataError, match=r"age, city.*plan more than once"):
        Reference.fit(doubled, data.features)
