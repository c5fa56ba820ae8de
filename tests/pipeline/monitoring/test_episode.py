import pytest
from hypothesis import settings
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
    "evidence",
    [
        Evidence("05", 1, broken=BROKEN),
        Evidence("05", 1, alarm=True, persisted=("age",), worse="05", broken=BROKEN),
    ],
)
def test_a_broken_batch_pages_people_even_if_drift_persists(evidence):
    decision = decide(evidence, history=[asked("04")], attempts=[], cooldown=0)

    reason = "Broken: unit (temp), nulls (origin). Set aside until someone answers in review."
    assert decision == Decision("page", reason)


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


class World(RuleBasedStateMachine):
    """Batches arrive; requests lead to challengers that are promoted, refused or lost."""

    @initialize(cooldown=st.integers(0, 3))
    def start(self, cooldown):
        self.cooldown = cooldown
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
            assert (decision.action, decision.episode) == ("page", "")
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
            assert decision.action == "none"
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
