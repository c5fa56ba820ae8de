"""What was asked and answered, kept in SQLite: the live batches of the monitor.

One thread writes, ten times a second, so that no answer waits for the disk. A killed process
loses what came since the last write.
"""

import json
import os
import sqlite3
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, Literal, NamedTuple, Self

from pipeline.columns import Matrix
from pipeline.data.captures import SCHEMA, Layout, Unseen
from pipeline.errors import DataError, UnavailableError
from pipeline.training.model import Predictions

EVERY = 0.1
"""Seconds between writes."""
OVERHEAD = 600
"""Bytes that a waiting request takes besides what it holds."""
MOST_WAITING = 64_000_000
"""Bytes that wait for a disk that cannot be written; what comes then is lost, and counted."""
LONGEST_BODY = 256_000
"""Bytes of a refused request that are kept."""
Kind = Literal["answers", "refusals"]

_CONTRACT = "INSERT OR IGNORE INTO contracts (task, columns) VALUES (?, ?)"
_CONTRACT_ID = "(SELECT id FROM contracts WHERE task = ? AND columns = ?)"
_VALUES: dict[Kind, str] = {
    "answers": f"(?, ?, {_CONTRACT_ID}, ?, ?, ?, ?, ?, ?)",
    "refusals": "(?, ?, ?, ?, ?, ?, ?, ?)",
}
_AT_ONCE = (256, 16, 1)
"""Rows of a statement. After each statement the thread that answers may be interrupted."""


class _Waiting(NamedTuple):
    kind: Kind
    values: tuple[Any, ...]
    size: int
    since: float


class Captures:
    """The store as the server writes it; one thread adds to it.

    Parameters
    ----------
    path : Path
        The SQLite file; it and its folder are made if they are not there.

    Raises
    ------
    DataError
        If the file is there and cannot be written as such a store.

    Attributes
    ----------
    problem : str
        Why the last write failed; empty while all is well.
    lost : int
        Requests that were not kept, as too many were waiting for the disk.
    """

    def __init__(self, path: Path) -> None:
        self.problem, self.lost = "", 0
        self._waiting: deque[_Waiting] = deque()
        self._batch: list[_Waiting] = []  # what the writer has taken; it stays until it is written
        self._came, self._went = 0, 0  # bytes; each is counted by one thread
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
        """Seconds that the oldest request waits to be written."""
        oldest = next(iter([*self._batch[:1], *self._waiting.copy()]), None)
        return 0.0 if oldest is None else monotonic() - oldest.since

    def answer(
        self,
        *,
        at: int,
        request_id: str,
        contract: Layout,
        version: str,
        latency: int,
        features: Matrix,
        unseen: Sequence[Unseen],
        keys: Sequence[str] | None,
        predictions: Predictions,
    ) -> None:
        """Keep an answered request.

        Parameters
        ----------
        at, latency : int
            When it was answered, and how long that took, in microseconds.
        request_id : str
            Of the request.
        contract : Layout
            What reads the features.
        version : str
            Of the model that answered.
        features : array of float64, shape (n_rows, n_columns)
            Numbers and codes of labels; NaN for what is missing, any for what is unseen.
        unseen : sequence of Unseen
            Labels without a code.
        keys : sequence of str or None
            What the caller calls the rows.
        predictions : array of float64, shape (n_rows,)
            What was answered.
        """
        own = (features.tobytes(), json.dumps(unseen), json.dumps(keys), predictions.tobytes())
        values = (at, request_id, *contract, version, latency, *own)
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
        """Keep a refused request with its problems as JSON, and the first part of its body."""
        kept = body[:LONGEST_BODY]
        values = (at, request_id, version, route, caller, problems, len(body), kept)
        self._wait("refusals", values, len(kept) + len(problems))

    def label(self, labels: Sequence[tuple[str, float]], *, at: int) -> None:
        """Store labels by key; they are on disk when this returns.

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
        except sqlite3.Error as error:
            message = f"The capture store must be writable. Got: {error}. Check its disk."
            raise UnavailableError(message) from error

    def close(self) -> None:
        """Write what waits, and let go of the file."""
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
        self._flush()

    def _flush(self) -> None:
        """Write what waits, or keep it for the next time."""
        while self._waiting:
            self._batch.append(self._waiting.popleft())
        if not self._batch:
            return
        try:
            with self._lock, self._connection:
                contracts = {one.values[2:4] for one in self._batch if one.kind == "answers"}
                self._connection.executemany(_CONTRACT, contracts)
                for kind in _VALUES:
                    some = [one.values for one in self._batch if one.kind == kind]
                    _insert(self._connection, kind, some)
        except Exception as error:  # noqa: BLE001 -- whatever it is, this thread must go on
            self.problem = f"Captures are not written: {error}."
            return
        self.problem = ""
        self._went += sum(one.size for one in self._batch)
        self._batch = []


def _insert(connection: sqlite3.Connection, kind: Kind, rows: Sequence[tuple[Any, ...]]) -> None:
    done = 0
    for size in _AT_ONCE:
        statement = f"INSERT INTO {kind} VALUES {', '.join([_VALUES[kind]] * size)}"  # noqa: S608
        while done + size <= len(rows):
            some = rows[done : done + size]
            connection.execute(statement, [value for row in some for value in row])
            done += size


def _open(path: Path) -> sqlite3.Connection:
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))  # it holds what people send
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a power cut loses no more than a kill
        connection.executescript(SCHEMA)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection
