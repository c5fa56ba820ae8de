"""Copies of recorded batches, and of whole models, in a store: rows of SQLite and artifacts."""

import json
import shutil
import sqlite3
import uuid
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pandas as pd

from pipeline.config import Settings
from pipeline.registry import records
from pipeline.registry.history import Batch, batch_name
from pipeline.registry.tracking import milliseconds
from pipeline.registry.versions import Registry

Row = dict[str, Any]
NAMED: Final = ("batch", "verdict", "mlflow.runName", "mlflow.note.content", "performance")
"""Tags of a batch that hold its name."""


CYCLE: Final = 14
"""Newest batches that are copied in turn: copies of a single one would be drift that persists."""


def add_batches(conf: Path, count: int, length: pd.Timedelta) -> None:
    """Record so many batches after the newest one, each as if a run had recorded it."""
    registry = _registry(conf)
    copied = records.read_history(registry).batches[-CYCLE:]
    with closing(sqlite3.connect(registry.folder / "mlflow.db")) as store, store:
        store.row_factory = sqlite3.Row
        for place, batch in enumerate(copied):
            mine = {table: _rows(store, table, batch.run_id) for table in _TABLES}
            line = _timeline(store, mine["tags"], batch)
            for steps in range(CYCLE, count + CYCLE - place, CYCLE):
                _add(store, mine, batch, later=steps * length)
                _step(store, line, steps, steps * length)


_TABLES: Final = ("runs", "tags", "metrics", "latest_metrics")


def _rows(store: sqlite3.Connection, table: str, run_id: str) -> list[Row]:
    found = store.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run_id,))  # noqa: S608 -- our own names
    return [dict(row) for row in found]


def _timeline(store: sqlite3.Connection, tags: list[Row], batch: Batch) -> list[Row]:
    """The metrics that a batch added to the time line of its champion, without its labels'."""
    (line,) = [row["value"] for row in tags if row["key"] == "mlflow.parentRunId"]
    ended = milliseconds(batch.end)
    return [row for row in _rows(store, "metrics", line) if row["timestamp"] == ended]


def _add(
    store: sqlite3.Connection,
    mine: dict[str, list[Row]],
    batch: Batch,
    *,
    later: pd.Timedelta,
) -> None:
    folder = Path(mine["runs"][0]["artifact_uri"].removeprefix("file://"))
    run_id, name = uuid.uuid4().hex, batch_name(batch.start + later)
    moved = milliseconds(batch.start + later) - milliseconds(batch.start)
    copied = folder.parents[1] / run_id / folder.name
    shutil.copytree(folder, copied, copy_function=_link)
    for row in mine["runs"]:
        times = {key: row[key] + moved for key in ("start_time", "end_time")}
        named = {"run_uuid": run_id, "artifact_uri": copied.as_uri(), "name": f"batch {name}"}
        _insert(store, "runs", row | named | times)
    for row in mine["tags"]:
        text = row["value"].replace(batch.name, name) if row["key"] in NAMED else row["value"]
        _insert(store, "tags", row | {"run_uuid": run_id, "value": text})
    for table in ("metrics", "latest_metrics"):
        for row in mine[table]:
            _insert(store, table, row | {"run_uuid": run_id, "timestamp": row["timestamp"] + moved})


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _step(store: sqlite3.Connection, line: list[Row], place: int, later: pd.Timedelta) -> None:
    moved = later // pd.Timedelta("1ms")
    for row in line:
        at = {"step": row["step"] + place, "timestamp": row["timestamp"] + moved}
        _insert(store, "metrics", row | at)


def _insert(store: sqlite3.Connection, table: str, row: Row) -> None:
    marks = ", ".join("?" * len(row))
    names = ", ".join(row)
    store.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))  # noqa: S608 -- our own names


def differing(conf: Path) -> list[str]:
    """Tags and metrics that only the newest batch has, or only the oldest copy."""
    registry = _registry(conf)
    batches = records.read_history(registry).batches
    sides = []
    for batch in (batches[CYCLE], batches[-1]):
        found = registry.client.get_run(batch.run_id).data
        late = ("performance", "realised", "loss_change", "label")  # of labels, which come later
        names = [*found.tags, *found.metrics]
        shown = {name for name in names if not name.startswith(late)}
        verdict = json.loads(found.tags["verdict"])
        sides.append(shown | {f"{part}.{key}" for part in verdict for key in verdict[part]})
    return sorted(sides[0] ^ sides[1])


def add_models(conf: Path, numbers: Iterable[int]) -> None:
    """Add models to a store, each with all runs, versions and tags of the model."""
    registry = _registry(conf)
    with closing(sqlite3.connect(registry.folder / "mlflow.db")) as store, store:
        store.row_factory = sqlite3.Row
        for number in numbers:
            _add_model(store, registry.name, f"model{number:03d}")


_OF_MODELS: Final = (
    "registered_models",
    "registered_model_tags",
    "registered_model_aliases",
    "model_versions",
    "model_version_tags",
)


def _add_model(store: sqlite3.Connection, name: str, other: str) -> None:
    (old,) = store.execute("SELECT experiment_id FROM experiments WHERE name = ?", (name,))
    new = store.execute("SELECT max(experiment_id) + 1 FROM experiments").fetchone()[0]
    for row in store.execute("SELECT * FROM experiments WHERE name = ?", (name,)).fetchall():
        _insert(store, "experiments", dict(row) | {"experiment_id": new, "name": other})
    query = "SELECT run_uuid FROM runs WHERE experiment_id = ?"
    for (run_id,) in store.execute(query, (old[0],)).fetchall():
        copied = {"run_uuid": uuid.uuid4().hex}
        for row in _rows(store, "runs", run_id):
            _insert(store, "runs", row | copied | {"experiment_id": new})
        for table in _TABLES[1:]:
            for row in _rows(store, table, run_id):
                _insert(store, table, row | copied)
    for table in _OF_MODELS:
        for row in store.execute(f"SELECT * FROM {table} WHERE name = ?", (name,)).fetchall():  # noqa: S608 -- our own names
            _insert(store, table, dict(row) | {"name": other})


def _registry(conf: Path) -> Registry:
    settings = Settings.load(str(conf))
    return Registry(settings.name, settings.tracking)
