import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandera.errors import SchemaErrors
from sklearn.preprocessing import OrdinalEncoder

from pipeline.columns import (
    as_number,
    as_target,
    as_text,
    as_time,
    conform,
    encode,
    infer_columns,
    known_categories,
    require,
)
from pipeline.config import Categorical, Numeric
from pipeline.data.contract import pandera_schema
from pipeline.errors import DataError

NOON = dt.datetime(2013, 2, 26, 12, tzinfo=dt.UTC).timestamp()


def arrow(values, kind):
    return pd.Series(values, dtype=pd.ArrowDtype(kind))


TEXTS = [
    (pd.Series([1, 2]), ["1", "2"]),
    (pd.Series([1.0, None]), ["1", None]),
    (pd.Series([1.5, 2.0, -0.0]), ["1.5", "2", "0"]),
    (pd.Series([np.inf, 1.0]), ["inf", "1"]),
    (pd.Series([True, False]), ["True", "False"]),
    (pd.Series([True, None], dtype="boolean"), ["True", None]),
    (pd.Series([1, None], dtype="Int64"), ["1", None]),
    (pd.Series([1.0, None], dtype="Float64"), ["1", None]),
    (pd.Series(["a", None], dtype="category"), ["a", None]),
    (pd.Series([1, None], dtype="Int64").astype("category"), ["1", None]),
    (pd.Series([1.0, None]).astype("category"), ["1", None]),
    (pd.Series([None, None], dtype="category"), [None, None]),
    (
        pd.Series(["a", 1, 2.0, 1.5, True, None, pd.NA], dtype=object),
        ["a", "1", "2", "1.5", "True", "-", "-"],
    ),
    (pd.Series(["nan", "", "None"], dtype=object), ["nan", "", "None"]),
    (pd.Series([b"a", "Å".encode(), None], dtype=object), ["a", "Å", None]),
    (pd.Series(["a", None], dtype="string[pyarrow]"), ["a", None]),
    (pd.Series(["a", None], dtype="string[python]"), ["a", None]),
    (arrow(["a", None], pa.string()), ["a", None]),
    (arrow([1, None], pa.int64()), ["1", None]),
    (arrow([1.0, None], pa.float64()), ["1", None]),
    (arrow([True, None], pa.bool_()), ["True", None]),
    (arrow(["a", None], pa.dictionary(pa.int32(), pa.string())), ["a", None]),
    (pd.Series([], dtype="float64"), []),
]


@pytest.mark.parametrize(("values", "expected"), TEXTS)
def test_a_label_reads_the_same_in_every_dtype(values, expected):
    texts = as_text(values)

    assert texts.dtype == "str"
    assert [text if there else None for text, there in zip(texts, texts.notna(), strict=True)] == [
        None if label == "-" else label for label in expected
    ]


def test_half_a_surrogate_pair_becomes_an_escaped_label():
    assert as_text(pd.Series(["a", "\ud800b", "\ud801b"], dtype=object)).tolist() == [
        "a",
        "\\ud800b",
        "\\ud801b",
    ]


@given(st.lists(st.none() | st.floats() | st.integers() | st.booleans() | st.text(), max_size=8))
def test_a_label_does_not_depend_on_the_other_rows(values):
    together = as_text(pd.Series(values, dtype=object))
    alone = [as_text(pd.Series([value], dtype=object)).iloc[0] for value in values]

    pd.testing.assert_series_equal(together, pd.Series(alone, dtype="str"))


@given(st.lists(st.none() | st.floats(width=32), min_size=1, max_size=8))
def test_the_label_of_a_number_does_not_depend_on_the_other_rows(values):
    column = pd.Series(values, dtype="float64")
    alone = [as_text(column[[i]]).iloc[0] for i in column.index]

    pd.testing.assert_series_equal(as_text(column), pd.Series(alone, dtype="str"))


