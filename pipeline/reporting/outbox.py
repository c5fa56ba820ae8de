"""The outbox: every page is written to an SQLite file before it is sent, and stays in it.

A page has a row for each address, which says what became of it there. A message that a process was
sending when it ended may have arrived or not: it is sent again, marked as a repeat.
"""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.config import SEVERITIES, Severity
from pipeline.reporting.outbox_file import open_pages, transaction
from pipeline.reporting.pages import Event, Outcome
from pipeline.reporting.rendering import moment_of, plain

DAY: Final = 86_400.0
KEPT_UP: Final = 7 * DAY
"""Seconds for which a page is tried."""
_HOUR: Final = 3_600.0
_LISTED: Final = 20
"""Most pages that a summary names; what many services take."""
_AT_ONCE, _FIRST_DELAY = 2, 5.0
"""Tries that surely failed without a delay before the next one, and the first delay in seconds,
which then doubles."""


@dataclass(frozen=True)
class Message:
    """What is sent to an address at once: a page, or a summary of several.

    Attributes
    ----------
    pages : tuple of int
        Numbers of its pages.
    subject, body : str
        What people read.
    severity : str
        That of the most severe page.
    at : float
        When it was taken from the outbox, in seconds since 1970.
    """

    pages: tuple[int, ...]
    subject: str
    body: str
    severity: Severity
    at: float


def check(file: Path) -> None:
    """Refuse an outbox that is damaged; none at all is one without a page.

    Raises
    ------
    RegistryError
        If it cannot be read.
    UnavailableError
        If another process writes to it for too long.
    """
    if not file.exists():
        return
    with transaction(file) as outbox:
        outbox.execute("SELECT 1 FROM pages, sends, messages LIMIT 1")
        (found,) = outbox.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)


def write(
    file: Path, model: str, event: Event, routes: Mapping[str, Severity], *, now: float
) -> bool:
    """Put a page into the outbox, unless it is there already.

    Parameters
    ----------
    file : Path
        The outbox.
    model : str
        Name of the model.
    event : Event
        What happened. If it goes on in its episode, only each doubling, and its first
        failure, is sent.
    routes : mapping of str to str
        Least severity that each address takes, by the address's hash. What resolves an episode
        goes to the addresses that its pages went to.
    now : float
        Seconds since 1970.

    Returns
    -------
    bool
        Whether the page is new.

    Raises
    ------
    PipelineError
        If the file cannot be written.
    """
    page_id = f"{model}/{event.kind}/{event.about}"
    with transaction(file) as outbox:
        if outbox.execute("SELECT 1 FROM pages WHERE id = ?", (page_id,)).fetchone():
            return False
        before = open_pages(outbox, model, event.episode) if event.episode else []
        resolves = event.kind == "resolved"
        body, severity = _again(event, before)
        due = _is_due(event, severity, before)
        number = outbox.execute(
            "INSERT INTO pages VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (page_id, model, severity, event.subject, body, now, event.episode, resolves, due),
        ).lastrowid
        taking = {name for name, least in routes.items() if _takes(least, severity)}
        if resolves and before:
            taking = routes.keys() & {name for page in before for name in _addressed(outbox, page)}
        for name in sorted(taking if due else ()):
            outbox.execute(
                "INSERT INTO sends (page, address, state) VALUES (?, ?, 'waiting')", (number, name)
            )
    return True


def _is_due(event: Event, severity: Severity, before: Sequence[sqlite3.Row]) -> bool:
    """Whether an event is sent: of one that recurs, each doubling, and the first failure."""
    first = severity == "failure" and all(page["severity"] != severity for page in before)
    return not event.recurs or (len(before) + 1).bit_count() == 1 or first


def _again(event: Event, before: Sequence[sqlite3.Row]) -> tuple[str, Severity]:
    """Body and severity of an event, after other pages of its episode."""
    times = len(before) + 1
    if not event.recurs or times == 1:
        return event.body, event.severity
    since = moment_of(before[0]["written"])
    often = f"\nAgain: this happened {times} times since {since}. "
    often += f"The next page comes at {2 ** times.bit_length()} times."
    return event.body + often, event.severity if event.under_way else "failure"


def is_open(file: Path, model: str, episode: str) -> bool:
    """Whether people were paged in an episode of a model that is not resolved."""
    return bool(trouble(file, model, episode))


