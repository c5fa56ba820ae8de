from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pipeline.monitoring.episode import (
    REFUSALS,
    UNCLEARED,
    Attempt,
    Decision,
    Evidence,
    Verdict,
    decide,
)
from pipeline.monitoring.questions import counted, presumed

TROUBLE = Evidence("05", 1, alarm=True, persisted=("age",))


def asked(batch, version=1, episode=None):
    decision = Decision("retrain", "", episode or f"v{version}-{batch}")
    return Verdict(Evidence(batch, version, persisted=("age",)), decision)


def refused(*batches):
    return [Attempt(f"v1-{batch}", promoted=False) for batch in batches]


def test_a_quiet_batch_asks_for_nothing():
    assert decide(Evidence("05", 1), history=[], attempts=[], cooldown=2).action == "none"


def test_an_alarm_that_has_not_persisted_asks_for_nothing_and_says_so():
    decision = decide(Evidence("05", 1, alarm=True), history=[], attempts=[], cooldown=2)

    assert (decision.action, decision.reason) == ("none", "This batch alarms; not persistent yet.")


def test_persistent_drift_asks_for_one_retrain_and_names_the_columns():
    decision = decide(TROUBLE, history=[], attempts=[], cooldown=2)

    assert (decision.action, decision.episode) == ("retrain", "v1-05")
    assert decision.reason == "Drift of age persists."


def test_a_slice_that_moved_apart_is_named_with_trouble_and_asks_for_nothing_by_itself():
    moved = "carrier = HA, distance +1.04 sd beyond the other rows, 102 rows"
    given = {"history": [], "attempts": [], "cooldown": 2}

    calm = decide(Evidence("05", 1, moved_slice=moved), **given)
    trouble = decide(replace(TROUBLE, moved_slice=moved), **given)

    assert calm == decide(Evidence("05", 1), **given)
    reason = f"Drift of age persists. Slice that moved apart: {moved}."
    assert trouble == replace(decide(TROUBLE, **given), reason=reason)


def test_lost_performance_alone_opens_an_episode():
    decision = decide(Evidence("05", 1, worse="03"), history=[], attempts=[], cooldown=2)

    assert decision == Decision("retrain", "Performance was lost in batch 03.", "v1-05")


def test_a_request_whose_training_was_lost_is_asked_again_in_its_own_episode():
    decision = decide(TROUBLE, history=[asked("04")], attempts=[], cooldown=2)

    assert (decision.action, decision.episode) == ("retrain", "v1-04")


@pytest.mark.parametrize("promoted", [True, False])
def test_a_request_is_followed_by_a_cooldown(promoted):
    quiet = Verdict(Evidence("04", 1), Decision("none", ""))
    attempts = [Attempt("v1-03", promoted)]

    early = decide(TROUBLE, history=[asked("03"), quiet], attempts=attempts, cooldown=2)
    late = decide(TROUBLE, history=[asked("03"), quiet], attempts=attempts, cooldown=1)
    assert (early.action, late.action, late.episode) == ("none", "retrain", "v1-05")


def test_performance_lost_during_the_cooldown_pages_people():
    worse = Evidence("05", 1, worse="05")

    decision = decide(worse, history=[asked("04")], attempts=refused("04"), cooldown=2)
    assert decision.action == "page"


def test_two_challengers_refused_in_a_row_halt():
    history = [asked("01"), asked("03")]
    decision = decide(TROUBLE, history=history, attempts=refused("01", "03"), cooldown=0)

    assert decision.action == "halt"
    assert "people must look" in decision.reason


def test_a_decision_is_made_again_by_the_limits_that_it_was_made_by():
    refusals = [asked("01"), asked("03")], refused("01", "03")
    retrains = two_retrains()
    evidence = troubled("05", 3).evidence

    def made(now, earlier, **limits):
        history, attempts = earlier
        return decide(now, history=history, attempts=attempts, cooldown=0, **limits).action

    assert (made(TROUBLE, refusals), made(TROUBLE, refusals, refusals=3)) == ("halt", "retrain")
    assert (made(evidence, retrains), made(evidence, retrains, uncleared=3)) == ("halt", "retrain")


