"""Who is champion, who was from when to when, and why: an append-only list of changes.

Each change is written down before the alias moves, under a lock, so that of two promoters one
wins, and whoever comes next finishes a change that was cut off.
"""

import json
import logging
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

import pandas as pd

from pipeline.errors import ConfigError, RegistryError
from pipeline.monitoring.episode import Attempt
from pipeline.registry.versions import CHAMPION, PREVIOUS, Registry, Version
from pipeline.reporting import notes

_LOG = logging.getLogger(__name__)
_CHANGE, _HELD = "mlflow.holdfast.change.", "held"
"""Tags of the registered model. MLflow's pages show none whose name begins with ``mlflow.``."""
_CHANGES = (_CHANGE, "change.")
"""Beginnings of the tags of changes; the second is that of stores of before."""
_DESCRIBED = 10
"""Changes that the description of the model lists, the newest ones."""
_LONGEST = 1_000
"""Characters of a reason that are kept."""
Kind = Literal["promoted", "rolled back", "moved by hand"]


@dataclass(frozen=True)
class Change:
    """A version became champion.

    Attributes
    ----------
    place : int
        Number of the change, from 1.
    version, before : int or None
        The new champion, and the champion so far.
    kind : str
        ``promoted``, ``rolled back`` or ``moved by hand``.
    reason : str
        One sentence.
    since : str
        Batches that start then or later are judged by the new champion, ISO.
    at : str
        When the change happened, by the clock, ISO.
    episode : str
        The episode that asked for the version; empty: none.
    by : str
        Who approved it; empty: nobody had to.
    """

    place: int
    version: int
    before: int | None
    kind: Kind
    reason: str
    since: str
    at: str
    episode: str = ""
    by: str = ""


def changes(registry: Registry) -> list[Change]:
    """All changes of champion that can be read, oldest first."""
    tags = registry.model_tags()
    read = [_change(tags[key]) for key in sorted(tags) if key.startswith(_CHANGES)]
    return [change for change in read if change is not None]


def unreadable_changes(registry: Registry) -> list[str]:
    """Tags of the registered model that should hold a change of champion and do not."""
    tags = registry.model_tags()
    return [key for key in sorted(tags) if key.startswith(_CHANGES) and _change(tags[key]) is None]


def _change(text: str) -> Change | None:
    try:
        return Change(**json.loads(text))
    except (ValueError, TypeError):
        return None


def champion_at(registry: Registry, moment: pd.Timestamp) -> int:
    """Number of the champion that judges a batch which starts at a moment.

    Raises
    ------
    RegistryError
        If there is no champion, or it has not passed the gate.
    """
    champion = registry.champion()
    then = [change for change in changes(registry) if pd.Timestamp(change.since) <= moment]
    return then[-1].version if then else champion.number


def judged_from(registry: Registry, moment: pd.Timestamp) -> pd.Timestamp:
    """The first moment, not before `moment`, that its champion was not trained on.

    Raises
    ------
    RegistryError
        If there is no champion, or the version that judges the moment was deleted.
    """
    made = changes(registry)
    if made and moment < pd.Timestamp(made[0].since):
        return pd.Timestamp(made[0].since)
    return max(moment, registry.version(champion_at(registry, moment)).until)


def first_start(registry: Registry) -> pd.Timestamp:
    """Start of the first batch of all, from which batches are numbered."""
    first = registry.versions()[0]
    # A version that was deleted must not number the batches anew.
    made = changes(registry) if first.number > 1 else []
    return pd.Timestamp(made[0].since) if made else first.until


def replaced_by(registry: Registry, number: int) -> int | None:
    """The champion that a version replaced when it was promoted; None: it was the first."""
    promoted = [c for c in changes(registry) if c.version == number and c.kind == "promoted"]
    return promoted[-1].before if promoted else None


def promote(
    registry: Registry, number: int, *, expected: int | None, since: pd.Timestamp, by: str = ""
) -> None:
    """Make a version that passed the gate champion; if it is already, nothing changes.

    Parameters
    ----------
    registry : Registry
    number : int
        The version.
    expected : int or None
        The champion that it was compared with.
    since : Timestamp
        Start of the first batch that it judges.
    by : str
        Who approved it.

    Raises
    ------
    RegistryError
        If it has not passed, the champion is not the expected one, or promotion is held.
    """
    with registry.exclusive("champion"):
        now = _reconcile(registry, since)
        version = registry.version(number)
        if version.passed and now == number:
            return
        problem = _unpromotable(registry, number, passed=version.passed, expected=expected, now=now)
        if problem:
            raise RegistryError(problem)
        change = _next(registry, number, now, "promoted", reason=version.reason, since=since)
        _move(registry, replace(change, by=by, episode=version.episode))


def _unpromotable(
    registry: Registry, number: int, *, passed: bool, expected: int | None, now: int | None
) -> str:
    """Why a version must not be promoted now; empty: it may be."""
    again = f"Run `holdfast register {registry.conf} {number}`."
    if not passed:
        return f"Version {number} of {registry.name!r} has not passed the gate. {again}"
    if reason := held(registry):
        return (
            f"Promotion of {registry.name!r} is held since a rollback: {reason} "
            f"Run `holdfast release {registry.conf}`."
        )
    if now != expected:
        return (
            f"Version {number} of {registry.name!r} was compared with version {expected}, but the "
            f"champion is now version {now}. {again}"
        )
    return ""


