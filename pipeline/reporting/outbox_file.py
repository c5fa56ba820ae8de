"""The file of the outbox: its tables, and changes that are made as a whole or not at all."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from pipeline.errors import RegistryError, UnavailableError

_BUSY: Final = 5.0
"""Seconds to wait for another process that writes."""
_SCHEMA: Final = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS pages (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    model TEXT NOT NULL,
    severity TEXT NOT NULL,
    subject TEXT NOT NULL,
    body TEXT NOT NULL,
    written REAL NOT NULL,
    episode TEXT NOT NULL,
    resolves INTEGER NOT NULL,
    due INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS sends (
    page INTEGER NOT NULL REFERENCES pages,
    address TEXT NOT NULL,
    state TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0,
    tried REAL NOT NULL DEFAULT 0,
    why TEXT NOT NULL DEFAULT '',
    repeat INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (page, address)
) STRICT;
CREATE TABLE IF NOT EXISTS messages (address TEXT NOT NULL, at REAL NOT NULL) STRICT;
COMMIT;
"""


@contextmanager
def transaction(file: Path) -> Iterator[sqlite3.Connection]:
    """The outbox, for one change that is made as a whole or not at all."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=_BUSY, isolation_level=None)) as outbox:
            outbox.row_factory = sqlite3.Row
            if not outbox.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                outbox.executescript(_SCHEMA)
            outbox.execute("BEGIN IMMEDIATE")
            yield outbox
            outbox.execute("COMMIT")
    except (sqlite3.Error, OSError) as error:
        away = "locked" in str(error)
        cure = "Retry shortly." if away else "Make room for it, or move it away and start another."
        message = f"The outbox of pages, {file}, cannot be used ({error}). {cure}"
        raise (UnavailableError if away else RegistryError)(message) from error


def open_pages(outbox: sqlite3.Connection, model: str, episode: str) -> list[sqlite3.Row]:
    """Pages of an episode since it was last resolved, oldest first."""
    query = "SELECT * FROM pages WHERE model = ? AND episode = ? ORDER BY number"
    pages: list[sqlite3.Row] = []
    for page in outbox.execute(query, (model, episode)):
        pages = [] if page["resolves"] else [*pages, page]
    return pages
