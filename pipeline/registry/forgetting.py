"""Stored versions and batches without the rows of a person, and the record of such requests.

What replaces the files of a version is kept beside the store until it is in place, so that a
process that is killed anywhere leaves what the next one finishes.
"""

import hashlib
import hmac
import json
import os
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from numpy.typing import NDArray

from pipeline.registry.records import BATCHES, PREDICTIONS, SKETCH
from pipeline.registry.tracking import Tracking, translated
from pipeline.registry.versions import DATA, Registry, Version
from pipeline.training.bundle import sha256_of
from pipeline.training.seals import files_of

_REQUEST: Final = "forget."
"""Tags of the registered model that hold requests."""
_EXAMPLES: Final = ("input_example.json", "serving_input_example.json")
"""Files of a version beside its bundle that hold some rows."""
_WHOLE: Final = "sha256"
"""File of a folder that is complete; it holds the hash of the new bundle."""
_OF_BATCHES: Final = {PREDICTIONS: "stored predictions", SKETCH: "sampled rows of batches"}
_COPY: Final = "reference"
"""Folder of a training run that holds its bundle, for people to look at."""
Mask = NDArray[Any]


def record_request(registry: Registry, key: str, reason: str) -> str:
    """Record that a person asked to be forgotten, unless it is; the name of the request.

    The key is not stored: the name is a hash of it under a secret that is kept in the state folder
    alone, so that the key cannot be guessed from MLflow, and a repeated request is recognised.
    """
    name = hmac.new(_secret(registry), key.encode(), hashlib.sha256).hexdigest()[:16]
    if _REQUEST + name not in registry.model_tags():
        _note(registry, name, {"asked": _now(), "reason": reason[:300], "done": ""})
    return name


def record_end(registry: Registry, name: str, removed: Mapping[str, int]) -> dict[str, str]:
    """Record that a request was carried out, and what all its runs removed together."""
    known = json.loads(registry.model_tags()[_REQUEST + name])
    counts = Counter(known.get("removed", {})) + Counter(removed)
    known |= {"done": known["done"] or _now(), "removed": dict(counts)}
    _note(registry, name, known)
    return dict(known)


def _note(registry: Registry, name: str, request: Mapping[str, Any]) -> None:
    registry.tag_model(_REQUEST + name, json.dumps(request))


def _now() -> str:
    return f"{pd.Timestamp.now('UTC'):%Y-%m-%dT%H:%M:%SZ}"


def _secret(registry: Registry) -> bytes:
    """The secret under which keys are hashed; it is made at the first request."""
    path = registry.folder / "forgetting" / "secret"
    path.parent.mkdir(parents=True, exist_ok=True)
    with registry.exclusive("forget-secret"):
        if not path.exists():
            made = path.with_suffix(".partial")
            made.unlink(missing_ok=True)
            with os.fdopen(os.open(made, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            made.replace(path)
    return path.read_bytes()


def forget_in_version(
    registry: Registry,
    version: Version,
    *,
    request: str,
    reason: str,
    rewrite: Callable[[Path], Counter[str]],
    like: Callable[[pd.DataFrame], Mask],
) -> Counter[str]:
    """Store the files of a version again without some rows, and record their new hash.

    Parameters
    ----------
    registry : Registry
        The model's.
    version : Version
        The version.
    request : str
        Name of the request.
    reason : str
        Why, in the words of whoever asked.
    rewrite : callable
        Rewrites a bundle and returns what it removed.
    like : callable
        For each row of a table, the place of a row that it has the values of, or -1.

    Returns
    -------
    Counter
        What was removed now.
    """
    place = registry.folder / "forgetting" / registry.name / version.run_id
    removed: Counter[str] = Counter()
    if not (place / _WHOLE).exists():
        removed = _stage(registry, version, place, rewrite, like)
    if (place / _WHOLE).exists():
        _put(registry, version, place, request=request, reason=reason)
    return removed


def _stage(
    registry: Registry,
    version: Version,
    place: Path,
    rewrite: Callable[[Path], Counter[str]],
    like: Callable[[pd.DataFrame], Mask],
) -> Counter[str]:
    """Write the files of a version that have to change into a folder; nothing if none has to."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for left in [place, *place.parent.glob("tmp*")]:  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as temporary:
        root = registry.fetch(version, Path(temporary) / "files")
        before = {name: (root / name).read_bytes() for name in files_of(root)}
        removed = rewrite(root / DATA)
        removed += _rewrite_examples(root, like)
        changed = [name for name in files_of(root) if (root / name).read_bytes() != before[name]]
        if not changed:
            return removed
        whole = Path(temporary) / "whole"
        for name in changed:
            (whole / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, whole / name)
        (whole / _WHOLE).write_text(sha256_of(root / DATA))
        whole.rename(place)
    return removed


def _rewrite_examples(root: Path, like: Callable[[pd.DataFrame], Mask]) -> Counter[str]:
    """Remove a person's rows from the examples that MLflow shows beside a model."""
    removed: Counter[str] = Counter()
    for path in [root / name for name in _EXAMPLES if (root / name).exists()]:
        stored = json.loads(path.read_text())
        table = stored.get("dataframe_split", stored)
        own = like(pd.DataFrame(table["data"], columns=table["columns"])) >= 0
        if own.any():
            table["data"] = [
                row for row, is_own in zip(table["data"], own, strict=True) if not is_own
            ]
            path.write_text(json.dumps(stored))
            removed["example rows"] += int(own.sum())
    return removed


def _put(registry: Registry, version: Version, place: Path, *, request: str, reason: str) -> None:
    """Replace the files of a version by those of a complete folder, and record their hash."""
    sha256 = (place / _WHOLE).read_text()
    with translated():
        uri = registry.client.get_model_version_download_uri(registry.name, str(version.number))
        files = get_artifact_repository(uri)
        # The client's own `log_artifact` remembers where a run of this id was first.
        of_run = get_artifact_repository(registry.client.get_run(version.run_id).info.artifact_uri)
        for name in files_of(place):
            if name == _WHOLE:
                continue
            folder, file = Path(name).parent, str(place / name)
            files.log_artifact(file, None if folder == Path() else folder.as_posix())  # type: ignore[no-untyped-call]
            if folder.is_relative_to(DATA):
                copy = (_COPY / folder.relative_to(DATA)).as_posix()
                of_run.log_artifact(file, copy)  # type: ignore[no-untyped-call]
    if version.tags["sha256"] != sha256:
        entry = {"at": _now(), "reason": reason[:300], "request": request}
        entry |= {"before": version.tags["sha256"], "after": sha256}
        log = json.dumps([*json.loads(version.tags.get("forgotten", "[]")), entry])
        registry.tag(version.number, {"forgotten": log, "sha256": sha256})
    cached = registry.folder / "cache" / registry.name / version.run_id
    shutil.rmtree(cached, ignore_errors=True)
    (place / _WHOLE).unlink()
    shutil.rmtree(place)


def forget_in_batches(
    tracking: Tracking,
    *,
    has_key: Callable[[pd.Series], Mask],
    like: Callable[[pd.DataFrame], Mask],
) -> Counter[str]:
    """Remove a person's rows from what is stored of batches: predictions, and sampled rows."""
    removed: Counter[str] = Counter()
    for run in tracking.search(BATCHES):
        for artifact, kind in _OF_BATCHES.items():
            rows = tracking.read_frame(run.info.run_id, artifact)
            if rows is None:
                continue
            own = has_key(rows["key"]) if artifact == PREDICTIONS else like(rows) >= 0
            if own.any():
                tracking.log_frame(run.info.run_id, rows[~own], artifact)
                removed[kind] += int(own.sum())
    return removed
