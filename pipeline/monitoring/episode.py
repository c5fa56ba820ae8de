"""From evidence to action: a pure fold over the recorded history, no state of its own.

An episode opens when drift persists or performance is lost. It asks for one retrain, whose
champion or refused challenger closes it. The next may open after a cooldown. A broken batch
never asks for one: it calls for people, and until they accept it nothing else counts it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

Action = Literal["none", "page", "retrain", "halt"]
REFUSALS = 2
"""Challengers refused in a row after which people have to look."""
UNCLEARED = 2
"""Retrains in a row that did not clear the drift, after which they have to as well."""


@dataclass(frozen=True)
class Evidence:
    """What one batch showed.

    Attributes
    ----------
    batch : str
        Start of its window, ISO; batches sort by it.
    version : int
        Champion it was judged against.
    alarm : bool
        Whether the batch alarms.
    persisted : tuple of str
        Columns whose drift persists over the last batches.
    worse : str
        The batch whose realised performance is beyond what is allowed; empty: none.
    broken : tuple of str
        Names of the faults that were recognised.
    harmless : bool
        Whether the champion's last batches with labels were surely no worse than allowed.
    """

    batch: str
    version: int
    alarm: bool = False
    persisted: tuple[str, ...] = ()
    worse: str = ""
    broken: tuple[str, ...] = ()
    harmless: bool = False


@dataclass(frozen=True)
class Decision:
    """What to do about a batch.

    Attributes
    ----------
    action : str
        ``none``, ``page``, ``retrain`` or ``halt``.
    reason : str
        One sentence.
    episode : str
        The episode it belongs to; empty: none.
    """

    action: Action
    reason: str
    episode: str = ""


@dataclass(frozen=True)
class Verdict:
    """Evidence and decision, as recorded."""

    evidence: Evidence
    decision: Decision


@dataclass(frozen=True)
class Attempt:
    """A challenger that an episode brought about.

    Attributes
    ----------
    episode : str
        The episode that asked for it.
    promoted : bool
        Whether it became champion.
    version : int
        Its number.
    """

    episode: str
    promoted: bool
    version: int = 0


def decide(
    evidence: Evidence,
    *,
    history: Sequence[Verdict],
    attempts: Sequence[Attempt],
    cooldown: int,
    accepted: Collection[str] = (),
    late: bool = False,
    record_harmless: bool = False,
) -> Decision:
    """What to do about a batch, given everything recorded before it.

    Parameters
    ----------
    evidence : Evidence
        Of this batch.
    history : sequence of Verdict
        Of other batches, in any order; later ones are ignored.
    attempts : sequence of Attempt
        Challengers so far, oldest first.
    cooldown : int
        Batches to wait after a request before the next one. One that is set aside is none, but
        those set aside right before the request count: it was held up, and lacks them.
    accepted : collection of str
        Broken batches that people took for the world as it is now.
    late : bool
        Whether a later batch that counts was decided on before; then nothing is asked for any
        more.
    record_harmless : bool
        Whether drift that does no harm is recorded and no more.
    """
    if evidence.broken:
        reason = f"Broken: {_few(evidence.broken)}. Set aside until someone answers in review."
        return Decision("page", reason)
    trouble = _trouble(evidence)
    if not trouble:
        reason = "This batch alarms; not persistent yet." if evidence.alarm else "Quiet."
        return Decision("none", reason)
    if late:
        reason = f"{trouble}, seen late: later batches were decided on without it."
        return Decision("page" if evidence.worse else "none", reason)
    if record_harmless and evidence.harmless and not evidence.worse:
        return Decision("none", f"{trouble}; harmless so far, and only recorded.")
    before = sorted(
        (v for v in history if v.evidence.batch < evidence.batch), key=lambda v: v.evidence.batch
    )
    stop = _stop(evidence, [v for v in before if _counts(v, accepted)], attempts)
    if stop:
        return Decision("halt", f"{trouble}, but {stop}: people must look.")
    return _retrain(evidence, trouble, before, attempts, cooldown=cooldown, accepted=accepted)


def _stop(evidence: Evidence, earlier: Sequence[Verdict], attempts: Sequence[Attempt]) -> str:
    """Why retraining is of no use; empty: it may be."""
    own = {v.decision.episode for v in earlier if v.evidence.version == evidence.version}
    refused = _refused_in_a_row(attempts, own)
    if refused >= REFUSALS:
        return f"{refused} challengers in a row were refused"
    if _uncleared(evidence, earlier, attempts) >= UNCLEARED:
        return f"{UNCLEARED} retrains in a row did not clear it"
    return ""


def _uncleared(evidence: Evidence, earlier: Sequence[Verdict], attempts: Sequence[Attempt]) -> int:
    """Champions in a row that a retrain brought about, and under whom the same trouble went on.

    It went on if none of their batches was quiet, and what persisted, or that performance was
    lost, is what the next one was asked for as well.
    """
    brought = {one.version: one.episode for one in attempts if one.promoted}
    requests = {v.decision.episode: v.evidence for v in earlier if v.decision.action == "retrain"}
    count, now = 0, evidence
    while (request := requests.get(brought.get(now.version, ""))) is not None:
        own = [now, *(v.evidence for v in earlier if v.evidence.version == now.version)]
        quiet = any(not (one.alarm or one.persisted or one.worse) for one in own)
        same = set(request.persisted) & set(now.persisted) or (request.worse and now.worse)
        if quiet or not same:
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
    """Ask for a retrain, or say what it waits for."""
    asked = [v for v in before if _counts(v, accepted) and v.decision.action == "retrain"]
    last = asked[-1] if asked else None
    answered = {attempt.episode for attempt in attempts}
    if last is not None and last.decision.episode not in answered:
        reason = f"{trouble}; the retrain already asked for has not finished."
        return Decision("retrain", reason, last.decision.episode)
    waited = 0 if last is None else _waited(before, last, accepted)
    if last is not None and waited < cooldown:
        reason = f"{trouble}; {waited} of {cooldown} batches since the last request have passed."
        return Decision("page" if evidence.worse else "none", reason)
    return Decision("retrain", f"{trouble}.", f"v{evidence.version}-{evidence.batch}")


def _waited(before: Sequence[Verdict], last: Verdict, accepted: Collection[str]) -> int:
    """Batches since a request, and those set aside right before it, which its training lacks.

    An outage holds a due request up: it takes its turn as if it had been made when it was due.
    """
    place = before.index(last)
    held_up = takewhile(lambda v: not _counts(v, accepted), reversed(before[:place]))
    return sum(_counts(v, accepted) for v in before[place + 1 :]) + len(list(held_up))


def _counts(verdict: Verdict, accepted: Collection[str]) -> bool:
    return not verdict.evidence.broken or verdict.evidence.batch in accepted


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""  # noqa: PLR2004 -- as fits
    return ", ".join(names[:3]) + more


def _trouble(evidence: Evidence) -> str:
    found = []
    if evidence.persisted:
        found.append(f"Drift of {', '.join(evidence.persisted[:3])} persists")
    if evidence.worse:
        found.append(f"Performance was lost in batch {evidence.worse}")
    return " and ".join(found)


def _refused_in_a_row(attempts: Sequence[Attempt], own: Collection[str]) -> int:
    """Under this champion: one put in place by hand starts afresh."""
    count = 0
    for attempt in reversed(attempts):
        if attempt.promoted or attempt.episode not in own:
            break
        count += 1
    return count
