"""Who is champion, who was from when to when, and why: an append-only history.

Each change is written down before the alias moves, under a lock, so that of two promoters one
wins, and a change that was cut off is finished by whoever comes next.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Literal

import pandas as pd

from pipeline.errors import RegistryError
from pipeline.registry.versions import CHAMPION, PREVIOUS, Registry, Version

_CHANGE, _HELD = "change.", "held"
"""Tags of the registered model."""
_LONGEST = 1_000
"""Characters of a reason that are kept."""


@dataclass(frozen=True)
class Change:
    """A version became champion.

    Attributes
    ----------
    place : int
        In the history, from 1.
    version, before : int or None
        The new champion, and the one so far.
    kind : str
        ``promoted``, ``rolled back`` or ``moved by hand``.
    reason : str
        One sentence.
    since : str
        Batches that start then or later are judged by it, ISO.
    at : str
        When it happened, by the clock, ISO.
    episode : str
        The episode that asked for it; empty: none.
    by : str
        Who approved it; empty: nobody had to.
    """

    place: int
    version: int
    before: int | None
    kind: Literal["promoted", "rolled back", "moved by hand"]
    reason: str
    since: str
    at: str
    episode: str = ""
    by: str = ""


def history(registry: Registry) -> list[Change]:
    """All changes of champion, oldest first."""
    tags = registry.model_tags()
    return [Change(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(_CHANGE)]


def champion_at(registry: Registry, moment: pd.Timestamp) -> Version:
    """The champion that a batch is judged by which starts at a moment.

    Raises
    ------
    RegistryError
        If there is none, or the first one has not passed the gate.
    """
    then = [one for one in history(registry) if pd.Timestamp(one.since) <= moment]
    return registry.version(then[-1].version) if then else registry.champion()


def promote(
    registry: Registry, number: int, *, expected: int | None, since: pd.Timestamp, by: str = ""
) -> None:
    """Make a version champion that has passed the gate; if it is, nothing changes.

    Parameters
    ----------
    registry : Registry
    number : int
        The version.
    expected : int or None
        The champion it was compared with.
    since : Timestamp
        Start of the first batch that is judged by it.
    by : str
        Who approved it.

    Raises
    ------
    RegistryError
        If it has not passed, the champion is another than expected, or promotion is held.
    """
    with registry.exclusive("champion"):
        now = _settle(registry, since)
        version = registry.version(number)
        if not version.passed:
            message = (
                f"Version {number} of {registry.name!r} must have passed the gate to be promoted. "
                f"It has not. Run register/{registry.name} for it."
            )
            raise RegistryError(message)
        if now == number:
            return
        if reason := held(registry):
            message = (
                f"Promotion of {registry.name!r} must not be held. It is, since it was rolled "
                f"back: {reason} Run release/{registry.name}."
            )
            raise RegistryError(message)
        if now != expected:
            message = (
                f"The champion of {registry.name!r} must still be version {expected}, which "
                f"version {number} was compared with. It is {now}. Run register/{registry.name}."
            )
            raise RegistryError(message)
        change = _next(
            registry, number, now, "promoted", reason=version.tags["reason"], since=since
        )
        _move(registry, replace(change, by=by, episode=version.tags.get("episode", "")))


def rollback(registry: Registry, reason: str, *, since: pd.Timestamp) -> tuple[int, int]:
    """Make the champion before this one champion again, and hold promotion until released.

    Returns
    -------
    tuple of int
        The version that was champion and the one that is now.

    Raises
    ------
    RegistryError
        If there is nothing to go back to.
    """
    with registry.exclusive("champion"):
        now = _settle(registry, since)
        line = _line(history(registry))
        if now is None or len(line) < 2:  # noqa: PLR2004 -- this one and one before it
            message = (
                f"Model {registry.name!r} must have a previous champion to go back to. It has "
                f"none. Name a version: register/{registry.name}."
            )
            raise RegistryError(message)
        registry.tag_model(_HELD, reason[:_LONGEST])
        _move(registry, _next(registry, line[-2], now, "rolled back", reason=reason, since=since))
        return now, line[-2]


def held(registry: Registry) -> str:
    """Why promotion waits for people; empty: it does not."""
    return registry.model_tags().get(_HELD, "")


def release(registry: Registry) -> None:
    """Let versions be promoted again."""
    with registry.exclusive("champion"):
        registry.tag_model(_HELD, "")


def settle(registry: Registry, since: pd.Timestamp) -> None:
    """Finish a change that was cut off, and write one down that was made by hand."""
    with registry.exclusive("champion"):
        _settle(registry, since)


def _settle(registry: Registry, since: pd.Timestamp) -> int | None:
    """The champion, once alias and history agree."""
    champion = registry.alias(CHAMPION)
    now = None if champion is None else champion.number
    changes = history(registry)
    last = changes[-1] if changes else None
    if last is not None and now in {last.before, last.version} and not _arrived(registry, last):
        _finish(registry, last)
        return last.version
    if now is not None and (last is None or now != last.version):
        before = None if last is None else last.version
        reason = "The alias was moved in the registry."
        _move(registry, _next(registry, now, before, "moved by hand", reason=reason, since=since))
    return now


def _arrived(registry: Registry, change: Change) -> bool:
    """Whether the alias once moved."""
    return registry.version(change.version).tags.get("champion") == str(change.place)


def _next(
    registry: Registry,
    version: int,
    before: int | None,
    kind: Literal["promoted", "rolled back", "moved by hand"],
    *,
    reason: str,
    since: pd.Timestamp,
) -> Change:
    at = f"{pd.Timestamp.now('UTC'):%Y-%m-%dT%H:%M:%SZ}"
    place = len(history(registry)) + 1
    return Change(place, version, before, kind, reason[:_LONGEST], since.isoformat(), at)


def _move(registry: Registry, change: Change) -> None:
    registry.tag_model(f"{_CHANGE}{change.place:05d}", json.dumps(asdict(change)))
    _finish(registry, change)


def _finish(registry: Registry, change: Change) -> None:
    line = _line(history(registry))
    registry.point(CHAMPION, change.version)
    registry.point(PREVIOUS, line[-2] if len(line) > 1 else None)
    registry.tag(change.version, {"champion": str(change.place), "waits": ""})


def _line(changes: list[Change]) -> list[int]:
    """Champions that one could go back to, the present one last."""
    line: list[int] = []
    for change in changes:
        if change.kind == "rolled back":
            line.pop()
        else:
            line.append(change.version)
    return line
