"""The version that answers, and the thread that follows the registry's champion."""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

from pipeline.config import Settings
from pipeline.errors import PipelineError, RegistryError, UnavailableError
from pipeline.serving.served_version import ServedVersion

if TYPE_CHECKING:
    from pipeline.registry.versions import Registry

_LOG = logging.getLogger(__name__)


@dataclass
class ServingState:
    """What is served now; one thread changes it, by one reference.

    Attributes
    ----------
    served : ServedVersion or None
        The version that answers; None before there is one.
    since : float or None
        When it was loaded, seconds since 1970.
    problem : str
        Why the registry's champion is not what is served, or not known; empty: it is.
    reachable : bool or None
        Whether the registry answered when it was last asked; None: it is never asked.
    swaps, refusals : int
        Versions that were taken over, and that were not.
    """

    served: ServedVersion | None = None
    since: float | None = None
    problem: str = ""
    reachable: bool | None = None
    swaps: int = 0
    refusals: int = 0

    def take(self, served: ServedVersion) -> None:
        """Let a version answer from now on."""
        self.swaps += self.served is not None
        self.served, self.since = served, time.time()
        _LOG.info("serving %s, version %s", served.name, served.version)


class Follower:
    """A thread that asks the registry for its champion again and again.

    A version is loaded and checked beside the one that answers; if it is refused, that one stays.
    What was served last is remembered on disk, for a start without the registry.

    Parameters
    ----------
    settings : Settings
        The model's.
    champion : ServingState
        What it changes.
    """

    def __init__(self, settings: Settings, champion: ServingState) -> None:
        self._settings, self._champion = settings, champion
        self._last = settings.tracking.folder / "cache" / settings.name / "served.json"
        self._registry: Registry | None = None
        self._now, self._refused = "", ""
        self._stop = Event()
        self._thread = Thread(target=self._follow, name="champion", daemon=True)

    def __enter__(self) -> Self:
        """Take the registry's champion, or what was served last, and follow it from there.

        Raises
        ------
        PipelineError
            If there is neither.
        """
        try:
            self._ask()
        except PipelineError as error:
            self._champion.problem = str(error)
            self._take_last(error)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(self._settings.serving.poll.total_seconds()):
            try:
                self._ask()
            except PipelineError as error:
                self._tell(str(error), refused=not isinstance(error, UnavailableError))
            except Exception as error:  # noqa: BLE001 -- whatever it is, this thread must go on
                _LOG.exception("The registry's champion is not known.")
                self._tell(f"The champion must be loadable. Got {error!r}.", refused=True)

    def _tell(self, problem: str, *, refused: bool) -> None:
        if problem != self._champion.problem:
            _LOG.error("%s", problem)
            self._champion.refusals += refused
        self._champion.problem = problem

    def _ask(self) -> None:
        """Serve the registry's champion, if it is another one than now."""
        from pipeline.registry.versions import Registry  # noqa: PLC0415 -- an exported model needs no MLflow

        try:
            if self._registry is None:
                self._registry = Registry(self._settings)
            found = self._registry.champion()
            self._champion.reachable = True
            if found.run_id == self._now:
                self._champion.problem = ""
                return
            if found.run_id == self._refused:
                return  # the reason stands in `problem`
            folder = self._registry.folder_of(found.number)
        except UnavailableError:
            self._champion.reachable = False
            raise
        self._refused = found.run_id  # unless it loads
        served = ServedVersion.load(folder)
        self._champion.take(served)
        self._champion.problem, self._now, self._refused = "", found.run_id, ""
        self._last.write_text(json.dumps({"run_id": found.run_id}), encoding="utf-8")

    def _take_last(self, error: PipelineError) -> None:
        """Serve what was served last; the error of the registry if there is nothing."""
        try:
            run_id = str(json.loads(self._last.read_text(encoding="utf-8"))["run_id"])
        except (OSError, ValueError, KeyError):
            raise error from None
        _LOG.error("%s Serving what was served last.", error)
        self._champion.take(ServedVersion.load(self._last.parent / run_id))
        self._now = run_id


def exported(folder: Path, champion: ServingState) -> None:
    """Serve an exported folder, which needs no registry.

    Raises
    ------
    RegistryError
        If it is not whole, or predicts differently here.
    """
    if not folder.is_dir():
        message = f"MODEL_DIR must be a folder. Got {str(folder)!r}. Export the champion there."
        raise RegistryError(message)
    champion.take(ServedVersion.load(folder))
