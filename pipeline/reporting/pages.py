"""Sends pages through Apprise: one message to every address, and never an exception.

An address may hold a secret anywhere (Slack's is where others have a host), so that a log line
names only the service of an address.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from apprise import Apprise, NotifyBase, NotifyType
from pydantic import SecretStr

logger = logging.getLogger(__name__)
logging.getLogger("apprise").setLevel(logging.CRITICAL)  # Apprise logs whole addresses

Kind = Literal["drift", "broken", "gate", "performance", "failure", "quarantine"]

_SEVERITY: Final[dict[Kind, NotifyType]] = {
    "drift": NotifyType.WARNING,
    "broken": NotifyType.FAILURE,
    "gate": NotifyType.WARNING,
    "performance": NotifyType.FAILURE,
    "failure": NotifyType.FAILURE,
    "quarantine": NotifyType.WARNING,
}


@dataclass(frozen=True)
class Event:
    """Something that people have to know.

    Attributes
    ----------
    kind : str
        What happened: persistent ``drift``, a ``broken`` batch, a decision of the ``gate``,
        lost ``performance``, the ``failure`` of a flow, or a batch in ``quarantine``.
    subject : str
        The one line that a phone shows.
    body : str
        What was seen and what to do, in plain text.
    """

    kind: Kind
    subject: str
    body: str


def page(event: Event, urls: Sequence[SecretStr]) -> bool:
    """Send an event to every address.

    Parameters
    ----------
    event : Event
        What happened.
    urls : sequence of SecretStr
        Apprise addresses, such as ``slack://...``, ``mailto://...`` or ``json://host/path``.

    Returns
    -------
    bool
        Whether at least one address accepted the message. Each address that did not is logged.
    """
    if not urls:
        _warn_once()
        logger.info("Nobody was paged about %r.", event.subject)
        return False
    accepted = [_deliver(event, url.get_secret_value()) for url in urls]
    return any(accepted)


@cache
def _warn_once() -> None:
    logger.warning(
        "Nobody is paged, because alerts.urls is empty. Set HOLDFAST__ALERTS__URLS to a JSON list "
        "of Apprise addresses."
    )


def _deliver(event: Event, url: str) -> bool:
    try:
        service = Apprise.instantiate(url)
        reason = "" if service and _send(service, event) else "refused"
    except Exception as error:  # noqa: BLE001 -- whatever a plugin raises, a page must stop no work
        reason = type(error).__name__
    if reason:
        logger.error(
            "The %s address in alerts.urls did not accept the page %r (%s). "
            "Check it with `apprise -b test <address>`.",
            _scheme(url),
            event.subject,
            reason,
        )
    return not reason


def _send(service: NotifyBase, event: Event) -> bool:
    severity = _SEVERITY[event.kind]
    return bool(service.notify(body=event.body, title=event.subject, notify_type=severity))


def _scheme(url: str) -> str:
    scheme, found, _ = url.partition("://")
    return f"{scheme}://" if found and scheme.isalnum() else "unreadable"
