"""What people are paged about, and how one message is sent to one address through Apprise.

An address may hold a secret anywhere (Slack's is where others have a host), so it is stored as a
hash, and a log line names only its service.
"""

import hashlib
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from apprise import Apprise, AppriseAsset, NotifyType, OverflowMode

from pipeline.config import Severity

Kind = Literal[
    "drift",
    "broken",
    "halt",
    "gate",
    "performance",
    "failure",
    "quarantine",
    "champion",
    "rollback",
    "silence",
    "resolved",
]
Outcome = Literal["accepted", "waiting", "unknown"]
"""What became of a message: the address took it, surely did not take it, or one of the two."""
REFUSED: Final = "refused"
"""Why a message waits whose address answered, and did not take it, before the HTTP status."""

_SEVERITY: Final[dict[Kind, Severity]] = {
    "drift": "warning",
    "broken": "failure",
    "halt": "failure",
    "gate": "warning",
    "performance": "failure",
    "failure": "failure",
    "quarantine": "warning",
    "champion": "info",
    "rollback": "warning",
    "silence": "failure",
    "resolved": "info",
}
_TYPES: Final[dict[Severity, NotifyType]] = {
    "info": NotifyType.INFO,
    "warning": NotifyType.WARNING,
    "failure": NotifyType.FAILURE,
}
_NOT_TAKEN: Final = frozenset(
    {"ConnectionRefusedError", "gaierror", "ConnectTimeout", "ConnectTimeoutError", "InvalidURL"}
    | {"NewConnectionError", "NameResolutionError"}
    | {"SMTPResponseException", "SMTPRecipientsRefused", "SMTPNotSupportedError"}
)
"""Errors of the libraries that plugins use, after which no message was sent, or it was refused."""
_HANDSHAKE: Final = "do_handshake"
"""Method of `ssl` that agrees on TLS with a server, before anything is sent: whatever it raises, an
error of TLS or of the network, no message has left."""
_MAYBE_TAKEN: Final = frozenset({"502", "504"})
"""HTTP statuses of a gateway that does not know whether the server behind it took a message."""
_STATUS: Final = re.compile(r"\berror=(\d{3})\b")
"""Where the warnings of plugins name the HTTP status."""
_ASSET: Final = AppriseAsset(http_redirects=False)
"""A POST that is redirected becomes a GET, which any page answers with 200 and nobody reads."""


@dataclass(frozen=True)
class Event:
    """Something that people have to know.

    Attributes
    ----------
    kind : str
        What happened: persistent ``drift``, a ``broken`` batch, a ``halt`` of retraining, a
        decision of the ``gate``, lost ``performance``, the ``failure`` of a flow, a batch in
        ``quarantine``, a promoted ``champion``, a ``rollback``, a ``silence``, or the end of
        something, which is ``resolved``.
    about : str
        The batch, version or run. With the model and the kind it makes the id of the page, so
        that an event which is found twice is one page.
    subject : str
        The one line that a phone shows.
    body : str
        What was seen and what to do, in plain text.
    episode : str
        What goes on from event to event of a model until it is resolved; empty: nothing does.
    recurs : bool
        Whether it may happen again and again in its episode: people are then paged at each
        doubling.
    under_way : bool
        Whether its cure is under way, so that nobody has to act: a failure is then a warning.
    """

    kind: Kind
    about: str
    subject: str
    body: str
    episode: str = ""
    recurs: bool = False
    under_way: bool = False

    @property
    def severity(self) -> Severity:
        """How much it matters, which decides about its addresses and quiet hours."""
        return "warning" if self.under_way else _SEVERITY[self.kind]


def name_of(url: str) -> str:
    """Hash of an address, which stands for it wherever something is stored."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def service_of(url: str) -> str:
    """The part of an address that holds no secret, such as ``slack://``."""
    scheme, found, _ = url.partition("://")
    return f"{scheme}://" if found and scheme.isalnum() else "unreadable"


class _Here(threading.local):
    """What happens to the message that this thread sends."""

    sending: bool = False
    heard: bool = False
    error: BaseException | None = None
    status: str = ""


_here = _Here()


class _Swallowed(logging.Handler):
    """Keeps the error that a plugin of Apprise is handling while it logs it, and returns False."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep error and HTTP status; the record is dropped, because it may hold the address."""
        _here.heard, _here.error = True, sys.exc_info()[1] or _here.error
        found = _STATUS.search(record.getMessage())
        _here.status = found[1] if found else _here.status


def _is_public(record: logging.LogRecord) -> bool:
    """Whether a record of the HTTP client is about something else than a page's address."""
    del record
    return not _here.sending


logging.getLogger("urllib3.connectionpool").addFilter(_is_public)
_APPRISE = logging.getLogger("apprise")
_APPRISE.setLevel(logging.WARNING)
_APPRISE.propagate = False
_APPRISE.handlers[:] = [_Swallowed()]


def send(url: str, subject: str, body: str, severity: Severity) -> tuple[Outcome, str]:
    """Send one message to one address; nothing is raised.

    Parameters
    ----------
    url : str
        An Apprise address, such as ``slack://...``, ``mailto://...`` or ``json://host/path``.
    subject, body : str
        The message, in plain text.
    severity : str
        ``info``, ``warning`` or ``failure``; the subject that people read begins with it.

    Returns
    -------
    tuple of str
        What became of it, and why the address did not take it: `REFUSED` with the HTTP status, or
        the name of an error. Where a message goes to several receivers or in several parts, some
        of them may have arrived.
    """
    _here.error, _here.status, _here.heard, _here.sending = None, "", False, True
    title = f"[{severity}] {subject}"  # many services show no severity of their own
    try:
        service = Apprise.instantiate(url, asset=_ASSET)
        if service is None:
            return "waiting", "not an address of Apprise"
        if service.overflow_mode == OverflowMode.UPSTREAM:
            service.overflow_mode = OverflowMode.SPLIT  # a service refuses what is too long for it
        if service.notify(body=body, title=title, notify_type=_TYPES[severity]):
            return "accepted", ""
        several = len(service) > 1 or len(title) + len(body) > service.body_maxlen
        error = _here.error
    except Exception as raised:  # noqa: BLE001 -- whatever a plugin raises, a page must stop no work
        several, error = False, raised
    finally:
        _here.sending = False
    if error is None and not _here.heard:
        return "unknown", "no reason was logged"  # somebody switched logging off
    if error is None:
        why = f"{REFUSED} (HTTP {_here.status})" if _here.status else REFUSED
        return ("unknown" if several or _here.status in _MAYBE_TAKEN else "waiting"), why
    taken = not any(_surely_not_taken(one) for one in _chain(error))
    return ("unknown" if several or taken else "waiting"), type(error).__name__


def _surely_not_taken(error: BaseException) -> bool:
    """Whether an error came before the message was sent, or is the answer that refuses it."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    agreeing = any(frame.f_code.co_name == _HANDSHAKE for frame in frames)
    return agreeing or bool(_NOT_TAKEN & {kind.__name__ for kind in type(error).mro()})


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and the errors that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
