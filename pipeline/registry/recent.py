"""The part of the recorded batches that a decision needs, read by searches that do not grow.

The window holds the last batches. Of older batches a decision needs the last request for a retrain,
and the faults that count as accepted.
"""

import pandas as pd
from mlflow.entities import Run

from pipeline.registry import records
from pipeline.registry.history import MOST_RECENT, Batch, History
from pipeline.registry.records import BATCHES
from pipeline.registry.tracking import Tracking, milliseconds

_CALM = "tags.action = 'none' and tags.outcome != 'broken' and tags.outcome != 'mixed'"
"""Condition of batches at which everything ends that is counted in batches in a row."""
_ASKED = "tags.action = 'retrain'"
_ACCEPTED = ("tags.answer = 'accept'", """tags.verdict LIKE '%"presumed": ["%'""")
"""Conditions of batches whose faults people accepted, or that count as accepted unanswered."""
_AGAIN = "tags.reading != ''"
"""Condition of batches that were read again."""
_NEWEST = 10
"""Runs of which one is surely the newest batch, unless so many were cut off."""
_MOST = 1_000
"""Older batches, of each kind, that are read at most."""


def read_recent(
    tracking: Tracking, reach: pd.Timedelta, *, batch: pd.Timestamp | None = None, calm: int = 0
) -> History:
    """The batches that decisions need.

    The window goes back to the 52nd calm batch, one that asked nobody for anything, so that no run
    of batches with a fault or with lost performance is cut. A store without so many is read whole.

    Parameters
    ----------
    tracking : Tracking
        Where batches are recorded.
    reach : Timedelta
        How far back from the newest calm batch the window goes at least.
    batch : Timestamp or None
        Start of the batch that is judged; None: the batch after the newest one.
    calm : int
        Calm batches that the window holds at least, if more than 52.
    """
    until = "" if batch is None else f" and attributes.start_time < {milliseconds(batch)}"
    most = max(MOST_RECENT, calm)
    found = tracking.search(f"{BATCHES} and {_CALM}{until}", most)
    if len(found) < most:
        return records.read_history(tracking)
    since = min(_start(found[-1]), _start(found[0]) - reach)
    bound = f"attributes.start_time >= {milliseconds(since)}"
    window = records.read_batches(tracking.search(f"{BATCHES} and {bound}"))
    return History.of([*_older(tracking, since), *window], since)


def _start(run: Run) -> pd.Timestamp:
    return pd.Timestamp(run.info.start_time, unit="ms")


def _older(tracking: Tracking, since: pd.Timestamp) -> list[Batch]:
    """Batches before a moment that decisions still need."""
    older = f"{BATCHES} and attributes.start_time < {milliseconds(since)}"
    again = tracking.search(f"{older} and {_AGAIN}", _MOST)
    asked = tracking.search(f"{older} and {_ASKED}", len(again) + 1)
    accepted = [run for kind in _ACCEPTED for run in tracking.search(f"{older} and {kind}", _MOST)]
    known = records.read_batches([*again, *asked, *accepted])  # each by its last reading
    requests = sorted(b.name for b in known if b.verdict.decision.action == "retrain")
    return [
        batch
        for batch in known
        if batch.answer == "accept"
        or batch.verdict.decision.presumed
        or batch.name in requests[-1:]
    ]


def read_last(tracking: Tracking) -> Batch | None:
    """The newest recorded batch; None: there is none."""
    newest = records.read_batches(tracking.search(BATCHES, _NEWEST))
    if newest:
        return max(newest, key=lambda batch: batch.name)
    return records.read_history(tracking).last


def opened_by(tracking: Tracking, episode: str) -> Batch:
    """The batch that opened an episode, which has to be recorded."""
    asked = records.read_batches(tracking.search(f"{BATCHES} and tags.episode = '{episode}'"))
    return min(asked, key=lambda batch: batch.name)
