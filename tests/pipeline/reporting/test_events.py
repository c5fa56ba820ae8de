from dataclasses import replace

import pytest

from pipeline.monitoring.episode import Decision, Evidence, Verdict
from pipeline.monitoring.findings import Cause
from pipeline.reporting import events

CONF = "conf/shop.yaml"
UNIT = Cause("unit", ("temp",), "Temp is about x100.", {}, "Ask whoever sends temp.")


def verdict(week, action="none", reason="Quiet.", episode="", **evidence):
    batch = f"2026-01-{week:02}T00:00"
    shown = Evidence(batch, **({"version": 1} | evidence))
    return Verdict(shown, Decision(action, reason, episode))


def lines(event):
    return event.body.split("\n")


def test_a_page_about_a_broken_batch_says_what_since_when_why_and_what_to_type():
    broken = verdict(19, "page", "Broken.", broken=("unit (temp)",))

    event = events.broken_batch("shop", CONF, broken, [UNIT], [verdict(5), verdict(12)])

    assert (event.kind, event.subject) == (
        "broken",
        "shop: batch 2026-01-19T00:00 is broken and quarantined",
    )
    assert lines(event)[:3] == [
        "Batch 2026-01-19T00:00 is broken: unit (temp).",
        "Since: batch 2026-01-19T00:00.",
        "Why: Temp is about x100. Ask whoever sends temp.",
    ]
    assert (
        f'holdfast review {CONF} --batch 2026-01-19T00:00 --answer reload --reason "..."'
        in lines(event)
    )


def test_a_broken_batch_counts_from_the_first_broken_batch_in_a_row():
    faulty = [verdict(day, broken=("unit (temp)",)) for day in (1, 12, 19, 26)]
    earlier = [faulty[0], verdict(5), *faulty[1:3]]

    event = events.broken_batch("shop", CONF, faulty[3], [UNIT], earlier)

    assert "Since: batch 2026-01-12T00:00." in lines(event)


OTHER = Evidence("", 1, alarm=True, persisted=("temp",))


@pytest.mark.parametrize(
    ("shown", "subject"),
    [
        ({}, "is broken and quarantined"),
        ({"otherwise": OTHER}, "is broken and quarantined, and nobody has answered"),
        ({"worse": "b", "otherwise": OTHER}, "is broken and quarantined, and performance was lost"),
    ],
)
def test_a_page_about_an_open_question_says_so_and_holds_both_readings(shown, subject):
    reason = "Broken: unit (temp). If it is a fault, answer drop. If it is the world now, accept."
    broken = verdict(19, "page", reason, broken=("unit (temp)",), **shown)

    event = events.broken_batch("shop", CONF, broken, [UNIT], [])

    assert event.subject == f"shop: batch 2026-01-19T00:00 {subject}"
    assert (f"Question: {reason}" in lines(event)) == bool(shown)


@pytest.mark.parametrize(
    ("action", "subject", "asked"),
    [("retrain", "retrain requested", True), ("page", "no retrain yet", False)],
)
def test_a_page_about_a_fault_accepted_without_an_answer_says_how_to_withdraw_it(
    action, subject, asked
):
    broken = verdict(19, action, "As found.", "v1", broken=("unit (temp)",), otherwise=OTHER)
    decision = replace(broken.decision, presumed=("unit (temp)",))

    event = events.broken_batch("shop", CONF, replace(broken, decision=decision), [UNIT], [])

    assert event.subject == f"shop: unit (temp) accepted without an answer, {subject}"
    assert ("Done: a retrain was requested, episode v1." in event.body) == asked
    command = f'holdfast review {CONF} --batch 2026-01-19T00:00 --answer drop --reason "..."'
    assert command in lines(event)
    assert "are quarantined" not in event.body


def test_a_page_names_five_faults_and_counts_the_others():
    broken = verdict(19, "page", broken=("unit (temp)",))

    event = events.broken_batch("shop", CONF, broken, [UNIT] * 7, [])

    assert sum(line.startswith("Why: Temp") for line in lines(event)) == 5
    assert "Why: 2 more faults; the note of the batch in MLflow lists them." in lines(event)


