"""Faults that nobody answers for: when people are asked again, and what they are asked.

How long a question has been open follows from the recorded batches. People are paged about the
first batch with a fault, after `escalate_after` batches in a row, and at each doubling of that. One
fault may look like another in the next batch, so faults of one column are one question.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Literal

from pipeline.monitoring.findings import WHOLE
from pipeline.monitoring.verdicts import Action, Decision, Evidence, Verdict

OnUnanswered = Literal["hold", "accept"]
QUIET = "Quiet."
"""Reason of a decision about a batch in which nothing differs."""


@dataclass(frozen=True)
class Question:
    """A broken batch, and how long nobody has answered for its faults.

    Attributes
    ----------
    evidence : Evidence
        What the batch showed.
    runs : mapping of str to sequence of Evidence
        For each fault, the batches in a row with a fault of the same column that nobody answered
        for, this batch first.
    escalate_after : int
        Number of batches in a row after which people are asked again; 0: each batch pages.
    on_unanswered : str
        ``hold`` or ``accept``: what a fault counts as that nobody answers for.
    """

    evidence: Evidence
    runs: Mapping[str, Sequence[Evidence]]
    escalate_after: int
    on_unanswered: OnUnanswered

    @property
    def ripe(self) -> tuple[str, ...]:
        """Faults that nobody has answered for in `escalate_after` batches in a row or more."""
        after = self.escalate_after
        return tuple(fault for fault, run in self.runs.items() if after and len(run) >= after)

    @property
    def accepts(self) -> bool:
        """Whether the `ripe` faults count as accepted, if the batch can be judged without them."""
        return self.on_unanswered == "accept" and bool(self.ripe)

    @property
    def newly_worse(self) -> bool:
        """Whether performance is lost, and was lost in none of the batches in a row before."""
        earlier = (known for run in self.runs.values() for known in run[1:])
        return bool(self.evidence.worse) and not any(known.worse for known in earlier)

    @property
    def due(self) -> bool:
        """Whether people are paged: about a new fault, a new loss, and at each doubling."""
        after = self.escalate_after
        return self.newly_worse or any(
            _pages(len(run), after) or not any(fault in known.broken for known in run[1:])
            for fault, run in self.runs.items()
        )

    @property
    def faults(self) -> tuple[str, ...]:
        """Faults without which the batch is judged a second time; empty where it is judged once."""
        if not self.escalate_after or not (self.due or self.accepts):
            return ()
        return self.ripe or (self.evidence.broken if self.newly_worse else ())

    @property
    def next_page(self) -> int:
        """Number of batches in a row at which people are paged about these faults again."""
        return min(_next_page(len(run), self.escalate_after) for run in self.runs.values())


def ask(
    evidence: Evidence,
    *,
    history: Sequence[Verdict],
    accepted: Collection[str] = (),
    answered: Collection[str] = (),
    escalate_after: int = 0,
    on_unanswered: OnUnanswered = "hold",
) -> Question:
    """Find how long nobody has answered for the faults of a batch.

    Parameters are those of `episode.decide`.
    """
    earlier = before(evidence, history)
    closed = {*accepted, *answered, *counted(earlier, answered=answered)}
    runs = {
        fault: [evidence, *(v.evidence for v in _in_a_row(fault, earlier, closed))]
        for fault in evidence.broken
    }
    return Question(evidence, runs, escalate_after, on_unanswered)


def before(evidence: Evidence, history: Sequence[Verdict]) -> list[Verdict]:
    """Verdicts of the batches before a batch, oldest first."""
    earlier = (verdict for verdict in history if verdict.evidence.batch < evidence.batch)
    return sorted(earlier, key=lambda verdict: verdict.evidence.batch)


def presumed(history: Sequence[Verdict], *, answered: Collection[str] = ()) -> dict[str, set[str]]:
    """Faults of each batch that count as accepted because nobody answered for them.

    A decision that accepts a fault covers the batches in a row with the fault up to its own, back
    to a batch for which people answered drop or reload. If they answer so for the batch of the
    decision itself, the decision covers nothing.

    Parameters
    ----------
    history : sequence of Verdict
        Verdicts of all batches, oldest first.
    answered : collection of str
        Broken batches that people answered for with drop or reload.
    """
    found: dict[str, set[str]] = {}
    for place, verdict in enumerate(history):
        for fault in verdict.decision.presumed:
            for covered in _in_a_row(fault, history[: place + 1], answered):
                alike = {other for other in covered.evidence.broken if _are_alike(fault, other)}
                found.setdefault(covered.evidence.batch, set()).update(alike)
    return found


def counted(history: Sequence[Verdict], *, answered: Collection[str] = ()) -> set[str]:
    """Batches that count as sound because all of their faults are `presumed`; same parameters."""
    faults = presumed(history, answered=answered)
    shown = {verdict.evidence.batch: set(verdict.evidence.broken) for verdict in history}
    return {batch for batch, accepted in faults.items() if shown[batch] <= accepted}


def counted_with(
    evidence: Evidence,
    faults: Sequence[str],
    *,
    history: Sequence[Verdict],
    answered: Collection[str] = (),
) -> set[str]:
    """Batches that count as sound once some faults of a batch count as accepted.

    Parameters
    ----------
    evidence : Evidence
        What the batch showed.
    faults : sequence of str
        The faults of the batch that count as accepted.
    history : sequence of Verdict
        Verdicts of other batches, in any order; later batches are ignored.
    answered : collection of str
        Broken batches that people answered for with drop or reload.
    """
    now = Verdict(evidence, Decision("none", "", presumed=tuple(faults)))
    return counted([*before(evidence, history), now], answered=answered)


def _in_a_row(fault: str, history: Sequence[Verdict], closed: Collection[str]) -> list[Verdict]:
    """The newest batches in a row with a fault like this that are not closed, newest first."""

    def goes_on(verdict: Verdict) -> bool:
        alike = any(_are_alike(fault, other) for other in verdict.evidence.broken)
        return alike and verdict.evidence.batch not in closed

    return list(takewhile(goes_on, reversed(history)))


def _are_alike(fault: str, other: str) -> bool:
    """Whether two faults have a column in common, or are the same fault of the whole batch."""
    return fault == other or bool(_columns(fault) & _columns(other))


def _columns(fault: str) -> set[str]:
    """Columns that a fault names, from its displayed name: older stores hold nothing else."""
    named = fault.partition(" (")[2].removesuffix(")")
    return set() if named == WHOLE else set(named.split(", "))


def _pages(run: int, after: int) -> bool:
    """Whether so many batches in a row are as many as `after`, or a doubling of that."""
    doublings, rest = divmod(run, after) if after else (1, 0)
    return rest == 0 and doublings.bit_count() == 1


def _next_page(run: int, after: int) -> int:
    page = after
    while page <= run:
        page *= 2
    return page


def answer(question: Question, would: Decision | None) -> Decision:
    """Decide about a broken batch.

    Parameters
    ----------
    question : Question
        The batch, and how long nobody has answered for its faults.
    would : Decision or None
        What would be decided if `question.faults` were accepted; None where that was not asked,
        or where the batch has other faults, or no valid row.
    """
    if question.accepts and question.evidence.otherwise is not None:
        return _accepted(question, would)
    return _held(question, would)


def _held(question: Question, would: Decision | None) -> Decision:
    """Decide about a batch that stays set aside."""
    parts = [_seen(question)]
    if question.evidence.worse:
        parts.append(f"Performance was lost in batch {question.evidence.worse}.")
    if question.faults:
        parts.append(
            "If it is a fault, mend it and answer reload, or answer drop: no model learns from "
            "faulty rows."
        )
        parts.append(_second_reading(question, would))
    else:
        parts.append("Set aside until someone answers in review.")
    if question.faults or not question.due:
        parts.append(f"The next page comes at {question.next_page} batches in a row.")
    if question.on_unanswered == "accept" and not question.ripe:
        after = question.escalate_after
        parts.append(f"Without an answer it counts as accepted at {after} batches in a row.")
    return Decision("page" if question.due else "none", " ".join(parts))


def _accepted(question: Question, would: Decision | None) -> Decision:
    """Decide about a batch some of whose faults count as accepted from here on."""
    faults = question.ripe
    found = _second_reading(question, would) if would is None else would.reason
    reason = f"{_seen(question)} Accepted without an answer: {_few(faults)}. {found}"
    if would is None:
        return Decision("page", reason, presumed=faults)
    # People have to know what was accepted, even if nothing follows from it.
    action: Action = "page" if would.action == "none" else would.action
    return replace(would, action=action, reason=reason, presumed=faults)


def _seen(question: Question) -> str:
    """The faults of a batch, and how long nobody has answered for them."""
    broken = question.evidence.broken
    text = f"Broken: {_few(broken)}"
    fault, run = max(question.runs.items(), key=lambda item: len(item[1]))
    if len(run) > 1 and question.escalate_after:
        which = "" if len(broken) == 1 else f"; {fault}"
        if any(fault not in known.broken for known in run):
            which = f"; faults of {', '.join(sorted(_columns(fault)))}"
        text = f"{text}{which} in {len(run)} batches in a row, and nobody has answered"
    return f"{text}."


def _second_reading(question: Question, would: Decision | None) -> str:
    """Say what follows if the faults of a batch are the world as it is now."""
    other = question.evidence.otherwise
    if other is None:
        return "Whether it is the world now cannot be judged: no row of the batch is valid."
    if would is None:
        return f"Without {_few(question.faults)} the batch is still broken: {_few(other.broken)}."
    found = "nothing differs" if would.reason == QUIET else _continued(would.reason)
    asked = "a retrain" if would.action == "retrain" else "no retrain"
    return (
        f"If it is the world now, answer accept for these batches: {found}, and {asked} would be "
        "asked for."
    )


def _continued(reason: str) -> str:
    """A reason as the rest of a sentence."""
    return reason[0].lower() + reason[1:].removesuffix(".")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""  # noqa: PLR2004 -- as fits
    return ", ".join(names[:3]) + more
