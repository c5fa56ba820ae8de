"""Everything of a version in one folder, as it is registered, served and compared with."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import RegistryError
from pipeline.reference import Reference
from pipeline.reference.serialised import reference_from_dict, reference_to_dict
from pipeline.training import parity
from pipeline.training.golden import Golden
from pipeline.training.model import Model, Predictions
from pipeline.training.predictions import (
    BASELINE,
    PREDICTION,
    ROW_LOSS,
    halves_of,
    predict_by_halves,
)
from pipeline.training.seals import files_of

MANIFEST = "manifest.json"
HALVES = "halves"
"""Folder of the half fits in that of a bundle."""
TARGETS, LOSSES, HOLDOUT = "targets.json", "baseline.json", "holdout"
_FORMER = {"prediction": PREDICTION, "baseline": BASELINE, "loss": ROW_LOSS}
"""Columns of held-out rows in versions of before."""


def sha256_of(folder: Path) -> str:
    """Compute the SHA-256 of all files of a folder and their names."""
    whole = hashlib.sha256()
    for name in sorted(files_of(folder), key=Path):
        content = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        whole.update(f"{name} {content}\n".encode())
    return whole.hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A version with all that is needed to serve and to monitor it.

    Attributes
    ----------
    model : Model
        The fitted model.
    golden : Golden
        Rows with the predictions that the model made of them when it was trained.
    reference : Reference
        Description of its training rows.
    heldout : DataFrame
        Key, time and target of the held-out rows, with `PREDICTION`, `BASELINE` and `ROW_LOSS`.
    manifest : dict
        Name, training window, environment, importance and ranges of columns.
    halves : tuple of Model
        The two models, each fitted on half of the rows, that predicted the rows of the reference;
        empty where `model` itself did.
    targets : Reference or None
        Description of the labels beside their predictions; None in a version of before.
    baseline : dict or None
        Losses of the half fits on the rows that they had not seen, as the monitor stores them;
        None without half fits, and in a version of before.
    holdout : Golden or None
        The newest held-out rows with the predictions of the model; None where a column is private,
        and in a version of before.
    """

    model: Model
    golden: Golden
    reference: Reference
    heldout: pd.DataFrame
    manifest: dict[str, Any]
    halves: tuple[Model, ...] = ()
    targets: Reference | None = None
    baseline: dict[str, Any] | None = None
    holdout: Golden | None = None

    def predict_as_reference(self, rows: pd.DataFrame, keys: pd.Series) -> Predictions:
        """Predict rows as the rows of the reference were predicted, for a comparison with these.

        The model was fitted on all rows of the reference and predicts them otherwise than any
        other row. The two half fits predict a row of the reference that they have not seen and a
        live row alike, so that without a change both sets of predictions have one distribution.

        Parameters
        ----------
        rows : DataFrame
            Valid rows.
        keys : Series
            Their keys, by which one of the two models is drawn for each row.
        """
        if not self.halves or rows.empty:
            return self.model.predict(rows)
        return predict_by_halves(self.halves, rows, halves_of(keys))

    def save(self, folder: Path, *, sample: pd.DataFrame) -> None:
        """Write all parts into a folder, with a uniform sample of the training rows."""
        self.model.save(folder / "model")
        for place, half in enumerate(self.halves):
            half.save(folder / HALVES / str(place))
        self.golden.save(folder / "golden")
        if self.holdout is not None:
            self.holdout.save(folder / HOLDOUT)
        (folder / "reference.json").write_text(json.dumps(reference_to_dict(self.reference)))
        if self.targets is not None:
            (folder / TARGETS).write_text(json.dumps(reference_to_dict(self.targets)))
        if self.baseline is not None:
            (folder / LOSSES).write_text(json.dumps(self.baseline))
        self.heldout.to_parquet(folder / "heldout.parquet")
        sample.to_parquet(folder / "sample.parquet")
        (folder / MANIFEST).write_text(json.dumps(self.manifest, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Read a folder that `save` wrote, and replay the golden batch.

        Raises
        ------
        RegistryError
            If a part is missing or damaged, or the model encodes or predicts the golden rows
            differently than at training.
        """
        try:
            reference = _read_reference(folder / "reference.json")
            known = (folder / TARGETS).is_file()
            targets = _read_reference(folder / TARGETS) if known else None
            known = (folder / LOSSES).is_file()
            baseline = json.loads((folder / LOSSES).read_text()) if known else None
            heldout = _read_heldout(folder / "heldout.parquet")
            manifest = json.loads((folder / MANIFEST).read_text())
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            got = next(iter(str(error).splitlines()), type(error).__name__)
            message = f"The version in {folder} is damaged or incomplete ({got}). Train it again."
            raise RegistryError(message) from error
        model, golden = Model.load(folder / "model"), Golden.load(folder / "golden")
        parity.replay(model, golden)
        halves = tuple(Model.load(path) for path in sorted((folder / HALVES).glob("*")))
        kept = folder / HOLDOUT
        holdout = Golden.load(kept) if kept.is_dir() else None
        return cls(model, golden, reference, heldout, manifest, halves, targets, baseline, holdout)


def _read_heldout(path: Path) -> pd.DataFrame:
    heldout = pd.read_parquet(path)
    return heldout if PREDICTION in heldout else heldout.rename(columns=_FORMER)


def _read_reference(path: Path) -> Reference:
    return reference_from_dict(json.loads(path.read_text()))
