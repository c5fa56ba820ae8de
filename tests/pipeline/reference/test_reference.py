import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.config import Categorical, Numeric
from pipeline.errors import DataError
from pipeline.reference import Reference
from pipeline.reference.profile import GRID
from pipeline.reference.serialised import reference_from_dict, reference_to_dict
from pipeline.reference.summaries import ROWS, Trait

NUMBER = {"x": Numeric()}
LOCATION, SPREAD = Trait("location", ("x",)), Trait("spread", ("x",))
anything = st.floats(allow_nan=True, allow_infinity=True)


def numbers(values):
    return pd.DataFrame({"x": pd.Series(values, dtype="float64")})


def through_json(reference):
    return reference_from_dict(
        json.loads(json.dumps(reference_to_dict(reference), allow_nan=False))
    )


def test_a_reference_with_blocks_survives_json(rows, data):
    nullable = {name: data.features[name] for name in ("age", "city")}
    reference = Reference.fit(rows, nullable, time="at", block="7D")

    assert through_json(reference) == reference


@given(st.lists(anything, max_size=30), st.lists(st.none() | st.text(max_size=3), max_size=30))
def test_any_reference_survives_json(x, labels):
    n = min(len(x), len(labels))
    frame = pd.DataFrame({"x": x[:n], "label": pd.Series(labels[:n], dtype=object)})
    reference = Reference.fit(frame, {"x": Numeric(), "label": Categorical()}, block=5)

    assert reference_to_dict(through_json(reference)) == reference_to_dict(reference)


def test_a_reference_stored_before_traits_were_records_is_still_read():
    random = np.random.default_rng(10)
    reference = Reference.fit(mixed(random, 600), MIXED, block=100)
    stored = reference_to_dict(reference)
    spelled = {
        "share": "{0}|share of {label}",
        "correlation": "{0} ~ {1}|correlation",
        **dict.fromkeys(["rows", "copies", "repeats"], "|{kind}"),
    }
    stored["blocks"] = [
        {
            spelled.get(trait.kind, "{0}|{kind}").format(*trait.columns, **trait._asdict()): value
            for trait, value in block.items()
        }
        for block in reference.blocks
    ]

    assert {"|rows", "k|share of a", "k ~ x|correlation", "y|step"} <= set(stored["blocks"][0])
    assert reference_from_dict(json.loads(json.dumps(stored))) == reference


@given(st.integers(0, 1000), st.sampled_from(["normal", "ties", "heavy"]))
def test_the_distance_on_the_grid_is_exact_to_within_a_grid_step(seed, kind):
    random = np.random.default_rng(seed)
    draw = {
        "normal": random.normal,
        "ties": lambda loc, size: random.poisson(3 + loc, size=size),
        "heavy": lambda loc, size: loc + random.standard_cauchy(size=size),
    }[kind]
    before, now = np.sort(draw(0, size=3000)), np.sort(draw(0.2, size=400))
    profile = Reference.fit(numbers(before), NUMBER).columns["x"]

    ours = profile.distance(profile.count(now))
    exact = stats.ks_2samp(before, now, method="asymp").statistic
    assert exact - 1.5 / GRID <= ours <= exact + 1e-12


def test_the_profile_counts_null_and_infinite_values_as_missing():
    profile = Reference.fit(numbers([1, 2, np.nan, np.inf]), NUMBER).columns["x"]

    assert (profile.n, profile.missing, profile.mean, profile.sd) == (2, 2, 1.5, 0.5)


@pytest.mark.parametrize("value", [0.1, 1e-300, 1e308, 0.0])
def test_a_constant_has_exactly_no_spread(value):
    reference = Reference.fit(numbers([value] * 999), NUMBER, block=100)

    assert reference.columns["x"].mean == value
    assert reference.columns["x"].sd == 0
    assert not {LOCATION, SPREAD} & set(reference.blocks[0])


def test_moments_equal_numpys_and_never_overflow():
    values = np.random.default_rng(0).normal(3, 2, 500)
    profile = Reference.fit(numbers(values), NUMBER).columns["x"]
    huge = Reference.fit(numbers([1e308, -1e308] * 50), NUMBER, block=10).columns["x"]

    assert (profile.mean, profile.sd) == pytest.approx((values.mean(), values.std()))
    assert huge.sd == pytest.approx(1e308)


def test_blocks_with_shocks_of_their_own_are_called_dependent():
    random = np.random.default_rng(3)
    parts = [random.normal(0.3 * random.normal(), 1, 400) for _ in range(10)]
    reference = Reference.fit(numbers(np.concatenate(parts)), NUMBER, block=400)

    place = reference.traits.all.index(LOCATION)
    means = [block[LOCATION] for block in reference.blocks]
    expected = 400 * np.var(means, ddof=1)
    assert reference.usual.ruler.effect[place] == pytest.approx(expected, rel=1e-6)
    assert reference.usual.ruler.dependent[place]