def test_a_champion_put_in_place_by_hand_ends_the_halt():
    evidence = Evidence("05", 2, persisted=("age",))
    history = [asked("01"), asked("03")]

    decision = decide(evidence, history=history, attempts=refused("01", "03"), cooldown=0)
    assert (decision.action, decision.episode) == ("retrain", "v2-05")


def troubled(batch, version, decision=None, **evidence):
    found = Evidence(batch, version, **({"alarm": True, "persisted": ("age",)} | evidence))
    return Verdict(found, decision or Decision("none", ""))


def two_retrains(**between):
    """Two champions in a row that a retrain for `age` brought about, and batches of each."""
    history = [
        troubled("01", 1, Decision("retrain", "", "v1-01")),
        troubled("02", 2, **between),
        troubled("03", 2, Decision("retrain", "", "v2-03")),
        troubled("04", 3),
    ]
    return history, [Attempt("v1-01", True, 2), Attempt("v2-03", True, 3)]


@pytest.mark.parametrize(
    ("between", "now", "action"),
    [
        ({}, {}, "halt"),
        ({"persisted": ()}, {}, "halt"),  # it alarms
        ({"alarm": False, "persisted": ()}, {}, "retrain"),  # quiet
        ({}, {"persisted": ("temp",)}, "retrain"),  # something else
        ({}, {"persisted": (), "worse": "05"}, "retrain"),
    ],
)
def test_two_retrains_that_did_not_clear_the_drift_halt(between, now, action):
    history, attempts = two_retrains(**between)
    evidence = troubled("05", 3, **now).evidence

    decision = decide(evidence, history=history, attempts=attempts, cooldown=0)
    assert decision.action == action
    assert ("2 retrains in a row did not clear it" in decision.reason) == (action == "halt")


def test_one_retrain_that_did_not_clear_the_drift_is_followed_by_another():
    history, attempts = two_retrains()

    decision = decide(TROUBLE, history=history[:1], attempts=attempts[:1], cooldown=0)
    assert decision.action == "retrain"


@pytest.mark.parametrize(("worse", "action"), [("", "none"), ("05", "page")])
def test_a_late_batch_asks_for_nothing(worse, action):
    evidence = Evidence("05", 1, alarm=True, persisted=("age",), worse=worse)
    decision = decide(evidence, history=[], attempts=[], cooldown=0, late=True)

    assert decision.action == action
    assert "seen late" in decision.reason


@pytest.mark.parametrize(
    ("harmless", "worse", "record", "action"),
    [
        (True, "", True, "none"),
        (True, "", False, "retrain"),
        (False, "", True, "retrain"),
        (True, "05", True, "retrain"),
    ],
)
def test_harmless_drift_is_recorded_where_that_is_configured(harmless, worse, record, action):
    evidence = Evidence("05", 1, persisted=("age",), worse=worse, harmless=harmless)
    decision = decide(evidence, history=[], attempts=[], cooldown=0, record_harmless=record)

    assert decision.action == action


BROKEN = ("unit (temp)", "nulls (origin)")


def set_aside(batch, version=1):
    evidence = Evidence(batch, version, persisted=("age",), broken=BROKEN)
    return Verdict(evidence, Decision("page", ""))


@pytest.mark.parametrize(
    ("evidence", "lost"),
    [
        (Evidence("05", 1, broken=BROKEN), ""),
        (
            Evidence("05", 1, alarm=True, persisted=("age",), worse="05", broken=BROKEN),
            "Performance was lost in batch 05. ",
        ),
    ],
)
def test_a_broken_batch_pages_people_even_if_drift_persists(evidence, lost):
    decision = decide(evidence, history=[asked("04")], attempts=[], cooldown=0)

    reason = f"{lost}Set aside until someone answers in review."
    assert decision == Decision("page", f"Broken: unit (temp), nulls (origin). {reason}")


def test_many_faults_are_counted_and_few_are_named():
    decision = decide(Evidence("05", 1, broken=tuple("abcde")), history=[], attempts=[], cooldown=0)

    assert decision.reason.startswith("Broken: a, b, c and 2 more. ")


