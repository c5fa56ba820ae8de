"""Sends what waits in the outbox: to all addresses at once, by one process for each address.

Sends run in threads of their own and record what became of them, so that nobody has to wait for a
receiver: work goes on, and a process may end at any time.
"""

import logging
import shlex
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Final

import filelock

from pipeline.config import Alerts, Route, Severity
from pipeline.errors import PipelineError
from pipeline.redaction import redacted
from pipeline.reporting import outbox
from pipeline.reporting.outbox import Message
from pipeline.reporting.pages import REFUSED, Event, Outcome, name_of, send, service_of
from pipeline.reporting.rendering import moment_of, plain

logger = logging.getLogger(__name__)

PATIENCE: Final = 10.0
"""Seconds that a flow waits for receivers in all, and after which the outcome of a send counts as
unknown."""
_LATE: Final = "no answer in time"


@dataclass(frozen=True)
class Pager:
    """How the people who own a model are paged.

    Attributes
    ----------
    file : Path
        The outbox.
    model, conf : str
        Name of the model and path of its file.
    alerts : Alerts
        Whom to page, and when.
    """

    file: Path
    model: str
    conf: str
    alerts: Alerts

    @property
    def least(self) -> dict[str, Severity]:
        """The least severe pages that each address takes, by its hash."""
        return {name_of(one.url.get_secret_value()): one.least for one in self.alerts.all_routes}


def post(pager: Pager, event: Event) -> None:
    """Put a page into the outbox and start to send it, without waiting for that.

    Parameters
    ----------
    pager : Pager
        The model's.
    event : Event
        What happened. If it is in the outbox already, nothing is added.
    """
    event = replace(event, subject=redacted(event.subject), body=redacted(event.body))
    if not outbox.write(pager.file, pager.model, event, pager.least, now=time.time()):
        return
    if not pager.alerts.all_routes and event.severity != "info":
        if event.kind != "failure":  # it would hide the error that the run ends with
            _warn_once()
        logger.info("Nobody was paged about %r.", event.subject)
    _start(pager, patience=0)


@cache
def _warn_once() -> None:
    logger.warning(
        "Nobody is paged, because alerts.urls is empty. Set HOLDFAST__ALERTS__URLS to a JSON list "
        "of Apprise addresses."
    )


def deliver(pager: Pager, *, patience: float = PATIENCE) -> None:
    """Send all pages that are due, and wait for it at most so many seconds.

    What is not sent by then goes on in threads for as long as the process lives, and is found by
    the next call otherwise.
    """
    if not pager.file.exists():
        return
    end = time.monotonic() + patience
    for thread in _start(pager, patience=patience):
        thread.join(max(end - time.monotonic(), 0))
    for page_id in outbox.give_up(pager.file, pager.model, pager.least, now=time.time()):
        logger.error("The page %s was not taken by every address in 7 days; given up.", page_id)


def send_test(pager: Pager) -> list[tuple[Outcome, str]]:
    """Send a test page to every address at once; what became of each, and why, in their order."""
    body = plain("test.txt.j2", conf=pager.conf, at=moment_of(time.time()))
    routes = pager.alerts.all_routes
    found: list[tuple[Outcome, str]] = [("unknown", _LATE)] * len(routes)

    def work(place: int, url: str) -> None:
        found[place] = send(url, f"{pager.model}: a test page", body, "info")

    end = time.monotonic() + PATIENCE
    threads = [
        Thread(target=work, args=(place, route.url.get_secret_value()), daemon=True)
        for place, route in enumerate(routes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    return found


def _start(pager: Pager, *, patience: float) -> list[Thread]:
    """Start to send all pages that are due, with one thread for each address.

    Parameters
    ----------
    pager : Pager
        The model's.
    patience : float
        Seconds to wait for another process or thread that sends to an address.
    """
    routes = pager.alerts.all_routes
    threads = [Thread(target=_round, args=(pager, one, patience), daemon=True) for one in routes]
    for thread in threads:
        thread.start()
    return threads


def _round(pager: Pager, route: Route, patience: float) -> None:
    """Send to one address what is due there, unless somebody else is sending to it."""
    name, begun = name_of(route.url.get_secret_value()), time.time()
    path = pager.file.with_name(f"{pager.file.name}.{name}.lock")
    lock = filelock.FileLock(path, fallback_to_soft=False)
    try:
        with lock.acquire(timeout=patience, poll_interval=0.05):
            outbox.interrupted(pager.file, name)
            while (message := _claimed(pager, route, begun)) and _answered(pager, route, message):
                pass
    except filelock.Timeout:
        return
    except (PipelineError, OSError) as error:
        logger.error("Pages cannot be sent now: %s", error)  # noqa: TRY400 -- one sentence


def _claimed(pager: Pager, route: Route, begun: float) -> Message | None:
    """The next message to an address, if one is due."""
    now = time.time()
    return outbox.claim(
        pager.file,
        pager.model,
        name_of(route.url.get_secret_value()),
        least=route.least,
        configured=pager.least,
        quiet=pager.alerts.is_quiet(now),
        per_hour=pager.alerts.per_hour,
        conf=pager.conf,
        since=begun,
        now=now,
    )


def _answered(pager: Pager, route: Route, message: Message) -> bool:
    """Send a message and record its outcome; whether the address answered, and may get the next."""
    answers: list[bool] = []

    def work() -> None:
        url = route.url.get_secret_value()
        outcome, why = send(url, message.subject, message.body, message.severity)
        answers.append(outcome == "accepted" or why.startswith(REFUSED))
        _settle(pager, url, message, outcome, why)

    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():  # it goes on, and may still record that the address took the message
        _settle(pager, route.url.get_secret_value(), message, "unknown", _LATE)
    return not thread.is_alive() and answers == [True]


def _settle(pager: Pager, url: str, message: Message, outcome: Outcome, why: str) -> None:
    if outcome != "accepted":
        logger.error(
            "The %s address did not accept the page %r: %s. It is sent again by the next run. "
            "Check the address: `holdfast page %s --test`.",
            service_of(url),
            message.subject,
            why,
            shlex.quote(pager.conf),
        )
    try:
        outbox.settle(pager.file, name_of(url), message, outcome, why, now=time.time())
    except PipelineError as error:
        logger.error("The outcome of a page is not recorded: %s", error)  # noqa: TRY400 -- one sentence