NUMBERS = [
    (pd.Series([1, 2]), [1, 2]),
    (pd.Series([True, False]), [1, 0]),
    (pd.Series([True, None], dtype="boolean"), [1, np.nan]),
    (pd.Series([1, None], dtype="Int64"), [1, np.nan]),
    (pd.Series([1.5, None], dtype="category"), [1.5, np.nan]),
    (pd.Series([1, None], dtype="Int64").astype("category"), [1, np.nan]),
    (pd.Series(["1", " 2 ", "x", "", "1e3", None]), [1, 2, np.nan, np.nan, 1000, np.nan]),
    (pd.Series(["1", 2, 1.5, None, [3]], dtype=object), [1, 2, 1.5, np.nan, np.nan]),
    (pd.Series([Decimal("1.5"), None], dtype=object), [1.5, np.nan]),
    (pd.Series([1 + 2j]), [np.nan]),
    (arrow([1, None], pa.int64()), [1, np.nan]),
    (arrow([Decimal("1.5"), None], pa.decimal128(5, 2)), [1.5, np.nan]),
    (arrow([True, None], pa.bool_()), [1, np.nan]),
    (pd.Series(pd.to_datetime(["2013-02-26 12:00", None])), [NOON, np.nan]),
    (pd.Series(pd.to_datetime(["2013-02-26 12:00", None]).as_unit("ns")), [NOON, np.nan]),
    (pd.Series(pd.to_datetime(["2013-02-26T07:00-05:00", None])), [NOON, np.nan]),
    (pd.Series(pd.to_datetime(["2013-02-26 12:00", None])).astype("category"), [NOON, np.nan]),
    (pd.Series([dt.date(2013, 2, 26), None, "x"], dtype=object), [NOON - 43200, np.nan, np.nan]),
    (arrow([dt.datetime(2013, 2, 26, 12), None], pa.timestamp("us")), [NOON, np.nan]),  # noqa: DTZ001
    (arrow([dt.date(2013, 2, 26), None], pa.date32()), [NOON - 43200, np.nan]),
    (pd.Series(pd.to_timedelta(["1D", None])), [86400, np.nan]),
    (arrow([dt.timedelta(1), None], pa.duration("us")), [86400, np.nan]),
]


@pytest.mark.parametrize(("values", "expected"), NUMBERS)
def test_numbers_and_times_become_float64(values, expected):
    numbers = as_number(values)

    assert numbers.dtype == "float64"
    np.testing.assert_array_equal(numbers, expected)


TIMES = [
    (pd.Series(["2013-02-26", "2013-02-26 12:00", "2013-02-26T07:00-05:00"]), 3),
    (pd.Series(["2013-02-26", "1/2/2013", "soon", "", None]), 1),
    (pd.Series([20130226, 1]), 0),
    (pd.Series([dt.date(2013, 2, 26), "2013-02-26", 7, None], dtype=object), 2),
    (pd.Series(pd.to_datetime(["2013-02-26", None]).tz_localize("Asia/Tokyo")), 1),
    (arrow([dt.date(2013, 2, 26), None], pa.date32()), 1),
]


@pytest.mark.parametrize(("values", "readable"), TIMES)
def test_only_unambiguous_dates_become_times(values, readable):
    times = as_time(values)

    assert times.dtype == "datetime64[us]"
    assert times.notna().sum() == readable


def test_a_time_with_a_zone_becomes_utc():
    assert as_time(pd.Series(["2013-02-26T07:00-05:00"]))[0] == pd.Timestamp("2013-02-26 12:00")


@pytest.mark.parametrize("index", [[0, 0, 0], ["c", "a", "b"]])
def test_conforming_keeps_the_index_of_the_rows(index):
    frame = pd.DataFrame({"a": ["1", None, "x"], "b": [1, 2, 3]}, index=index)

    conformed = conform(frame, {"b": Categorical(), "a": Numeric(nullable=True)})

    assert list(conformed.columns) == ["b", "a"]
    assert conformed.index.equals(frame.index)


def test_missing_and_repeated_columns_are_named_in_one_error():
    frame = pd.DataFrame([[1, 2, 3]], columns=["a", "a", "b"])

    with pytest.raises(DataError, match=r"columns c, d.*a more than once"):
        require(frame, ["b", "c", "d"])


def test_codes_equal_those_of_scikit_learn(rows, data):
    frame = conform(rows, data.features)
    frame.loc[:4, "city"] = "Atlantis"
    labels = [name for name, column in data.features.items() if isinstance(column, Categorical)]
    categories = known_categories(conform(rows, data.features), data.features)
    theirs = OrdinalEncoder(
        categories=[categories[name] for name in labels],
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
    ).fit(frame[labels].astype(object).dropna())

    ours = encode(frame, data.features, categories)[:, 2:]

    np.testing.assert_array_equal(ours, theirs.transform(frame[labels].astype(object)))