def test_labels_are_counted_most_frequent_first():
    frame = pd.DataFrame({"k": ["b", "a", "c", "a", None, "c"]})
    profile = Reference.fit(frame, {"k": Categorical()}).columns["k"]

    assert list(profile.counts.items()) == [("a", 2), ("c", 2), ("b", 1)]
    assert (profile.n, profile.missing) == (5, 1)


def test_blocks_are_cut_by_time_and_not_by_row_order(rows, data):
    mixed = rows.sample(frac=1, random_state=1)
    by_time = Reference.fit(rows, data.features, time="at", block="7D")

    assert [block[ROWS] for block in by_time.blocks] == [84] * 7
    again = Reference.fit(mixed, data.features, time="at", block="7D")
    assert by_time.blocks == again.blocks


def test_a_block_under_half_the_usual_size_is_left_out():
    reference = Reference.fit(numbers(range(1040)), NUMBER, block=100)

    assert [block[ROWS] for block in reference.blocks] == [100] * 10


def test_blocks_by_number_of_rows_equal_blocks_by_length_of_time(rows, data):
    by_rows = Reference.fit(rows, data.features, time="at", block=84)

    by_time = Reference.fit(rows, data.features, time="at", block="7D")
    assert by_rows.blocks[:7] == by_time.blocks


def test_blocks_of_a_length_of_time_need_the_time_of_each_row():
    with pytest.raises(ValueError, match="needs the time of each row"):
        Reference.fit(numbers([1, 2]), NUMBER, block="7D")


def test_a_summary_is_in_standard_deviations_of_the_reference():
    random = np.random.default_rng(5)
    reference = Reference.fit(numbers(random.normal(3, 2, 20_000)), NUMBER)
    now = np.append(random.normal(4, 1, 20_000), [np.nan] * 20_000)
    summary = reference.summarise(numbers(now))

    assert summary[LOCATION] == pytest.approx(0.5, abs=0.02)
    assert summary[SPREAD] == pytest.approx(0.5, abs=0.02)
    assert summary[Trait("missing", ("x",))] == 0.5


def test_one_wild_value_moves_a_location_by_a_bounded_step():
    reference = Reference.fit(numbers(np.arange(1000)), NUMBER)
    plain, wild = (reference.summarise(numbers([500.0] * 99 + [x])) for x in (500.0, 1e300))

    assert 0 < wild[LOCATION] - plain[LOCATION] < 0.05


def mixed(random, n, shift=0.0):
    z = random.normal(size=(n, 2))
    label = np.where(z[:, 0] + random.normal(size=n) > -0.7, "a", "b")
    return pd.DataFrame({"x": z[:, 0] + shift, "y": np.exp(z[:, 1]), "k": label})


MIXED = {"x": Numeric(), "y": Numeric(), "k": Categorical()}


def test_a_merged_reference_nearly_equals_a_reference_of_all_rows():
    random = np.random.default_rng(6)
    old, new = mixed(random, 6000), mixed(random, 3000, shift=0.5)
    merged = Reference.fit(old, MIXED, block=1000).merge(Reference.fit(new, MIXED, block=1000))
    whole = Reference.fit(pd.concat([old, new], ignore_index=True), MIXED, block=1000)

    assert merged.rows == whole.rows
    assert merged.columns["k"] == whole.columns["k"]
    assert (merged.columns["x"].n, merged.columns["x"].missing) == (9000, 0)
    assert len(merged.cells) == 9000
    for block, expected in zip(merged.blocks, whole.blocks, strict=True):
        assert block == pytest.approx(expected, abs=0.04)
    rho = merged.normal_scores.correlation - whole.normal_scores.correlation
    assert np.abs(rho).max() < 0.02


def test_merging_survives_json_and_labels_of_one_side_only():
    random = np.random.default_rng(7)
    old, new = mixed(random, 800), mixed(random, 200).assign(k="only here")
    merged = Reference.fit(old, MIXED, block=100).merge(Reference.fit(new, MIXED, block=100))

    assert merged.columns["k"].counts["only here"] == 200
    assert through_json(merged) == merged
    place = list(merged.columns["k"].counts).index("only here")
    column = merged.cells[:, merged.names.index("k")]
    assert np.sum(column == place) == 200


def test_references_of_different_columns_cannot_be_merged():
    random = np.random.default_rng(8)
    reference = Reference.fit(mixed(random, 100), MIXED)
    other = Reference.fit(mixed(random, 100), {"x": Numeric(), "y": Categorical()})

    with pytest.raises(DataError, match=r"same columns\. Got a difference in k, y\. Fit both"):
        reference.merge(other)


def test_the_sample_is_a_part_of_the_rows_and_depends_on_the_seed_alone():
    random = np.random.default_rng(9)
    frame = mixed(random, 12_000)
    first, again, other = (Reference.fit(frame, MIXED, seed=seed) for seed in (1, 1, 2))

    assert first.sample == again.sample != other.sample
    assert first.cells.shape == (10_000, 3)
