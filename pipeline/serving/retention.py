"""Limits of the capture store: what is old or too much is deleted, the oldest first."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.errors import UnavailableError

REFUSED_SHARE: Final = 50
"""Refused requests take at most one in so many bytes of the store."""
_AT_ONCE: Final = 500
"""Rows that are deleted together, so that no writer waits for long."""
_ROUNDS: Final = 40
_PAGES: Final = 4_000
"""Free pages that are given back to the file system in one call."""
_OLDEST = "SELECT rowid FROM (SELECT rowid, at FROM {table} ORDER BY rowid LIMIT {n}) WHERE at < ?"
_KEYS = """
DELETE FROM keys WHERE key IN (
  SELECT value FROM answers, json_each(answers.keys) WHERE answers.rowid IN ({oldest})
)
"""
_TOO_MUCH = """
DELETE FROM refusals WHERE rowid <= (
  SELECT max(rowid) FROM (
    SELECT rowid, sum(length(body) + length(problems)) OVER (ORDER BY rowid DESC) AS newer
    FROM refusals
  ) WHERE newer > ?
)
"""
"""Deletes refused requests but the newest, which have so many bytes together."""
_NEVER: Final = 2**63 - 1
_BUSY: Final = 60.0
"""Seconds to wait for a server that writes."""
_BYTES: Final = (
    "SELECT total(length(features) + length(keys) + length(predictions)) FROM answers WHERE at < ?",
    "SELECT total(length(body) + length(problems)) FROM refusals WHERE at < ?",
    "SELECT total(length(key) + 16) FROM labels WHERE at < ?",
)
"""What the rows of each table before a moment hold."""


class Kept(NamedTuple):
    """What a store holds after the rest was deleted.

    Attributes
    ----------
    size : int
        Bytes in use, without pages that are free.
    early : int
        Requests that were deleted before their time, because the store was full.
    """

    size: int
    early: int


def prune(connection: sqlite3.Connection, *, before: int, max_bytes: int) -> Kept:
    """Delete what is older than a moment, and then the oldest requests until the rest fits.

    Parameters
    ----------
    connection : Connection
        Of the store; it is committed.
    before : int
        The moment, in microseconds since 1970.
    max_bytes : int
        Largest size of the store.
    """
    for table in ("answers", "refusals", "labels"):
        for _ in range(_ROUNDS):
            if _delete(connection, table, before) < _AT_ONCE:
                break
    with connection:
        early = connection.execute(_TOO_MUCH, (max_bytes / REFUSED_SHARE,)).rowcount
    for _ in range(_ROUNDS):
        deleted = _delete(connection, "answers", _NEVER) if _size(connection) > max_bytes else 0
        early += deleted
        if not deleted:
            break
    # `execute` would end after the first page.
    connection.executescript(f"PRAGMA incremental_vacuum({_PAGES})")
    return Kept(_size(connection), early)


def overdue(path: Path, *, before: int, max_bytes: int, delete: bool) -> int:
    """Bytes that a store holds from before a moment, or would hold beyond its largest size.

    Parameters
    ----------
    path : Path
        The store; a server that writes it deletes the same by itself.
    before : int
        The moment, in microseconds since 1970.
    max_bytes : int
        Largest size of the store.
    delete : bool
        Whether to delete them, oldest first.
    """
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY)) as connection:
            whole = left = _size(connection)
            if not delete:
                old = [connection.execute(query, (before,)).fetchone()[0] for query in _BYTES]
                return max(int(sum(old)), whole - max_bytes)
            while (now := prune(connection, before=before, max_bytes=max_bytes).size) < left:
                left = now
    except sqlite3.Error as error:
        message = f"The capture store {path} cannot be used ({error}). Run the command again."
        raise UnavailableError(message) from error
    return whole - now


def _delete(connection: sqlite3.Connection, table: str, before: int) -> int:
    """Delete the oldest rows of a table, with their keys; how many they were."""
    oldest = _OLDEST.format(table=table, n=_AT_ONCE)
    with connection:
        if table == "answers":
            connection.execute(_KEYS.format(oldest=oldest), (before,))
        statement = f"DELETE FROM {table} WHERE rowid IN ({oldest})"  # noqa: S608 -- one of three
        return connection.execute(statement, (before,)).rowcount


def _size(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
