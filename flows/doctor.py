"""List what is missing or odd in a model's state, each with its cure, without changing anything."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from flows.retrains import outstanding
from flows.steps import opened
from pipeline.config import Settings
from pipeline.errors import PipelineError, UnavailableError
from pipeline.registry import health, records
from pipeline.registry.health import Finding, finding_of
from pipeline.registry.versions import Registry


def doctor(conf: str) -> list[dict[str, Any]]:
    """What is missing or odd, as ``what`` and ``cure``; empty: nothing is."""
    settings, registry = opened(conf)
    found = [*_of_state(settings), *_of_store(settings, registry)]
    return [asdict(finding) for finding in found]


def _of_state(settings: Settings) -> Iterator[Finding]:
    """Findings of the folder of all state on disk."""
    state = settings.tracking.folder
    for folder in (state, *(state / name for name in ("cache", "quarantine", "locks"))):
        if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            what = "a file" if not folder.is_dir() else "not writable"
            yield Finding(f"{folder} must be a writable folder. It is {what}.", "Mend it.")


def _of_store(settings: Settings, registry: Registry) -> Iterator[Finding]:
    try:
        history = records.read_history(registry)
        yield from health.findings(registry, history, settings.monitoring.batch)
        asked = outstanding(registry, history)
    except UnavailableError:
        raise
    except PipelineError as error:
        yield finding_of(str(error))
        return
    if asked is not None:
        yield Finding(
            f"The retrain that episode {asked['episode']} asked for has no version yet.",
            f"Run `holdfast monitor {settings.conf}`, which sends it again unless it is running.",
        )
