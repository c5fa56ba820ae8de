"""List what is missing or odd in a model's state, each with its cure, without changing anything."""

import logging
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from flows.paging import pager_of
from flows.retrains import outstanding
from flows.steps import opened
from pipeline.config import Settings
from pipeline.errors import PipelineError, RegistryError, UnavailableError, trouble
from pipeline.registry import health, records
from pipeline.registry.health import Finding, finding_of
from pipeline.registry.versions import Registry
from pipeline.reporting import outbox

_LOG = logging.getLogger("command")


def doctor(conf: str) -> list[dict[str, Any]]:
    """What is missing or odd, as ``what`` and ``cure``; empty: nothing is."""
    settings, registry = opened(conf)
    found = [*_of_state(settings), *_of_store(settings, registry)]
    # The store may be hindered by what was found of its folder.
    return list({finding.what: asdict(finding) for finding in reversed(found)}.values())[::-1]


def _of_state(settings: Settings) -> Iterator[Finding]:
    """Findings of the folder of all state on disk."""
    state = settings.tracking.folder
    folders = ("cache", "quarantine", "locks", "logs", "artifacts")
    for found in dict.fromkeys(trouble(folder) for folder in (state / name for name in folders)):
        if found is not None:
            yield Finding(*found)
    try:
        outbox.check(pager_of(settings).file)
    except RegistryError as error:
        yield finding_of(str(error))


def _of_store(settings: Settings, registry: Registry) -> Iterator[Finding]:
    try:
        history = records.read_history(registry)
        yield from health.findings(registry, history, settings.monitoring.batch)
        asked = outstanding(registry, history)
    except UnavailableError:
        raise
    except PipelineError as error:
        _LOG.info("The store cannot be read.", exc_info=True)
        yield finding_of(str(error))
        return
    if asked is not None:
        yield Finding(
            f"The retrain that episode {asked['episode']} asked for has no version yet.",
            f"Run `holdfast monitor {settings.conf}`, which sends it again unless it is running.",
        )
