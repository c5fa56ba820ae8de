"""Delete what is old and needed by no decision: files of batches, refused rows, pages, captures."""

from typing import Any

import pandas as pd

from flows.paging import pager_of
from flows.settle import recent_history, rows_name
from flows.steps import opened, quarantine_folder
from pipeline.config import Settings
from pipeline.registry import records
from pipeline.registry.history import History
from pipeline.registry.pruning import prune_batches
from pipeline.registry.versions import Registry
from pipeline.reporting import outbox, written_pages
from pipeline.serving import retention


def prune(conf: str, *, apply: bool = False) -> dict[str, Any]:
    """Find what is old, or delete it; decisions, metrics, tags and versions are kept for good.

    Parameters
    ----------
    conf : str
        The model's YAML file.
    apply : bool
        Whether to delete what is found.

    Returns
    -------
    dict
        Whether it was ``applied``, the bytes that are ``freed`` by kind, and the addresses that
        were ``unreached``, from which MLflow cannot delete.
    """
    settings, registry = opened(conf)
    now, kept = pd.Timestamp.now("UTC").tz_localize(None), settings.retention
    with registry.exclusive("monitor"):
        needed = _needed(settings, registry)
        files, unreached = prune_batches(
            registry, before=now - kept.batches, needed=needed, delete=apply
        )
        refused = _refused(settings, needed, before=now - kept.quarantine, delete=apply)
    pages = written_pages.old(
        pager_of(settings).file,
        settings.name,
        before=now.timestamp() - max(kept.pages.total_seconds(), outbox.KEPT_UP),
        delete=apply,
    )
    captured = retention.overdue(
        settings.captures,
        before=(now - settings.serving.keep - pd.Timestamp(0)) // pd.Timedelta("1us"),
        max_bytes=settings.serving.max_capture_bytes,
        delete=apply,
    )
    freed = {
        "files of batches": files,
        "refused rows": refused,
        "pages": pages,
        "captures": captured,
    }
    return {"applied": apply, "freed": freed, "unreached": unreached}


def _needed(settings: Settings, registry: Registry) -> set[str]:
    """Batches that a decision may read, wait for an answer, or were accepted by people."""
    history = records.read_history(registry)
    recent: History = recent_history(settings, registry)
    asked = {batch.name for batch in history.batches if batch.is_open or batch.answer == "accept"}
    return asked | {batch.name for batch in recent.batches}


def _refused(settings: Settings, needed: set[str], *, before: pd.Timestamp, delete: bool) -> int:
    """Bytes of files of refused rows that were written before a moment."""
    freed, names = 0, tuple(rows_name(name, reading=1) for name in needed)
    for path in sorted(quarantine_folder(settings).glob("*.parquet")):
        found = path.stat()
        is_needed = path.stem.startswith(names) if names else False
        if is_needed or found.st_mtime >= before.timestamp():
            continue
        freed += found.st_size
        if delete:
            path.unlink()
    return freed