def test_a_broken_batch_does_not_end_a_halt():
    history = [asked("01"), asked("03"), set_aside("04")]

    decision = decide(TROUBLE, history=history, attempts=refused("01", "03"), cooldown=0)
    assert decision.action == "halt"


def test_a_request_that_a_broken_batch_followed_is_still_asked_again():
    decision = decide(TROUBLE, history=[asked("03"), set_aside("04")], attempts=[], cooldown=0)

    assert (decision.action, decision.episode) == ("retrain", "v1-03")


@pytest.mark.parametrize(("accepted", "action"), [((), "none"), (("04",), "retrain")])
def test_quarantined_batches_do_not_count_towards_the_cooldown(accepted, action):
    history = [asked("03"), set_aside("04")]

    decision = decide(
        TROUBLE, history=history, attempts=refused("03"), cooldown=1, accepted=accepted
    )
    assert decision.action == action


@pytest.mark.parametrize(("accepted", "action"), [((), "retrain"), (("02",), "none")])
def test_batches_quarantined_just_before_a_request_count_towards_its_cooldown(accepted, action):
    quiet = Verdict(Evidence("04", 1), Decision("none", ""))
    history = [set_aside("01"), set_aside("02"), asked("03"), quiet]

    decision = decide(
        TROUBLE, history=history, attempts=refused("03"), cooldown=3, accepted=accepted
    )
    assert decision.action == action


UNIT = "unit (temp)"
MOVED = Evidence("", 1, alarm=True, persisted=("temp",))


def outage(*days, version=1, broken=(UNIT,), presumed=(), worse=""):
    """Broken batches of some days; the last of them accepts `presumed`."""
    return [
        Verdict(
            Evidence(day, version, broken=broken, worse=worse),
            Decision("page", "", presumed=presumed if day == days[-1] else ()),
        )
        for day in days
    ]


def at(evidence, batch, **changes):
    return replace(evidence, batch=batch, **changes)


def broken_batch(batch, *faults, worse="", otherwise=None, version=1):
    other = None if otherwise is None else at(otherwise, batch, worse=worse, version=version)
    broken = faults or (UNIT,)
    return Evidence(batch, version, broken=broken, worse=worse, otherwise=other)


def judge(evidence, history=(), attempts=(), cooldown=0, escalate_after=3, **given):
    return decide(
        evidence,
        history=history,
        attempts=attempts,
        cooldown=cooldown,
        escalate_after=escalate_after,
        **given,
    )


def days(count, first=1):
    return [f"{day:02}" for day in range(first, first + count)]


