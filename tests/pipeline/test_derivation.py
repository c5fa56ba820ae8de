import datetime as dt
import math

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Categorical, Derived, Numeric
from pipeline.derivation import derive, with_derived

TIMES = ["2024-02-29T23:30:00", "2013-01-01", "1999-12-31 05:00", None]


def derived(text, **columns):
    parsed = Derived.parse(text)
    kind = Categorical if parsed.function == "bins" else Numeric
    found = derive(pd.DataFrame(columns), parsed, kind(nullable=True))
    return [None if pd.isna(value) else value for value in found]


@pytest.mark.parametrize("part", ["hour", "day", "month", "year", "weekday"])
@pytest.mark.parametrize("kind", [object, "datetime64[us]"])
def test_a_part_of_a_time_is_that_of_pythons_calendar(part, kind):
    found = derived(f"{part}(at)", at=pd.Series(TIMES, dtype=object).astype(kind, errors="ignore"))

    moments = [dt.datetime.fromisoformat(text) for text in TIMES[:3]]
    assert found == [
        *(one.weekday() if part == "weekday" else getattr(one, part) for one in moments),
        None,
    ]


def test_a_time_with_a_zone_counts_in_utc():
    assert derived("hour(at)", at=["2024-01-01T01:00+02:00"]) == [23]


def test_a_logarithm_of_what_is_not_positive_is_null():
    found = derived("log(a)", a=[1.0, 10.0, 0.0, -1.0, None])

    assert found == [0, pytest.approx(math.log(10)), None, None, None]


def test_a_ratio_with_nothing_is_null():
    assert derived("ratio(a, b)", a=[1.0, 3.0, None], b=[4.0, 0.0, 1.0]) == [0.25, None, None]


def test_bins_hold_their_lower_bound():
    found = derived("bins(a, -1.5, 10, 20)", a=[-2, -1.5, 9.9, 10, 20, 1e9, np.nan])

    assert found == [
        "below -1.5",
        "-1.5 to 10",
        "-1.5 to 10",
        "10 to 20",
        "20 and more",
        "20 and more",
        None,
    ]


@pytest.mark.parametrize(
    ("text", "columns", "got"),
    [
        ("hour(at)", {"at": ["yesterday", "2013-01-01T05:00"]}, ["hour(yesterday)", 5]),
        ("log(a)", {"a": ["much", "1"]}, ["log(much)", 0]),
        ("ratio(a, b)", {"a": [1, 1], "b": ["much", 1]}, ["ratio(1)", 1]),
    ],
)
def test_what_cannot_be_read_becomes_no_number_and_no_null(text, columns, got):
    assert derived(text, **columns) == got


def test_a_column_whose_origins_are_absent_stays_as_it_is():
    frame = pd.DataFrame({"hour": [7.0]})

    found = with_derived(frame, {"hour": Derived.parse("hour(at)")}, {"hour": Numeric()})

    assert found.equals(frame)


@pytest.mark.parametrize(
    "text",
    ["hour(at)", "ratio(a, b b)", "bins(a, -1.5, 10)", "bins(a, 1234567, 1234567.25)", "log(x y)"],
)
def test_a_derivation_is_written_as_it_was_read(text):
    assert str(Derived.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["hour", "hour()", "hour(a, b)", "ratio(a)", "eval(a)", "log(a", "", 7, None]
)
def test_what_is_no_known_function_is_refused(text):
    with pytest.raises(ValueError, match=r"must be one of hour, weekday, .* Got "):
        Derived.parse(text)


@pytest.mark.parametrize(
    "text",
    ["bins(a)", "bins(a, 2, 1)", "bins(a, x)", "bins(a, 1, 1)", "bins(a, nan)", "bins(a, inf)"],
)
def test_bins_need_growing_bounds(text):
    with pytest.raises(ValueError, match=r"bins must name a column and growing numbers\. Got "):
        Derived.parse(text)