def trouble(file: Path, model: str, episode: str) -> str:
    """Subject of the newest page of an episode; empty where the episode is resolved."""
    with transaction(file) as outbox:
        pages = open_pages(outbox, model, episode)
    return str(pages[-1]["subject"]) if pages else ""


def turned(file: Path, model: str, episode: str) -> float:
    """When an episode was last opened or resolved, in seconds since 1970; 0: it never was."""
    query = "SELECT written, resolves FROM pages WHERE model = ? AND episode = ? ORDER BY number"
    moment, is_resolved = 0.0, True
    with transaction(file) as outbox:
        for page in outbox.execute(query, (model, episode)):
            moment = page["written"] if is_resolved or page["resolves"] else moment
            is_resolved = bool(page["resolves"])
    return moment


def _addressed(outbox: sqlite3.Connection, page: sqlite3.Row) -> list[str]:
    rows = outbox.execute("SELECT address FROM sends WHERE page = ?", (page["number"],))
    return [row["address"] for row in rows]


def _takes(least: Severity, severity: Severity) -> bool:
    return SEVERITIES.index(least) <= SEVERITIES.index(severity)


def interrupted(file: Path, name: str) -> None:
    """Note that no process sends to an address: what was being sent has an unknown outcome."""
    with transaction(file) as outbox:
        outbox.execute(
            "UPDATE sends SET state = 'unknown', why = 'interrupted', repeat = 1 "
            "WHERE address = ? AND state = 'sending'",
            (name,),
        )


def claim(
    file: Path,
    model: str,
    name: str,
    *,
    least: Severity,
    configured: Collection[str],
    quiet: bool,
    per_hour: int,
    conf: str,
    since: float,
    now: float,
) -> Message | None:
    """Take the next message to an address, which counts as being sent from then on.

    Parameters
    ----------
    file : Path
        The outbox.
    model : str
        Name of the model.
    name : str
        Hash of the address.
    least : str
        Least severe pages that it takes.
    configured : collection of str
        Hashes of all addresses of the model.
    quiet : bool
        Whether only failures are sent now.
    per_hour : int
        Most messages to the address within an hour. Where more pages wait, they are one message.
    conf : str
        Path of the model's file, for the command that a summary names.
    since : float
        Pages that were tried after this moment are left for later, in seconds since 1970.
    now : float
        Seconds since 1970. Moments after it are those of a clock that was wrong, and do not count.

    Returns
    -------
    Message or None
        None: nothing is to be sent now.
    """
    with transaction(file) as outbox:
        _adopt(outbox, model, name, least, configured=configured, now=now)
        waiting = [
            row
            for row in outbox.execute(_WAITING, (name, model, now, now + _HOUR))
            if not since <= row["tried"] <= now and (row["severity"] == "failure" or not quiet)
        ]
        outbox.execute("DELETE FROM messages WHERE at <= ? OR at > ?", (now - _HOUR, now))
        query = "SELECT COUNT(*) AS sent FROM messages WHERE address = ?"
        room = per_hour - outbox.execute(query, (name,)).fetchone()["sent"]
        if not waiting or room <= 0:
            return None
        taken = waiting[:1] if len(waiting) <= room else waiting
        outbox.execute("INSERT INTO messages VALUES (?, ?)", (name, now))
        for row in taken:
            outbox.execute(
                "UPDATE sends SET state = 'sending', tries = tries + 1, tried = ? "
                "WHERE page = ? AND address = ?",
                (now, row["number"], name),
            )
    return _alone(taken[0], now) if len(taken) == 1 else _together(model, conf, taken, now)


_WAITING: Final = """
SELECT * FROM pages JOIN sends ON page = number
WHERE address = ? AND model = ? AND state IN ('waiting', 'unknown')
  AND (sends.due <= ? OR sends.due > ?)
ORDER BY number
"""


_ORPHANED: Final = """
SELECT number, severity FROM pages WHERE model = :model AND due AND written > :oldest
  AND NOT EXISTS (SELECT 1 FROM sends WHERE page = number AND address = :name)
  AND EXISTS (SELECT 1 FROM sends WHERE page = number AND state != 'accepted'
    AND (address NOT IN (SELECT value FROM json_each(:configured))
      OR NOT EXISTS (SELECT 1 FROM sends WHERE page = number AND state = 'accepted')))
ORDER BY number
"""
_ABOUT_ITS_PAGES: Final = """
SELECT 1 FROM pages AS ended JOIN pages AS page USING (model, episode)
  JOIN sends ON sends.page = page.number
WHERE ended.number = ? AND ended.resolves AND page.number < ended.number AND sends.address = ?
  AND NOT page.resolves
  AND NOT EXISTS (SELECT 1 FROM pages AS other WHERE other.resolves
    AND other.model = ended.model AND other.episode = ended.episode
    AND other.number > page.number AND other.number < ended.number)
"""


