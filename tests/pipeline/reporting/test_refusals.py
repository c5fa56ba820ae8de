import pandas as pd

from pipeline.reporting.refusals import MOST, OFTEN, weekly_note

KNOWN, CONF = {"origin": ["EWR", "JFK"]}, "conf/shop.yaml"


def refused(*requests):
    """Pairs of caller and problems."""
    return pd.DataFrame(requests, columns=["caller", "problems"])


def label(got, column="origin"):
    return {"code": "label", "column": column, "rule": "must be one of {EWR, JFK}", "got": got}


def ranged(column):
    return {"code": "range", "column": column, "rule": "must lie in 0 .. 23", "got": "99"}


def test_reasons_columns_and_callers_are_counted_beside_their_change():
    now = refused(("me", [ranged("hour"), label("'BOS'")]), ("me", [ranged("hour")]))
    before = refused(("you", [ranged("hour")]))

    page = weekly_note(now, before, KNOWN, CONF)

    assert page.startswith("2 requests were refused; 1 in the week before.")
    assert "| hour: must lie in 0 .. 23 | 2 | +1 |" in page
    assert "| origin | 1 | +1 |" in page
    assert "| me | 2 | +2 |" in page


def test_a_label_that_several_requests_name_is_listed_as_new():
    often = [("me", [label("'LGA'"), label("'jfk '"), label("''")])] * OFTEN
    slip = [("me", [label("'LGB'")] * 9)]

    page = weekly_note(refused(*often, *slip), refused(), KNOWN, CONF)

    assert f"| LGA | origin | {OFTEN} |" in page
    assert page.count("| origin |") == 2  # the table of columns, and one new label
    assert "LGB" not in page
    assert page.endswith(f"    holdfast train {CONF}")


def test_a_quiet_week_is_one_sentence():
    assert weekly_note(refused(), refused(), KNOWN, CONF) == (
        "0 requests were refused; 0 in the week before."
    )


def test_the_name_of_a_caller_cannot_break_a_table():
    page = weekly_note(refused(("a|b\n<script>" * 99, [ranged("hour")])), refused(), KNOWN, CONF)

    [line] = [line for line in page.splitlines() if "script" in line]
    assert line.replace("\\|", "").count("|") == 4
    assert "<script" not in page
    assert len(line) < 300


def test_a_long_table_is_cut_and_says_how_much_is_left_out():
    page = weekly_note(
        refused(*[(f"c{i}", [ranged("x")]) for i in range(MOST + 5)]), refused(), KNOWN, CONF
    )

    assert "| and 5 more | | |" in page
