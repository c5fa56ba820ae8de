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


@pytest.mark.parametrize(
    ("name", "texts", "written"),
    [
        ("at", ["03/02/2026", "13/02/2026", None], "%d/%m/%Y"),
        ("at", ["2/3/2026 05:00", "2/13/2026 05:00"], "%m/%d/%Y %H:%M"),
        ("at", ["31.12.2025 23:59:59", "1.1.2026 00:00:01"], "%d.%m.%Y %H:%M:%S"),
        ("at", ["03-Feb-2026", "13-Mar-2026"], "%d-%b-%Y"),
        ("at", ["03/04/2026", "05/04/2026", "01/05/2026"], "%d/%m/%Y"),  # later ones come later
        ("day", ["20260203", "20260204"], "%Y%m%d"),
        ("created_at", ["1770076800", "1770080400"], "s"),
        ("timestamp", ["1770076800000", "1770080400000"], "ms"),
        ("at", ["05/04/2026", "03/04/2026", "01/05/2026", "02/04/2026"], None),  # both fit
        ("amount", ["20260203", "20260204"], None),
        ("phone", ["1770076800", "1770080400"], None),
        ("year", ["2025", "2026"], None),
        ("period", ["1", "2", "3"], None),
        ("version", ["1.2.3", "1.3.4"], None),
        ("at", ["03/02/2026", "soon", "later"], None),
        ("at", ["2026-02-03", "2026-02-04"], None),
    ],
)
def test_moments_of_files_may_be_written_in_another_form(name, texts, written):
    table = typed(csv(**{name: texts}), csv=True, files=True)

    assert table.formats == ({} if written is None else {name: written})
    assert (table.kinds[name] == "moment") == (written is not None or "-" in texts[0])


def test_infinite_numbers_count_as_null_and_are_counted():
    table = typed(pd.DataFrame({"x": [1.0, float("inf"), -float("inf"), 1e39]}))

    assert table.frame["x"].isna().tolist() == [False, True, True, True]
    assert table.infinite == {"x": 0.75}
