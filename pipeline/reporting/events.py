"""What people are paged about: a subject for the phone and a body that says what to do.

Each body states what happened, how bad it is, since when, why, what was done, and the command to
type, for somebody who sees nothing else.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any, Final

from pipeline.monitoring.episode import Action, Evidence, Verdict
from pipeline.monitoring.findings import Cause
from pipeline.monitoring.performance import Performance
from pipeline.reporting.pages import Event, Kind
from pipeline.reporting.rendering import moment_of, plain
from pipeline.reporting.wording import loss, measured, moves
from pipeline.training.gate import is_poor

BATCHES: Final = "batches"
"""The episode of all pages about trouble in batches: the first batch without any resolves it."""

_FEW = 3
"""Faults that a subject names."""
_MOST_CAUSES = 5
"""Faults whose sentences a page holds; the note of the batch holds all."""
_MOST_MOVES = 3
"""Changes whose sentences a page holds; the report of the batch holds more."""


def broken_batch(
    model: str,
    conf: str,
    verdict: Verdict,
    causes: Sequence[Cause],
    earlier: Sequence[Verdict],
    *,
    rows: int,
    refused: int,
    newest: Performance | None = None,
    reading: int = 1,
) -> Event:
    """Page about a batch in which a fault was recognised.

    Parameters
    ----------
    model, conf : str
        Name of the model and path of its file.
    verdict : Verdict
        Evidence and decision of the batch.
    causes : sequence of Cause
        Its faults.
    earlier : sequence of Verdict
        All batches before it, oldest first.
    rows, refused : int
        Its valid rows, and the rows that break the contract.
    newest : Performance or None
        Of the champion's newest batch with labels; None: no label has come.
    reading : int
        How often the batch was read from its source.
    """
    alike = takewhile(lambda known: bool(known.evidence.broken), reversed(earlier))
    body = plain(
        "broken_batch.txt.j2",
        conf=conf,
        batch=verdict.evidence.batch,
        rows=f"{rows:,} valid rows, {refused:,} refused",
        verdict=verdict,
        harm=_harm(verdict.evidence, newest),
        since=_first([*alike], verdict),
        causes=causes[:_MOST_CAUSES],
        more=len(causes[_MOST_CAUSES:]),
    )
    return Event(
        "broken", _about(verdict, reading), f"{model}: {_fate(verdict)}", body, episode=BATCHES
    )


def _about(verdict: Verdict, reading: int) -> str:
    batch = verdict.evidence.batch
    return batch if reading == 1 else f"{batch}/reading-{reading}"


def _harm(seen: Evidence, newest: Performance | None) -> str:
    """What is known of the champion's predictions."""
    stale = newest is None or newest.batch < seen.measured or (seen.worse and not newest.worse)
    if stale and seen.measured:
        return measured(seen)
    if stale and seen.worse:  # in a store of before
        return f"the loss in batch {seen.worse} is larger than monitoring.performance_loss allows."
    if newest is None and seen.labels:
        return "these labels cannot be trusted, so it is not known how much predictions suffer."
    if newest is None:
        return "no label has come yet, so it is not known how much predictions suffer."
    return loss(newest)


def _fate(verdict: Verdict) -> str:
    """What became of a broken batch, as a phone shows it."""
    evidence, decision = verdict.evidence, verdict.decision
    if decision.presumed:
        faults = ", ".join(decision.presumed[:_FEW])
        return f"{faults} accepted without an answer, {_DONE[decision.action]}"
    lost = "and performance was lost" if evidence.worse else ""
    asked = "and nobody has answered" if evidence.otherwise else ""
    fate = f"batch {evidence.batch} is broken and quarantined"
    return ", ".join(part for part in (fate, lost or asked) if part)


def how_to_answer(conf: str, batch: str) -> str:
    """Say what the answers to a broken batch mean, and the command that gives one."""
    return plain("answer.txt.j2", conf=conf, batch=batch)


def moved_batch(
    model: str,
    conf: str,
    verdict: Verdict,
    drifted: Sequence[str],
    earlier: Sequence[Verdict],
    *,
    until: str,
    newest: Performance | None = None,
    comparison: Mapping[str, Any] | None = None,
    reading: int = 1,
    waiting: Sequence[str] = (),
    before: int | None = None,
) -> Event:
    """Page about drift that persists or performance that was lost.

    Parameters
    ----------
    model, conf : str
        Name of the model and path of its file.
    verdict : Verdict
        Evidence and decision of the batch.
    drifted : sequence of str
        Columns that drifted in this batch.
    earlier : sequence of Verdict
        All batches before it, oldest first.
    until : str
        End of its window, ISO: a retrain that it asks for learns from rows before it.
    newest : Performance or None
        Of the champion's newest batch with labels; None: no label has come.
    comparison : mapping of str to Any, optional
        The comparison of the batch, as `stored.to_record` keeps it, for the size of what moved.
    reading : int
        How often the batch was read from its source.
    waiting : sequence of str
        Batches that are set aside until somebody answers for them.
    before : int or None
        Version that one could go back to; None: there is none.
    """
    sound = [known for known in earlier if not known.evidence.broken]
    alike = takewhile(lambda known: _in_trouble(known, verdict), reversed(sound))
    kind, what = _what(verdict)
    mine = verdict.decision.episode
    asked = verdict.decision.action == "retrain"
    again = asked and any(one.decision.episode == mine for one in earlier)
    body = plain(
        "moved_batch.txt.j2",
        again=again,
        conf=conf,
        verdict=verdict,
        harm=_harm(verdict.evidence, newest),
        resolved=kind == "resolved",
        since=_first([*alike], verdict),
        drifted=drifted,
        until=until,
        waiting=waiting,
        before=before,
        moves=moves(comparison, verdict.evidence.persisted, _MOST_MOVES) if comparison else [],
    )
    about, subject = _about(verdict, reading), f"{model}: {what}"
    return Event(kind, about, subject, body, episode=BATCHES, under_way=asked and not again)


