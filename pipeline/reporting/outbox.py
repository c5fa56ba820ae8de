"""The outbox: every page is written to an SQLite file before it is sent, and stays in it.

A page has a row for each address, which says what became of it there. A message that a process was
sending when it ended may have arrived or not: it is sent again, marked as a repeat.
"""

import sqlite3
from collections.abc import Mapping, Sequence
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
        What happened. If it goes on in its episode, only each doubling is sent, as a failure.
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
        times, resolves = len(before) + 1, event.kind == "resolved"
        due = resolves or not event.recurs or times.bit_count() == 1
        body, severity = event.body, event.severity
        if event.recurs and times > 1:
            since = moment_of(before[0]["written"])
            body += f"\nAgain: time {times} since {since}. The next page comes at time {2 * times}."
            severity = "failure"
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


def is_open(file: Path, model: str, episode: str) -> bool:
    """Whether people were paged in an episode of a model that is not resolved."""
    return bool(trouble(file, model, episode))


def trouble(file: Path, model: str, episode: str) -> str:
    """Subject of the newest page of an episode; empty where the episode is resolved."""
    with transaction(file) as outbox:
        pages = open_pages(outbox, model, episode)
    return str(pages[-1]["subject"]) if pages else ""


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
    quiet : bool
        Whether only failures are sent now.
    per_hour : int
        Most messages to the address within an hour. Where more pages wait, they are one message.
    conf : str
        Path of the model's file, for the command that a summary names.
    since : float
        Pages that were tried after this moment are left for later, in seconds since 1970.
    now : float
        Seconds since 1970.

    Returns
    -------
    Message or None
        None: nothing is to be sent now.
    """
    with transaction(file) as outbox:
        _adopt(outbox, model, name, least, now)
        waiting = [
            row
            for row in outbox.execute(_WAITING, (name, model, now))
            if row["tried"] < since and (row["severity"] == "failure" or not quiet)
        ]
        outbox.execute("DELETE FROM messages WHERE at <= ?", (now - _HOUR,))
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
WHERE address = ? AND model = ? AND state IN ('waiting', 'unknown') AND sends.due <= ?
ORDER BY number
"""


def _adopt(outbox: sqlite3.Connection, model: str, name: str, least: Severity, now: float) -> None:
    """Let an address that was corrected have the pages that the wrong address did not take."""
    query = (
        "SELECT number, severity FROM pages WHERE model = ? AND due AND written > ? "
        "AND EXISTS (SELECT 1 FROM sends WHERE page = number) AND NOT EXISTS "
        "(SELECT 1 FROM sends WHERE page = number AND (state = 'accepted' OR address = ?))"
    )
    for page in outbox.execute(query, (model, now - KEPT_UP, name)).fetchall():
        if _takes(least, page["severity"]):
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
    worst = max((row["severity"] for row in rows), key=SEVERITIES.index)
    body = plain("summary.txt.j2", conf=conf, model=model, rows=[dict(row) for row in rows])
    numbers = tuple(row["number"] for row in rows)
    return Message(numbers, f"{model}: {len(rows)} pages in one message", body, worst, now)


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


def give_up(file: Path, model: str, *, now: float) -> list[str]:
    """Stop trying to send the pages that are too old; their ids."""
    with transaction(file) as outbox:
        query = (
            "SELECT DISTINCT number, id FROM pages JOIN sends ON page = number "
            "WHERE model = ? AND written <= ? AND state IN ('waiting', 'unknown')"
        )
        found = outbox.execute(query, (model, now - KEPT_UP)).fetchall()
        for page in found:
            outbox.execute(
                "UPDATE sends SET state = 'given up' "
                "WHERE page = ? AND state IN ('waiting', 'unknown')",
                (page["number"],),
            )
    return [page["id"] for page in found]