@given(st.permutations(range(40)))
def test_codes_do_not_depend_on_the_order_of_rows(order):
    columns = {"x": Numeric(nullable=True), "c": Categorical(nullable=True)}
    frame = pd.DataFrame({"x": np.arange(40.0), "c": [*"dacb", None] * 8})
    shuffled = frame.iloc[order]
    codes = encode(frame, columns, known_categories(frame, columns))

    again = encode(shuffled, columns, known_categories(shuffled, columns))

    np.testing.assert_array_equal(again, codes[order])


def test_nulls_unseen_labels_and_unreadable_numbers_encode_to_nan():
    columns = {"x": Numeric(), "c": Categorical()}
    frame = pd.DataFrame({"x": ["1", "x", None], "c": ["a", None, "b"]})

    matrix = encode(frame, columns, {"c": ["a"]})

    np.testing.assert_array_equal(matrix, [[1, 0], [np.nan, np.nan], [np.nan, np.nan]])


def test_declared_labels_override_labels_found_in_the_rows():
    frame = pd.DataFrame({"c": ["z", "b"]})

    assert known_categories(frame, {"c": Categorical(values=("b", "a"))}) == {"c": ["a", "b"]}


def accepts(column, value):
    rows = conform(pd.DataFrame({"x": pd.Series([value], dtype=object)}), {"x": column})
    try:
        pandera_schema({"x": column}).validate(rows, lazy=True)
    except SchemaErrors:
        return False
    return True


LIMITED = Numeric(min=0, max=10)
RULES = [
    (LIMITED, 0, True),
    (LIMITED, 5, True),
    (LIMITED, 10, True),
    (LIMITED, np.nextafter(0, -1), False),
    (LIMITED, np.nextafter(10, 11), False),
    (LIMITED, None, False),
    (Numeric(min=0), 3.4e38, True),
    (Numeric(min=0), np.inf, False),
    (Numeric(max=0), -3.4e38, True),
    (Numeric(min=0), 1e39, False),
    (Numeric(), -1e39, False),
    (Numeric(max=0), -np.inf, False),
    (Numeric(), np.inf, False),
    (Numeric(), -np.inf, False),
    (Numeric(nullable=True), None, True),
    (Numeric(min=1, nullable=True), None, True),
    (Categorical(values=("a",)), "a", True),
    (Categorical(values=("a",)), "A", False),
    (Categorical(values=("a",)), None, False),
    (Categorical(values=("a",), nullable=True), None, True),
    (Categorical(values=("1",)), 1.0, True),
    (Categorical(), "anything", True),
    (Categorical(), None, False),
]


@pytest.mark.parametrize(("column", "value", "accepted"), RULES)
def test_the_schema_accepts_values_up_to_each_limit_and_none_beyond(column, value, accepted):
    assert accepts(column, value) is accepted


def test_only_the_repetitions_of_a_key_are_refused():
    schema = pandera_schema({}, key="id")

    with pytest.raises(SchemaErrors) as caught:
        schema.validate(pd.DataFrame({"id": ["a", "b", "a", "a"]}), lazy=True)

    assert caught.value.failure_cases["index"].tolist() == [2, 3]


