"""What people are paged about: a subject for the phone and a body that says what to do.

Each body states what happened, since when, why, what was done, and the command to type.
"""

import shlex
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from pipeline.monitoring.episode import Action, Evidence, Verdict
from pipeline.monitoring.findings import Cause
from pipeline.reporting.pages import Event, Kind
from pipeline.reporting.rendering import plain

_FEW = 3
"""Faults that a subject names."""
_MOST_CAUSES = 5
"""Faults whose sentences a page holds; the note of the batch holds all."""


def broken_batch(
    model: str, conf: str, verdict: Verdict, causes: Sequence[Cause], earlier: Sequence[Verdict]
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
    """
    alike = takewhile(lambda known: bool(known.evidence.broken), reversed(earlier))
    body = plain(
        "broken_batch.txt.j2",
        conf=conf,
        batch=verdict.evidence.batch,
        verdict=verdict,
        since=_first([*alike], verdict),
        causes=causes[:_MOST_CAUSES],
        more=len(causes[_MOST_CAUSES:]),
    )
    return Event("broken", f"{model}: {_fate(verdict)}", body)


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
    """
    sound = [known for known in earlier if not known.evidence.broken]
    alike = takewhile(lambda known: _in_trouble(known, verdict), reversed(sound))
    body = plain(
        "moved_batch.txt.j2",
        conf=conf,
        verdict=verdict,
        since=_first([*alike], verdict),
        drifted=drifted,
    )
    kind, what = _what(verdict.evidence)
    return Event(kind, f"{model}: {what}, {_DONE[verdict.decision.action]}", body)


def _what(evidence: Evidence) -> tuple[Kind, str]:
    """What a page is about, as a phone shows it."""
    if evidence.worse:
        return "performance", "performance was lost"
    if evidence.persisted:
        return "drift", "drift persists"
    if evidence.labels:
        return "performance", "labels that came late look faulty"
    return "drift", "resolved"


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


def refused_version(
    model: str, conf: str, version: int, reason: str, champion: int | None
) -> Event:
    """Page about a version that the gate refused; `champion` is the version that serves on."""
    body = plain(
        "refused_version.txt.j2", conf=conf, version=version, reason=reason, champion=champion
    )
    return Event("gate", f"{model}: version {version} was refused", body)


def poor_version(model: str, conf: str, version: int, warning: str) -> Event:
    """Page about a version that passed the gate and is worse than the trivial baseline."""
    body = plain("poor_version.txt.j2", conf=conf, version=version, warning=warning)
    return Event("gate", f"{model}: version {version} passed and is worse than trivial", body)


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
    body = plain("waiting_version.txt.j2", conf=conf, version=version, reason=reason, held=held)
    waits_for = "release" if held else "approval"
    return Event("gate", f"{model}: version {version} passed and waits for {waits_for}", body)


def unusable_batch(model: str, conf: str, batch: str, error: str) -> Event:
    """Page about a batch that could not be judged at all."""
    body = plain("unusable_batch.txt.j2", conf=conf, batch=batch, error=error)
    return Event("quarantine", f"{model}: batch {batch} was not judged", body)


def failed_flow(flow: str, parameters: Mapping[str, Any], error: str) -> Event:
    """Page about a flow that failed.

    Parameters
    ----------
    flow : str
        Name of the flow, which is the name of its command too.
    parameters : mapping of str to Any
        What it was called with; ``conf`` is the path of the model's file.
    error : str
        What went wrong.
    """
    conf = parameters["conf"]
    body = plain(
        "failed_flow.txt.j2", flow=flow, conf=conf, error=error, again=_command(flow, parameters)
    )
    return Event("failure", f"{conf}: {flow} failed", body)


def _command(flow: str, parameters: Mapping[str, Any]) -> str:
    """Write the call of a flow as it is typed."""
    words = ["holdfast", flow]
    for name, value in parameters.items():
        if value not in {None, ""}:
            option = [] if name in {"conf", "version"} else [f"--{name.replace('_', '-')}"]
            words += [*option, str(value)]
    return shlex.join(words)
