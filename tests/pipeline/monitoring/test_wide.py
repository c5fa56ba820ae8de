import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.columns import infer_columns
from pipeline.monitoring.diagnoses.attention import PARAMS, most_suspicious
from pipeline.monitoring.drift import compare
from pipeline.monitoring.findings import LISTED
from pipeline.reference import Reference

COLUMNS, BLOCK = 150, 1_000


def rows(seed, n=BLOCK):
    """Independent columns, but for `x007`, which three far columns determine."""
    values = np.random.default_rng(seed).normal(size=(n, COLUMNS))
    values[:, 7] = 0.3 * values[:, 7] + values[:, [60, 100, 140]].sum(axis=1) * 0.55
    return pd.DataFrame(values, columns=[f"x{i:03}" for i in range(COLUMNS)])


@pytest.fixture(scope="module", params=[4, pytest.param(8, marks=pytest.mark.night)])
def reference(request):
    """From five blocks on, limits of causes are set by sound blocks, which takes half a minute."""
    frame = pd.concat([rows(seed) for seed in range(request.param)], ignore_index=True)
    return Reference.fit(frame, infer_columns(frame), block=BLOCK)


def test_what_is_left_out_of_a_wide_table_is_stated(reference):
    report = compare(reference=reference, current=rows(20))

    assert len(report.pairs) == len(reference.followed)
    assert any(
        note.startswith("Correlations of 6,175 of 11,175 pairs of columns are left out")
        for note in report.notes
    )
    assert any(
        note.startswith(f"Faults are looked for in {PARAMS.examined} of {COLUMNS} columns")
        for note in report.notes
    )


def test_a_planted_relation_that_vanishes_is_called_shuffled(reference):
    now = rows(21)
    lost = np.random.default_rng(0).permutation(now["x007"].to_numpy())
    report = compare(reference=reference, current=now.assign(x007=lost))

    assert [(cause.cause, cause.columns) for cause in report.causes] == [("shuffled", ("x007",))]


def test_faults_of_single_columns_are_recognised(reference):
    now = rows(22)
    faulty = now.assign(
        x100=now["x100"] * 25.4 + 32,
        x110=now["x110"].where(now["x110"] > 0),
        x120=-999.0 * (now["x120"] > 1) + now["x120"] * (now["x120"] <= 1),
    )
    report = compare(reference=reference, current=faulty)

    assert {(cause.cause, cause.columns) for cause in report.causes} == {
        ("unit", ("x100",)),
        ("nulls", ("x110",)),
        ("sentinel", ("x120",)),
    }


def test_two_columns_that_were_exchanged_are_recognised(reference):
    now = rows(23)
    report = compare(reference=reference, current=now.assign(x007=now["x122"], x122=now["x007"]))

    assert any(cause.name == "swapped (x007, x122)" for cause in report.causes)


@pytest.mark.statistics  # it takes a minute, as each fault is looked for anew
def test_a_fault_of_all_columns_is_reported_of_as_many_as_are_examined(reference):
    report = compare(reference=reference, current=rows(24) * 100 + 5_000)

    assert report.outcome == "broken"
    assert 1 <= len(report.causes) <= PARAMS.examined


def test_a_stored_report_lists_the_most_significant_findings(reference):
    recent = [reference.summarise(rows(30 + k)) for k in range(2)]
    report = compare(reference=reference, current=rows(32), recent=recent)
    stored = report.to_dict()

    assert len(report.findings) > LISTED
    assert len(stored["findings"]) == LISTED
    assert stored["findings_not_listed"] == len(report.findings) - LISTED


def test_examined_columns_are_important_drifted_strained_and_piled_up(reference):
    names = [f"x{i:03}" for i in range(COLUMNS)]
    now = rows(33)
    importance = dict.fromkeys(names, 0.0) | {"x149": 1.0}
    report = compare(
        reference=reference,
        current=now.assign(x149=now["x149"] + 0.6, x148=now["x148"] + 3),
        importance=importance,
        diagnosis=False,
    )
    chosen = most_suspicious(names, report.findings, strain={"x147": 9.0}, atoms={"x146": 0.5})

    assert len(chosen) == PARAMS.examined
    assert {"x146", "x147", "x148", "x149"} <= chosen


@pytest.mark.statistics
def test_a_wide_batch_with_nothing_wrong_alarms_at_most_at_alpha(reference):
    trials, alpha = 60, 0.05
    alarms = sum(
        compare(reference=reference, current=rows(1_000 + seed), alpha=alpha, diagnosis=False).alarm
        for seed in range(trials)
    )

    assert alarms <= stats.binom.ppf(0.999, trials, alpha)
