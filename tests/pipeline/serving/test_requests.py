import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandera.errors import SchemaErrors
from pydantic import TypeAdapter, ValidationError

from pipeline.columns import conform, encode, limits
from pipeline.config import Categorical, Numeric
from pipeline.data.contract import pandera_schema
from pipeline.serving.bodies import read_json
from pipeline.serving.problems import MAX_ROWS, Unreadable
from pipeline.serving.requests import UNSEEN, Contract, encoder, row_type

bounds = st.none() | st.sampled_from([-2.5, 0.0, 7.0]) | st.floats(-1e38, 1e38)
numeric = st.tuples(bounds, bounds, st.booleans()).map(
    lambda given: Numeric(
        min=given[0],
        max=given[1] if None in given[:2] else max(given[:2]),
        nullable=given[2],
    )
)
labels = st.sampled_from(["a", "A", " a", "b c", "", "nan", "None", "1", "é", "\0"]) | st.text()
categorical = st.builds(
    Categorical,
    values=st.none() | st.lists(labels, min_size=1, max_size=3, unique=True).map(tuple),
    nullable=st.booleans(),
)
many = settings(max_examples=200, deadline=None, derandomize=True)


def numbers(column):
    """Numbers of any size, and those at and next to the column's limits."""
    beside = [
        number
        for limit in limits(column)
        for number in (limit, np.nextafter(limit, -math.inf), np.nextafter(limit, math.inf))
    ]
    return st.none() | st.sampled_from([float(x) for x in beside]) | st.floats(allow_nan=False)


def request_accepts(column, value):
    row = {"hours-per-week": value}
    request = TypeAdapter(row_type({"hours-per-week": column}, {}))
    verdicts = []
    for read, sent in ((request.validate_json, json.dumps(row)), (request.validate_python, row)):
        try:
            read(sent)
        except ValidationError:
            verdicts.append(False)
        else:
            verdicts.append(True)
    assert len(set(verdicts)) == 1, "all protocols accept the same rows"
    return verdicts[0]


def schema_accepts(column, value):
    columns = {"hours-per-week": column}
    dtype = "float64" if isinstance(column, Numeric) else "str"
    rows = conform(pd.DataFrame({"hours-per-week": pd.Series([value], dtype=dtype)}), columns)
    try:
        pandera_schema(columns).validate(rows, lazy=True)
    except SchemaErrors:
        return False
    return True


def refusal(columns, body):
    contract = Contract.of(columns, {})
    with pytest.raises(ValidationError):
        contract.request.validate_json(body)
    try:
        given = read_json(body.encode(), len(columns), "Send rows.")
    except Unreadable as error:
        return [error.problem]
    return contract.problems(given, every_row=False).problems


@many
@given(st.data())
def test_a_request_accepts_exactly_the_numbers_that_training_rows_may_hold(data):
    column = data.draw(numeric)
    value = data.draw(numbers(column))

    assert request_accepts(column, value) is schema_accepts(column, value)


@many
@given(st.data())
def test_a_request_accepts_exactly_the_labels_that_training_rows_may_hold(data):
    column = data.draw(categorical)
    value = data.draw(st.none() | labels | st.sampled_from(column.values or ("a",)))

    accepted = schema_accepts(column, value)
    if column.values is None and value is not None:
        ends = (value[:1], value[-1:])
        accepted &= 1 <= len(value) <= 256 and "\0" not in value
        accepted &= not any(sign <= "\x1f" or sign.isspace() for sign in ends)
    assert request_accepts(column, value) is accepted


@pytest.mark.parametrize("label", ["", " a", "a ", "a\n", "\u00a0a", "a\0b", "a" * 257])
def test_a_label_is_short_and_without_blanks_around_it_unless_training_rows_hold_it(label):
    columns = {"x": Categorical()}

    for known, accepted in (({}, False), ({"x": ["b", label]}, True), ({"x": ["b"]}, False)):
        row = TypeAdapter(row_type(columns, known))
        if accepted:
            assert row.validate_python({"x": label}) == {"x": label}
        else:
            with pytest.raises(ValidationError):
                row.validate_python({"x": label})
    [problem] = refusal(columns, json.dumps({"rows": [{"x": label}]}))
    assert (
        problem.rule == "must be text of 1 to 256 characters, without blanks around it or NUL in it"
    )


@pytest.mark.parametrize(
    ("column", "value", "accepted"),
    [
        (Numeric(min=0, max=7), 7.0, True),
        (Numeric(min=0, max=7), np.nextafter(7.0, math.inf), False),
        (Numeric(min=0, max=7), -5e-324, False),
        (Numeric(), 1e39, False),
        (Numeric(nullable=True), None, True),
        (Numeric(), None, False),
        (Categorical(values=("a", "b c")), "b c", True),
        (Categorical(values=("a", "b c")), "A", False),
        (Categorical(), None, False),
    ],
)
def test_a_value_is_accepted_by_the_rules_of_its_column(column, value, accepted):
    assert request_accepts(column, value) is accepted
    assert schema_accepts(column, value) is accepted


@pytest.mark.parametrize("value", [0, 1, -(10**15)])
def test_a_numeric_column_accepts_whole_numbers(value):
    assert request_accepts(Numeric(), value)


