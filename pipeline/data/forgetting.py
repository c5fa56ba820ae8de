"""Rows of one person in captures and tables, found by their key.

Rows of a table without keys are found by the values of the rows that were found by their key.
"""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import as_number, as_text
from pipeline.config import Columns, Numeric
from pipeline.data.captures import KEY, read_captures
from pipeline.data.labels import comparable
from pipeline.data.validation import keep
from pipeline.errors import UnavailableError

Mask = NDArray[np.bool_]
PATIENCE: Final = 60.0
"""Seconds to wait for a server that writes its captures."""
CLOSE: Final = 1e-9
"""Relative difference of numbers that count as equal."""


@dataclass(frozen=True)
class Person:
    """Whose rows are forgotten.

    Attributes
    ----------
    key : str
        Their key, as `comparable` spells it.
    rows : DataFrame
        Rows of theirs that were found somewhere, with the features that are not private.
    columns : mapping of str to Column
        These features.
    """

    key: str
    rows: pd.DataFrame
    columns: Columns

    @classmethod
    def of(
        cls, key: str, tables: Sequence[tuple[pd.DataFrame, str]], features: Columns
    ) -> "Person":
        """The person of a key, by some tables, each with the name of its column of keys."""
        public = {name: column for name, column in features.items() if not column.private}
        spelled = str(comparable(pd.Series([key]))[0])
        person = cls(spelled, pd.DataFrame(columns=list(public)), public)
        own = [
            table.loc[person.has_key(table[column]), list(public)]
            for table, column in tables
            if column in table and set(public) <= set(table)
        ]
        rows = pd.concat([person._spelled(part) for part in own if len(part)] or [person.rows])
        return cls(spelled, rows.drop_duplicates(ignore_index=True), public)

    def has_key(self, keys: pd.Series) -> Mask:
        """Which keys are the person's."""
        found: Mask = (comparable(keys) == self.key).fillna(value=False).to_numpy(dtype=bool)
        return found

    def resembles(self, frame: pd.DataFrame, *, but: int = 0) -> NDArray[np.intp]:
        """For each row the place of a row of the person with its values; -1: there is none.

        Parameters
        ----------
        frame : DataFrame
            Rows with all public features, or with some of them.
        but : int
            Features that may differ. If any may, all that are missing in `frame` may instead.
        """
        places = np.full(len(frame), -1)
        names = [name for name in self.columns if name in frame]
        if not names:
            return places
        spelled = self._spelled(frame[names])
        for place, row in self.rows[names].iterrows():
            equal = np.array([_equal(spelled[name], row[name]) for name in names])
            blank = spelled.isna().to_numpy().T & (but > 0)
            alike = (equal.sum(axis=0) >= len(names) - but) | (equal | blank).all(axis=0)
            places[alike & equal.any(axis=0)] = place
        return places

    def _spelled(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Numbers and text, however a table stores them."""
        return pd.DataFrame(
            {
                name: as_number(frame[name])
                if isinstance(column, Numeric)
                else as_text(frame[name])
                for name, column in self.columns.items()
                if name in frame
            },
            index=frame.index,
        )


def _equal(values: pd.Series, value: Any) -> Mask:
    if pd.isna(value):
        return values.isna().to_numpy()
    if isinstance(value, str):
        return (values == value).fillna(value=False).to_numpy(dtype=bool)
    close: Mask = np.isclose(values.to_numpy(dtype=np.float64), value, rtol=CLOSE, atol=0.0)
    return close


def captured(path: Path) -> pd.DataFrame:
    """All captured rows; none where nothing was ever captured."""
    return read_captures(path) if path.exists() else pd.DataFrame({KEY: []})


def forget_captures(path: Path, key: str) -> dict[str, int]:
    """Remove the rows, labels and refused requests of a key; the file keeps no trace of them.

    A refused request that names the key is removed whole, with the rows of others in it.

    Parameters
    ----------
    path : Path
        The capture store; a server may be writing it.
    key : str
        As `comparable` spells it.

    Returns
    -------
    dict of str to int
        Removed ``captured rows``, ``labels`` and ``refused requests``.

    Raises
    ------
    UnavailableError
        If a server keeps the store busy.
    """
    if not path.exists():
        return {}
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as store:
            store.create_function("spelled", 1, _spelled, deterministic=True)
            store.create_function("names_it", 1, lambda text: _names(text, key))
            store.execute("PRAGMA secure_delete = ON")
            store.execute("BEGIN IMMEDIATE")
            found = {
                "captured rows": _forget_answers(store, key),
                "labels": _delete(store, "labels", "spelled(key) = ?", key),
                "refused requests": _delete(
                    store, "refusals", "names_it(body) OR names_it(problems)"
                ),
            }
            _delete(store, "keys", "spelled(key) = ?", key)
            store.execute("COMMIT")
            # Pages that were freed before, and the log of changes, may hold the rows as well.
            store.execute("VACUUM")
            busy, *_ = store.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        message = f"The capture store {path} cannot be changed ({error}). Run the command again."
        raise UnavailableError(message) from error
    if busy:
        message = f"The capture store {path} is being read. Run the command again."
        raise UnavailableError(message)
    return found


def _forget_answers(store: sqlite3.Connection, key: str) -> int:
    widths = {
        number: len(json.loads(columns))
        for number, columns in store.execute("SELECT id, columns FROM contracts")
    }
    query = (
        "SELECT rowid, contract, request_id, features, unseen, keys, predictions FROM answers "
        "WHERE (keys != 'null' "
        "AND EXISTS (SELECT 1 FROM json_each(keys) WHERE spelled(value) = ?1)) "
        "OR (keys = 'null' AND ?1 LIKE request_id || '-%')"
    )
    removed = 0
    for row, contract, request, *parts in store.execute(query, (key,)).fetchall():
        features, unseen, keys, predictions = parts
        matrix = np.frombuffer(features).reshape(-1, widths[contract])
        names = json.loads(keys) or [f"{request}-{place}" for place in range(len(matrix))]
        kept = [place for place, name in enumerate(names) if _spelled(name) != key]
        removed += len(names) - len(kept)
        if not kept:
            store.execute("DELETE FROM answers WHERE rowid = ?", (row,))
            continue
        others = [names[place] for place in kept]
        left = [
            (kept.index(place), column, label)
            for place, column, label in json.loads(unseen)
            if place in kept
        ]
        predicted = np.frombuffer(predictions).reshape(len(matrix), -1)
        store.execute(
            "UPDATE answers SET features = ?, unseen = ?, keys = ?, predictions = ? "
            "WHERE rowid = ?",
            (
                matrix[kept].tobytes(),
                json.dumps(left),
                json.dumps(others),
                predicted[kept].tobytes(),
                row,
            ),
        )
        # Made of the request's id, a key would follow from the place of its row.
        store.executemany("INSERT OR IGNORE INTO keys VALUES (?)", [(name,) for name in others])
    return removed


def _delete(store: sqlite3.Connection, table: str, condition: str, *given: str) -> int:
    return store.execute(f"DELETE FROM {table} WHERE {condition}", given).rowcount  # noqa: S608 -- our own names


def _spelled(key: str) -> str:
    return re.sub(r"^(-?\d+)\.0+$", r"\1", str(key).strip())


def _names(text: bytes | str, key: str) -> bool:
    """Whether a body, or a list of problems, names a key: as a string, or as a number."""
    raw = text.encode() if isinstance(text, str) else text
    spellings = {json.dumps(key), json.dumps(key, ensure_ascii=False), f"'{key}'"}
    if re.fullmatch(r"-?\d+", key):
        return re.search(rb"(?<![\w.-])" + key.encode() + rb"(\.0+)?(?![\w.])", raw) is not None
    return any(spelling.encode() in raw for spelling in spellings)


def forget_quarantined(folder: Path, person: Person, key: str) -> Mapping[str, int]:
    """Remove a person's rows from the files of refused rows.

    Parameters
    ----------
    folder : Path
        Of these files.
    person : Person
        The person.
    key : str
        Name of the column of keys; in a file without it, rows are compared by their values.

    Returns
    -------
    mapping of str to int
        Removed ``quarantined rows``.
    """
    removed: Counter[str] = Counter()
    for path in sorted(folder.glob("*.partial")):  # of a process that was killed
        path.unlink()
    for path in sorted(folder.glob("*.parquet")):
        rows = pd.read_parquet(path)
        own = person.has_key(rows[key]) if key in rows else person.resembles(rows) >= 0
        if not own.any():
            continue
        removed["quarantined rows"] += int(own.sum())
        if own.all():
            path.unlink()
        else:
            keep(rows[~own], path)
    return removed
