"""What a model was made with, kept beside it: commit, locked packages, versions."""

import hashlib
import json
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("numpy", "pandas", "pandera", "scikit-learn", "scipy", "skops", "xgboost")
"""Packages whose version changes what a model predicts."""


def requirements() -> list[str]:
    """The installed versions of `PACKAGES`, as pip wants them."""
    return [f"{name}=={version(name)}" for name in PACKAGES]


def lock() -> Path | None:
    """The lock file of this checkout; None where the code is installed without one."""
    path = Path(__file__).parent.parent / "uv.lock"
    return path if path.exists() else None


def describe() -> dict[str, str]:
    """Git commit, SHA-256 of the lock file and versions, as tags of a version."""
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
        [git, "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip()