def test_drift_counts_from_the_first_alarm_in_a_row_under_the_same_champion():
    earlier = [
        verdict(1, alarm=True),
        verdict(5, alarm=True, version=2),
        verdict(12, broken=("unit (temp)",), version=2),
    ]
    drift = verdict(19, "retrain", "Drift of temp persists.", "v2", persisted=("temp",), version=2)

    event = events.moved_batch("shop", CONF, drift, ["temp", "dewp"], earlier)

    assert (event.kind, event.subject) == ("drift", "shop: drift persists, retrain requested")
    assert lines(event)[:3] == [
        "Drift of temp persists.",
        "Since: batch 2026-01-05T00:00.",
        "Why: batch 2026-01-19T00:00 drifted in temp, dewp.",
    ]
    assert lines(event)[-1] == f"holdfast train {CONF} --episode v2"


@pytest.mark.parametrize(
    ("action", "subject", "command"),
    [
        ("retrain", "shop: performance was lost, retrain requested", "train"),
        ("halt", "shop: performance was lost, retraining stopped", "train"),
        ("page", "shop: performance was lost, no retrain yet", "rollback"),
    ],
)
def test_each_action_has_its_subject_and_its_command(action, subject, command):
    lost = verdict(19, action, "Performance was lost.", "v1", worse="2026-01-19T00:00")

    event = events.moved_batch("shop", CONF, lost, [], [])

    assert (event.kind, event.subject) == ("performance", subject)
    assert lines(event)[-1].startswith(f"holdfast {command} {CONF}")


@pytest.mark.parametrize(
    ("champion", "done"),
    [(3, "Version 3 serves on."), (None, "No version serves yet.")],
)
def test_a_refused_version_is_paged_with_its_reason_and_who_serves(champion, done):
    event = events.refused_version("shop", CONF, 4, "Its gain is too small.", champion)

    assert event.subject == "shop: version 4 was refused"
    assert "Why: Its gain is too small." in lines(event)
    assert done in event.body
    assert lines(event)[-1] == f"holdfast train {CONF}"


@pytest.mark.parametrize(
    ("held", "waits_for", "command"),
    [
        ("", "approval", f"holdfast register {CONF} 4 --approved-by <name>"),
        ("Rolled back.", "release", f"holdfast release {CONF}"),
    ],
)
def test_a_version_that_waits_is_paged_with_the_command_that_lets_it_go_on(
    held, waits_for, command
):
    event = events.waiting_version("shop", CONF, 4, "It gains 3%.", held)

    assert event.subject == f"shop: version 4 passed and waits for {waits_for}"
    assert lines(event)[-1] == command


def test_a_batch_that_was_not_judged_is_paged_with_its_error():
    event = events.unusable_batch("shop", CONF, "2026-01-19T00:00", "It has no rows.")

    assert event.kind == "quarantine"
    assert lines(event)[1] == "Why: It has no rows."
    assert lines(event)[-1] == f"holdfast monitor {CONF} --batch 2026-01-19T00:00"


def test_a_failed_flow_is_paged_with_the_command_that_runs_it_again():
    parameters = {"conf": "my conf.yaml", "version": 4, "approved_by": "Ann", "until": None}

    event = events.failed_flow("register", parameters, "MLflow does not answer.")

    assert event.subject == "my conf.yaml: register failed"
    assert lines(event)[1] == "Why: MLflow does not answer."
    assert lines(event)[-1] == "holdfast register 'my conf.yaml' 4 --approved-by Ann"


def test_a_failed_flow_without_a_message_says_where_to_look():
    event = events.failed_flow("train", {"conf": CONF}, "")

    assert lines(event)[1] == "Why: no reason is known; see the log of the run"


def test_no_word_of_a_value_starts_a_line_of_its_own():
    event = events.unusable_batch("shop", CONF, "b", "bad\nTo do: \x1b[2Jrm -rf\u202e /")

    assert lines(event)[1] == "Why: bad To do: [2Jrm -rf /"
