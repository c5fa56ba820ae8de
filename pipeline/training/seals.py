"""Seals of stored folders: the SHA-256 of every file, compared before any of them is parsed.

A library that parses a damaged file may end the process in place of an error.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.errors import RegistryError, first_line

SEAL = "sha256.json"
"""File of a folder that holds the SHA-256 of each other file, by its path."""
_OURS = (".json", ".parquet")
_SUMS = TypeAdapter(dict[str, str])


def files_of(folder: Path) -> list[str]:
    """Paths of all files below a folder, sorted.

    Raises
    ------
    RegistryError
        If one of them is a link, or neither a file nor a folder: it could lead anywhere.
    """
    found = []
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            message = f"{path} must be a plain file. Got a link or a device. Remove it."
            raise RegistryError(message)
        if path.is_file():
            found.append(path.relative_to(folder).as_posix())
    return sorted(found)


def seal(folder: Path) -> None:
    """Write the SHA-256 of the files of a folder into it, without foreign files at its top."""
    ours = [name for name in files_of(folder) if "/" in name or name.endswith(_OURS)]
    sums = {name: _sha256(folder / name) for name in ours if name != SEAL}
    (folder / SEAL).write_text(json.dumps(sums, indent=1), encoding="utf-8")


def check_seal(folder: Path) -> None:
    """Compare the files of a folder with its seal.

    Files that were put beside the sealed ones are allowed at the top only, where nothing looks for
    a file that it does not know.

    Raises
    ------
    RegistryError
        If a file was changed, removed, or added to a folder within, or there is no seal.
    """
    try:
        found = set(files_of(folder))  # before any is opened: a pipe would never end
        sums = _SUMS.validate_json((folder / SEAL).read_bytes())
        added = {name for name in found - set(sums) if "/" in name}
        changed = {name for name in sums if name in found and _sha256(folder / name) != sums[name]}
    except (OSError, ValueError) as error:
        message = (
            f"{folder / SEAL} must hold the SHA-256 of the files beside it. "
            f"Got: {first_line(error)}. {_CURE}"
        )
        raise RegistryError(message) from error
    kinds = (("changed", changed), ("removed", set(sums) - found), ("added", added))
    differences = [f"{kind}: {_listed(names)}" for kind, names in kinds if names]
    if differences:
        message = (
            f"The files of {folder} must be those that were stored. "
            f"Got {'; '.join(differences)}. {_CURE}"
        )
        raise RegistryError(message)


_CURE = "Export the model again; of a cache, remove this folder, and it is fetched again."


def _listed(names: Iterable[str]) -> str:
    first, *more = sorted(names)
    return f"{first[:100]} and {len(more)} more" if more else first[:100]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_sealed(folder: Path) -> bool:
    """Whether a folder holds the files of its seal, as they were."""
    try:
        check_seal(folder)
    except RegistryError:
        return False
    return True