@pytest.mark.parametrize(
    ("escalate_after", "pages"),
    [
        (0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        (1, [1, 2, 4, 8]),
        (3, [1, 3, 6, 12]),
        (5, [1, 5, 10]),
    ],
)
def test_people_are_paged_at_first_then_after_some_batches_and_at_each_doubling(
    escalate_after, pages
):
    history = []
    for day in days(13):
        evidence = broken_batch(day, otherwise=MOVED)
        decision = judge(evidence, history, escalate_after=escalate_after)
        history.append(Verdict(evidence, decision))

    assert [i for i, v in enumerate(history, start=1) if v.decision.action == "page"] == pages
    assert {v.decision.action for v in history} <= {"page", "none"}


def test_between_two_pages_the_reason_says_when_the_next_page_comes():
    decision = judge(broken_batch("02"), outage("01"))

    assert decision == Decision(
        "none",
        "Broken: unit (temp) in 2 batches in a row, and nobody has answered. Set aside until "
        "someone answers in review. The next page comes at 3 batches in a row.",
    )


def test_a_question_that_nobody_answers_is_asked_again_with_both_readings():
    decision = judge(broken_batch("03", otherwise=MOVED), outage("01", "02"))

    assert decision == Decision(
        "page",
        "Broken: unit (temp) in 3 batches in a row, and nobody has answered. "
        "If it is a fault, mend it and answer reload, or answer drop: no model learns from faulty "
        "rows. "
        "If it is the world now, answer accept for these batches: drift of temp persists, and a "
        "retrain would be asked for. The next page comes at 6 batches in a row.",
    )


@pytest.mark.parametrize(
    ("otherwise", "reading"),
    [
        (Evidence("", 1), "nothing differs, and no retrain would be asked for."),
        (
            Evidence("", 1, alarm=True),
            "this batch alarms; not persistent yet, and no retrain would be asked for.",
        ),
        (
            Evidence("", 1, broken=("nulls (origin)",)),
            "Without unit (temp) the batch is still broken: nulls (origin).",
        ),
        (None, "Whether it is the world now cannot be judged: no row of the batch is valid."),
    ],
)
def test_the_second_reading_says_what_would_follow(otherwise, reading):
    decision = judge(broken_batch("03", otherwise=otherwise), outage("01", "02"))

    assert decision.action == "page"
    assert reading in decision.reason


def test_a_new_cause_pages_whatever_else_is_open():
    evidence = broken_batch("02", UNIT, "nulls (origin)")

    decision = judge(evidence, outage("01"))

    assert decision.action == "page"
    assert decision.reason.startswith(
        "Broken: unit (temp), nulls (origin); unit (temp) in 2 batches in a row, and nobody"
    )


@pytest.mark.parametrize(
    ("history", "given"),
    [
        ([*outage("01", "02"), Verdict(Evidence("025", 1), Decision("none", ""))], {}),
        ([*outage("01", "02"), *outage("025", broken=("nulls (origin)",))], {}),
        (outage("01", "02"), {"answered": ["02"]}),
        (outage("01", "02"), {"accepted": ["02"]}),
    ],
)
def test_a_sound_batch_another_cause_and_an_answer_end_the_row(history, given):
    decision = judge(broken_batch("03"), history, **given)

    reason = "Broken: unit (temp). Set aside until someone answers in review."
    assert decision == Decision("page", reason)


def test_a_fault_that_looks_like_another_fault_of_its_column_is_one_question():
    history = [*outage("01"), *outage("02", broken=("rounded (dewp, temp)",))]
    evidence = broken_batch("03", otherwise=MOVED)

    decision = judge(evidence, history, on_unanswered="accept")

    assert decision.reason.startswith(
        "Broken: unit (temp); faults of temp in 3 batches in a row, and nobody has answered."
    )
    assert (decision.action, decision.presumed) == ("retrain", (UNIT,))
    assert presumed([*history, Verdict(evidence, decision)])["02"] == {"rounded (dewp, temp)"}


def test_another_name_of_a_fault_pages_once_and_then_goes_on_with_the_row():
    history = [*outage("01"), *outage("02", broken=("rounded (temp)",))]

    first = judge(broken_batch("02", "rounded (temp)"), history[:1], escalate_after=5)
    again = judge(broken_batch("03"), history, escalate_after=5)

    assert (first.action, again.action) == ("page", "none")


def test_faults_of_whole_batches_are_different_questions():
    history = outage("01", "02", broken=("volume (the batch)",))

    decision = judge(broken_batch("03", "frozen (the batch)"), history)

    assert decision.reason.startswith("Broken: frozen (the batch). Set aside")


def test_a_row_of_broken_batches_goes_on_under_another_champion():
    history = [*outage("01"), *outage("02", version=2)]

    decision = judge(broken_batch("03", version=2, otherwise=MOVED), history)

    assert "in 3 batches in a row" in decision.reason


@pytest.mark.parametrize(("lost_before", "action"), [("", "page"), ("01", "none")])
def test_performance_lost_in_a_broken_batch_escalates_at_once_and_once(lost_before, action):
    evidence = broken_batch("02", worse="02", otherwise=MOVED)

    decision = judge(evidence, outage("01", worse=lost_before))

    assert decision.action == action
    assert "Performance was lost in batch 02." in decision.reason
    assert ("answer accept for these batches" in decision.reason) == (action == "page")


def test_held_faults_never_ask_for_a_retrain():
    evidence = broken_batch("03", worse="03", otherwise=MOVED)

    decision = judge(evidence, outage("01", "02"))

    assert (decision.action, decision.episode, decision.presumed) == ("page", "", ())


def test_without_an_answer_a_fault_is_accepted_where_that_is_configured():
    evidence = broken_batch("03", otherwise=MOVED)

    decision = judge(evidence, outage("01", "02"), on_unanswered="accept")

    assert decision == Decision(
        "retrain",
        "Broken: unit (temp) in 3 batches in a row, and nobody has answered. Accepted without an "
        "answer: unit (temp). Drift of temp persists.",
        "v1-03",
        presumed=(UNIT,),
    )


def test_people_are_warned_before_a_fault_is_accepted():
    first = judge(broken_batch("01"), on_unanswered="accept")
    second = judge(broken_batch("02"), outage("01"), on_unanswered="accept")

    for decision in (first, second):
        assert "Without an answer it counts as accepted at 3 batches in a row." in decision.reason


@pytest.mark.parametrize("otherwise", [Evidence("", 1), Evidence("", 1, alarm=True)])
def test_people_are_paged_about_an_accepted_fault_even_if_nothing_follows(otherwise):
    evidence = broken_batch("03", otherwise=otherwise)

    decision = judge(evidence, outage("01", "02"), on_unanswered="accept")

    assert (decision.action, decision.presumed) == ("page", (UNIT,))


def test_lost_performance_alone_accepts_nothing():
    evidence = broken_batch("01", worse="01", otherwise=MOVED)

    decision = judge(evidence, on_unanswered="accept")

    assert (decision.action, decision.presumed) == ("page", ())
    assert "a retrain would be asked for" in decision.reason


def test_a_batch_without_a_valid_row_is_never_accepted():
    decision = judge(broken_batch("03"), outage("01", "02"), on_unanswered="accept")

    assert (decision.action, decision.presumed) == ("page", ())


def test_a_fault_is_accepted_by_itself_and_a_new_fault_keeps_the_batch_set_aside():
    evidence = broken_batch(
        "03", UNIT, "nulls (origin)", otherwise=Evidence("", 1, broken=("nulls (origin)",))
    )

    decision = judge(evidence, outage("01", "02"), on_unanswered="accept")

    assert (decision.action, decision.presumed) == ("page", (UNIT,))
    assert counted([*outage("01", "02"), Verdict(evidence, decision)]) == {"01", "02"}


def test_an_accepted_fault_still_waits_for_the_cooldown():
    history = [asked("01"), *outage("02", "03")]
    evidence = broken_batch("04", otherwise=at(MOVED, "04", persisted=("age",)))

    early = judge(evidence, history, refused("01"), cooldown=3, on_unanswered="accept")
    later = judge(evidence, history, refused("01"), cooldown=2, on_unanswered="accept")

    assert (early.action, later.action) == ("page", "retrain")
    assert early.reason.endswith(
        ", trained on request of batch 01, was not promoted, and the next request waits for 1 of "
        "3 batches (monitoring.cooldown)."
    )


def test_retrains_on_an_accepted_fault_that_did_not_clear_it_halt():
    def request(batch, version, episode):
        evidence = broken_batch(batch, version=version, otherwise=MOVED)
        return Verdict(evidence, Decision("retrain", "", episode, presumed=(UNIT,)))

    history = [request("01", 1, "a"), request("02", 2, "b")]
    attempts = [Attempt("a", True, 2), Attempt("b", True, 3)]

    decision = judge(at(MOVED, "03", version=3), history, attempts)

    assert decision.action == "halt"


@pytest.mark.parametrize(
    ("answered", "counts"),
    [
        ((), {"01", "02", "03"}),
        (("03",), set()),  # the batch that accepted the fault
        (("01",), {"02", "03"}),
        (("02",), {"03"}),
    ],
)
def test_a_later_answer_withdraws_what_was_accepted_without_an_answer(answered, counts):
    history = outage("01", "02", "03", presumed=(UNIT,))

    assert counted(history, answered=answered) == counts


def test_an_older_outage_is_not_accepted_with_a_newer_one():
    sound = Verdict(Evidence("03", 1), Decision("none", ""))
    history = [*outage("01", "02"), sound, *outage("04", "05", presumed=(UNIT,))]

    assert counted(history) == {"04", "05"}


@given(data=st.data())
def test_a_fault_accepted_without_an_answer_counts_as_people_s_accept_does(data):
    faults = data.draw(st.lists(st.booleans(), max_size=9))
    history = []
    for day, faulty in zip(days(len(faults)), faults, strict=True):
        other = at(MOVED, day)
        evidence = broken_batch(day, otherwise=MOVED) if faulty else other
        decision = judge(evidence, history, cooldown=2, escalate_after=2, on_unanswered="accept")
        history.append(Verdict(evidence, decision))
    accepted = counted(history)
    unmarked = [Verdict(v.evidence, replace(v.decision, presumed=())) for v in history]
    mixed = data.draw(st.permutations(history))

    now = at(MOVED, "90")
    assert judge(now, mixed, cooldown=2) == judge(now, unmarked, cooldown=2, accepted=accepted)


class World(RuleBasedStateMachine):
    """Batches arrive; requests lead to challengers that are promoted, refused or lost."""

    @initialize(cooldown=st.integers(0, 3), escalate_after=st.integers(0, 3))
    def start(self, cooldown, escalate_after):
        self.cooldown, self.escalate_after = cooldown, escalate_after
        self.version, self.made = 1, 2
        self.history, self.known, self.attempts, self.accepted = [], [], [], []
        self.open = ""
        self.asked = False
        # Refusals, batches waited since the last request, those set aside one after another.
        self.in_a_row, self.since, self.held_up = 0, 0, 0
        # What each champion was asked for by, and those that had a quiet batch.
        self.requests, self.quiet = {}, set()

    def judge(self, evidence, history, attempts, accepted):
        return decide(
            evidence,
            history=history,
            attempts=attempts,
            cooldown=self.cooldown,
            accepted=accepted,
            escalate_after=self.escalate_after,
        )

    @rule(
        persisted=st.booleans(), worse=st.booleans(), broken=st.booleans(), accepted=st.booleans()
    )
    def batch_arrives(self, persisted, worse, broken, accepted):
        evidence = Evidence(
            f"{len(self.history):04d}",
            self.version,
            persisted=("age",) if persisted else (),
            worse="0000" if worse else "",
            broken=BROKEN if broken else (),
        )
        decision = self.judge(evidence, self.history, self.attempts, self.accepted)
        if broken:
            assert decision.action == "page" or self.held_up
            assert (decision.action in {"page", "none"}, decision.episode) == (True, "")
        else:
            self.check(decision, evidence)
        self.history.append(Verdict(evidence, decision))
        self.known.append((tuple(self.attempts), tuple(self.accepted)))
        self.accepted += [evidence.batch] if broken and accepted else []
        if broken and not accepted:
            self.held_up += 1
            return
        if not (persisted or worse):
            self.quiet.add(self.version)
        self.since += 1
        if decision.action == "retrain":
            self.open, self.since, self.asked = decision.episode, self.held_up, True
            self.request = evidence
        self.held_up = 0

    def uncleared(self, now):
        count = 0
        while now.version in self.requests and now.version not in self.quiet:
            request = self.requests[now.version]
            if not (request.persisted and now.persisted) and not (request.worse and now.worse):
                break
            count, now = count + 1, request
        return count

    def check(self, decision, evidence):
        if not (evidence.persisted or evidence.worse):
            assert decision.action in {"none", "page"}
            assert decision.reason.startswith("Resolved: ") == (decision.action == "page")
        elif self.in_a_row >= REFUSALS or self.uncleared(evidence) >= UNCLEARED:
            assert decision.action == "halt"
        elif self.open:
            assert (decision.action, decision.episode) == ("retrain", self.open)
        elif self.asked and self.since < self.cooldown:
            assert decision.action in {"none", "page"}
        else:
            assert decision.action == "retrain"
            assert decision.episode not in {attempt.episode for attempt in self.attempts}

    @precondition(lambda self: self.open)
    @rule(promoted=st.booleans())
    def training_ends(self, promoted):
        assert self.open not in {attempt.episode for attempt in self.attempts}
        self.attempts.append(Attempt(self.open, promoted, self.made))
        self.open = ""
        if promoted:
            self.version = self.made
            self.requests[self.version] = self.request
        self.made += 1
        self.in_a_row = 0 if promoted else self.in_a_row + 1

    @precondition(lambda self: not self.open)
    @rule()
    def champion_is_put_in_place_by_hand(self):
        self.version = self.made
        self.made += 1
        self.in_a_row = 0

    @precondition(lambda self: self.history)
    @rule(data=st.data())
    def batch_is_judged_again(self, data):
        i = data.draw(st.integers(0, len(self.history) - 1))
        verdict, mixed = self.history[i], data.draw(st.permutations(self.history))

        assert self.judge(verdict.evidence, mixed, *self.known[i]) == verdict.decision


World.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestWorld = World.TestCase


def halted(count):
    """Verdicts of batches in a row that ended in a halt, and the decisions about them."""
    attempts = [Attempt("v1-0000", promoted=False), Attempt("v1-0001", promoted=False)]
    history = [
        Verdict(Evidence(name, 1, persisted=("age",)), Decision("retrain", "", f"v1-{name}"))
        for name in ("0000", "0001")
    ]
    for place in range(2, count + 2):
        found = Evidence(f"{place:04d}", 1, persisted=("age",))
        history.append(
            Verdict(found, decide(found, history=history, attempts=attempts, cooldown=0))
        )
    return history, attempts


def test_people_are_paged_about_a_halt_at_each_doubling():
    history, _ = halted(9)

    decisions = [verdict.decision for verdict in history[2:]]
    assert {decision.action for decision in decisions} == {"halt"}
    due = [place for place, decision in enumerate(decisions, 1) if decision.due]
    assert due == [1, 2, 4, 8]
    assert decisions[2].reason.endswith("The next page comes at 4 batches in a row.")


def test_the_end_of_a_halt_is_paged_once():
    history, attempts = halted(3)
    for name in ("1000", "1001"):
        quiet = Evidence(name, 1)
        decision = decide(quiet, history=history, attempts=attempts, cooldown=0)
        history.append(Verdict(quiet, decision))

    resolved, after = (verdict.decision for verdict in history[-2:])
    assert (resolved.action, resolved.due) == ("page", True)
    assert resolved.reason == "Resolved: drift of age no longer persists."
    assert after.action == "none"


def test_a_request_that_is_not_answered_pages_at_each_doubling():
    history = []
    for place in range(5):
        found = Evidence(f"{place:04d}", 1, worse="0000")
        decision = decide(found, history=history, attempts=[], cooldown=4)
        history.append(Verdict(found, decision))

    assert {verdict.decision.action for verdict in history} == {"retrain"}
    assert {verdict.decision.episode for verdict in history} == {"v1-0000"}
    assert [verdict.decision.due for verdict in history] == [True, True, False, True, False]


LATE = ("permuted (late) in batch 0001",)


def test_labels_that_came_late_and_look_faulty_page_and_ask_for_no_retrain():
    history = []
    for place, labels in enumerate(
        [(), LATE, LATE, LATE, (*LATE, "permuted (late) in batch 0002")]
    ):
        found = Evidence(f"{place + 5:04d}", 1, labels=labels)
        decision = decide(found, history=history, attempts=[], cooldown=4)
        history.append(Verdict(found, decision))

    decisions = [verdict.decision for verdict in history]
    assert [decision.action for decision in decisions] == ["none", *["page"] * 4]
    assert [decision.due for decision in decisions[1:]] == [True, True, False, True]
    assert decisions[1].reason.startswith("Performance was lost, and labels that came late")


def test_drift_that_persists_beside_faulty_labels_is_cured():
    found = Evidence("0005", 1, persisted=("age",), labels=LATE)

    decision = decide(found, history=[], attempts=[], cooldown=4)

    assert decision.action == "retrain"
    assert LATE[0] in decision.reason
