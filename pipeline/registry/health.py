"""What is missing or odd in a model's store, each with its cure; nothing is changed here."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from pipeline.errors import RegistryError
from pipeline.registry import champions, records
from pipeline.registry.history import MOST_RECENT, Batch, History, batch_name
from pipeline.registry.versions import PREVIOUS, Registry


@dataclass(frozen=True)
class Finding:
    """Something that is missing or odd.

    Attributes
    ----------
    what : str
        One sentence.
    cure : str
        What to do, with the command to type.
    """

    what: str
    cure: str


def findings(registry: Registry, history: History, length: pd.Timedelta) -> list[Finding]:
    """Everything that is missing or odd in the store.

    Parameters
    ----------
    registry : Registry
        The model's.
    history : History
        All recorded batches.
    length : Timedelta
        Length of a batch.
    """
    return [
        *_of_champions(registry),
        *_of_versions(registry),
        *_of_records(registry, history, length),
        *_of_artifacts(registry, history),
    ]


def _of_champions(registry: Registry) -> Iterator[Finding]:
    conf = registry.conf
    champion = None
    try:
        champion = registry.champion().number
    except RegistryError as error:
        yield finding_of(str(error))
    for tag in champions.unreadable_changes(registry):
        yield Finding(
            f"Tag {tag} of model {registry.name!r} cannot be read; that change of champion is "
            "left out.",
            "Delete the tag in the MLflow UI.",
        )
    alias, expected = registry.alias(PREVIOUS), champions.before(registry, champion)
    previous = None if alias is None else alias.number
    if champion is not None and previous != expected:
        yield Finding(
            f"Alias {PREVIOUS!r} should name {_version(expected)} and names {_version(previous)}.",
            "Nothing: rollback does not read it, and the next change of champion sets it.",
        )
    if reason := champions.held(registry):
        yield Finding(
            f"Promotion is held since a rollback: {reason}", f"Run `holdfast release {conf}`."
        )


def _of_versions(registry: Registry) -> Iterator[Finding]:
    versions, conf = registry.all_versions(), registry.conf
    served = {change.version for change in champions.changes(registry)}
    for number in sorted(served - {version.number for version in versions}):
        yield Finding(
            f"Version {number}, which was champion, was deleted in MLflow. Rollback passes over "
            "it, and labels that come for its batches are not judged.",
            "Nothing, unless MLflow can be restored from a copy.",
        )
    for version in versions:
        if version.missing and not version.is_substitute:
            yield Finding(
                f"Version {version.number} has lost its tags {', '.join(version.missing)}, or they "
                "cannot be read, or it was not made by training; it is passed over.",
                f"Delete it in the MLflow UI, or train another: `holdfast train {conf}`.",
            )
        elif version.promoted or (not version.closed and not version.missing):
            try:
                registry.check_files(version.number)
            except RegistryError as error:
                yield finding_of(str(error))


def _of_records(registry: Registry, history: History, length: pd.Timedelta) -> Iterator[Finding]:
    conf = registry.conf
    damaged = records.damaged_batches(registry)
    recorded = {batch.name for batch in history.batches}
    for name in damaged:
        cure = f"Run `holdfast monitor {conf} --batch {name}`, which judges it again."
        if name in recorded or pd.isna(pd.to_datetime(name, errors="coerce")):
            cure = "Delete its run in the MLflow UI: the name of its batch was written over."
        yield Finding(f"The record of batch {name} is damaged and counts as not judged.", cure)
    if not history.batches:
        return
    recorded |= set(damaged)
    starts = pd.date_range(history.batches[0].start, history.batches[-1].start, freq=length)
    for name in [batch_name(start) for start in starts if batch_name(start) not in recorded]:
        yield Finding(
            f"Batch {name} has no record: its run was deleted, or it could not be judged.",
            f"Run `holdfast monitor {conf} --batch {name}`, if it is to count.",
        )


def _of_artifacts(registry: Registry, history: History) -> Iterator[Finding]:
    """Findings of the batches that decisions still read."""
    for batch in history.batches[-MOST_RECENT:]:
        lost = [name for name in records.READ_AGAIN if _is_lost(registry, batch, name)]
        if lost:
            yield Finding(
                f"Of batch {batch.name}, {' and '.join(lost)} of its MLflow run cannot be read; "
                "it is left out where batches are judged together.",
                f"Run `holdfast review {registry.conf} --batch {batch.name} --answer reload`; the "
                "next monitor run judges it again.",
            )


def _is_lost(registry: Registry, batch: Batch, artifact: str) -> bool:
    """Whether an artifact of a batch is missing or cannot be read."""
    read = registry.read_frame if artifact.endswith(".parquet") else registry.read
    return read(batch.run_id, artifact) is None


def finding_of(message: str) -> Finding:
    """The finding of a message that says what is wrong in its first sentence, then the cure."""
    what, _, cure = message.partition(". ")
    return Finding(f"{what.removesuffix('.')}.", cure)


def _version(number: int | None) -> str:
    return "no version" if number is None else f"version {number}"