def _what(verdict: Verdict) -> tuple[Kind, str]:
    """What a page is about, as a phone shows it."""
    evidence, action = verdict.evidence, verdict.decision.action
    if evidence.worse:
        return "performance", f"performance was lost, {_DONE[action]}"
    if evidence.persisted:
        return "halt" if action == "halt" else "drift", f"drift persists, {_DONE[action]}"
    if evidence.labels:
        return "performance", f"labels that came late look faulty, {_DONE[action]}"
    return "resolved", f"resolved, batch {evidence.batch} shows no trouble any more"


_DONE: dict[Action, str] = {
    "none": "nothing to do",
    "page": "no retrain yet",
    "retrain": "retrain requested",
    "halt": "retraining stopped",
}


def _in_trouble(known: Verdict, verdict: Verdict) -> bool:
    """Whether an earlier batch of the same champion showed drift or lost performance."""
    seen = known.evidence
    own = seen.version == verdict.evidence.version
    return own and bool(seen.alarm or seen.persisted or seen.worse)


def _first(alike: Sequence[Verdict], verdict: Verdict) -> str:
    """Name of the oldest of several batches, listed newest first."""
    return (alike[-1] if alike else verdict).evidence.batch


def is_calm(verdict: Verdict) -> bool:
    """Whether a batch shows nothing that people could be paged about."""
    seen = verdict.evidence
    return not (seen.alarm or seen.persisted or seen.worse or seen.broken or seen.labels)


def calm_again(
    model: str, conf: str, verdict: Verdict, trouble: str, unanswered: Sequence[str]
) -> Event:
    """Page about the first batch without trouble.

    Parameters
    ----------
    model, conf : str
        Name of the model and path of its file.
    verdict : Verdict
        Evidence and decision of the batch.
    trouble : str
        Subject of the page about what is over.
    unanswered : sequence of str
        Batches that are still quarantined.
    """
    facts = {"trouble": trouble.removeprefix(f"{model}: "), "unanswered": unanswered}
    body = plain("calm_batch.txt.j2", conf=conf, verdict=verdict, **facts)
    batch = verdict.evidence.batch
    subject = f"{model}: resolved, batch {batch} is sound"
    return Event("resolved", batch, subject, body, episode=BATCHES)


def refused_version(
    model: str, conf: str, version: int, reason: str, champion: int | None
) -> Event:
    """Page about a version that the gate refused; `champion` is the version that serves on."""
    body = plain(
        "refused_version.txt.j2",
        conf=conf,
        version=version,
        reason=reason,
        champion=champion,
        at=moment_of(time.time()),
    )
    subject = f"{model}: version {version} was refused"
    return Event("gate", f"v{version}-refused", subject, body)


def poor_version(model: str, conf: str, version: int, warning: str) -> Event:
    """Page about a version that passed the gate and is worse than the trivial baseline."""
    body = plain(
        "poor_version.txt.j2",
        conf=conf,
        version=version,
        warning=warning,
        at=moment_of(time.time()),
    )
    subject = f"{model}: version {version} passed and is worse than trivial"
    return Event("gate", f"v{version}-poor", subject, body)


def waiting_version(model: str, conf: str, version: int, reason: str, held: str) -> Event:
    """Page about a version that passed the gate and waits for people.

    Parameters
    ----------
    model, conf : str
        Name of the model and path of its file.
    version : int
        The version.
    reason : str
        Why the gate let it pass.
    held : str
        Why no version is promoted; empty where the version waits for an approval.
    """
    body = plain(
        "waiting_version.txt.j2",
        conf=conf,
        version=version,
        reason=reason,
        held=held,
        at=moment_of(time.time()),
    )
    waits_for = "release" if held else "approval"
    subject = f"{model}: version {version} passed and waits for {waits_for}"
    return Event("gate", f"v{version}-{waits_for}", subject, body)


def new_champion(
    model: str,
    conf: str,
    *,
    place: int,
    version: int,
    before: int | None,
    kind: str,
    reason: str,
    since: str,
    at: str,
    scheduler: bool = True,
) -> Event:
    """Page about a version that became champion.

    Parameters
    ----------
    model, conf : str
        Name of the model and path of its file.
    place : int
        Number of the change, from 1.
    version, before : int or None
        The new champion, and the champion so far.
    kind : str
        ``promoted``, ``rolled back`` or ``moved by hand``.
    reason : str
        One sentence.
    since, at : str
        First batch that it judges, and when it became champion, in ISO 8601.
    scheduler : bool
        Whether there is a server of Prefect that may start the monitor; without one nothing does.
    """
    body = plain(
        "new_champion.txt.j2",
        conf=conf,
        version=version,
        before=before,
        kind=kind,
        reason=reason,
        poor=is_poor(reason),
        monitor=f"monitor/{model}",
        scheduler=scheduler,
        since=since,
        at=moment_of(datetime.fromisoformat(at).timestamp()),
    )
    how: Kind = "champion" if kind == "promoted" else "rollback"
    return Event(how, f"{place:05d}", f"{model}: version {version} {_BECAME[kind]}", body)


_BECAME: Final = {
    "promoted": "is the new champion",
    "rolled back": "is the champion again, rolled back",
    "moved by hand": "was made champion by hand",
}


def unusable_batch(model: str, conf: str, batch: str, error: str) -> Event:
    """Page about a batch that could not be judged at all."""
    body = plain("unusable_batch.txt.j2", conf=conf, batch=batch, error=error)
    return Event("quarantine", batch, f"{model}: batch {batch} was not judged", body)
