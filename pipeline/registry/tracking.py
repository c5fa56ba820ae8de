"""One model's MLflow experiment: its address, its runs, and MLflow's errors as ours.

Runs are found by their tags and continued, and metrics carry the time that they belong to, so
that repeating a call adds nothing.
"""

import hashlib
import json
import logging
import os
import posixpath
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
import numpy as np
import pandas as pd
import sqlalchemy as sa
from mlflow.artifacts import download_artifacts
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException, RestException

from pipeline import config
from pipeline.errors import RegistryError, UnavailableError, first_line, writing
from pipeline.registry import locks, stores

_PAGE = 1_000
"""Runs that MLflow is asked for at a time."""
_LONGEST_METRIC = 250
"""Characters that MLflow allows in the name of a metric."""
_DATABASE_AWAY = re.compile(r"\([\w.]+\.(Interface|Operational)Error\)|'57P0\d'")
"""What a server of MLflow says while its PostgreSQL is away or starts, among other bad requests."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise errors of MLflow and its database as `RegistryError` or `UnavailableError`."""
    try:
        yield
    except RestException as error:
        said = first_line(error)
        if _DATABASE_AWAY.search(said):
            message = f"MLflow's database does not answer: {said}. Start it."
            raise UnavailableError(message) from error
        message = f"MLflow refused a call: {said}. Check the registry."
        raise RegistryError(message) from error
    except (MlflowException, sa.exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise _translation(first_line(error)) from error


def _translation(text: str) -> RegistryError | UnavailableError:
    """What to say about an error of MLflow or its database."""
    if any(sign in text for sign in ("Connection", "Max retries", "locked")):
        return UnavailableError(
            f"MLflow does not answer: {text}. Start it, or set MLFLOW_TRACKING_URI."
        )
    if "unable to open" in text:
        return RegistryError(
            f"MLflow's store cannot be opened: {text}. It must be a file that this user may read "
            "and write: move away what is in its place, or correct tracking.uri."
        )
    if any(sign in text for sign in ("readonly", "Read-only", "Permission", "full", "No space")):
        return RegistryError(
            f"MLflow's store cannot be written: {text}. Make room, or let this user write there."
        )
    if any(sign in text for sign in ("malformed", "not a database", "no such table")):
        return RegistryError(f"MLflow's store is damaged: {text}. Restore it from a copy.")
    return RegistryError(
        f"MLflow cannot do this: {text}. The whole error is in logs/holdfast.log of "
        "tracking.folder; where that does not help, restore the store from a copy."
    )


@contextmanager
def _environment_kept(*names: str) -> Iterator[None]:
    """Restore variables: MLflow sets its address, where the next model would find it."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class Tracking:
    """One model's experiment.

    Parameters
    ----------
    name : str
        The model.
    section : Tracking
        Where its runs and artifacts are kept.
    conf : str
        The model's file, as messages name it; empty: `conf/<name>.yaml`.

    Attributes
    ----------
    name : str
        Name of the experiment and of the registered model.
    conf : str
        The model's file.
    folder : Path
        The one folder of all state on disk.
    uri : str
        MLflow's address.
    locks_are_global : bool
        Whether the locks exclude every process that uses the store, on whatever host.
    """

    def __init__(self, name: str, section: config.Tracking, conf: str = "") -> None:
        self.name, self.conf = name, conf or f"conf/{name}.yaml"
        self.folder = section.folder.resolve()
        local = f"sqlite:///{self.folder / 'mlflow.db'}"
        self.uri = section.uri or os.environ.get("MLFLOW_TRACKING_URI") or local
        database = self.uri if self.uri.startswith("postgresql") else None
        self._locks = database if section.locks is None else section.locks.get_secret_value()
        # A store that other hosts cannot reach is used by the processes of this host alone.
        self.locks_are_global = bool(self._locks) or _is_here(self.uri)
        self._run_ids: dict[str, str] = {}
        self._places: dict[str, str] = {}
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        # It would print the address of each run, with its password.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.ERROR)

    @property
    def address(self) -> str:
        """MLflow's address for people, without user, password and query."""
        scheme, separator, rest = self.uri.partition("://")
        return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"

    def exclusive(
        self, what: str, patience: float = locks.PATIENCE
    ) -> AbstractContextManager[None]:
        """A lock of this model, held by one process at a time.

        Parameters
        ----------
        what : str
            Name of the lock.
        patience : float
            Seconds to wait for it.
        """
        name, folder = f"{self.name}-{what}", self.folder / "locks"
        return locks.exclusive(name, folder=folder, database=self._locks, patience=patience)

    @cached_property
    def client(self) -> mlflow.MlflowClient:
        """MLflow's client; its global address is set too, because artifacts resolve through it."""
        with translated(), _environment_kept("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            if self.uri.startswith("sqlite"):
                self._open_store()
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            client = mlflow.MlflowClient(self.uri)
            client.search_experiments(max_results=1)
        return client

    def _open_store(self) -> None:
        """Make SQLite's file if there is none; if it is ours, find its artifacts beside it."""
        store = Path(sa.make_url(self.uri).database or self.folder)
        with writing(self.folder):
            there = store.exists()
        if not there:
            with self.exclusive("store"), writing(store.parent):
                stores.make(store)
        elif store.parent == self.folder:
            stores.follow(store)

    @cached_property
    def experiment(self) -> str:
        """Id of the experiment, created if it does not exist."""
        with translated():
            found = self.client.get_experiment_by_name(self.name)
            if found is not None and found.lifecycle_stage != "active":
                message = (
                    f"Experiment {self.name!r} was deleted in MLflow. Restore it: `mlflow "
                    f"experiments restore --experiment-id {found.experiment_id}`, or rename it "
                    "there to begin a new one."
                )
                raise RegistryError(message)
            if found is not None:
                return str(found.experiment_id)
            local = not self.uri.startswith("http")
            place = (self.folder / stores.ARTIFACTS / self.name).as_uri() if local else None
            return str(self.client.create_experiment(self.name, artifact_location=place))

    def search(self, condition: str, most: int | None = None) -> list[Run]:
        """Runs that meet a condition in MLflow's filter syntax, the latest first.

        Parameters
        ----------
        condition : str
            The condition.
        most : int or None
            Runs at most; None: all.
        """
        runs: list[Run] = []
        token: str | None = None
        with translated():
            experiment = self.experiment
            while True:
                page = self.client.search_runs(
                    [experiment],
                    condition,
                    max_results=_PAGE if most is None else min(most - len(runs), _PAGE),
                    order_by=["attributes.start_time DESC"],
                    page_token=token,
                )
                runs += page
                self._places |= {run.info.run_id: run.info.artifact_uri for run in page}
                token = page.token
                if not token or len(runs) == most:
                    return runs

    def run(self, tags: Mapping[str, str], name: str, start: pd.Timestamp) -> str:
        """Id of the run that carries some tags; it is created if there is none.

        Parameters
        ----------
        tags : mapping of str to str
            What identifies the run.
        name : str
            Its name, if it is created.
        start : Timestamp
            Its start time, if it is created.
        """
        condition = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
        if condition not in self._run_ids:
            self._run_ids[condition] = self._found_or_created(condition, tags, name, start)
        return self._run_ids[condition]

    def _found_or_created(
        self, condition: str, tags: Mapping[str, str], name: str, start: pd.Timestamp
    ) -> str:
        found = self.search(condition)
        if found:
            return str(found[-1].info.run_id)
        with translated():
            created = self.client.create_run(
                self.experiment,
                start_time=milliseconds(start),
                tags={**tags, "mlflow.runName": name},
            )
        return str(created.info.run_id)

    def read(self, run_id: str, artifact: str) -> Any:
        """The content of a JSON artifact of a run; None if it has none that can be read."""
        return self._read(run_id, artifact, lambda file: json.loads(file.read_text("utf-8")))

    def read_frame(self, run_id: str, artifact: str) -> pd.DataFrame | None:
        """A Parquet artifact of a run; None if it has none that can be read."""
        frame: pd.DataFrame | None = self._read(run_id, artifact, pd.read_parquet)
        return frame

    def _read(self, run_id: str, artifact: str, parse: Callable[[Path], Any]) -> Any:
        with translated(), tempfile.TemporaryDirectory() as folder:
            try:
                file = download_artifacts(f"{self._place(run_id)}/{artifact}", dst_path=folder)
                return parse(Path(file))
            except ValueError:  # of JSON and of Arrow
                return None
            except (MlflowException, OSError) as error:
                if _is_gone(error):
                    return None
                raise

    def _place(self, run_id: str) -> str:
        """Address of a run's artifacts; MLflow would look the run up thrice for each of them."""
        if run_id not in self._places:
            self._places[run_id] = self.client.get_run(run_id).info.artifact_uri
        return self._places[run_id]

    def run_of(self, run_id: str) -> Run:
        """A run as MLflow stores it."""
        with translated():
            return self.client.get_run(run_id)

    def tag_run(self, run_id: str, key: str, value: str) -> None:
        """Set a tag of a run."""
        with translated():
            self.client.set_tag(run_id, key, value)

    def log_frame(self, run_id: str, frame: pd.DataFrame, artifact: str) -> None:
        """Store a table as a Parquet artifact of a run."""
        with translated(), tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / artifact
            frame.to_parquet(file, index=False)
            self.client.log_artifact(run_id, str(file))

    def log(self, run_id: str, values: Mapping[str, float], at: pd.Timestamp, step: int) -> None:
        """Add metrics of one moment to a run; repeated values add nothing."""
        metrics = [
            Metric(metric_name(key), float(value), milliseconds(at), step)
            for key, value in values.items()
            if np.isfinite(value)
        ]
        for start in range(0, len(metrics), 1_000):
            self.client.log_batch(run_id, metrics[start : start + 1_000])


def _is_gone(error: Exception) -> bool:
    """Whether MLflow says that an artifact does not exist."""
    answer = getattr(error, "response", None)  # of a server
    return (
        isinstance(error, FileNotFoundError)
        or getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"
        or getattr(answer, "status_code", None) == HTTPStatus.NOT_FOUND
        or "404 Client Error" in str(error)  # MLflow quotes what its proxy of artifacts answered
    )


def _is_here(uri: str) -> bool:
    host = urlsplit(uri).hostname if uri.startswith("http") else None
    return uri.startswith("sqlite") or host in {"localhost", "127.0.0.1", "::1"}


def metric_name(name: str) -> str:
    """A name that MLflow takes for a metric of a column, such as ``psi/age``.

    A name that it would refuse is cut, loses the signs it refuses, and ends in a hash of the whole,
    so that the metrics of two columns never mix.
    """
    taken = re.fullmatch(r"[\w\-. :/]+", name) and posixpath.normpath(name) == name
    if taken and len(name) <= _LONGEST_METRIC:
        return name
    kind, _, column = name.partition("/")
    hashed = hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    kept = re.sub(r"[^\w\-. :]", "_", column)[: _LONGEST_METRIC - len(kind) - len(hashed) - 2]
    return f"{kind}/{kept}-{hashed}"


def milliseconds(at: pd.Timestamp) -> int:
    """A moment in milliseconds since 1970, as MLflow counts time."""
    return int(at.timestamp() * 1_000)
