"""Decide what to do about a batch, by a pure fold over the recorded history.

An episode opens when drift persists or performance is lost. It asks for one retrain, and closes
when the challenger is promoted or refused. The next episode may open after a cooldown. A broken
batch pages people and counts for nothing until they accept it. If nobody answers for a fault, it is
asked again, with what would follow if the fault were the world as it is now.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from pipeline.monitoring import questions
from pipeline.monitoring.questions import QUIET, OnUnanswered, counted, counted_with
from pipeline.monitoring.verdicts import Action, Attempt, Decision, Evidence, Verdict

__all__ = ["Action", "Attempt", "Decision", "Evidence", "Verdict", "decide"]

REFUSALS, UNCLEARED = 2, 2
"""What `decide` halts after by default. A decision of before these were recorded was made by 2."""


def decide(
    evidence: Evidence,
    *,
    history: Sequence[Verdict],
    attempts: Sequence[Attempt],
    cooldown: int,
    accepted: Collection[str] = (),
    answered: Collection[str] = (),
    late: bool = False,
    record_harmless: bool = False,
    escalate_after: int = 0,
    on_unanswered: OnUnanswered = "hold",
    refusals: int = REFUSALS,
    uncleared: int = UNCLEARED,
) -> Decision:
    """Decide what to do about a batch, given the history before it.

    Parameters
    ----------
    evidence : Evidence
        What the batch showed.
    history : sequence of Verdict
        Verdicts of other batches, in any order; later batches are ignored.
    attempts : sequence of Attempt
        All challengers so far, oldest first.
    cooldown : int
        Number of batches between a request for a retrain and the next request. Batches in
        quarantine do not count, except those right before the request, which they delayed.
    accepted : collection of str
        Broken batches that people accepted as the world as it is now.
    answered : collection of str
        Broken batches that people answered for in another way: drop or reload.
    late : bool
        Whether a later batch that counts was already decided on; then no retrain is asked for.
    record_harmless : bool
        Whether drift that is harmless is only recorded.
    escalate_after : int
        Number of batches in a row with a fault that nobody answers for, after which people are
        asked again; 0: each broken batch pages, as before batches were counted.
    on_unanswered : str
        ``hold``: a fault that nobody answers for stays set aside. ``accept``: after
        `escalate_after` batches it counts as accepted.
    refusals : int
        Number of challengers refused in a row after which the monitor halts.
    uncleared : int
        Number of retrains in a row that did not clear the drift after which the monitor halts.
    """
    before = questions.before(evidence, history)
    sound = {*accepted, *counted(before, answered=answered)}
    policy = _Policy(
        attempts,
        cooldown,
        late=late,
        record_harmless=record_harmless,
        refusals=refusals,
        uncleared=uncleared,
    )
    if not evidence.broken:
        return _about_drift(evidence, before, sound, policy)
    question = questions.ask(
        evidence,
        history=before,
        accepted=accepted,
        answered=answered,
        escalate_after=escalate_after,
        on_unanswered=on_unanswered,
    )
    would, other = None, evidence.otherwise
    if other is not None and not other.broken:
        with_them = counted_with(evidence, question.faults, history=before, answered=answered)
        would = _about_drift(other, before, sound | with_them, policy)
    return questions.answer(question, would)


@dataclass(frozen=True)
class _Policy:
    """What decides about drift, beside the batches."""

    attempts: Sequence[Attempt]
    cooldown: int
    late: bool
    record_harmless: bool
    refusals: int
    uncleared: int


def _about_drift(
    evidence: Evidence, before: Sequence[Verdict], accepted: Collection[str], policy: _Policy
) -> Decision:
    """Decide about a batch in which no fault counts."""
    trouble = _trouble(evidence)
    earlier = [v for v in before if _counts(v, accepted)]
    if not trouble:
        return _without_trouble(evidence, earlier)
    decision = _about_trouble(evidence, trouble, before, accepted, policy)
    if evidence.worse and evidence.worst_slice:
        reason = f"{decision.reason} Worst slice: {evidence.worst_slice}."
        decision = replace(decision, reason=reason)
    if evidence.moved_slice:
        reason = f"{decision.reason} Slice that moved apart: {evidence.moved_slice}."
        decision = replace(decision, reason=reason)
    if evidence.labels:
        decision = replace(decision, reason=f"{decision.reason} {_about_labels(evidence)}")
    return _paged_at_doublings(decision, evidence, earlier)


def _without_trouble(evidence: Evidence, earlier: Sequence[Verdict]) -> Decision:
    """Decide about a batch without drift that persists and without performance lost by it."""
    last = earlier[-1] if earlier else None
    if evidence.labels:
        new = last is None or not set(evidence.labels) <= set(last.evidence.labels)
        decision = Decision("page", _about_labels(evidence))
        return decision if new else _paged_at_doublings(decision, evidence, earlier)
    reason = "This batch alarms; not persistent yet." if evidence.alarm else QUIET
    if last is not None and _in_question(last) and not evidence.alarm:
        return Decision("page", _resolved(last.evidence))
    return Decision("none", reason)


def _in_question(verdict: Verdict) -> bool:
    """Whether people were left with trouble that no retrain was asked to cure."""
    asked = verdict.decision.action == "page" and verdict.evidence.worse
    return verdict.decision.action == "halt" or bool(asked and not verdict.evidence.broken)


def _resolved(last: Evidence) -> str:
    over = []
    if last.persisted:
        over.append(f"drift of {', '.join(last.persisted[:3])} no longer persists")
    if last.worse:
        over.append(f"the loss is no longer larger, as it was in batch {last.worse}")
    return f"Resolved: {' and '.join(over)}."


def _about_labels(evidence: Evidence) -> str:
    """Say which labels that came late look faulty."""
    few = ", ".join(evidence.labels[:3])
    return (
        f"Performance was lost, and labels that came late look faulty: {few}. Their batches are "
        "set aside until someone answers in review."
    )


def _paged_at_doublings(
    decision: Decision, evidence: Evidence, earlier: Sequence[Verdict]
) -> Decision:
    """A decision of which people are paged when it is new, and at each doubling of its batches."""

    def same(verdict: Verdict) -> bool:
        made = (verdict.decision.action, verdict.decision.episode, verdict.evidence.version)
        return made == (decision.action, decision.episode, evidence.version)

    run = 1 + sum(1 for _ in takewhile(same, reversed(earlier)))
    if decision.action == "none" or run.bit_count() == 1:
        return decision
    again = f"The next page comes at {1 << run.bit_length()} batches in a row."
    return replace(decision, reason=f"{decision.reason} {again}", due=False)


def _about_trouble(
    evidence: Evidence,
    trouble: str,
    before: Sequence[Verdict],
    accepted: Collection[str],
    policy: _Policy,
) -> Decision:
    """Decide about a batch with drift that persists, or by which performance was lost."""
    if policy.late:
        reason = f"{trouble}, seen late: later batches were decided on without it."
        return Decision("page" if evidence.worse else "none", reason)
    if policy.record_harmless and evidence.harmless and not evidence.worse:
        return Decision("none", f"{trouble}; harmless so far, and only recorded.")
    stop = _stop(evidence, [v for v in before if _counts(v, accepted)], policy)
    if stop:
        return Decision("halt", f"{trouble}, but {stop}: people must look.")
    return _retrain(
        evidence, trouble, before, policy.attempts, cooldown=policy.cooldown, accepted=accepted
    )


def _stop(evidence: Evidence, earlier: Sequence[Verdict], policy: _Policy) -> str:
    """Say why retraining is of no use; empty when it may be of use."""
    own = {v.decision.episode for v in earlier if v.evidence.version == evidence.version}
    refused = _refused_in_a_row(policy.attempts, own)
    if refused >= policy.refusals:
        return f"{refused} challengers in a row were refused"
    if _uncleared(evidence, earlier, policy.attempts) >= policy.uncleared:
        return f"{policy.uncleared} retrains in a row did not clear it"
    return ""


def _uncleared(evidence: Evidence, earlier: Sequence[Verdict], attempts: Sequence[Attempt]) -> int:
    """Count the retrains in a row whose champion did not clear the trouble.

    A champion did not clear it if none of its batches was quiet, and if what persisted under it,
    or lost performance, had also been the reason for the request that it was trained for.
    """
    episodes = {attempt.version: attempt.episode for attempt in attempts if attempt.promoted}
    requests = {
        v.decision.episode: _as_judged(v) for v in earlier if v.decision.action == "retrain"
    }
    count, now = 0, evidence
    while (request := requests.get(episodes.get(now.version, ""))) is not None:
        own = [now, *(_as_judged(v) for v in earlier if v.evidence.version == now.version)]
        quiet = any(not (batch.alarm or batch.persisted or batch.worse) for batch in own)
        goes_on = set(request.persisted) & set(now.persisted) or (request.worse and now.worse)
        if quiet or not goes_on:
            break
        count, now = count + 1, request
    return count


def _retrain(
    evidence: Evidence,
    trouble: str,
    before: Sequence[Verdict],
    attempts: Sequence[Attempt],
    *,
    cooldown: int,
    accepted: Collection[str],
) -> Decision:
    """Ask for a retrain, or say what it has to wait for."""
    asked = [v for v in before if _counts(v, accepted) and v.decision.action == "retrain"]
    last = asked[-1] if asked else None
    answers = {attempt.episode: attempt for attempt in attempts}
    if last is not None and last.decision.episode not in answers:
        reason = f"{trouble}; the retrain already asked for has not finished."
        return Decision("retrain", reason, last.decision.episode)
    waited = 0 if last is None else _waited(before, last, accepted)
    if last is not None and waited < cooldown:
        answer = answers[last.decision.episode]
        fate = "promoted" if answer.promoted else "not promoted"
        reason = (
            f"{trouble}; version {answer.version}, trained on request of batch "
            f"{last.evidence.batch}, was {fate}, and the next request waits for "
            f"{cooldown - waited} of {cooldown} batches (monitoring.cooldown)."
        )
        return Decision("page" if evidence.worse else "none", reason)
    return Decision("retrain", f"{trouble}.", f"v{evidence.version}-{evidence.batch}")


def _waited(before: Sequence[Verdict], last: Verdict, accepted: Collection[str]) -> int:
    """Count the batches since a request, and the quarantined batches right before it.

    An outage delays a request that is due, so batches quarantined just before the request count
    towards its cooldown.
    """
    place = before.index(last)
    held_up = takewhile(lambda v: not _counts(v, accepted), reversed(before[:place]))
    return sum(_counts(v, accepted) for v in before[place + 1 :]) + len(list(held_up))


def _as_judged(verdict: Verdict) -> Evidence:
    """Evidence that a decision about drift was made from."""
    other = verdict.evidence.otherwise
    return other if other is not None and verdict.decision.presumed else verdict.evidence


def _counts(verdict: Verdict, accepted: Collection[str]) -> bool:
    return not verdict.evidence.broken or verdict.evidence.batch in accepted


def _trouble(evidence: Evidence) -> str:
    found = []
    if evidence.persisted:
        found.append(f"Drift of {', '.join(evidence.persisted[:3])} persists")
    if evidence.worse:
        word = "performance" if found else "Performance"
        found.append(f"{word} was lost in batch {evidence.worse}")
    return " and ".join(found)


def _refused_in_a_row(attempts: Sequence[Attempt], own: Collection[str]) -> int:
    """Count the last challengers refused in a row for episodes in `own`."""
    count = 0
    for attempt in reversed(attempts):
        if attempt.promoted or attempt.episode not in own:
            break
        count += 1
    return count
