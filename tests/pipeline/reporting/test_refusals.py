import pandas as pd

from pipeline.reporting.refusals import MOST, OFTEN, weekly_page

KNOWN = {"origin": ["EWR", "JFK"]}


def refused(*requests):
    """Pairs of caller and problems."""
    return pd.DataFrame(requests, columns=["caller", "problems"])


def label(got, column="origin"):
    return {"code": "label", "column": column, "rule": "must be one of {EWR, JFK}", "got": got}


def ranged(column):
    return {"code": "range", "column": column, "rule": "must lie in 0 .. 23", "got": "99"}


def test_reasons_columns_and_callers_come_with_their_change():
    now = refused(("me", [ranged("hour"), label("'BOS'")]), ("me", [ranged("hour")]))
    before = refused(("you", [ranged("hour")]))

    page = weekly_page(now, before, KNOWN)

    assert page.startswith("2 requests were refused; 1 in the week before.")
    assert "| hour: must lie in 0 .. 23 | 2 | +1 |" in page
    assert "| origin | 1 | +1 |" in page
    assert "| me | 2 | +2 |" in page


def test_a_label_that_several_requests_name_may_be_new():
    often = [("me", [label("'LGA'"), label("'jfk '"), label("''")])] * OFTEN
    slip = [("me", [label("'LGB'")] * 9)]

    page = weekly_page(refused(*often, *slip), refused(), KNOWN)

    assert f"| LGA | origin | {OFTEN} |" in page
    assert page.count("| origin |") == 2  # the table of columns, and one new label


def test_a_quiet_week_is_one_sentence():
    assert weekly_page(refused(), refused(), KNOWN) == (
        "0 requests were refused; 0 in the week before.\n"
    )


def test_what_callers_call_themselves_breaks_no_table():
    page = weekly_page(refused(("a|b\n<script>" * 99, [ranged("hour")])), refused(), KNOWN)

    [line] = [line for line in page.splitlines() if "script" in line]
    assert line.replace("\\|", "").count("|") == 4
    assert "<script" not in page
    assert len(line) < 300


def test_long_tables_are_cut_and_say_so():
    page = weekly_page(
        refused(*[(f"c{i}", [ranged("x")]) for i in range(MOST + 5)]), refused(), KNOWN
    )

    assert "| and 5 more | | |" in page
