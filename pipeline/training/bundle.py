"""All of a version in one folder: what is registered, served and compared against."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import RegistryError
from pipeline.reference import Reference
from pipeline.training import parity
from pipeline.training.model import Model
from pipeline.training.parity import Golden

MANIFEST = "manifest.json"


def sha256_of(folder: Path) -> str:
    """SHA-256 of all files of a folder, with their names."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            whole.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return whole.hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A version as it travels.

    Attributes
    ----------
    model : Model
        The fitted model.
    golden : Golden
        Its golden batch, which it predicts as it did at training.
    reference : Reference
        Its training rows, described.
    heldout : DataFrame
        Key, time, target, ``prediction``, ``baseline`` and ``loss`` of the held-out rows.
    manifest : dict
        Name, window and environment.
    """

    model: Model
    golden: Golden
    reference: Reference
    heldout: pd.DataFrame
    manifest: dict[str, Any]

    def save(self, folder: Path, *, sample: pd.DataFrame) -> None:
        """Write everything, with a uniform sample of the training rows for later tests."""
        self.model.save(folder / "model")
        self.golden.save(folder / "golden")
        (folder / "reference.json").write_text(json.dumps(self.reference.to_dict()))
        self.heldout.to_parquet(folder / "heldout.parquet")
        sample.to_parquet(folder / "sample.parquet")
        (folder / MANIFEST).write_text(json.dumps(self.manifest, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Read what `save` wrote, and replay the golden batch.

        Raises
        ------
        RegistryError
            If a part is missing or broken, or the golden batch comes out differently.
        """
        try:
            reference = Reference.from_dict(json.loads((folder / "reference.json").read_text()))
            heldout = pd.read_parquet(folder / "heldout.parquet")
            manifest = json.loads((folder / MANIFEST).read_text())
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            got = next(iter(str(error).splitlines()), type(error).__name__)
            message = f"The version in {folder} must be whole. Got: {got}. Train it again."
            raise RegistryError(message) from error
        model, golden = Model.load(folder / "model"), Golden.load(folder / "golden")
        parity.replay(model, golden)
        return cls(model, golden, reference, heldout, manifest)
