"""The environment that a model is trained in: git commit, lock file, package versions."""

import hashlib
import json
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("numpy", "pandas", "pandera", "scikit-learn", "scipy", "skops", "xgboost")
"""Packages whose version changes what a model predicts."""
_ROOT = Path(__file__).parents[2]


def requirements() -> list[str]:
    """List the installed versions of `PACKAGES` as pip requirements."""
    return [f"{name}=={version(name)}" for name in PACKAGES]


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
        "packages": json.dumps(dict(item.split("==") for item in requirements())),
    }


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    asked = subprocess.run(  # noqa: S603 -- git, with fixed arguments
        [git, "rev-parse", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()
