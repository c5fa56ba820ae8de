"""A stored model of XGBoost, which predicts without the wrapper that it was fitted by.

The wrapper needs scikit-learn, which takes a server 75 MiB and a second to import.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pipeline.columns import Matrix
from pipeline.errors import RegistryError

if TYPE_CHECKING:
    import xgboost


@dataclass(frozen=True)
class StoredBooster:
    """Trees, or a linear model, of XGBoost with the methods of an estimator.

    Attributes
    ----------
    booster : xgboost.Booster
        As it was stored.
    missing : float
        The value that stands for a missing one.
    rounds : int
        How many rounds of trees predict, where the fit was stopped early; 0 for all.
    linear : bool
        Whether it is a linear model.
    """

    booster: "xgboost.Booster"
    missing: float
    rounds: int
    linear: bool

    @classmethod
    def load(cls, file: Path, *, path: str, missing: float) -> Self:
        """Read the file that `save_model` of the class at the import path `path` wrote.

        Raises
        ------
        RegistryError
            If the path does not name a model of XGBoost, or one of another task.
        """
        import xgboost  # noqa: PLC0415 -- slow to import, not needed by all

        kind = getattr(xgboost, path.rpartition(".")[2], None)
        if not (isinstance(kind, type) and issubclass(kind, xgboost.XGBModel)):
            message = (
                f"The model in {file.parent} must name a model of XGBoost. Got {path!r}. "
                "Train it again from its configuration."
            )
            raise RegistryError(message)
        booster = xgboost.Booster(model_file=file)
        task = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
        if task is not None and (task == "classifier") != issubclass(kind, xgboost.XGBClassifier):
            message = f"The model in {file.parent} must be a {kind.__name__}. Got a {task}."
            raise RegistryError(message)
        best = booster.attr("best_iteration")
        model = json.loads(booster.save_config())["learner"]["gradient_booster"]["name"]
        return cls(
            booster,
            missing,
            rounds=0 if best is None else int(best) + 1,
            linear=model == "gblinear",
        )

    def get_booster(self) -> "xgboost.Booster":
        """The model itself, by the name that XGBoost's estimators have for it."""
        return self.booster

    def predict(self, matrix: Matrix) -> Any:
        """Predict encoded rows, shape (n_rows, n_columns), as `XGBModel.predict` does."""
        if not self.linear:
            return self.booster.inplace_predict(
                matrix, iteration_range=(0, self.rounds), missing=self.missing
            )
        import xgboost  # noqa: PLC0415 -- slow to import, not needed by all

        rows = xgboost.DMatrix(
            matrix,
            missing=self.missing,
            feature_types=self.booster.feature_types,
            enable_categorical=True,
        )
        return self.booster.predict(rows)

    def predict_proba(self, matrix: Matrix) -> Any:
        """Probabilities of the classes, shape (n_rows, n_classes)."""
        chances = self.predict(matrix)
        return chances if chances.ndim > 1 else np.column_stack([1 - chances, chances])
