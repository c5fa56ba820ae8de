"""Copy all state on disk into one archive while it is in use, and put it back."""

import contextlib
import os
import sqlite3
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

from pipeline.config import Settings
from pipeline.errors import ConfigError, DataError, UnavailableError

LEFT_OUT: Final = frozenset({"cache", "locks", "logs"})
"""Folders of the state that are made again, or that say nothing about a model."""
_BESIDE: Final = ("-wal", "-shm", "-journal", ".partial")
"""Ends of files that belong to a database in use, or that are being written."""
_SQLITE: Final = b"SQLite format 3\0"


def backup(conf: str, file: str) -> dict[str, Any]:
    """Write the state folder of a model's file into a `.tar.gz` archive.

    Databases are copied first, each at one moment, and files of artifacts after them: these are
    only ever added, but for `prune` and `forget`, so that the copy holds all that its databases
    name.
    """
    settings = Settings.load(conf)
    state, archive = settings.tracking.folder, Path(file)
    if not (state / "mlflow.db").exists():
        message = f"There is no store in {state} to copy. Train first, or name another file."
        raise ConfigError(message)
    if not archive.name.endswith(".tar.gz") or archive.exists() or not archive.parent.is_dir():
        message = f"The archive must be a new .tar.gz file in a folder that exists. Got {file}."
        raise ConfigError(message)
    partial = archive.with_name(f".{archive.name}.partial")
    try:
        with tarfile.open(partial, "w:gz", compresslevel=1) as tar:
            databases = [path for path in _files(state) if _is_database(path)]
            for path in databases:
                _add_database(tar, path, path.relative_to(state))
            others = [path for path in _files(state) if path not in databases]
            for path in others:
                with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                    tar.add(path, path.relative_to(state), recursive=False)
        partial.replace(archive)
    except (OSError, sqlite3.Error) as error:
        partial.unlink(missing_ok=True)
        message = f"{state} cannot be copied to {file} ({error}). Nothing was written."
        raise UnavailableError(message) from error
    return {
        "archive": str(archive),
        "databases": len(databases),
        "files": len(others),
        "bytes": archive.stat().st_size,
        "elsewhere": _elsewhere(settings),
    }


def restore(conf: str, file: str) -> dict[str, Any]:
    """Put the state of an archive into the state folder of a model's file, which must be empty."""
    state = Settings.load(conf).tracking.folder
    taken = _files(state)
    if taken:
        message = (
            f"{state} must hold no state. Got {taken[0].relative_to(state)} and {len(taken) - 1} "
            "other files. Set tracking.folder to an empty folder, or move this one away."
        )
        raise ConfigError(message)
    state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=state) as temporary:
        try:
            with tarfile.open(file, "r:gz") as tar:
                tar.extractall(temporary, filter="data")
        except (OSError, tarfile.TarError, EOFError, ValueError) as error:
            message = f"{file} must be an archive of `holdfast backup`. Got: {error}."
            raise DataError(message) from error
        parts = sorted(Path(temporary).iterdir(), key=lambda part: part.name == "mlflow.db")
        if not parts or parts[-1].name != "mlflow.db":
            message = f"{file} must be an archive of `holdfast backup`. Got no mlflow.db in it."
            raise DataError(message)
        for part in parts:  # the store at last: until then there is none
            part.replace(state / part.name)
    return {"folder": str(state), "files": len(_files(state))}


def _files(state: Path) -> list[Path]:
    """All files of the state that are kept, sorted."""
    found = []
    for folder, names, files in os.walk(state):
        here = Path(folder)
        if here == state:
            names[:] = [name for name in names if name not in LEFT_OUT]
        found += [here / name for name in files if not name.endswith(_BESIDE)]
    return sorted(found)


def _is_database(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE
    return False


def _add_database(tar: tarfile.TarFile, path: Path, name: Path) -> None:
    """Add a database as it is at one moment, by SQLite's own backup."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with (
            contextlib.closing(sqlite3.connect(path, timeout=60)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        tar.add(copy, name)


def _elsewhere(settings: Settings) -> list[str]:
    """What a copy of the state folder does not hold."""
    state = settings.tracking.folder.resolve()
    uri = settings.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    kept = not settings.captures.resolve().is_relative_to(state)
    server = bool(os.environ.get("PREFECT_API_URL"))
    where = {"MLflow's runs": bool(uri), "captures": kept, "Prefect's runs": server}
    return [what for what, is_elsewhere in where.items() if is_elsewhere]
