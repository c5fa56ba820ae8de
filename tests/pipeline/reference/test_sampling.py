import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.columns import as_codes, as_text
from pipeline.config import Categorical, Numeric
from pipeline.reference import Reference
from pipeline.reference.profile import MISSING
from pipeline.reference.sampling import SAMPLE, canonical, draw, read_codes, to_cells

COLUMNS = {"x": Numeric(), "y": Numeric(), "label": Categorical()}
values = st.none() | st.text(max_size=2) | st.integers(-3, 3) | st.floats(-3, 3) | st.booleans()


def table(n, seed=0):
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "x": random.normal(size=n).round(1),
            "y": random.poisson(2, n) * np.where(random.random(n) < 0.1, np.nan, 1.0),
            "label": pd.Series(random.choice(["a", "b", None], n), dtype="str"),
        }
    )


def profiles_of(frame, columns=COLUMNS):
    return Reference.fit(frame, columns).columns


def sampled(frame, profiles, seed=0):
    """Cells of the drawn rows, in the order they were drawn in."""
    codes = read_codes(frame, profiles)
    chosen = canonical(frame, profiles, codes)[draw(len(frame), seed)]
    return to_cells(frame, profiles, codes, chosen)


def arrow(rows, kind):
    return pd.Series(rows, dtype=pd.ArrowDtype(kind))


@pytest.mark.parametrize("n", [500, SAMPLE + 2000])
def test_the_drawn_rows_do_not_depend_on_the_order_of_rows_or_columns(n):
    frame = table(n)
    profiles = profiles_of(frame)
    mixed = frame.sample(frac=1, random_state=1)[["label", "y", "x"]]

    cells = sampled(frame, profiles)
    assert cells.shape == (min(n, SAMPLE), 3)
    np.testing.assert_array_equal(sampled(mixed, profiles), cells)
    declared_otherwise = dict(reversed(profiles.items()))
    np.testing.assert_array_equal(sampled(frame, declared_otherwise), cells)


def test_the_drawn_rows_depend_on_what_a_column_holds_and_not_on_its_dtype():
    frame = table(SAMPLE + 2000)
    profiles = profiles_of(frame)
    again = frame.assign(
        label=frame["label"].astype("category"),
        y=frame["y"].astype("Int64"),
        x=arrow(frame["x"], pa.float64()),
    )

    np.testing.assert_array_equal(sampled(again, profiles), sampled(frame, profiles))
    again["label"] = frame["label"].astype(object)
    np.testing.assert_array_equal(sampled(again, profiles), sampled(frame, profiles))


def test_both_zeros_are_equal_content_and_so_are_all_values_that_are_not_finite():
    frame = table(SAMPLE + 2000)
    profiles = profiles_of(frame)
    x, y = frame["x"].mask(frame["x"] == 0, -0.0), frame["y"].fillna(-np.inf)

    assert np.signbit(x[x == 0]).all()
    drawn = sampled(frame.assign(x=x, y=y), profiles)
    np.testing.assert_array_equal(drawn, sampled(frame, profiles))


def test_rows_that_differ_in_a_single_column_have_different_hashes():
    frame = pd.DataFrame(
        [(x, y, label) for x in (0.0, 1.0, np.nan) for y in (0.0, 1.0) for label in "ab"],
        columns=list(COLUMNS),
    )
    profiles = profiles_of(frame)
    many = pd.concat([frame] * 5).sample(frac=1, random_state=0)

    order = canonical(many, profiles, read_codes(many, profiles))
    runs = many.iloc[order].fillna(-1).to_numpy()
    assert (runs[1:] != runs[:-1]).any(axis=1).sum() == len(frame) - 1


def test_copies_of_a_row_are_drawn_as_often_as_any_other_row():
    n = 2 * SAMPLE
    frame = pd.DataFrame({"x": np.repeat([0.0, 1.0], [n * 9 // 10, n // 10])})
    profiles = profiles_of(frame, {"x": Numeric()})
    rare = profiles["x"].cells(np.array([1.0]))
    drawn = [(sampled(frame, profiles, seed) == rare).sum() for seed in range(20)]

    # The sum over seeds of hypergeometric draws, within 99.9% of its distribution.
    chance = stats.hypergeom(n, n // 10, SAMPLE)
    assert abs(np.sum(drawn) - 20 * chance.mean()) <= 3.3 * np.sqrt(20) * chance.std()
    assert len(set(drawn)) > 1


def test_the_draw_depends_on_the_seed_and_holds_no_row_twice():
    drawn, other = draw(SAMPLE + 5000, 0), draw(SAMPLE + 5000, 1)

    assert len(set(drawn.tolist())) == SAMPLE
    assert sorted(draw(50, 0)) == list(range(50))
    assert set(drawn.tolist()) != set(other.tolist())


def test_the_draw_is_in_random_order():
    chosen = draw(SAMPLE, 0)

    assert abs(stats.spearmanr(chosen, np.arange(SAMPLE)).statistic) < 3.3 / np.sqrt(SAMPLE)


def test_a_column_that_is_absent_is_missing_in_every_row():
    frame = table(300)
    profiles = profiles_of(frame)

    for name, place in {"label": 0, "x": 1, "y": 2}.items():
        cells = sampled(frame.drop(columns=name), profiles)
        assert (cells[:, place] == MISSING).all()
        assert (np.delete(cells, place, axis=1) != MISSING).any(axis=0).all()


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["b", "a", None, "b"]),
        pd.Series(["b", "a", None, "b"], dtype="string[python]"),
        pd.Series(["b", "a", None, "b"], dtype="category"),
        pd.Series([1.0, 2.5, None, 1.0]).astype("category"),
        pd.Series(["1", 1, 1.0, True, None, pd.NA, 2.5, "True"], dtype=object),
        pd.Series([3, None, 1, 3], dtype="Int64"),
        pd.Series([True, False, True], index=[7, 7, 7]),
        pd.Series([True, None], dtype="boolean"),
        pd.Series([1.0, np.nan, -0.0, 0.0, 2.5, np.inf]),
        pd.Series([1.0, None, -0.0, 0.0], dtype="Float64"),
        pd.Series([0.1, 0.2, 0.1], dtype="float32"),
        arrow(["b", None, "a", "b"], pa.string()),
        arrow(["b", None, "a"], pa.dictionary(pa.int32(), pa.string())),
        arrow([1.0, None, -0.0, 0.0], pa.float64()),
        pd.Series(pd.to_datetime(["2026-01-01", None])),
        pd.Series([None, None], dtype=object),
        pd.Series([], dtype="float64"),
    ],
    ids=lambda column: str(column.dtype),
)
def test_codes_are_places_in_the_list_of_labels_as_text(column):
    places, labels = as_codes(column)

    texts = [None if pd.isna(text) else text for text in as_text(column)]
    assert [labels[place] if place >= 0 else None for place in places] == texts
    assert sorted(labels) == sorted(set(texts) - {None})


@given(st.lists(values, max_size=30))
def test_codes_of_mixed_types_are_places_in_the_list_of_texts(mixture):
    column = pd.Series(mixture, dtype=object)
    places, labels = as_codes(column)

    texts = as_text(column)
    assert [labels[place] if place >= 0 else None for place in places] == [
        None if pd.isna(text) else text for text in texts
    ]
    assert len(labels) == texts.nunique()