@pytest.mark.parametrize("value", [True, "1.5", "", math.nan, math.inf, 10**400, [1.0], {}])
def test_a_numeric_column_accepts_only_json_numbers(value):
    assert not request_accepts(Numeric(nullable=True), value)


@pytest.mark.parametrize("value", [1, 1.5, True, math.nan, ["a"], {}])
@pytest.mark.parametrize("values", [None, ("1", "True", "a")])
def test_a_categorical_column_accepts_only_strings(values, value):
    assert not request_accepts(Categorical(values=values, nullable=True), value)


@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize("kind", [Numeric, Categorical])
def test_only_a_nullable_column_may_be_left_out(kind, nullable):
    row = TypeAdapter(row_type({"x": kind(nullable=nullable)}, {}))

    if nullable:
        assert row.validate_json("{}") == {}
    else:
        with pytest.raises(ValidationError):
            row.validate_json("{}")


@pytest.mark.parametrize("name", ["hours-per-week", "model_config", "_x", "copy", "class", "é 1"])
def test_a_column_may_have_any_name(name):
    row = TypeAdapter(row_type({"y": Numeric(), name: Numeric()}, {}))

    assert row.validate_python({"y": 1, name: 2}) == {"y": 1.0, name: 2.0}


def test_every_problem_of_every_row_is_named(columns):
    rows = [
        {"hours-per-week": 101, "temp": "31", "plan": "trial", "dest": 4},
        {"hours-per-week": None, "temp": None, "dest": None, "extra": True},
        ["no", "row"],
    ]

    found = refusal(columns, json.dumps({"rows": rows, "keys": ["a", 2, "c"], "more": 1}))

    assert [(p.code, p.row, p.column, p.rule, p.got) for p in found] == [
        ("range", 0, "hours-per-week", "must lie in 0 .. 100", "101"),
        ("type", 0, "temp", "must be a number", "'31'"),
        ("label", 0, "plan", "must be one of {free, pro, team}", "'trial'"),
        ("type", 0, "dest", "must be a string", "4"),
        ("null", 1, "hours-per-week", "must not be null", "None"),
        ("missing", 1, "plan", "must be present", "nothing"),
        ("undeclared", 1, "extra", "must be a declared column", "True"),
        ("type", 2, None, "must be an object", "list"),
        ("keys", 1, None, "keys must be a list of strings of 1 to 200 characters", "2"),
        ("undeclared", None, None, "a request must hold only rows and keys", "'more'"),
    ]
    assert all(problem.cure.endswith(".") for problem in found)


@pytest.mark.parametrize(
    ("body", "rule", "got"),
    [
        ('{"rows": []}', "rows must be a list of 1 to 10,000 rows", "list"),
        ('{"rows": null}', "rows must be a list of 1 to 10,000 rows", "None"),
        ("{}", "rows must be a list of 1 to 10,000 rows", "nothing"),
        ("[1]", "a request must be an object", "list"),
        ("", "a request must be valid JSON", "EOF while parsing a value at line 1 column 0"),
        ('{"rows": [{"x": 1}], "keys": []}', "keys must be as many as rows", "0 for 1 rows"),
        (
            '{"rows": [{"x": 1}, {"x": 2}], "keys": ["a", "a"]}',
            "keys must be unique",
            "'a'",
        ),
        (
            '{"rows": [{"x": 1}], "keys": [""]}',
            "keys must be a list of strings of 1 to 200 characters",
            "''",
        ),
        (
            '{"rows": [{"x": 1}], "keys": "a"}',
            "keys must be a list of strings of 1 to 200 characters",
            "'a'",
        ),
    ],
)
def test_a_malformed_request_is_one_problem(body, rule, got):
    [problem] = refusal({"x": Numeric()}, body)

    assert (problem.rule, problem.got) == (rule, got)


def test_a_request_holds_at_most_ten_thousand_rows():
    columns = {"x": Numeric()}
    full = {"rows": [{"x": 1}] * MAX_ROWS}

    assert len(Contract.of(columns, {}).request.validate_python(full)["rows"]) == 10_000
    [problem] = refusal(columns, json.dumps({"rows": [{"x": 1}] * (MAX_ROWS + 1)}))
    assert problem.got == "more than 10,000"


@pytest.mark.parametrize("value", ["s" * 1000, 10**1000, [{"secret": "s"}], {"secret": "s"}])
def test_problems_never_show_whole_values(value):
    body = json.dumps({"rows": [{"x": value, "extra": value}]})

    found = refusal({"x": Numeric()}, body)

    assert len(found) == 2
    assert all(len(problem.got) <= 40 for problem in found)
    assert all("secret" not in problem.got for problem in found)


def test_rows_are_encoded_as_their_data_frame_is(columns, model, frame):
    rows = [{**row, "temp": None} for row in frame.assign(dest="unseen").to_dict("records")]
    rows += json.loads(frame.to_json(orient="records"))
    rows += [{"hours-per-week": 1, "plan": "pro"}]

    matrix = encoder(columns, model.categories)(rows)

    assert (matrix[: len(frame), list(columns).index("dest")] == UNSEEN).all()
    matrix[matrix == UNSEEN] = np.nan  # none of the numbers is -1
    expected = encode(pd.DataFrame(rows), columns, model.categories)
    np.testing.assert_array_equal(matrix, expected)
