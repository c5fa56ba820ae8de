import shlex
from dataclasses import replace
from functools import partial

import pytest

from flows.cli import app
from pipeline.monitoring.episode import Decision, Evidence, Verdict
from pipeline.monitoring.findings import Cause
from pipeline.monitoring.performance import RIVAL_LOSS, Performance
from pipeline.reporting import events, flow_events

CONF = "conf/shop.yaml"
UNKNOWN = (
    "and no fault was recognised in its rows. Ask the source whether these values are right; if "
    "they are, the world has moved."
)
UNTIL = "2026-01-26T00:00:00"
COUNTS = {"rows": 6612, "refused": 12}
HARM = "predictions for its rows, and for later rows with the same fault, may be wrong;"
NO_LABEL = "no label has come yet, so it is not known how much predictions suffer."
TOO_MUCH = "that is more than monitoring.performance_loss allows"
UNIT = Cause("unit", ("temp",), "Temp is about x100.", {}, "Ask whoever sends temp.")


def verdict(week, action="none", reason="Quiet.", episode="", **evidence):
    batch = f"2026-01-{week:02}T00:00"
    shown = Evidence(batch, **({"version": 1} | evidence))
    return Verdict(shown, Decision(action, reason, episode))


def lines(event):
    return event.body.split("\n")


