from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.monitoring.episode import Decision, Evidence, Verdict
from pipeline.monitoring.findings import Cause, DriftReport, Finding
from pipeline.reporting.notes import (
    batch_metrics,
    batch_note,
    gate_note,
    model_note,
    training_note,
)
from pipeline.training.fitting import Curve, Trained
from pipeline.training.gate import Gain, GateResult

REPORT = DriftReport(1_200, 0.05, (), (), (), {}, 1, 400.0, 0.01, ())
EVIDENCE = {"factor": 100.0, "median": 5132.4, "share": 0.98765, "sentinel": 1e300, "was": "a|b"}
UNIT = Cause("unit", ("temp",), "Temp is about x100.", EVIDENCE, "Ask whoever sends temp.")
NULLS = Cause("nulls", ("origin",), "All of origin is null.", {}, "Send origin again.")


def note(report, reason, action="page"):
    verdict = Verdict(Evidence("2026-01-05T00:00", 1), Decision(action, reason))
    return batch_note(verdict, report, 7, length=pd.Timedelta("7D"), conf="my/shop.yml").split("\n")


def test_the_note_of_a_broken_batch_begins_with_its_faults_and_how_to_answer():
    lines = note(replace(REPORT, causes=(UNIT, NULLS)), "Broken: unit (temp), nulls (origin).")

    start, *said = [line for line in lines if line]
    assert start == (
        "**Broken.** Recognised: unit (temp), nulls (origin). Action: **page**. "
        "The page of this batch is report.html under Artifacts."
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
    assert said[11] == "When the source is mended, read the batch again:"
    assert said[12].startswith(
        "    holdfast review my/shop.yml --batch 2026-01-05T00:00 --answer reload"
    )
    assert said[14] == "1,200 valid rows were judged against version 1, 7 rows were refused."


def test_the_note_of_any_other_batch_asks_for_no_answer():
    lines = note(REPORT, "Quiet.", action="none")

    assert lines[0].startswith("**Quiet.** Action: **none**. The page of this batch is ")
    assert "review" not in "\n".join(lines)


def test_the_note_of_a_moved_batch_lists_what_drifted():
    found = Finding(("temp",), "rows", "location", 0.31, 0.001, 0.075, 0.1, 2, 0.004, drifted=True)
    quiet = replace(found, columns=("hour",), drifted=False)

    lines = note(replace(REPORT, findings=(found, quiet)), "Not persistent yet.", action="none")

    assert lines[-1] == "| temp | rows | location | 0.31 | 0.075 | 0.004 | 2 | nan |"


def test_words_of_the_data_cannot_break_the_note():
    odd = replace(UNIT, sentence="Saw <img src=x>\n# and | too.", evidence={})

    lines = note(replace(REPORT, causes=(odd,)), "Broken.")

    assert lines[2] == "Saw &lt;img src=x> # and \\| too."


@pytest.mark.parametrize("causes", [(), (UNIT,), (UNIT, NULLS)])
def test_causes_are_counted_from_batch_to_batch(causes):
    assert batch_metrics(replace(REPORT, causes=causes), 0, {})["causes"] == len(causes)


def test_the_note_of_a_gate_decision_names_gains_and_the_worst_slices():
    gain = Gain("champion", 0.12, 0.031, 0.2)
    slices = tuple(replace(gain, over=f"champion where plan = {i}|") for i in range(7))

    lines = gate_note(GateResult(True, "It gains.", 1_400, (gain,), slices)).split("\n")

    assert lines[0] == "**Passed.** It gains."
    assert "- over the champion: +12.00% (+3.10% to +20.00%)" in lines
    assert "The worst of 7 slices:" in lines
    assert sum(line.startswith("- over the champion where plan = ") for line in lines) == 5
    assert lines[-1].startswith("- over the champion where plan = 4\\|: ")


def test_the_note_of_a_version_that_was_not_compared_is_one_sentence():
    assert gate_note(GateResult(False, "Wait for more labels.", 0)) == (
        "**Refused.** Wait for more labels."
    )


def test_a_batch_that_lost_performance_is_not_called_quiet():
    verdict = Verdict(
        Evidence("2026-01-05T00:00", 1, worse="2025-12-29T00:00"),
        Decision("retrain", "Performance was lost in batch 2025-12-29T00:00."),
    )

    given = batch_note(verdict, REPORT, 0, length=pd.Timedelta("7D"), conf="shop.yml")

    assert given.startswith(
        "**Performance lost.** Performance was lost in batch 2025-12-29T00:00. "
    )


def test_the_note_of_a_model_says_who_is_champion_and_why():
    first = {
        "version": 1,
        "before": None,
        "kind": "promoted",
        "reason": "Better | than\nthe baseline.",
        "since": "2026-01-05T00:00:00",
        "by": "",
    }
    second = first | {"version": 2, "before": 1, "reason": "It gains 3%.", "by": "Ann"}

    given = model_note([second, first], "conf/shop.yaml")

    assert given.startswith("**Version 2 is the champion**, promoted by Ann, for batches from ")
    assert "It gains 3%." in given.split("\n")[0]
    assert "| version 1 | 2026-01-05 00:00 | promoted |  | Better \\| than the baseline. |" in given
    assert "{" not in given


def test_the_note_of_a_training_run_compares_the_model_with_the_baseline(model, rows):
    trained = Trained(
        model=model,
        judged=model,
        heldout=rows.head(50),
        metrics={"log_loss": 0.51},
        baseline={"log_loss": 0.69},
        of_classes={},
        trivial=np.full(50, 0.5),
        curve=Curve("rows fitted", [1], [0.5], [0.6]),
        importance={"age": 0.2, "plan": 0.1},
        fitted_rows=1_234,
        loss="log_loss",
    )

    lines = training_note(trained, {"since": "2026-01-01", "until": "2026-02-01"}).split("\n")

    assert lines[0].startswith("Trained on 1,234 labelled rows from 2026-01-01 to 2026-02-01.")
    assert "| log_loss | 0.5100 | 0.6900 |" in lines
    assert lines[-1] == "It relies most on age, plan."
