import numpy as np
import pytest

from pipeline.monitoring.diagnoses.segments import segment


@pytest.fixture
def case(shop, batch):
    return shop.case(batch)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("region", ["East"], "region = East"),
        ("region", ["West", "South"], "region = South, West"),
        ("product", ["Sofa", "Desk"], "product = Desk, Sofa"),
        ("hour", [9, 10, 11], "hour = 9, 10, 11"),
        ("hour", range(6, 12), "hour = 6, 7, 8, 9 and 2 more"),
        ("weekday", [2], "weekday = 2"),
        ("working", [0], "working = 0"),
    ],
)
def test_rows_with_some_values_of_a_column_are_named(case, column, values, expected):
    touched = case.drawn[column].isin(values).to_numpy()

    assert segment(case, touched, ["temp"]) == expected


def test_a_segment_is_named_even_if_a_tenth_of_the_rows_is_wrong(case):
    inside = (case.drawn["region"] == "East").to_numpy()
    random = np.random.default_rng(1).random(len(inside))
    touched = np.where(inside, random > 0.1, random < 0.02)

    assert segment(case, touched, ["temp"]) == "region = East"


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.85])
def test_random_rows_are_not_a_segment(case, share):
    random = np.random.default_rng(2)
    masks = random.random((20, len(case.drawn))) < share

    assert {segment(case, touched, ["temp"]) for touched in masks} == {""}


@pytest.mark.parametrize("share", [0.0, 0.95, 1.0])
def test_no_rows_and_nearly_all_rows_are_not_a_segment(case, share):
    touched = np.random.default_rng(3).random(len(case.drawn)) < share

    assert segment(case, touched, ["temp"]) == ""


def test_rows_that_only_two_columns_together_describe_are_not_a_segment(case):
    rows = case.drawn
    touched = ((rows["region"] == "East") & (rows["weekday"] < 3)).to_numpy()

    assert segment(case, touched, ["temp"]) == ""


def test_a_faulty_column_names_no_segment(case):
    touched = (case.drawn["region"] == "East").to_numpy()

    assert segment(case, touched, ["region"]) == ""


def test_only_rows_that_could_show_the_fault_count(case):
    east = (case.drawn["region"] == "East").to_numpy()
    able = (case.drawn["hour"] < 12).to_numpy()

    assert segment(case, east & able, ["temp"], able) == "region = East"
    assert segment(case, east & able, ["temp"]) == ""


def test_a_value_of_fewer_than_ten_rows_names_no_segment(shop, batch):
    rare = np.arange(len(batch)) < 9
    case = shop.case(shop.put(batch, "region", rare, "Abroad"))
    touched = (case.drawn["region"] == "Abroad").to_numpy()

    assert segment(case, touched, ["temp"]) == ""