def _adopt(
    outbox: sqlite3.Connection,
    model: str,
    name: str,
    least: Severity,
    *,
    configured: Collection[str],
    now: float,
) -> None:
    """Let an address that was corrected have the pages that the wrong address did not take."""
    names = json.dumps([*configured])
    query = {"model": model, "oldest": now - KEPT_UP, "name": name, "configured": names}
    for page in outbox.execute(_ORPHANED, query).fetchall():
        ends = outbox.execute(_ABOUT_ITS_PAGES, (page["number"], name)).fetchone()
        if _takes(least, page["severity"]) or ends:
            outbox.execute(
                "INSERT INTO sends (page, address, state) VALUES (?, ?, 'waiting')",
                (page["number"], name),
            )


def _alone(row: sqlite3.Row, now: float) -> Message:
    subject, body = row["subject"], f"{row['body']}\nPage: {row['id']}"
    if row["repeat"]:
        subject = f"{subject} (repeat)"
        body = f"{body} (repeat: sent before, and it is not known whether it arrived)"
    return Message((row["number"],), subject, body, row["severity"], now)


def _together(model: str, conf: str, rows: Sequence[sqlite3.Row], now: float) -> Message:
    numbers = tuple(row["number"] for row in rows)
    by_severity = sorted(rows, key=lambda row: -SEVERITIES.index(row["severity"]))
    listed = sorted(by_severity[:_LISTED], key=lambda row: row["number"])
    body = plain(
        "summary.txt.j2",
        conf=conf,
        model=model,
        count=len(rows),
        rows=[dict(row) for row in listed],
        more=len(rows) - len(listed),
        first=rows[0]["id"],
    )
    subject = f"{model}: {len(rows)} pages in one message"
    return Message(numbers, subject, body, by_severity[0]["severity"], now)


def settle(
    file: Path, name: str, message: Message, outcome: Outcome, why: str, *, now: float
) -> None:
    """Record what became of a message; what an address took once stays taken."""
    with transaction(file) as outbox:
        if outcome == "waiting":
            outbox.execute("DELETE FROM messages WHERE address = ? AND at = ?", (name, message.at))
        for number in message.pages:
            found = outbox.execute(
                "SELECT tries, state FROM sends WHERE page = ? AND address = ?", (number, name)
            ).fetchone()
            if found["state"] != "accepted":
                due = now + _delay(found["tries"], outcome)
                outbox.execute(
                    "UPDATE sends SET state = ?, why = ?, due = ?, repeat = repeat OR ? "
                    "WHERE page = ? AND address = ?",
                    (outcome, why, due, outcome == "unknown", number, name),
                )


def _delay(tries: int, outcome: Outcome) -> float:
    """Seconds before the next try."""
    delayed = tries if outcome == "unknown" else tries - _AT_ONCE
    return min(_FIRST_DELAY * 2.0 ** (delayed - 1), _HOUR) if delayed > 0 else 0.0


def give_up(file: Path, model: str, configured: Collection[str], *, now: float) -> list[str]:
    """Stop trying to send the pages that are too old; their ids.

    A page is too old for an address that did not take it after `KEPT_UP`, and for one that is not
    `configured` any more. If nothing was running for so long, it is therefore tried once more.
    """
    query = (
        "SELECT number, id, address FROM pages JOIN sends ON page = number "
        "WHERE model = ? AND state IN ('waiting', 'unknown') AND written <= ? AND "
        "(tried >= written + ? OR address NOT IN (SELECT value FROM json_each(?)))"
    )
    with transaction(file) as outbox:
        names = json.dumps([*configured])
        found = outbox.execute(query, (model, now - KEPT_UP, KEPT_UP, names)).fetchall()
        for send in found:
            outbox.execute(
                "UPDATE sends SET state = 'given up' WHERE page = ? AND address = ?",
                (send["number"], send["address"]),
            )
    return list(dict.fromkeys(send["id"] for send in found))
