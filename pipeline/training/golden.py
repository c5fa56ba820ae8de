"""Golden rows as they are stored, with what a model made of them at training."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.columns import Matrix
from pipeline.errors import RegistryError, first_line
from pipeline.training.model import Predictions
from pipeline.training.predictions import as_cells, of_cells

PACKAGES = ("numpy", "pandas", "pandera", "scikit-learn", "scipy", "skops", "xgboost")
"""Packages whose version changes what a model predicts."""
_PREDICTION = "holdfast-prediction"
_PACKAGES_FILE = "packages.json"
_EXPORTED = "golden.json"
_NUMBER, _LABEL = "float64", "str"
"""Types of conformed columns."""


@dataclass(frozen=True)
class Golden:
    """Rows with the encoding and the predictions that a model gave them at training.

    Attributes
    ----------
    rows : DataFrame
        Declared columns: each nullable column has a null, each categorical column without
        declared labels an unseen label, each numeric column its extremes. Values of private
        columns are invented.
    encoded : array of float64, shape (n_rows, n_columns)
        The expected matrix.
    predictions : array of float64, shape (n_rows,) or (n_rows, n_classes)
        The expected predictions.
    packages : mapping of str to str
        Versions of the packages at training; empty in a version of before.
    """

    rows: pd.DataFrame
    encoded: Matrix
    predictions: Predictions
    packages: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def changed(self) -> tuple[str, ...]:
        """Packages that have another version here than at training, with both versions."""
        here = installed()
        return tuple(
            f"{name} {before} to {here[name]}"
            for name, before in self.packages.items()
            if here.get(name, before) != before
        )

    @property
    def since_training(self) -> str:
        """What changed since training, and the cure, as sentences of a message."""
        if self.changed:
            changes = ", ".join(self.changed)
            return f"Since training changed {changes}. Install the locked environment."
        if self.packages:
            return "No package changed since training: compare the code, or train again."
        return "Install the locked environment, or train again."

    def save(self, folder: Path) -> None:
        """Write the rows and the expected values into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.rows.to_parquet(folder / "golden.parquet")
        expected = pd.DataFrame(self.encoded, columns=list(self.rows.columns))
        cells = {_PREDICTION: as_cells(self.predictions)}
        expected.assign(**cells).to_parquet(folder / "expected.parquet")
        (folder / _PACKAGES_FILE).write_text(json.dumps(dict(self.packages)))

    def export(self, folder: Path) -> None:
        """Write the same as JSON, which is read without PyArrow; numbers stay exact."""
        folder.mkdir(parents=True, exist_ok=True)
        numbers = self.rows.dtypes == _NUMBER
        document: dict[str, Any] = {
            kind: {name: _as_list(self.rows[name]) for name in self.rows.columns[chosen]}
            for kind, chosen in ((_NUMBER, numbers), (_LABEL, ~numbers))
        }
        document |= {
            "columns": list(self.rows.columns),
            "encoded": _as_list(pd.Series(self.encoded.ravel())),
            "predictions": self.predictions.tolist(),
            "packages": dict(self.packages),
        }
        (folder / _EXPORTED).write_text(json.dumps(document, allow_nan=False))

    @classmethod
    def load(cls, folder: Path) -> "Golden":
        """Read a folder that `save` or `export` wrote.

        Raises
        ------
        RegistryError
            If a file is missing or damaged.
        """
        try:
            if (folder / _EXPORTED).is_file():
                return cls._of_json(json.loads((folder / _EXPORTED).read_bytes()))
            rows = pd.read_parquet(folder / "golden.parquet")
            expected = pd.read_parquet(folder / "expected.parquet")
            predictions = of_cells(expected.pop(_PREDICTION))
            known = (folder / _PACKAGES_FILE).is_file()
            packages = dict(json.loads((folder / _PACKAGES_FILE).read_text())) if known else {}
        except Exception as error:  # nonsense makes pyarrow raise what it likes
            got = first_line(error)
            message = f"The golden batch in {folder} is damaged or incomplete ({got}). Train again."
            raise RegistryError(message) from error
        return cls(rows, expected.to_numpy(dtype=np.float64), predictions, packages)

    @classmethod
    def _of_json(cls, document: dict[str, Any]) -> "Golden":
        columns = {
            name: pd.Series(values, dtype=kind)
            for kind in (_NUMBER, _LABEL)
            for name, values in document[kind].items()
        }
        rows = pd.DataFrame(columns)[document["columns"]]
        encoded = np.array(document["encoded"], dtype=np.float64).reshape(rows.shape)
        return cls(rows, encoded, np.array(document["predictions"]), document["packages"])


def _as_list(values: pd.Series) -> list[Any]:
    """Values for JSON, which has no NaN: missing ones are None."""
    return values.astype(object).where(values.notna(), None).tolist()


def installed() -> dict[str, str]:
    """Versions of the `PACKAGES` that are installed here."""
    return {name: found for name in PACKAGES if (found := _version(name))}


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:  # a small environment that only serves lacks some of them
        return None