def rollback(registry: Registry, reason: str, *, since: pd.Timestamp) -> tuple[int | None, int]:
    """Make the previous champion champion again, and hold promotion until it is released.

    Versions that were deleted in MLflow, or whose files are gone or were changed, are passed over.
    Where the champion itself was deleted, or its alias, the newest champion that is left is the
    previous one.

    Returns
    -------
    tuple
        The version that was champion, None if it is gone, and the version that is now.

    Raises
    ------
    RegistryError
        If there is no previous champion.
    ConfigError
        If the reason is blank: promotion would not be held by it.
    """
    reason = reason.strip()
    if not reason:
        message = (
            "A rollback must have a reason. Got a blank one. Say why, or leave the reason out."
        )
        raise ConfigError(message)
    with registry.exclusive("champion"):
        now = _reconcile(registry, since)
        former = whole_before(registry, now)
        if former is None:
            message = (
                f"Model {registry.name!r} has no previous champion to go back to that is whole. "
                f"Train another: `holdfast train {registry.conf}`; or name a version: `holdfast "
                f"register {registry.conf} <version>`."
            )
            raise RegistryError(message)
        registry.tag_model(_HELD, reason[:_LONGEST])
        _move(registry, _next(registry, former, now, "rolled back", reason=reason, since=since))
        return now, former


def held(registry: Registry) -> str:
    """Why no version is promoted until people release promotion; empty: it is not held."""
    return registry.model_tags().get(_HELD, "")


def release(registry: Registry) -> None:
    """Let versions be promoted again."""
    with registry.exclusive("champion"):
        registry.tag_model(_HELD, "")


def reconcile(registry: Registry, since: pd.Timestamp) -> None:
    """Finish a change that was cut off, and write down a change that was made by hand.

    Parameters
    ----------
    registry : Registry
    since : Timestamp
        Start of the first batch that a champion moved by hand judges.
    """
    with registry.exclusive("champion"):
        _reconcile(registry, since)


def _reconcile(registry: Registry, since: pd.Timestamp) -> int | None:
    """Number of the champion, once the alias agrees with the list of changes."""
    champion = registry.alias(CHAMPION)
    now = None if champion is None else champion.number
    made = changes(registry)
    last = made[-1] if made else None
    if last is not None and now in {last.before, last.version} and _cut_off(registry, last):
        _finish(registry, last)
        return last.version
    if now is not None and (last is None or now != last.version):
        before = None if last is None else last.version
        reason = "The alias was moved in the registry."
        _move(registry, _next(registry, now, before, "moved by hand", reason=reason, since=since))
    return now


def _cut_off(registry: Registry, change: Change) -> bool:
    """Whether a change was written down and has not been carried out."""
    places = {version.number: version.place for version in registry.versions()}
    return change.version in places and places[change.version] != change.place


def _next(
    registry: Registry,
    version: int,
    before: int | None,
    kind: Kind,
    *,
    reason: str,
    since: pd.Timestamp,
) -> Change:
    at = f"{pd.Timestamp.now('UTC'):%Y-%m-%dT%H:%M:%SZ}"
    made = changes(registry)
    place = made[-1].place + 1 if made else 1
    return Change(place, version, before, kind, reason[:_LONGEST], since.isoformat(), at)


def _move(registry: Registry, change: Change) -> None:
    registry.tag_model(f"{_CHANGE}{change.place:05d}", json.dumps(asdict(change)))
    _finish(registry, change)


def _finish(registry: Registry, change: Change) -> None:
    registry.point(CHAMPION, change.version)
    registry.point(PREVIOUS, before(registry, change.version))
    newest = [asdict(made) for made in reversed(changes(registry))][:_DESCRIBED]
    registry.describe(notes.model_note(newest, registry.conf))
    registry.tag(change.version, {"champion": str(change.place), "waits": ""})


def _line(made: list[Change]) -> list[int]:
    """Champions that one could go back to, the newest last.

    A move by hand does not add to it. Moving to a champion on the list removes the later ones;
    moving to any other version leaves the list unchanged.
    """
    line: list[int] = []
    for change in made:
        if change.kind == "promoted" or not line:
            line.append(change.version)
        elif change.version in line:
            del line[line.index(change.version) + 1 :]
    return line


def before(registry: Registry, now: int | None) -> int | None:
    """The champion to go back to from the present one; None: there is none that is left."""
    return next(reversed(_steps(registry, now)), None)


def to_go_back_to(registry: Registry, number: int) -> int | None:
    """The champion before a version; None: there is none, or the version is not champion."""
    champion = registry.alias(CHAMPION)
    return None if champion is None or champion.number != number else before(registry, number)


def whole_before(registry: Registry, now: int | None) -> int | None:
    """The champion to go back to whose files are what was registered; None: there is none.

    A warning is logged of each that is passed over.
    """
    return next(filter(partial(_is_whole, registry), reversed(_steps(registry, now))), None)


def _steps(registry: Registry, now: int | None) -> list[int]:
    """The champions before the present one that are left, the newest last."""
    existing = {version.number for version in registry.versions()}
    line = [number for number in _line(changes(registry)) if number in existing]
    return line[:-1] if line and line[-1] == now else line


def _is_whole(registry: Registry, number: int) -> bool:
    """Whether the files of a version are what was registered; a warning says if not."""
    try:
        registry.check_files(number)
    except RegistryError as error:
        _LOG.warning("Version %d is passed over. %s", number, error)
        return False
    return True


def attempts(versions: list[Version]) -> list[Attempt]:
    """Versions that episodes asked for, and that were promoted or refused, in the order given."""
    return [
        Attempt(version.episode, version.promoted, version.number)
        for version in versions
        if version.episode and version.closed
    ]
