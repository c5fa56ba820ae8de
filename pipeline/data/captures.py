"""The store of answered and refused requests: its SQL schema, and how it is read."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config import RESERVED

AT, KEY = f"{RESERVED}captured_at", f"{RESERVED}key"
CAPTURED = (
    *(AT, KEY, f"{RESERVED}prediction", f"{RESERVED}confidence"),
    *(f"{RESERVED}latency", f"{RESERVED}version", f"{RESERVED}request_id"),
)
"""Columns of captured rows beside their features."""


# Times are whole microseconds since 1970, UTC: exact, and ordered as numbers.
SCHEMA = """
CREATE TABLE IF NOT EXISTS contracts (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    columns TEXT NOT NULL,
    UNIQUE (task, columns)
) STRICT;
CREATE TABLE IF NOT EXISTS answers (
    at INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    contract INTEGER NOT NULL,
    version TEXT NOT NULL,
    latency INTEGER NOT NULL,
    features BLOB NOT NULL,
    unseen TEXT NOT NULL,
    keys TEXT NOT NULL,
    predictions BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS answers_by_time ON answers (at);
CREATE INDEX IF NOT EXISTS answers_by_request ON answers (request_id);
CREATE TABLE IF NOT EXISTS keys (
    key TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refusals (
    at INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    version TEXT NOT NULL,
    route TEXT NOT NULL,
    caller TEXT NOT NULL,
    problems TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS refusals_by_time ON refusals (at);
CREATE TABLE IF NOT EXISTS labels (
    at INTEGER NOT NULL,
    key TEXT NOT NULL,
    target ANY NOT NULL
) STRICT;
"""
OF_NUMBERS = "SELECT 1 FROM pragma_table_info('labels') WHERE name = 'target' AND type = 'REAL'"
"""Finds a store of before, whose labels are numbers only."""
OF_ANY = """
BEGIN IMMEDIATE;
ALTER TABLE labels RENAME TO labels_of_numbers;
CREATE TABLE labels (
    at INTEGER NOT NULL,
    key TEXT NOT NULL,
    target ANY NOT NULL
) STRICT;
INSERT INTO labels SELECT at, key, target FROM labels_of_numbers ORDER BY rowid;
DROP TABLE labels_of_numbers;
COMMIT;
"""


_FIRST, _LAST = -(2**63), 2**63 - 1


class Layout(NamedTuple):
    """How the features of an answered request are stored.

    Attributes
    ----------
    task : str
        The model's task, ``classification`` or ``regression``; of a target of three or more classes
        a JSON list of their labels.
    columns : str
        JSON object with each feature in order: a list of the labels that codes count from 0,
        or null for numbers.
    """

    task: str
    columns: str


class Unseen(NamedTuple):
    """A label that was not in the training rows, with its position in the encoded matrix."""

    row: int
    column: int
    label: str


def read_captures(
    path: Path, *, start: pd.Timestamp | None = None, end: pd.Timestamp | None = None
) -> pd.DataFrame:
    """Read the answered rows with `start <= captured_at < end`, oldest first.

    The file is opened read-only; a server may write it at the same time.

    Parameters
    ----------
    path : Path
        The SQLite file.
    start, end : Timestamp, optional
        The window, in UTC; None leaves a side open.

    Returns
    -------
    DataFrame
        The features, then the columns `CAPTURED`: the time (datetime64[us], UTC without zone), the
        key, the prediction (of three or more classes the probability of each), its confidence (the
        probability of the likeliest class; NaN in a regression), the latency (seconds), the version
        and the id of the request. Without rows there are no feature columns.
    """
    with closing(_reading(path)) as connection:
        layouts = {
            number: (task, json.loads(columns))
            for number, task, columns in connection.execute("SELECT * FROM contracts")
        }
        requests = _between(connection, "answers", start, end)
    parts = [_rows(some, *layouts[number]) for number, some in requests.groupby("contract")]
    whole = pd.concat(parts).sort_index(kind="stable") if parts else _NO_ROWS
    captured = whole[list(CAPTURED)].astype({AT: "datetime64[us]"})
    return pd.concat([whole.drop(columns=[*CAPTURED]), captured], axis=1).reset_index(drop=True)


def first_captured(path: Path) -> pd.Timestamp | None:
    """Time of the oldest answer, in UTC without zone; None if there is none, or no store yet."""
    if not path.exists():
        return None
    with closing(_reading(path)) as connection:
        (first,) = connection.execute("SELECT min(at) FROM answers").fetchone()
    return None if first is None else pd.Timestamp(first, unit="us")


_NO_ROWS = pd.DataFrame({name: pd.Series(dtype="int64") for name in CAPTURED})


def _rows(requests: pd.DataFrame, task: str, columns: dict[str, list[str] | None]) -> pd.DataFrame:
    """Unpack requests of one layout into rows; the index of a row is that of its request."""
    classes = len(json.loads(task)) if task.startswith("[") else 0
    shape = (-1, classes) if classes else (-1,)
    predictions = [np.frombuffer(packed).reshape(shape) for packed in requests["predictions"]]
    sizes = [len(some) for some in predictions]
    predicted = np.concatenate(predictions)
    facts = requests[["at", "latency", "version", "request_id"]].loc[requests.index.repeat(sizes)]
    beside: dict[str, Any] = {
        "captured_at": facts["at"],
        "key": _keys(requests, sizes),
        "prediction": list(predicted) if classes else predicted,
        "confidence": _confidence(predicted, task),
        "latency": facts["latency"] / 1e6,
        "version": facts["version"],
        "request_id": facts["request_id"],
    }
    return pd.DataFrame(_features(requests, sizes, columns), index=facts.index).assign(
        **{f"{RESERVED}{name}": values for name, values in beside.items()}
    )


def _confidence(predicted: NDArray[np.float64], task: str) -> NDArray[np.float64] | float:
    if predicted.ndim > 1:
        return np.asarray(predicted.max(axis=1))
    return np.maximum(predicted, 1 - predicted) if task == "classification" else np.nan


def _features(
    requests: pd.DataFrame, sizes: list[int], columns: dict[str, list[str] | None]
) -> dict[str, np.ndarray]:
    matrix = np.frombuffer(b"".join(requests["features"])).reshape(-1, len(columns))
    decoded = {
        name: matrix[:, i] if labels is None else _decoded(matrix[:, i], labels)
        for i, (name, labels) in enumerate(columns.items())
    }
    for first, unseen in zip(np.cumsum([0, *sizes[:-1]]), requests["unseen"], strict=True):
        for row, column, label in json.loads(unseen):
            decoded[list(columns)[column]][first + row] = label
    return decoded


def _keys(requests: pd.DataFrame, sizes: list[int]) -> list[str]:
    """Keys of all rows: as the caller gave them, else made of the request's id."""
    together = zip(requests["keys"], requests["request_id"], sizes, strict=True)
    return [
        key
        for given, request_id, n in together
        for key in (json.loads(given) or [f"{request_id}-{i}" for i in range(n)])
    ]


def _decoded(codes: NDArray[np.float64], labels: Sequence[str]) -> np.ndarray:
    """Turn codes into labels; a code that is NaN or negative becomes None."""
    places = np.where(np.isnan(codes), -1, codes).astype(np.intp)
    return np.array([*labels, None], dtype=object)[places]


def read_labels(path: Path) -> pd.DataFrame:
    """Read the labels that callers sent, oldest first.

    Returns
    -------
    DataFrame
        ``key``, ``target`` (a number, or a class as it was sent) and ``labelled_at``
        (datetime64[us], UTC without zone): when it came.
    """
    with closing(_reading(path)) as connection:
        found = connection.execute("SELECT key, target, at FROM labels ORDER BY rowid").fetchall()
    labels = pd.DataFrame(found, columns=["key", "target", "labelled_at"])
    return labels.astype({"labelled_at": "datetime64[us]"})


def read_refusals(
    path: Path, *, start: pd.Timestamp | None = None, end: pd.Timestamp | None = None
) -> pd.DataFrame:
    """Read the refused requests with `start <= at < end`, oldest first.

    Returns
    -------
    DataFrame
        ``at`` (datetime64[us], UTC without zone), ``request_id``, ``version``, ``route``,
        ``caller``, ``problems`` (a list of dicts, as in the response), ``bytes`` (length of
        the whole body) and ``body`` (its first part).
    """
    with closing(_reading(path)) as connection:
        frame = _between(connection, "refusals", start, end)
    return frame.assign(
        at=frame["at"].astype("datetime64[us]"), problems=frame["problems"].map(json.loads)
    )


def _reading(path: Path) -> sqlite3.Connection:
    # Without a write-ahead log no server is writing, and `immutable` keeps SQLite from making one.
    log = path.with_name(f"{path.name}-wal")
    address = f"{path.absolute().as_uri()}?mode=ro{'' if log.exists() else '&immutable=1'}"
    return sqlite3.connect(address, uri=True)


def _between(
    connection: sqlite3.Connection,
    table: Literal["answers", "refusals"],
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
) -> pd.DataFrame:
    query = f"SELECT * FROM {table} WHERE at >= ? AND at < ? ORDER BY at, rowid"  # noqa: S608 -- one of two names
    first = _FIRST if start is None else _microseconds(start)
    last = _LAST if end is None else _microseconds(end)
    found = connection.execute(query, (first, last))
    return pd.DataFrame(found.fetchall(), columns=[column[0] for column in found.description])


def _microseconds(moment: pd.Timestamp) -> int:
    """Count the microseconds since 1970; a time without a zone is UTC."""
    return (moment - pd.Timestamp(0, tz=moment.tz)) // pd.Timedelta(1, "us")
