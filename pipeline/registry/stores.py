"""MLflow's store as a SQLite file of ours: made whole, and found again where it was moved to."""

import contextlib
import logging
import sqlite3
import tempfile
from pathlib import Path
from typing import Final

import mlflow

logger = logging.getLogger(__name__)

ARTIFACTS: Final = "artifacts"
"""Folder of all artifacts, beside the store."""
_ADDRESSES: Final = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("storage_location", "source"),
}
"""Columns of MLflow's tables that hold addresses of artifacts, all of them absolute."""


def make(store: Path) -> None:
    """Make a store if there is none, under another name until it is complete."""
    if store.exists():
        return
    with tempfile.TemporaryDirectory(dir=store.parent) as folder:
        made = Path(folder) / store.name
        mlflow.MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
        made.rename(store)


def follow(store: Path) -> None:
    """Make the addresses in a store name the artifacts beside it, if it was moved with these.

    MLflow keeps absolute addresses, so that a folder which was moved or copied with its store would
    be read, and written, at its old place.

    Parameters
    ----------
    store : Path
        The SQLite file. Artifacts that have not come along keep their addresses.
    """
    with contextlib.closing(sqlite3.connect(store, timeout=60)) as database:
        found = database.execute("SELECT artifact_location FROM experiments").fetchall()
        for moved in {_moved(address, store.parent) for (address,) in found}:
            if moved is None:
                continue
            old, new = moved
            with database:
                for table, columns in _ADDRESSES.items():
                    for column in columns:
                        database.execute(
                            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 -- our own names
                            f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                            (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                        )
            logger.warning("MLflow's artifacts moved from %s and are read from %s.", old, new)


def _moved(address: str | None, folder: Path) -> tuple[str, str] | None:
    """Address of an experiment so far and beside its store; None where it has not moved."""
    root, _, name = (address or "").removesuffix("/").rpartition("/")
    here = folder / ARTIFACTS / name
    is_ours = root.endswith(f"/{ARTIFACTS}") and "://" not in root.removeprefix("file://")
    new = here.as_uri()
    if not is_ours or address in {new, str(here)} or not here.is_dir():
        return None
    return f"{root}/{name}", new
