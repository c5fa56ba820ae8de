from decimal import Decimal

import pandas as pd
import pytest

from pipeline.drafting.tables import typed


def csv(**columns):
    return pd.DataFrame({name: pd.Series(texts, dtype="str") for name, texts in columns.items()})


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "2.5", None], "number"),
        (["1e3", "-4", "NA"], "number"),
        (["01", "02", "10"], "label"),
        (["0.5", "-0.25", "0"], "number"),
        (["True", "False", None], "label"),
        (["2026-01-01", "2026-01-02", None], "moment"),
        (["2026-01", "2026-02", "2026-03"], "moment"),
        (["2026-01-01T05:00Z", "2026-01-02T05:00Z", None], "moment"),
        (["2024", "2025", "2026"], "number"),
        (["1/2/2026", "2/2/2026", "3/2/2026"], "label"),
        ([None, None, None], "label"),
    ],
)
def test_a_column_of_text_has_the_one_type_that_suits_all_its_values(texts, kind):
    assert typed(csv(x=texts), csv=True).kinds == {"x": kind}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pd.Series([1, None], dtype=object), "number"),
        (pd.Series([Decimal("1.5"), None]), "number"),
        (pd.Series([True, False]), "label"),
        (pd.Series(["a", "b"], dtype="category"), "label"),
        (pd.Series([1, 2], dtype="category"), "label"),
        (pd.to_datetime(pd.Series(["2026-01-01"])), "moment"),
        (pd.Series([pd.Timestamp("2026-01-01").date(), None]), "moment"),
        (pd.to_timedelta(pd.Series(["1h"])), "number"),
    ],
)
def test_a_column_with_a_type_keeps_it(values, kind):
    assert typed(values.to_frame("x")).kinds == {"x": kind}


@pytest.mark.parametrize(
    ("columns", "nulls"),
    [
        ({"x": ["1", "?", "2"]}, ("?",)),
        ({"x": ["1", "-", "2"], "y": ["a", "-", "b"]}, ("-",)),
        ({"x": ["1", "NA", "2"]}, ()),
        ({"x": ["1", "NA", "2"], "country": ["NA", "AT", "DE"]}, ("NA",)),
        ({"country": ["NA", "AT", "DE"]}, ()),
        ({"name": ["NULL", "Ann", "Bob"]}, ("NULL",)),
        ({"x": ["1", "two", "3"]}, ()),
        ({"x": ["?", "?", "?"]}, ()),
    ],
)
def test_spellings_of_null_are_found_where_all_else_is_numbers(columns, nulls):
    assert typed(csv(**columns), csv=True).nulls == nulls


def test_a_decimal_comma_makes_numbers():
    table = typed(csv(x=["1,5", "2,25", None]), csv=True, decimal=",")

    assert table.kinds == {"x": "number"}
    assert table.frame["x"].tolist()[:2] == [1.5, 2.25]
