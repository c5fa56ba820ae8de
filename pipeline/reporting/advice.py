"""What the report of a batch says first: what was done, by whom, how bad, since when, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from pipeline.monitoring.performance import Performance
from pipeline.monitoring.verdicts import Decision, Evidence, State
from pipeline.reporting.wording import loss, measured, share

_ACTIONS: Final = {
    "retrain": "A retrain is asked for.",
    "halt": "Retraining is halted, and people are paged.",
    "page": "People are paged.",
}
_NOTHING: Final[Mapping[State, str]] = {
    "quiet": "Nothing has to be done.",
    "moved": "It is recorded, and nothing has to be done yet.",
    "worse": "It is recorded, and nothing is done yet.",
    "broken": "It is set aside, as people were paged before.",
}
_ANSWERED: Final[Mapping[str, str]] = {
    "accept": "It was accepted: models learn from its rows, and this fault is not raised again.",
    "drop": "It was dropped: no model ever learns from its rows.",
    "reload": "Its source is read again, and only the new reading counts.",
}
_FEW: Final = 3
"""Columns that a sentence names."""


@dataclass(frozen=True)
class Answered:
    """What people answered for a batch.

    Attributes
    ----------
    answer : str
        ``accept``, ``drop`` or ``reload``.
    by : str
        The account that the answer was given from; empty: not known, as in stores of before.
    at : str
        When, in UTC; empty: not known.
    reason : str
        Why, in their words.
    """

    answer: str
    by: str = ""
    at: str = ""
    reason: str = ""


def action_of(state: State, decision: Decision, answered: Answered | None) -> str:
    """What was done about a batch, or follows from what people answered, in a sentence."""
    if answered is not None:
        return _ANSWERED[answered.answer]
    if decision.action == "none":
        return _NOTHING[state]
    if state == "broken" and decision.action == "page":
        return "People are paged, and the batch is set aside until someone answers."
    return _ACTIONS[decision.action]


def how_bad(state: State, evidence: Evidence, known: Performance | None) -> str:
    """How much predictions suffer, as far as labels show, in a sentence; empty if quiet."""
    if state == "quiet":
        return ""
    said = "no label has come yet, so it is not known how much predictions suffer."
    if known is not None and known.faults:
        said = "these labels cannot be trusted, so it is not known how much predictions suffer."
    elif known is not None and (known.worse or not evidence.measured):
        said = loss(known)
    elif evidence.measured:
        said = measured(evidence)
    elif evidence.worse:  # in a store of before
        said = f"the loss in batch {evidence.worse} is larger than is allowed."
    if evidence.broken:
        return f"Predictions for its rows, and for later rows with this fault, may be wrong; {said}"
    return said[:1].upper() + said[1:]


def since(state: State, past: Sequence[tuple[State, str]], *, sudden: bool = False) -> str:
    """Since when batches are as this one is, in a sentence; empty where it is quiet.

    Parameters
    ----------
    state : str
        The batch in one word.
    past : sequence of pairs of str
        The batches before it, oldest first: each in one word, and its name.
    sudden : bool
        Whether drift persists by what this batch shows alone.
    """
    if state == "quiet":
        return ""
    alike = list(takewhile(lambda one: one[0] == state, reversed(past)))
    if not alike:
        large = "; its change is so large that it counts as persistent" if sudden else ""
        return f"It is the first batch in a row with this verdict{large}."
    return f"It is batch {len(alike) + 1} in a row with this verdict, since {alike[-1][1]}."


def why(
    state: State,
    evidence: Evidence,
    columns: Sequence[Mapping[str, Any]],
    moved: Sequence[Any],
    *,
    diagnosed: bool,
) -> list[str]:
    """What is known of the cause of a batch in which no fault was recognised, in sentences.

    Parameters
    ----------
    state : str
        The batch in one word; a quiet one needs no cause.
    evidence : Evidence
        What it showed.
    columns : sequence of mapping
        Its features, the one with the largest loss at stake first.
    moved : sequence
        What is said of its drift; empty: nothing drifted.
    diagnosed : bool
        Whether faults were looked for.
    """
    if state not in {"moved", "worse"}:
        return []
    looked = "no fault was recognised in its rows"
    if not diagnosed:
        looked = "faults are not looked for (monitoring.diagnosis: false)"
    said = [f"Not known: {looked}."]
    drifted = [column for column in columns if column["drifted"]]
    if drifted:
        first = drifted[0]
        others = ", ".join(column["shown"] for column in drifted[1 : 1 + _FEW])
        said.append(
            f"Look first at {first['shown']} ({first['summary']}; {share(first['size'])} of its "
            f"rows lie elsewhere){f', then at {others}' if others else ''}: ask the source whether "
            "these values are right. If they are, the world has moved."
        )
    elif moved:
        said.append("No column moved by itself; what did is below.")
    else:
        said.append("No column moved in this batch.")
    if state == "worse":
        lost = f"Performance was lost in batch {evidence.worse or evidence.batch}"
        said.append(
            f"{lost} together with that, which may be the cause or not."
            if moved
            else f"{lost}, so that what the columns mean for the target may have changed, or its "
            "labels are faulty. Look first at the labels."
        )
    return said
