"""The served version, and the thread that replaces it when the registry has a new champion."""

import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

import pandas as pd

from pipeline import config
from pipeline.errors import PipelineError, RegistryError, UnavailableError
from pipeline.redaction import redacted
from pipeline.serving.served_version import ServedVersion

if TYPE_CHECKING:
    from pipeline.registry.versions import Registry

_LOG = logging.getLogger(__name__)


@dataclass
class ServingState:
    """The version that is served now, and the state of following the registry.

    Only one thread changes it; a request reads `served` once and keeps that version.

    Attributes
    ----------
    served : ServedVersion or None
        The version that answers; None before the first one is loaded.
    since : float or None
        When that version was loaded, seconds since 1970.
    problem : str
        Why the registry's champion is not served, or not known; empty while it is served.
    reachable : bool or None
        Whether the registry answered when last asked; None for an exported model.
    monitored : float or None
        When the monitor last ran to its end, seconds since 1970; None: it never did.
    swaps : int
        Times that a new champion replaced the served version.
    refusals : int
        Times that a champion could not be served.
    """

    served: ServedVersion | None = None
    since: float | None = None
    problem: str = ""
    reachable: bool | None = None
    monitored: float | None = None
    swaps: int = 0
    refusals: int = 0

    def swap(self, served: ServedVersion) -> None:
        """Serve this version from now on."""
        self.swaps += self.served is not None
        self.served, self.since = served, time.time()
        _LOG.info("serving %s, version %s", served.name, served.version)


class Follower:
    """Thread that polls the registry for its champion and serves it.

    A new champion is loaded and checked while the served version keeps answering; if the new one
    is refused, the served version stays. The last served version is remembered on disk, so that a
    server can start while the registry is down.

    Parameters
    ----------
    name : str
        Name of the model.
    state : ServingState
        Holds the served version; this thread changes it.
    tracking : Tracking
        Where the registry is.
    poll : Timedelta
        How often the registry is asked.
    conf : str
        The model's file, as messages name it.
    """

    def __init__(
        self,
        name: str,
        state: ServingState,
        *,
        tracking: config.Tracking,
        poll: pd.Timedelta,
        conf: str = "",
    ) -> None:
        self._state, self._poll = state, poll.total_seconds()
        self._registry_arguments = (name, tracking, conf)
        self._last = tracking.folder / "cache" / name / "served.json"
        self._registry: Registry | None = None
        self._served_files, self._refused_files = "", ""
        self._stop = Event()
        self._thread = Thread(target=self._follow, name="champion", daemon=True)

    def __enter__(self) -> Self:
        """Serve the registry's champion or else the last served version, and start to poll.

        Raises
        ------
        PipelineError
            If neither can be served.
        """
        try:
            self._ask()
        except PipelineError as error:
            self._state.problem = str(error)
            self._serve_last(error)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(self._poll):
            try:
                self._ask()
            except PipelineError as error:
                self._note(str(error), refused=not isinstance(error, UnavailableError))
            except Exception as error:  # noqa: BLE001 -- whatever it is, this thread must go on
                _LOG.exception("Loading the champion failed.")
                self._note(redacted(f"Loading the champion failed: {error!r}."), refused=True)

    def _note(self, problem: str, *, refused: bool) -> None:
        """Log and count a problem when it is new, so that polling does not repeat it."""
        if problem != self._state.problem:
            _LOG.error("%s", problem)
            self._state.refusals += refused
        self._state.problem = problem

    def _ask(self) -> None:
        """Serve the registry's champion, unless it is served already or was refused before."""
        from pipeline.registry.versions import Registry  # noqa: PLC0415 -- an exported model needs no MLflow

        try:
            if self._registry is None:
                self._registry = Registry(*self._registry_arguments)
            found = self._registry.champion()
            self._state.reachable = True
            self._state.monitored = self._registry.monitored
            # A version whose files were rewritten, because a person is forgotten, is loaded anew.
            now = f"{found.run_id} {found.tags['sha256']}"
            if now == self._served_files:
                self._state.problem = ""
                return
            if now == self._refused_files:
                return  # `problem` still holds the reason
            folder = self._registry.folder_of(found.number)
        except UnavailableError:
            self._state.reachable = False
            raise
        self._refused_files = now  # until it has loaded
        served = ServedVersion.load(folder)
        self._state.swap(served)
        self._state.problem, self._served_files, self._refused_files = "", now, ""
        last = {"run_id": found.run_id, "sha256": found.tags["sha256"]}
        partial = self._last.with_suffix(f".{os.getpid()}")  # other workers write it as well
        partial.write_text(json.dumps(last), encoding="utf-8")
        partial.replace(self._last)

    def _serve_last(self, error: PipelineError) -> None:
        """Serve the last served version; raise the registry's error if there is none."""
        try:
            last = json.loads(self._last.read_text(encoding="utf-8"))
            run_id = str(last["run_id"])
        except (OSError, ValueError, KeyError):
            raise error from None
        _LOG.error("%s Serving the last served version.", error)
        self._state.swap(ServedVersion.load(self._last.parent / run_id))
        self._served_files = f"{run_id} {last.get('sha256', '')}"


def load_exported(folder: Path, state: ServingState) -> None:
    """Serve an exported folder, which needs no registry.

    Raises
    ------
    RegistryError
        If the folder is incomplete, or its model predicts differently here.
    """
    if not folder.is_dir():
        message = (
            f"MODEL_DIR must be a folder. Got {str(folder)!r}. Write one with `holdfast export`."
        )
        raise RegistryError(message)
    state.swap(ServedVersion.load(folder))
