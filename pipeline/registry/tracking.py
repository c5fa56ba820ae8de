"""One model's MLflow experiment: its address, its runs, and MLflow's errors in our words.

A run is found by its tags and continued, and metrics carry the time that they are of, so that
doing anything twice adds nothing.
"""

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
import numpy as np
import pandas as pd
import sqlalchemy as sa
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException, RestException

from pipeline.config import Settings
from pipeline.errors import RegistryError, UnavailableError
from pipeline.registry import locks


@contextmanager
def translated() -> Iterator[None]:
    """Turn MLflow's and the database's errors into ours; none of theirs goes further."""
    try:
        yield
    except RestException as error:
        message = f"MLflow must accept the call. Got: {_first_line(error)}. Check the registry."
        raise RegistryError(message) from error
    except (MlflowException, sa.exc.SQLAlchemyError, OSError) as error:
        text = _first_line(error)
        away = "Connection" in text or "Max retries" in text or "locked" in text
        if away:
            message = f"MLflow must answer. Got: {text}. Start it, or set MLFLOW_TRACKING_URI."
            raise UnavailableError(message) from error
        message = f"MLflow must have a whole store. Got: {text}. Restore it or remove it."
        raise RegistryError(message) from error


@contextmanager
def _environment_kept(*names: str) -> Iterator[None]:
    """MLflow writes its address to the environment, where the next model would find it."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")


class Tracking:
    """One model's experiment.

    Attributes
    ----------
    name : str
        Of the experiment and the registered model.
    conf : str
        The model's file, as it was named.
    folder : Path
        The one folder of all state on disk.
    uri : str
        MLflow's address.
    locks_count : bool
        Whether its locks keep all apart that use the store, on whatever host.
    """

    def __init__(self, settings: Settings) -> None:
        self.name, self.conf = settings.name, settings.conf
        self.folder = settings.tracking.folder.resolve()
        local = f"sqlite:///{self.folder / 'mlflow.db'}"
        self.uri = settings.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or local
        kept = settings.tracking.locks
        database = self.uri if self.uri.startswith("postgresql") else None
        self._locks = database if kept is None else kept.get_secret_value()
        # A store that others cannot reach is used by the processes of this host alone.
        self.locks_count = bool(self._locks) or _is_here(self.uri)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.ERROR)

    def exclusive(
        self, what: str, patience: float = locks.PATIENCE
    ) -> AbstractContextManager[None]:
        """A lock of this model: `what` happens once at a time."""
        name, folder = f"{self.name}-{what}", self.folder / "locks"
        return locks.exclusive(name, folder=folder, database=self._locks, patience=patience)

    @cached_property
    def client(self) -> mlflow.MlflowClient:
        """MLflow's client, its global address set, because sources resolve through it."""
        with translated(), _environment_kept("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            if self.uri.startswith("sqlite"):
                self._make_store()
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            client = mlflow.MlflowClient(self.uri)
            client.search_experiments(max_results=1)
        return client

    def _make_store(self) -> None:
        """Make SQLite's file where there is none, under another name until it is whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        store = Path(sa.make_url(self.uri).database or self.folder)
        if store.exists():
            return
        with self.exclusive("store"), tempfile.TemporaryDirectory(dir=store.parent) as folder:
            if not store.exists():
                made = Path(folder) / store.name
                mlflow.MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
                made.rename(store)

    @cached_property
    def experiment(self) -> str:
        """Id of the experiment, made when it is not there."""
        with translated():
            found = self.client.get_experiment_by_name(self.name)
            if found is not None:
                return str(found.experiment_id)
            local = not self.uri.startswith("http")
            place = (self.folder / "artifacts" / self.name).as_uri() if local else None
            return str(self.client.create_experiment(self.name, artifact_location=place))

    def search(self, condition: str) -> list[Run]:
        """Runs that meet a condition, the latest first."""
        runs: list[Run] = []
        token: str | None = None
        with translated():
            experiment = self.experiment
            while True:
                page = self.client.search_runs(
                    [experiment],
                    condition,
                    max_results=1_000,
                    order_by=["attributes.start_time DESC"],
                    page_token=token,
                )
                runs += page
                token = page.token
                if not token:
                    return runs

    def run(self, tags: Mapping[str, str], name: str, start: pd.Timestamp) -> str:
        """The run that carries these tags, made when it is not there."""
        condition = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
        found = self.search(condition)
        if found:
            return str(found[-1].info.run_id)
        with translated():
            made = self.client.create_run(
                self.experiment,
                start_time=milliseconds(start),
                tags={**tags, "mlflow.runName": name},
            )
        return str(made.info.run_id)

    def read(self, run_id: str, artifact: str) -> Any:
        """A JSON artifact of a run."""
        with translated():
            return mlflow.artifacts.load_dict(f"runs:/{run_id}/{artifact}")

    def log(self, run_id: str, values: Mapping[str, float], at: pd.Timestamp, step: int) -> None:
        """Add metrics of one moment to a run; the same again add nothing."""
        metrics = [
            Metric(metric_name(key), float(value), milliseconds(at), step)
            for key, value in values.items()
            if np.isfinite(value)
        ]
        for start in range(0, len(metrics), 1_000):
            self.client.log_batch(run_id, metrics[start : start + 1_000])


def _is_here(uri: str) -> bool:
    host = urlsplit(uri).hostname if uri.startswith("http") else None
    return uri.startswith("sqlite") or host in {"localhost", "127.0.0.1", "::1"}


def metric_name(name: str) -> str:
    """A column may be called anything, a metric may not."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def milliseconds(at: pd.Timestamp) -> int:
    """A moment as MLflow counts."""
    return int(at.timestamp() * 1_000)
