"""The environment that a model is trained in: git commit, lock file, package versions."""

import hashlib
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

from pipeline.training import golden

_ROOT = Path(__file__).parents[2]


def requirements() -> list[str]:
    """List the packages whose versions change what a model predicts, as pip requirements."""
    return [f"{name}=={version}" for name, version in golden.installed().items()]


def lock() -> Path | None:
    """Find the lock file of this checkout; None where Holdfast is installed without one."""
    path = _ROOT / "uv.lock"
    return path if path.exists() else None


def describe() -> dict[str, str]:
    """Git commit, SHA-256 of the lock file and package versions, as tags of a version."""
    path = lock()
    hashed = "unknown" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "git_commit": _commit() or "unknown",
        "lock_sha256": hashed,
        "packages": json.dumps(golden.installed()),
    }


@cache
def judging() -> str:
    """SHA-256 of what a judgement follows from beside the data: this code and its packages."""
    hashed = hashlib.sha256(json.dumps(golden.installed()).encode())
    for path in sorted((_ROOT / "pipeline").rglob("*.py")):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    asked = subprocess.run(  # noqa: S603 -- git, with fixed arguments
        [git, "rev-parse", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()