INFERRED = [
    (pd.Series([1, 2]), Numeric()),
    (pd.Series([1.0, None]), Numeric(nullable=True)),
    (pd.Series([1, None], dtype="Int64"), Numeric(nullable=True)),
    (arrow([1.5], pa.float64()), Numeric()),
    (arrow([Decimal("1.5")], pa.decimal128(5, 2)), Numeric()),
    (pd.Series([True, False]), Categorical()),
    (pd.Series([True, None], dtype="boolean"), Categorical(nullable=True)),
    (arrow([True], pa.bool_()), Categorical()),
    (pd.Series(["a", None]), Categorical(nullable=True)),
    (pd.Series(["1", "2"]), Categorical()),
    (pd.Series([1, "a"], dtype=object), Categorical()),
    (pd.Series([Decimal("1.50"), None], dtype=object), Numeric(nullable=True)),
    (pd.Series([2**60, None], dtype=object), Numeric(nullable=True)),
    (pd.Series([True, None], dtype=object), Categorical(nullable=True)),
    (pd.Series([1, 2], dtype="category"), Categorical()),
    (pd.Series(pd.to_datetime(["2013-02-26", None])), Numeric(nullable=True)),
    (pd.Series(pd.to_datetime(["2013-02-26"]).tz_localize("UTC")), Numeric()),
    (pd.Series([dt.date(2013, 2, 26), None], dtype=object), Numeric(nullable=True)),
    (arrow([dt.date(2013, 2, 26)], pa.date32()), Numeric()),
    (pd.Series(pd.to_timedelta(["1D"])), Numeric()),
    (pd.Series([None, None], dtype=object), Categorical(nullable=True)),
    (pd.Series([1j]), Categorical()),
]


@pytest.mark.parametrize(("values", "column"), INFERRED)
def test_a_declaration_is_inferred_from_the_dtype(values, column):
    assert infer_columns(values.to_frame("x")) == {"x": column}


@pytest.mark.parametrize("values", [values for values, _ in INFERRED])
def test_inferred_columns_accept_the_rows_they_came_from(values):
    frame = values.to_frame("x")
    columns = infer_columns(frame)

    pandera_schema(columns).validate(conform(frame, columns), lazy=True)


COLLECTIONS = {
    "lists": pd.Series([[1], None]),
    "lists and whole numbers": pd.Series([1, [1]], dtype=object),
    "lists of arrow": arrow([[1], [2]], pa.list_(pa.int64())),
    "maps of arrow": arrow([{"a": 1}], pa.struct([("a", pa.int64())])),
    "categories": pd.Series(pd.Categorical([(1, 2), (1, 2)])),
    "arrays": pd.Series([np.array([1.0]), None]),
}


@pytest.mark.parametrize("values", COLLECTIONS.values(), ids=COLLECTIONS)
def test_collections_are_not_declared_but_named(values, caplog):
    assert infer_columns(values.to_frame("tags").assign(x=1.5)) == {"x": Numeric()}
    assert "Column 'tags' holds a " in caplog.text


def test_rows_with_a_repeated_column_name_cannot_be_declared():
    with pytest.raises(DataError, match=r"rows hold a more than once\. Got a, a\. Fix the source"):
        infer_columns(pd.DataFrame([[1, 2]], columns=["a", "a"]))


ZERO_ONE = [1, 0, None]
TARGETS = [
    ("classification", pd.Series([1, 0, None]), ZERO_ONE, [0, 0, 0]),
    ("classification", pd.Series([True, False, None], dtype="boolean"), ZERO_ONE, [0, 0, 0]),
    ("classification", pd.Series([True, False, None], dtype=object), ZERO_ONE, [0, 0, 0]),
    ("classification", pd.Series(["1", "0", None], dtype="category"), ZERO_ONE, [0, 0, 0]),
    ("classification", pd.Series([1, 0, None], dtype="category"), ZERO_ONE, [0, 0, 0]),
    ("classification", pd.Series(["TRUE", "false", None]), ZERO_ONE, [0, 0, 0]),
    ("classification", arrow([True, False, None], pa.bool_()), ZERO_ONE, [0, 0, 0]),
    ("classification", pd.Series([Decimal(1), Decimal("0.0"), None]), ZERO_ONE, [0, 0, 0]),
    ("classification", pd.Series([1, "yes", 9], dtype=object), [1, None, None], [0, 1, 1]),
    ("classification", pd.Series([1, [1], np.ones(2)], dtype=object), [1, None, None], [0, 1, 1]),
    ("classification", pd.Series([1, 0.5, np.inf]), [1, None, None], [0, 1, 1]),
    ("classification", pd.Series(["no", "yes", None]), [None] * 3, [1, 1, 0]),
    ("classification", pd.Series(pd.to_timedelta(["1s", None])), [None] * 2, [1, 0]),
    ("classification", pd.Series(pd.to_datetime([0, None])), [None] * 2, [1, 0]),
    ("regression", pd.Series([1.5, None, -np.inf]), [1.5, None, None], [0, 0, 1]),
    ("regression", pd.Series([Decimal("1.5"), None, "x"]), [1.5, None, None], [0, 0, 1]),
    ("regression", pd.Series(pd.to_timedelta(["1h", None])), [3600, None], [0, 0]),
    ("regression", pd.Series(pd.to_datetime(["2026-01-01", None])), [None] * 2, [1, 0]),
    ("regression", pd.Series([dt.date(2026, 1, 1), 2], dtype=object), [None, 2], [1, 0]),
    ("regression", pd.Series([1j, 2]), [None] * 2, [1, 1]),
    ("regression", pd.Series(["1.5", "1,5", ""]), [1.5, None, None], [0, 1, 1]),
    ("regression", pd.Series([], dtype=object), [], []),
]