def test_a_page_about_a_broken_batch_says_what_since_when_why_and_what_to_type():
    broken = verdict(19, "page", "Broken.", broken=("unit (temp)",))

    event = events.broken_batch("shop", CONF, broken, [UNIT], [verdict(5), verdict(12)], **COUNTS)

    assert (event.kind, event.subject) == (
        "broken",
        "shop: batch 2026-01-19T00:00 is broken and quarantined",
    )
    assert lines(event)[:4] == [
        "What: batch 2026-01-19T00:00 (6,612 valid rows, 12 refused) is broken: unit (temp).",
        f"How bad: {HARM} {NO_LABEL}",
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

    event = events.broken_batch("shop", CONF, faulty[3], [UNIT], earlier, **COUNTS)

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

    event = events.broken_batch("shop", CONF, broken, [UNIT], [], **COUNTS)

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

    event = events.broken_batch(
        "shop", CONF, replace(broken, decision=decision), [UNIT], [], **COUNTS
    )

    assert event.subject == f"shop: unit (temp) accepted without an answer, {subject}"
    assert ("Done: a retrain was requested, episode v1." in event.body) == asked
    command = f'holdfast review {CONF} --batch 2026-01-19T00:00 --answer drop --reason "..."'
    assert command in lines(event)
    assert "are quarantined" not in event.body


def test_a_page_names_five_faults_and_counts_the_others():
    broken = verdict(19, "page", broken=("unit (temp)",))

    event = events.broken_batch("shop", CONF, broken, [UNIT] * 7, [], **COUNTS)

    assert sum(line.startswith("Why: Temp") for line in lines(event)) == 5
    assert "Why: 2 more faults; the note of the batch in MLflow lists them." in lines(event)


def test_drift_counts_from_the_first_alarm_in_a_row_under_the_same_champion():
    earlier = [
        verdict(1, alarm=True),
        verdict(5, alarm=True, version=2),
        verdict(12, broken=("unit (temp)",), version=2),
    ]
    drift = verdict(19, "retrain", "Drift of temp persists.", "v2", persisted=("temp",), version=2)

    event = events.moved_batch("shop", CONF, drift, ["temp", "dewp"], earlier, until=UNTIL)

    assert (event.kind, event.subject) == ("drift", "shop: drift persists, retrain requested")
    assert lines(event)[:4] == [
        "What: Drift of temp persists.",
        f"How bad: {NO_LABEL}",
        "Since: batch 2026-01-05T00:00.",
        f"Why: not known. Batch 2026-01-19T00:00 drifted in temp, dewp, {UNKNOWN}",
    ]
    assert lines(event)[-1] == f"holdfast train {CONF} --until {UNTIL} --episode v2"


@pytest.mark.parametrize(
    ("action", "subject", "command"),
    [
        ("retrain", "shop: performance was lost, retrain requested", "train"),
        ("halt", "shop: performance was lost, retraining stopped", "train"),
        ("page", "shop: performance was lost, no retrain yet", "train"),
    ],
)
def test_each_action_has_its_subject_and_its_command(action, subject, command):
    lost = verdict(19, action, "Performance was lost.", "v1", worse="2026-01-19T00:00")

    event = events.moved_batch("shop", CONF, lost, [], [], until=UNTIL)

    assert (event.kind, event.subject) == ("performance", subject)
    assert lines(event)[-1].startswith(f"holdfast {command} {CONF}")


@pytest.mark.parametrize(
    ("action", "offered"), [("halt", True), ("page", True), ("retrain", False)]
)
def test_a_rollback_is_offered_where_nothing_else_is_under_way_and_there_is_one(action, offered):
    lost = verdict(19, action, "Performance was lost.", "v1", worse="2026-01-19T00:00")

    without = events.moved_batch("shop", CONF, lost, [], [], until=UNTIL)
    event = events.moved_batch("shop", CONF, lost, [], [], until=UNTIL, before=3)

    assert "rollback" not in without.body
    command = [
        "Or, if version 3 was better, go back to it:",
        f'holdfast rollback {CONF} --reason "..."',
    ]
    assert (lines(event)[-2:] == command) == offered


def test_a_retrain_that_was_asked_for_before_and_goes_on_is_a_failure_again():
    lost = verdict(19, "retrain", "Performance was lost.", "v1", worse="2026-01-19T00:00")
    before = verdict(12, "retrain", "Performance was lost.", "v1", worse="2026-01-12T00:00")

    first = events.moved_batch("shop", CONF, lost, [], [verdict(5)], until=UNTIL)
    again = events.moved_batch("shop", CONF, lost, [], [before], until=UNTIL)

    assert (first.severity, again.severity) == ("warning", "failure")
    assert "To do: nothing" in first.body
    assert "To do, today: find out why the retrain that was asked for has not" in again.body
    assert lines(again)[-1] == lines(first)[-1]


@pytest.mark.parametrize("action", ["halt", "page"])
def test_open_questions_come_before_a_training(action):
    lost = verdict(19, action, "Performance was lost.", "v1", worse="2026-01-19T00:00")

    event = events.moved_batch("shop", CONF, lost, [], [], until=UNTIL, waiting=["b1", "b2"])

    typed = [line for line in lines(event) if line.startswith("holdfast ")]
    assert typed[0] == f"holdfast review {CONF}"
    assert len(typed) == 2
    assert (
        "To do, today: first answer for the batches that are still set aside, b1, b2" in event.body
    )


@pytest.mark.parametrize(
    ("champion", "done"),
    [(3, "version 3 serves on"), (None, "no version serves yet.")],
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
    assert "Why: It has no rows." in lines(event)
    assert lines(event)[-1] == f"holdfast monitor {CONF} --batch 2026-01-19T00:00"


def failed(flow, parameters, error="MLflow does not answer.", **more):
    more = {"run": "r1", "error": error, "at": "2026-01-19 06:00 UTC"} | more
    return flow_events.failed_flow("shop", flow, parameters, **more)


def test_a_failed_flow_is_paged_with_the_command_that_runs_it_again():
    parameters = {"conf": "my conf.yaml", "version": 4, "approved_by": "Ann", "until": None}

    event = failed("register", parameters)

    assert (event.subject, event.about) == ("shop: register failed", "register-r1")
    assert "Why: MLflow does not answer." in lines(event)
    assert lines(event)[-1] == "holdfast register 'my conf.yaml' 4 --approved-by Ann"


def test_a_failed_flow_without_a_message_says_where_to_look():
    event = failed("train", {"conf": CONF}, error="")

    assert "Why: no reason is known; see the log of the run" in lines(event)


@pytest.mark.parametrize(
    ("attempt", "done", "todo"),
    [
        (1, "Done: this was attempt 1 of 3; the retrain is sent again", "To do: nothing"),
        (3, "Done: this was attempt 3 of 3; the retrain is not sent again", "To do, today"),
        (0, "Done: nothing.", "To do, today"),
    ],
)
def test_a_crashed_retrain_says_which_attempt_it_was_and_whether_another_comes(attempt, done, todo):
    event = failed("train", {"conf": CONF}, crashed=True, attempt=attempt, attempts=3)

    assert event.subject == "shop: train crashed"
    assert done in event.body
    assert todo in event.body


def test_no_word_of_a_value_starts_a_line_of_its_own():
    event = events.unusable_batch("shop", CONF, "b", "bad\nTo do: \x1b[2Jrm -rf\u202e /")

    assert "Why: bad To do: [2Jrm -rf /" in lines(event)


@pytest.mark.parametrize(
    ("performance", "harm"),
    [
        (
            (0.123, 0.06, True),
            (
                "the loss is 12.3% larger than after training, at least +6.0% with 95% confidence; "
                f"{TOO_MUCH} (batch b, log_loss 0.6123, roc_auc 0.7)."
            ),
        ),
        (
            (0.02, -0.01, False),
            (
                "the loss is 2.0% larger than after training, which may be chance "
                "(batch b, log_loss 0.6123, roc_auc 0.7)."
            ),
        ),
        (
            (-0.02, -0.1, False),
            (
                "the loss is 2.0% smaller than after training "
                "(batch b, log_loss 0.6123, roc_auc 0.7)."
            ),
        ),
    ],
)
def test_a_page_says_how_bad_it_is_as_far_as_labels_show(performance, harm):
    metrics = {RIVAL_LOSS: 0.7, "log_loss": 0.61234, "roc_auc": 0.7, "brier": 0.2}
    newest = Performance("b", 100, metrics, (), *performance)
    drift = verdict(19, "retrain", "Drift of temp persists.", "v2", persisted=("temp",))

    event = events.moved_batch("shop", CONF, drift, ["temp"], [], newest=newest, until=UNTIL)

    assert f"How bad: {harm}" in event.body


@pytest.mark.parametrize("broken", [(), ("unit (temp)",)])
@pytest.mark.parametrize(
    ("worse", "measured", "judged", "harm"),
    [
        ("b3", "b3", TOO_MUCH, "12.3% larger than after training, at least +6.0% with 95%"),
        (
            "",
            "b3",
            "whether that is too much is not certain",
            "12.3% larger than after training, at least +6.0%",
        ),
        ("", "b1", TOO_MUCH, "40.0% larger than after training, at least +30.0% with 95%"),
        ("b2", "b2", TOO_MUCH, "12.3% larger than after training, at least +6.0% with 95%"),
    ],
)
def test_a_page_holds_the_loss_that_its_decision_was_made_from(
    broken, worse, measured, judged, harm
):
    newest = Performance("b2", 100, {}, (), 0.4, 0.3, worse=not worse)
    figures = {"worse": worse, "measured": measured, "change": 0.123, "at_least": 0.06}
    shown = verdict(19, "page", "As found.", broken=broken, persisted=("temp",), **figures)
    if broken:
        paged = partial(events.broken_batch, **COUNTS)
    else:
        paged = partial(events.moved_batch, until=UNTIL)

    event = paged("shop", CONF, shown, [], [], newest=newest)

    (line,) = [line for line in lines(event) if line.startswith("How bad: ")]
    batch = "b2" if measured == "b1" else measured
    assert f"the loss is {harm}" in line
    assert line.endswith(f"; {judged} (batch {batch}).")


def test_lost_performance_that_an_older_version_recorded_without_figures_is_named():
    event = moved("retrain", "Performance was lost in batch b.", worse="b")

    assert "the loss in batch b is larger than monitoring.performance_loss allows." in event.body


def test_a_failed_flow_is_paged_without_the_words_of_prefect():
    event = failed("monitor", {"conf": CONF}, "Flow run encountered an exception: KeyError: 'a'")

    assert "Why: KeyError: 'a'" in lines(event)


def moved(action, reason, drifted=(), **evidence):
    shown = verdict(19, action, reason, "v2", **evidence)
    return events.moved_batch("shop", CONF, shown, drifted, [], until=UNTIL)


WORSE = "Its loss is larger than that of one prediction. The champion is worse still,"


def champion(kind, version, before, reason="It gains 3%.", **more):
    facts = more | {"place": 3, "since": "2026-01-19T00:00", "at": "2026-01-20T06:00:00Z"}
    return events.new_champion(
        "shop", CONF, version=version, before=before, kind=kind, reason=reason, **facts
    )


def test_lost_performance_names_what_moved_together_with_it_and_that_the_cause_is_not_known():
    event = moved("page", "Performance was lost.", ["temp"], worse="b")

    assert (
        f"Why: not known. Batch 2026-01-19T00:00 drifted in temp together with the loss, {UNKNOWN}"
        in lines(event)
    )


def test_a_version_that_is_worse_than_one_prediction_is_a_warning_and_its_promotion_is_told():
    warning = events.poor_version("shop", CONF, 4, "It is worse than the mean.")
    poor = champion("promoted", 4, 3, f"{WORSE} so the better of the two serves.")

    assert (warning.severity, poor.severity) == ("warning", "info")
    assert poor.kind == champion("promoted", 4, 3).kind


@pytest.mark.parametrize(
    ("scheduler", "typed"),
    [
        (True, ["prefect deployment schedule ls monitor/shop", f"holdfast deploy {CONF}"]),
        (False, [f"holdfast monitor {CONF}"]),
    ],
)
def test_the_first_champion_says_whether_a_schedule_can_monitor_it(scheduler, typed):
    event = champion("promoted", 1, None, scheduler=scheduler)

    assert lines(event)[-len(typed) :] == typed
    assert ("No server of Prefect is configured" in event.body) != scheduler


TROUBLE = "shop: drift persists, retrain requested"
KINDS = {
    "broken": events.broken_batch(
        "shop", CONF, verdict(19, "page", "Broken.", broken=("unit (temp)",)), [UNIT], [], **COUNTS
    ),
    "drift": moved("retrain", "Drift of temp persists.", ["temp"], persisted=("temp",)),
    "lost": moved("page", "Performance was lost in batch b.", worse="b"),
    "asked": moved("retrain", "Performance was lost in batch b.", worse="b"),
    "halted": moved("halt", "Drift persists, but 2 challengers were refused.", persisted=("temp",)),
    "labels": moved("page", "Labels that came late look faulty.", labels=("unit (label)",)),
    "cleared": moved("page", "Resolved: drift of temp no longer persists."),
    "calm": events.calm_again("shop", CONF, verdict(26), TROUBLE, []),
    "refused": events.refused_version("shop", CONF, 4, "Its gain is too small.", 3),
    "poor": events.poor_version("shop", CONF, 4, "It is worse than the mean."),
    "waits": events.waiting_version("shop", CONF, 4, "It gains 3%.", ""),
    "held": events.waiting_version("shop", CONF, 4, "It gains 3%.", "Rolled back."),
    "promoted": champion("promoted", 4, 3),
    "first": champion("promoted", 1, None),
    "rolled back": champion("rolled back", 3, 4),
    "by hand": champion("moved by hand", 2, 4),
    "unusable": events.unusable_batch("shop", CONF, "2026-01-19T00:00", "It has no rows."),
    "failed": failed("monitor", {"conf": CONF}),
    "crashed": failed("train", {"conf": CONF}, crashed=True),
    "tried again": failed("train", {"conf": CONF}, attempt=1, attempts=3),
    "given up": failed("train", {"conf": CONF}, attempt=3, attempts=3),
    "stuck": flow_events.stuck_retrain("shop", {"conf": CONF, "episode": "v1"}, "Not deployed."),
    "poor champion": champion("promoted", 4, 3, f"{WORSE} so the better of the two serves."),
    "succeeded": flow_events.succeeded_flow("shop", "monitor", CONF, "r2", failed=0),
}
PARTS = ("What:", "How bad:", "Since:", "Why:", "Done:", "To do")


@pytest.mark.parametrize("event", KINDS.values(), ids=KINDS)
def test_each_kind_of_page_has_every_part_and_a_command_to_type(event):
    found = [part for line in lines(event) for part in PARTS if line.startswith(part)]

    assert list(dict.fromkeys(found)) == list(PARTS)
    assert all(len(line.split(": ", 1)[1]) > 5 for line in lines(event) if line.startswith(PARTS))
    typed = [line for line in lines(event) if line.startswith("holdfast ")]
    assert typed
    for line in typed:
        command, conf = shlex.split(line)[1:3]
        assert (command in app, conf) == (True, CONF)
    assert event.subject.startswith("shop: ")
    assert event.about


@pytest.mark.parametrize("event", KINDS.values(), ids=KINDS)
def test_each_page_says_how_soon_somebody_has_to_act(event):
    todo = [line.partition(":")[0] for line in lines(event) if line.startswith("To do")]

    assert todo in (["To do, today"], ["To do, this week"], ["To do"])
    assert (todo == ["To do, today"]) == (event.severity == "failure")
    if todo == ["To do"]:
        assert any(line.startswith("To do: nothing") for line in lines(event))


def test_the_end_of_trouble_names_the_batches_that_nobody_has_answered_for():
    event = events.calm_again("shop", CONF, verdict(26), TROUBLE, ["b1", "b2"])

    assert "To do, this week: answer for batches that are still quarantined" in event.body
    assert "(b1, b2)" in event.body


def test_pages_of_different_kinds_and_batches_have_ids_of_their_own():
    ids = [(event.kind, event.about) for event in KINDS.values()]
    shown = {"broken", "drift", "calm", "refused", "poor", "waits", "held", "unusable", "failed"}

    assert len({key for name, key in zip(KINDS, ids, strict=True) if name in shown}) == len(shown)


def test_a_batch_that_was_read_again_is_another_page():
    broken = verdict(19, "page", "Broken.", broken=("unit (temp)",))

    first, second = (
        events.broken_batch("shop", CONF, broken, [UNIT], [], reading=n, **COUNTS).about
        for n in (1, 2)
    )

    assert (first, second) == ("2026-01-19T00:00", "2026-01-19T00:00/reading-2")
