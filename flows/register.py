"""Promotion by hand: put a version before the gate, go back to the last champion, release."""

from typing import Any

import pandas as pd
from prefect import flow, pause_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL

from flows.gate import APPROVAL, RELEASE, gate
from flows.notes import OF_A_MODEL
from flows.paging import page_changes
from flows.steps import opened
from pipeline.config import Settings
from pipeline.registry import champions
from pipeline.registry.recent import read_last
from pipeline.registry.versions import CHAMPION, Registry

PATIENCE = 7 * 24 * 3_600
"""Seconds that a flow stays paused for people; afterwards the version can still be registered."""


class Approval(RunInput):
    """What a person answers for a version that passed the gate."""

    approve: bool = False
    by: str
    comment: str = ""


def ask_people(settings: Settings, registry: Registry, number: int) -> None:
    """Pause until a person approves a version that waits for it, if a server can carry the pause.

    Without Prefect's API nothing is paused, and the version keeps waiting.
    """
    version = registry.version(number)
    if version.waits_for != APPROVAL or PREFECT_API_URL.value() is None:
        return
    text = f"**Version {number} of {settings.name} passed.** {version.reason}"
    asked = Approval.with_initial_data(description=text, by="")
    answer = pause_flow_run(wait_for_input=asked, timeout=PATIENCE, key=f"version-{number}")
    if answer.approve:
        gate(settings, registry, number, answer.by)
    else:
        registry.refuse(number, f"Not approved by {answer.by}. {answer.comment}".strip())


@flow(name="register", **OF_A_MODEL)
def register(conf: str, version: int, approved_by: str = "") -> dict[str, Any]:
    """Put an existing version before the gate, and promote it if it passes."""
    settings, registry = opened(conf)
    return judged(settings, registry, version, approved_by)


def judged(settings: Settings, registry: Registry, version: int, by: str) -> dict[str, Any]:
    """Put a version before the gate and before people; what became of it."""
    gate(settings, registry, version, by)
    ask_people(settings, registry, version)
    found, champion = registry.version(version), registry.alias(CHAMPION)
    return {
        "version": version,
        "promoted": champion is not None and champion.number == version,
        "waits": found.waits_for,
        "reason": found.reason,
    }


@flow(name="rollback", **OF_A_MODEL)
def rollback(conf: str, reason: str = "asked for by hand") -> dict[str, int | None]:
    """Make the previous champion champion again; no version is promoted until `release`."""
    settings, registry = opened(conf)
    before, now = champions.rollback(registry, reason, since=_next_start(registry))
    page_changes(settings, registry)
    return {"from": before, "to": now}


def _next_start(registry: Registry) -> pd.Timestamp:
    """Start of the next batch, whether or not the champion still exists."""
    last, made = read_last(registry), champions.changes(registry)
    starts = [pd.Timestamp(change.since) for change in made[-1:]]
    starts += [last.end] if last is not None else []
    return max(starts) if starts else registry.champion().until


@flow(name="release", **OF_A_MODEL)
def release(conf: str) -> dict[str, Any]:
    """Let versions be promoted again; the newest version that waited comes before the gate."""
    settings, registry = opened(conf)
    if registry.alias(CHAMPION) is None:
        registry.champion()  # raises, and says what is missing
    champions.release(registry)
    versions = registry.versions()
    waiting = [version.number for version in versions if version.waits_for == RELEASE]
    for number in waiting[-1:]:
        gate(settings, registry, number)
    return {"champion": registry.champion().number, "waited": waiting}
