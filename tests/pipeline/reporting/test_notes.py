from dataclasses import replace

import pandas as pd
import pytest

from pipeline.monitoring.episode import Decision, Evidence, Verdict
from pipeline.monitoring.findings import Cause, DriftReport
from pipeline.reporting.notes import batch_metrics, batch_note

REPORT = DriftReport(1_200, 0.05, (), (), (), {}, 1, 400.0, 0.01, ())
EVIDENCE = {"factor": 100.0, "median": 5132.4, "share": 0.98765, "sentinel": 1e300, "was": "a|b"}
UNIT = Cause("unit", ("temp",), "Temp is about x100.", EVIDENCE, "Ask whoever sends temp.")
NULLS = Cause("nulls", ("origin",), "All of origin is null.", {}, "Send origin again.")


def note(report, reason, action="page"):
    verdict = Verdict(Evidence("2026-01-05T00:00", 1), Decision(action, reason))
    return batch_note(verdict, report, 7, length=pd.Timedelta("7D"), conf="my/shop.yml").split("\n")


def test_the_note_of_a_broken_batch_begins_with_its_causes_and_how_to_answer():
    lines = note(replace(REPORT, causes=(UNIT, NULLS)), "Broken: unit (temp), nulls (origin).")

    start, *said = [line for line in lines if line]
    assert start == (
        "**Broken: unit (temp), nulls (origin).** Outcome: **broken**, action: **page**."
    )
    assert said[:12] == [
        "Temp is about x100.",
        "| unit (temp) | |",
        "|---|---:|",
        "| factor | 100 |",
        "| median | 5,132 |",
        "| share | 0.9877 |",
        "| sentinel | 1e+300 |",
        "| was | a\\|b |",
        "Ask whoever sends temp.",
        "All of origin is null.",
        "Send origin again.",
        said[11],
    ]
    assert "flows.review my/shop.yml --batch 2026-01-05T00:00 --answer reload" in said[11]
    assert said[12] == "1,200 rows judged against version 1, 7 refused."


def test_the_note_of_any_other_batch_asks_for_no_answer():
    lines = note(REPORT, "Quiet.", action="none")

    assert lines[0] == "**Quiet**: Quiet. Action: **none**."
    assert "review" not in "\n".join(lines)


@pytest.mark.parametrize("causes", [(), (UNIT,), (UNIT, NULLS)])
def test_causes_are_counted_from_batch_to_batch(causes):
    assert batch_metrics(replace(REPORT, causes=causes), 0, 0.5)["causes"] == len(causes)
