"""Notices that nothing happens: no run of the monitor, no batch, no label, no schedule.

What does not happen raises nothing and fails nowhere, so somebody outside of the runs has to ask.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import pandas as pd

from pipeline.config import spelled
from pipeline.reporting.pages import Event
from pipeline.reporting.rendering import plain

What = Literal["schedule", "worker", "monitor", "batches", "labels"]
SILENCES: Final[tuple[What, ...]] = get_args(What)
INTERVALS: Final = 2
"""Lengths of a batch for which something that is expected in each may be missing."""
LATE: Final = pd.Timedelta("1h")
"""How long a run that is due may wait for a worker."""


@dataclass(frozen=True)
class Signs:
    """When a model showed signs of life.

    Attributes
    ----------
    served : Timestamp
        When the first champion was made.
    monitored : Timestamp or None
        When the monitor last ran to its end; None: never.
    scheduled : bool or None
        Whether a schedule starts the monitor; None: nobody knows.
    due : Timestamp or None
        When the oldest run of the monitor was due that no worker has started; None: there is none.
    batch_end : Timestamp or None
        End of the newest recorded batch; None: there is none.
    labels_due : Timestamp or None
        When the labels of the first batch were due after the newest batch that has labels; None:
        no batch is recorded.
    """

    served: pd.Timestamp
    monitored: pd.Timestamp | None
    scheduled: bool | None
    due: pd.Timestamp | None
    batch_end: pd.Timestamp | None
    labels_due: pd.Timestamp | None


def silences(signs: Signs, *, length: pd.Timedelta, now: pd.Timestamp) -> dict[What, pd.Timestamp]:
    """What has not happened for two intervals, and since when; the cause of others comes first.

    Nothing is expected of a model that no schedule monitors and that was never monitored by other
    means, except the schedule.

    Parameters
    ----------
    signs : Signs
        When the model showed signs of life; times are naive UTC.
    length : Timedelta
        Length of a batch.
    now : Timestamp
        The present moment.
    """
    allowed = INTERVALS * length
    last = signs.monitored or signs.served
    fresh = signs.monitored is not None and now - signs.monitored <= allowed
    found: dict[What, pd.Timestamp] = {}
    if signs.scheduled is False and not fresh:
        found["schedule"] = last
    if not signs.scheduled and signs.monitored is None:
        return found
    if signs.due is not None and now - signs.due > LATE:
        found["worker"] = signs.due
    if now - last > allowed:
        found["monitor"] = last
    if signs.batch_end is not None and now - signs.batch_end > allowed:
        found["batches"] = signs.batch_end
    if signs.labels_due is not None and now - signs.labels_due > allowed:
        found["labels"] = signs.labels_due
    return found


def silent(
    model: str,
    conf: str,
    what: What,
    since: pd.Timestamp,
    *,
    length: pd.Timedelta,
    resolved: pd.Timestamp,
    ran: bool = True,
) -> Event:
    """Page about a silence, which people learn of again if it was `resolved` since it began.

    It began when the monitor last `ran`, or when there was something to monitor.
    """
    known = {"model": model, "length": spelled(length)}
    text = {key: value.format(**known) for key, value in _TEXTS[what].items()}
    moment = f"{since:%Y-%m-%d %H:%M} UTC"
    body = plain("silence.txt.j2", conf=conf, since=moment, moment=_moment(what, ran=ran), **text)
    about = f"{what}-since-{max(since, resolved):%Y-%m-%dT%H:%M:%S}"
    return Event("silence", about, f"{model}: {_SUBJECTS[what]}", body, episode_of(what))


def silence_over(
    model: str, conf: str, what: What, now: pd.Timestamp, *, paged: pd.Timestamp
) -> Event:
    """Page about the end of a silence that people were `paged` about at a moment."""
    moments = {"at": f"{now:%Y-%m-%d %H:%M} UTC", "paged": f"{paged:%Y-%m-%d %H:%M} UTC"}
    body = plain("silence_over.txt.j2", conf=conf, what=_OVER[what], **moments)
    about = f"{what}-since-{paged:%Y-%m-%dT%H:%M:%S}"
    return Event("resolved", about, f"{model}: resolved, {_OVER[what]}", body, episode_of(what))


def _moment(what: What, *, ran: bool) -> str:
    """What happened at the moment since which nothing did."""
    if what in {"schedule", "monitor"} and not ran:
        return "when the first version was promoted; the monitor has never run to its end"
    return _MOMENTS[what]


def episode_of(what: What) -> str:
    """The episode of a silence."""
    return f"silence of {what}"


_SUBJECTS: Final[Mapping[What, str]] = {
    "schedule": "the monitor is not scheduled",
    "worker": "no worker runs the monitor",
    "monitor": "the monitor does not run",
    "batches": "no batch arrives",
    "labels": "no labels come",
}
_MOMENTS: Final[Mapping[What, str]] = {
    "schedule": "when the monitor last ran to its end",
    "worker": "when the oldest run that waits was due",
    "monitor": "when it last ran to its end",
    "batches": "the end of the newest batch that came",
    "labels": "when the labels of the oldest batch without any were due",
}
_OVER: Final[Mapping[What, str]] = {
    "schedule": "the monitor is looked after again",
    "worker": "a worker runs the monitor again",
    "monitor": "the monitor runs again",
    "batches": "batches arrive again",
    "labels": "labels arrive again",
}
_TEXTS: Final[Mapping[What, Mapping[str, str]]] = {
    "schedule": {
        "what": "a version of {model} is champion, and no schedule monitors it.",
        "harm": "drift, faults and lost performance are seen by nobody.",
        "why": "the schedule of the deployment monitor/{model} is off.",
        "cure": "resume it at the deployment monitor/{model} in Prefect, or let cron run this:",
        "command": "monitor",
    },
    "worker": {
        "what": "a run of the monitor of {model} is due, and no worker has started it for an hour.",
        "harm": "no batch is judged until one does. What serves is not changed by it.",
        "why": "it is not known. Perhaps the worker has stopped, or is of another Prefect version.",
        "cure": "start a worker (prefect worker start --pool holdfast), or run it here:",
        "command": "monitor",
    },
    "monitor": {
        "what": "the monitor of {model} has not run for at least two batches of {length}.",
        "harm": "drift, faults and lost performance are seen by nobody since then.",
        "why": "it is not known. Perhaps the worker has stopped, or each run fails.",
        "cure": "look for a worker and runs of monitor/{model} in Prefect, mend that, and run it:",
        "command": "monitor",
    },
    "batches": {
        "what": "the monitor of {model} runs, and finds no row of two or more batches of {length}.",
        "harm": "faults are seen by nobody. Whether {model} still answers requests is not known.",
        "why": "it is not known. Perhaps nobody asks the model, or the writer of rows has stopped.",
        "cure": "see that the model answers, ask whoever writes data.live, and look at its rows:",
        "command": "validate",
    },
    "labels": {
        "what": "labels of {model} of at least two batches of {length} are due, and none has come.",
        "harm": "lost performance cannot be seen, and a retrain would learn from old rows.",
        "why": "it is not known. Perhaps their writer has stopped, or their keys do not join.",
        "cure": "ask whoever writes data.labels, or the targets of live rows, and look at them:",
        "command": "validate",
    },
}
