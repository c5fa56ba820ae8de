"""Environments of the newest allowed packages, made by uv in a folder that is thrown away."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import pipeline
from pipeline.errors import RegistryError, UnavailableError, first_line
from pipeline.training.golden import PACKAGES

CODE: Final = Path(pipeline.__file__).parent
PROJECT: Final = CODE.parent / "pyproject.toml"
DIRECT: Final = (*PACKAGES, "pyarrow", "pydantic", "pydantic-settings", "pyyaml")
"""Packages that read, fit and predict; what they need comes with them."""
_CUDA: Final = "nvidia-nccl-cu12; sys_platform == 'never'\n"
"""The CUDA runtime that XGBoost asks for is 300 MB; what is tried here needs none."""
Versions = dict[str, str]
_PIN: Final = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)


def here() -> Versions:
    """Versions of all packages of this environment, by their canonical names."""
    found = {one.metadata["Name"]: one.version for one in metadata.distributions()}
    return {_canonical(name): version for name, version in found.items() if name}


def newest(folder: Path) -> Versions:
    """Newest versions of all packages that the project's ranges allow.

    Raises
    ------
    UnavailableError
        If uv is missing or finds none.
    """
    wanted = folder / "wanted.txt"
    wanted.write_text("\n".join(_requirements()))
    return _pins(_compiled(folder, wanted))


def small(folder: Path, allowed: Mapping[str, str]) -> Versions:
    """The packages of `DIRECT` and what they need, in the versions that are allowed."""
    wanted, limits = folder / "direct.txt", folder / "limits.txt"
    wanted.write_text("\n".join(DIRECT))
    limits.write_text("\n".join(_pinned(allowed)))
    return _pins(_compiled(folder, wanted, "--constraints", str(limits)))


class Scratch:
    """An environment in a folder; `install` changes it and `tried` runs our code in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"
        (folder / "code").mkdir()
        (folder / "code" / "pipeline").symlink_to(CODE)
        uv(folder, "venv", "--python", sys.executable, str(folder / "venv"))

    def install(self, versions: Mapping[str, str]) -> None:
        """Let the environment hold these packages and no others.

        Raises
        ------
        UnavailableError
            If uv cannot get one of them.
        """
        pins = self.folder / "pins.txt"
        pins.write_text("\n".join(_pinned(versions)))
        uv(self.folder, "pip", "sync", "--python", str(self.python), str(pins))

    def tried(self, job: Path) -> dict[str, Any]:
        """Try the versions and the training of a folder in it.

        Raises
        ------
        RegistryError
            If our code does not run there.
        """
        return tried(self.python, self.folder / "code", job)


def tried(python: Path, code: Path, job: Path) -> dict[str, Any]:
    """Try the versions and the training of a folder with a Python that has the packages.

    Parameters
    ----------
    python : Path
        The interpreter.
    code : Path
        Folder of the package `pipeline`; functions that a YAML file names come from this one.
    job : Path
        As `elsewhere.prepare` wrote it.

    Raises
    ------
    RegistryError
        If our code does not run there.
    """
    kept = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    paths = os.pathsep.join([str(code), str(Path.cwd())])
    command = [str(python), "-P", "-m", "pipeline.training.elsewhere", str(job)]
    done = subprocess.run(  # noqa: S603 -- our own module
        command, env=kept | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = next(iter(reversed(done.stderr.strip().splitlines())), "it said nothing")
        message = f"Holdfast does not run with these packages ({said[:200].rstrip('.')})."
        raise RegistryError(message)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def uv(folder: Path, *arguments: str) -> str:
    """What uv prints, run in a folder outside of the project.

    Raises
    ------
    UnavailableError
        If uv is missing or fails.
    """
    found = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if found is None:
        message = "upgrade-check needs uv, which is not installed. Install it: `pip install uv`."
        raise UnavailableError(message)
    done = subprocess.run(  # noqa: S603 -- uv, with our own arguments
        [found, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        message = (
            f"uv cannot make an environment of the newest packages ({_reason(done.stderr)}). "
            "Check the network and the ranges of pyproject.toml, and retry."
        )
        raise UnavailableError(message)
    return done.stdout


def _reason(said: str) -> str:
    """The innermost cause that uv named, in one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    causes = [line for line in lines if re.match(r"(cause|caused by|error)", line, re.IGNORECASE)]
    return first_line(RuntimeError(causes[-1] if causes else "it said nothing"))


def _compiled(folder: Path, wanted: Path, *more: str) -> str:
    overrides = folder / "overrides.txt"
    overrides.write_text(_CUDA)
    command = ("pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python")
    given = (sys.executable, "--overrides", str(overrides), *more, str(wanted))
    return uv(folder, *command, *given)


def _requirements() -> list[str]:
    """What the project needs, with its ranges: of the checkout, else as it was installed."""
    if PROJECT.is_file():
        listed: Iterable[str] = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    else:
        listed = metadata.requires("holdfast") or ()
    return [one for one in listed if "extra ==" not in one]


def _pins(compiled: str) -> Versions:
    return {_canonical(name): version for name, version in _PIN.findall(compiled)}


def _pinned(versions: Mapping[str, str]) -> list[str]:
    return [f"{name}=={version}" for name, version in versions.items()]


def _canonical(name: str) -> str:
    """The one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
