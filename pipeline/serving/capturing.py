"""Stores answered and refused requests in SQLite; answered rows are the monitor's live batches.

One thread writes ten times a second, so that no answer waits for the disk. A killed process
loses the requests since the last write.
"""

import json
import os
import sqlite3
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic, time_ns
from typing import Any, Literal, NamedTuple, Self

import pandas as pd

from pipeline.columns import Matrix
from pipeline.data.captures import OF_ANY, OF_NUMBERS, SCHEMA, Layout, Unseen
from pipeline.errors import DataError, UnavailableError
from pipeline.serving.retention import prune
from pipeline.training.model import Predictions

EVERY = 0.1
"""Seconds between writes."""
PRUNED_EVERY = 10.0
"""Seconds between looks at the size of the file and the age of what it holds."""
YEAR = pd.Timedelta("365D")
OVERHEAD = 600
"""Bytes that a waiting request takes in memory, besides its values."""
MOST_WAITING = 64_000_000
"""Bytes that wait for a disk that cannot be written; requests beyond it are lost and counted."""
LONGEST_BODY = 256_000
"""Bytes of a refused request's body that are stored."""
Kind = Literal["answers", "refusals"]

_LAYOUT = "INSERT OR IGNORE INTO contracts (task, columns) VALUES (?, ?)"
_LAYOUT_ID = "(SELECT id FROM contracts WHERE task = ? AND columns = ?)"
_VALUES: dict[Kind, str] = {
    "answers": f"(?, ?, {_LAYOUT_ID}, ?, ?, ?, ?, ?, ?)",
    "refusals": "(?, ?, ?, ?, ?, ?, ?, ?)",
}
_KEYS = "INSERT OR IGNORE INTO keys SELECT value FROM json_each(?)"
_OLDER_KEYS = """
INSERT OR IGNORE INTO keys SELECT value FROM answers, json_each(answers.keys)
WHERE answers.keys != 'null'
"""
_UNKNOWN = """
SELECT count(*) FROM json_each(?) AS asked
WHERE NOT EXISTS (SELECT 1 FROM keys WHERE key = asked.value)
  AND NOT EXISTS (
    SELECT 1 FROM answers
    WHERE request_id = substr(asked.value, 1, 32) AND substr(asked.value, 33, 1) = '-'
      AND CAST(substr(asked.value, 34) AS INTEGER) < length(predictions) / 8 / (
        SELECT CASE WHEN json_valid(task) THEN json_array_length(task) ELSE 1 END
        FROM contracts WHERE id = contract
      )
  )
"""
"""Counts keys that callers did not give to a row, and that are not made of a request's id."""
_AT_ONCE = (256, 16, 1)
"""Rows per statement. The writer may interrupt the thread that answers after each statement, so
it needs few of them."""


class _Waiting(NamedTuple):
    kind: Kind
    values: tuple[Any, ...]
    size: int
    since: float