@pytest.mark.parametrize(("task", "values", "expected", "stray"), TARGETS)
def test_labels_become_numbers_and_every_other_value_is_a_stray(task, values, expected, stray):
    labels, strays = as_target(values, task)

    assert labels.dtype == "float64"
    assert [None if pd.isna(label) else label for label in labels] == expected
    assert strays.astype(int).tolist() == stray


AT = pd.Series(pd.date_range("2026-01-01", periods=200, freq="5h"))
DRAWN = pd.Series(np.random.default_rng(0).integers(0, 9, 200))
DOUBTS = [
    (DRAWN.index.to_series() + 7, "has another value in each row, as keys do"),
    (DRAWN.index.to_series().astype("float64"), "has another value in each row, as keys do"),
    (
        DRAWN.index.map("r{:03}".format).to_series(index=DRAWN.index),
        "has another value in each row",
    ),
    (DRAWN * 0, "has one value in all rows"),
    (pd.Series([None] * 200), "has one value in all rows"),
    (AT, "holds moments, which never return"),
    (AT.dt.hour, "follows from the hour of its row"),
    (AT.dt.day_name(), "follows from the weekday of its row"),
    (AT.dt.hour < 12, "follows from the hour of its row"),
    (AT.dt.strftime("%m-%d"), "follows from the date of its row"),
]


@pytest.mark.parametrize(("values", "doubt"), DOUBTS)
def test_identifiers_constants_and_functions_of_the_time_are_recognised(values, doubt, caplog):
    columns = infer_columns(pd.DataFrame({"at": AT, "x": values, "good": DRAWN}), time="at")

    assert list(columns) == ["x", "good"]
    (record,) = caplog.records
    assert f"Column 'x' {doubt}" in record.getMessage()


@pytest.mark.parametrize("values", [DRAWN, DRAWN + 0.5, DRAWN.astype("str"), DRAWN.cumsum() / 7])
def test_ordinary_columns_raise_no_doubt(values, caplog):
    infer_columns(pd.DataFrame({"at": AT, "x": values}), time="at")

    assert not caplog.records


def test_whole_numbers_beyond_every_float_are_no_numbers():
    values = pd.Series([10**400, -1, -(10**400), 10**30, "x", None], dtype=object)

    assert as_number(values).tolist() == pytest.approx(
        [np.nan, -1, np.nan, 1e30, np.nan, np.nan], nan_ok=True
    )


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_moments_beyond_every_microsecond_are_no_times(unit):
    values = pd.Series(np.asarray([0, 2**62, -(2**62)]).astype(f"datetime64[{unit}]"))

    times = as_time(values)

    assert times[0] == pd.Timestamp(0)
    assert times[1:].isna().all()


def test_times_that_python_cannot_spell_are_no_times():
    years = ["0001", "9999", "10000", "-0044"]
    values = pd.Series(np.asarray([f"{year}-12-31" for year in years], dtype="datetime64[us]"))

    assert as_time(values).notna().tolist() == [True, True, False, False]


@pytest.mark.parametrize("year", [84, 1600, 2262, 2300])
def test_times_outside_of_nanoseconds_are_seconds_too(year):
    at = pd.Series([dt.datetime(year, 5, 1, tzinfo=dt.UTC), None], dtype="datetime64[us, UTC]")

    seconds = as_number(at)

    assert seconds[0] == at[0].timestamp()
    assert np.isnan(seconds[1])
