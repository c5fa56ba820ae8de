"""What the monitor has recorded so far, as decisions read it: frozen records, no MLflow."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import takewhile

import pandas as pd

from pipeline.monitoring.episode import Verdict
from pipeline.monitoring.estimate import Estimate
from pipeline.monitoring.performance import Performance
from pipeline.monitoring.questions import presumed
from pipeline.monitoring.verdicts import State, state_of

MOST_RECENT = 52
"""Batches back to which evidence is read: of slow decay, and of faults that go on."""


def batch_name(start: pd.Timestamp) -> str:
    """Name of the batch that starts at a moment, which it spells in full; batches sort by it."""
    return start.isoformat().removesuffix(":00")


@dataclass(frozen=True)
class Batch:
    """A recorded batch.

    Attributes
    ----------
    name : str
        Start of its window, ISO.
    end : Timestamp
        End of its window.
    verdict : Verdict
        Evidence and decision.
    rows, quarantined : int
        Valid and refused rows.
    drifted : tuple of str
        Columns that drifted, in the words of the report.
    performance : Performance or None
        Realised performance, once its labels have arrived.
    run_id : str
        Its MLflow run.
    outcome : str
        ``quiet``, ``moved``, ``broken`` or ``mixed``.
    answer : str
        What people answered for it, ``accept``, ``drop`` or ``reload``; empty: nothing yet.
    paged, announced : bool
        Whether people were paged about its decision, and other systems notified of the episode
        that it opened.
    reading : int
        1, or more if people had its source read again.
    presumed : tuple of str
        Its faults that count as accepted because nobody answered for them.
    estimates : tuple of Estimate
        Its metrics as they were estimated when it was judged, before its labels came.
    """

    name: str
    end: pd.Timestamp
    verdict: Verdict
    rows: int
    quarantined: int
    drifted: tuple[str, ...]
    performance: Performance | None
    run_id: str
    outcome: str
    answer: str = ""
    paged: bool = False
    announced: bool = False
    reading: int = 1
    presumed: tuple[str, ...] = ()
    estimates: tuple[Estimate, ...] = ()

    @property
    def start(self) -> pd.Timestamp:
        """Start of its window."""
        return pd.Timestamp(self.name)

    @property
    def version(self) -> int:
        """Number of the champion that it was judged against."""
        return self.verdict.evidence.version

    @property
    def label_faults(self) -> tuple[str, ...]:
        """Faults of its labels, where they came after it was judged."""
        return () if self.performance is None else tuple(self.performance.faults)

    @property
    def broken(self) -> bool:
        """Whether a fault was recognised in it or in its labels."""
        return self.outcome in {"broken", "mixed"} or bool(self.label_faults)

    @property
    def state(self) -> State:
        """The batch in one word that covers faults, performance and drift."""
        evidence = self.verdict.evidence
        worse = bool(evidence.worse) or (self.performance is not None and self.performance.worse)
        return state_of(alarm=evidence.alarm, broken=self.broken, worse=worse)

    @property
    def set_aside(self) -> bool:
        """Whether nothing may be learnt from it or judged by it."""
        faults = {*self.verdict.evidence.broken, *self.label_faults}
        unopposed = bool(self.presumed) and faults <= set(self.presumed)
        return self.broken and self.answer != "accept" and not unopposed

    @property
    def is_open(self) -> bool:
        """Whether people still have to answer for it."""
        return self.set_aside and self.answer != "drop"


@dataclass(frozen=True)
class History:
    """Recorded batches, oldest first.

    Read once, and carried on by `with_batch` as a run records more.

    Attributes
    ----------
    batches : tuple of Batch
        The batches.
    since : Timestamp or None
        Batches that start earlier are here only where decisions need them; None: all are here.
    """

    batches: tuple[Batch, ...] = ()
    since: pd.Timestamp | None = None

    @classmethod
    def of(cls, batches: Iterable[Batch], since: pd.Timestamp | None = None) -> "History":
        """The history of some batches in any order, with the faults that count as accepted."""
        ordered = sorted(batches, key=lambda batch: batch.name)
        faults = presumed([batch.verdict for batch in ordered], answered=_names(_opposed(ordered)))
        marked = (
            replace(batch, presumed=tuple(sorted(faults.get(batch.name, ())))) for batch in ordered
        )
        return cls(tuple(marked), since)

    def covers(self, moment: pd.Timestamp) -> bool:
        """Whether all recorded batches that start at a moment or later are here."""
        return self.since is None or moment >= self.since

    @property
    def last(self) -> Batch | None:
        """The newest batch."""
        return self.batches[-1] if self.batches else None

    @property
    def verdicts(self) -> list[Verdict]:
        """What each batch showed and what was decided."""
        return [batch.verdict for batch in self.batches]

    @property
    def accepted(self) -> list[Batch]:
        """Broken batches that people took for the world as it is now."""
        return [batch for batch in self.batches if batch.answer == "accept"]

    @property
    def opposed(self) -> list[Batch]:
        """Batches whose rows people dropped, or had read again."""
        return _opposed(self.batches)

    @property
    def last_request(self) -> Batch | None:
        """The newest batch whose decision was to retrain."""
        asked = [batch for batch in self.batches if batch.verdict.decision.action == "retrain"]
        return asked[-1] if asked else None

    @property
    def standing(self) -> list[Batch]:
        """The newest batches in a row that are set aside, at most `MOST_RECENT`, newest first."""
        newest = reversed(self.batches[-MOST_RECENT:])
        return list(takewhile(lambda batch: batch.set_aside, newest))

    @property
    def unanswered(self) -> list[Batch]:
        """The batches of `standing` that people gave no answer for."""
        return [batch for batch in self.standing if not batch.answer]

    def find(self, name: str) -> Batch | None:
        """The batch of a name, if it is recorded."""
        return next((batch for batch in self.batches if batch.name == name), None)

    def batch(self, name: str) -> Batch:
        """The batch of a name, which has to be recorded."""
        return next(batch for batch in self.batches if batch.name == name)

    def with_batch(self, batch: Batch) -> "History":
        """The history with a batch added, or put in the place of the batch of its name."""
        named = {known.name: known for known in self.batches} | {batch.name: batch}
        return History.of(named.values(), self.since)

    def before(self, name: str) -> "History":
        """The batches before the batch of a name, as if no later batch were recorded."""
        earlier = (batch for batch in self.batches if batch.name < name)
        return History.of(earlier, self.since)

    def of_version(self, number: int) -> "History":
        """The batches that were judged against a version."""
        own = tuple(batch for batch in self.batches if batch.version == number)
        return History(own, self.since)

    def recent(self, number: int, also: Collection[str] = ()) -> list[Batch]:
        """The last batches that count as evidence against a version, at most `MOST_RECENT`.

        Parameters
        ----------
        number : int
            The version.
        also : collection of str
            Names of batches that count although they are set aside.
        """
        own = self.of_version(number).batches
        return [b for b in own if b.name in also or not b.set_aside][-MOST_RECENT:]

    def performances(self, number: int, also: Collection[str] = ()) -> list[Performance]:
        """Realised performance of a version on its batches that count; parameters of `recent`."""
        own = self.of_version(number).batches
        return [
            batch.performance
            for batch in own
            if batch.performance and (batch.name in also or not batch.set_aside)
        ]

    def scored_between(self, moment: pd.Timestamp, end: pd.Timestamp) -> list[Batch]:
        """Batches with labels between two moments that are not set aside."""
        return [
            batch
            for batch in self.batches
            if batch.start >= moment
            and batch.end <= end
            and batch.performance
            and not batch.set_aside
        ]

    def counts_after(self, name: str) -> bool:
        """Whether a batch after the batch of a name is recorded and not set aside."""
        return any(batch.name > name and not batch.set_aside for batch in self.batches)


def _opposed(batches: Iterable[Batch]) -> list[Batch]:
    return [batch for batch in batches if batch.answer in {"drop", "reload"}]


def _names(batches: Iterable[Batch]) -> list[str]:
    return [batch.name for batch in batches]