class Captures:
    """Writer of the capture store; only one thread may add requests to it.

    Parameters
    ----------
    path : Path
        The SQLite file; it and its folder are made if they do not exist.
    keep : Timedelta
        How long requests and labels are kept.
    max_bytes : int
        Largest size of the file; then the oldest requests are deleted before their time.

    Raises
    ------
    DataError
        If the file exists and is not a capture store, or cannot be written.

    Attributes
    ----------
    problem : str
        Why the last write failed; empty after a write that succeeded.
    lost : int
        Requests that were not stored, because too many were waiting for the disk.
    size : int
        Bytes of the file that are in use.
    deleted : int
        Requests that were deleted before their time.
    """

    def __init__(
        self, path: Path, *, keep: pd.Timedelta = YEAR, max_bytes: int = 10_000_000_000
    ) -> None:
        self.problem, self.lost, self.size, self.deleted = "", 0, 0, 0
        self._keep, self._max_bytes = keep, max_bytes
        self._prune_at = monotonic() + PRUNED_EVERY
        self._waiting: deque[_Waiting] = deque()
        self._batch: list[_Waiting] = []  # taken by the writer, and kept until it is written
        self._came, self._went = 0, 0  # bytes; only one thread changes each of them
        self._lock, self._stop = Lock(), Event()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _open(path)
        except (OSError, sqlite3.DatabaseError) as error:
            message = (
                f"The capture store {path} must be a writable SQLite file. Got: {error}. "
                "Name another file, or restore this one."
            )
            raise DataError(message) from error
        self._writer = Thread(target=self._write, name="captures", daemon=True)
        self._writer.start()

    @property
    def lag(self) -> float:
        """Seconds that the oldest unwritten request has waited; 0 when nothing waits."""
        oldest = next(iter([*self._batch[:1], *self._waiting.copy()]), None)
        return 0.0 if oldest is None else monotonic() - oldest.since

    def answer(
        self,
        *,
        at: int,
        request_id: str,
        layout: Layout,
        version: str,
        latency: int,
        features: Matrix,
        unseen: Sequence[Unseen],
        keys: Sequence[str] | None,
        predictions: Predictions,
    ) -> None:
        """Store an answered request; the writer thread writes it a little later.

        Parameters
        ----------
        at : int
            Time of the answer, microseconds since 1970, UTC.
        request_id : str
            Identifies the request.
        layout : Layout
            Says what each column of `features` means.
        version : str
            Version of the model that answered.
        latency : int
            Time from the request to its predictions, in microseconds.
        features : array of float64, shape (n_rows, n_columns)
            Numbers and codes of labels; NaN for missing values, anything for unseen labels.
        unseen : sequence of Unseen
            Labels without a code.
        keys : sequence of str or None
            The caller's keys of the rows; None if the caller sent none.
        predictions : array of float64, shape (n_rows,) or (n_rows, n_classes)
            Predictions that were sent.
        """
        own = (features.tobytes(), json.dumps(unseen), json.dumps(keys), predictions.tobytes())
        values = (at, request_id, *layout, version, latency, *own)
        self._wait("answers", values, sum(map(len, own)))

    def refusal(
        self,
        *,
        at: int,
        request_id: str,
        version: str,
        route: str,
        caller: str,
        problems: str,
        body: bytes,
    ) -> None:
        """Store a refused request with its problems as JSON, and the first part of its body."""
        start = body[:LONGEST_BODY]
        values = (at, request_id, version, route, caller, problems, len(body), start)
        self._wait("refusals", values, len(start) + len(problems))

    def label(self, labels: Sequence[tuple[str, float | str]], *, at: int) -> int:
        """Store labels by key; they are on disk when this returns.

        Returns
        -------
        int
            How many of the keys are those of no row that has been written.

        Raises
        ------
        UnavailableError
            If the store cannot be written now.
        """
        try:
            with self._lock, self._connection:
                self._connection.executemany(
                    "INSERT INTO labels VALUES (?, ?, ?)", [(at, *label) for label in labels]
                )
                keys = json.dumps([key for key, _ in labels])
                return int(self._connection.execute(_UNKNOWN, (keys,)).fetchone()[0])
        except sqlite3.Error as error:
            message = f"The capture store cannot be written: {error}. Check its disk and retry."
            raise UnavailableError(message) from error

    def close(self) -> None:
        """Write all waiting requests and close the file."""
        self._stop.set()
        self._writer.join()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, kind: Kind, values: tuple[Any, ...], size: int) -> None:
        if self._came - self._went > MOST_WAITING:
            self.lost += 1
            return
        size += OVERHEAD
        self._came += size
        self._waiting.append(_Waiting(kind, values, size, monotonic()))

    def _write(self) -> None:
        while not self._stop.wait(EVERY):
            self._flush()
            if monotonic() >= self._prune_at:
                self._prune()
        self._flush()

    def _prune(self) -> None:
        """Delete what is old or too much; what fails now is tried again with the next."""
        self._prune_at = monotonic() + PRUNED_EVERY
        before = time_ns() // 1_000 - self._keep // pd.Timedelta("1us")
        try:
            with self._lock:
                kept = prune(self._connection, before=before, max_bytes=self._max_bytes)
        except sqlite3.Error as error:
            self.problem = f"Old captures cannot be deleted: {error}."
            return
        self.size, self.deleted = kept.size, self.deleted + kept.early

    def _flush(self) -> None:
        """Write all waiting requests, or keep them for the next time."""
        while self._waiting:
            self._batch.append(self._waiting.popleft())
        if not self._batch:
            return
        try:
            with self._lock, self._connection:
                layouts = {item.values[2:4] for item in self._batch if item.kind == "answers"}
                self._connection.executemany(_LAYOUT, layouts)
                keys = [(item.values[-2],) for item in self._batch if item.kind == "answers"]
                self._connection.executemany(_KEYS, [one for one in keys if one != ("null",)])
                for kind in _VALUES:
                    rows = [item.values for item in self._batch if item.kind == kind]
                    _insert(self._connection, kind, rows)
        except Exception as error:  # noqa: BLE001 -- whatever it is, this thread must go on
            self.problem = f"Captures cannot be written: {error}."
            return
        self.problem = ""
        self._went += sum(item.size for item in self._batch)
        self._batch = []


def _insert(connection: sqlite3.Connection, kind: Kind, rows: Sequence[tuple[Any, ...]]) -> None:
    done = 0
    for size in _AT_ONCE:
        statement = f"INSERT INTO {kind} VALUES {', '.join([_VALUES[kind]] * size)}"  # noqa: S608
        while done + size <= len(rows):
            part = rows[done : done + size]
            connection.execute(statement, [value for row in part for value in row])
            done += size


def _open(path: Path) -> sqlite3.Connection:
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))  # it stores what people send
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file only
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA journal_size_limit = 64000000")
        connection.execute("PRAGMA synchronous = FULL")  # a power cut loses no more than a kill
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'keys'").fetchone()
        connection.executescript(SCHEMA)
        if connection.execute(OF_NUMBERS).fetchone():
            connection.executescript(OF_ANY)
        if not known:  # a store of before
            connection.execute(_OLDER_KEYS)
            connection.commit()
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection
