"""A fitted model as it is stored and served: declared columns, known labels, estimator.

It is stored without pickle: XGBoost as UBJ, scikit-learn as skops with the trust list below.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import (
    Any,
    Literal,
    NotRequired,  # Python's own is too old before 3.12
)

import numpy as np
import pandas as pd
from pydantic import TypeAdapter
from typing_extensions import TypedDict  # Python's own is too old before 3.12

from pipeline.columns import Categories, Floats, Matrix, encode
from pipeline.config import Categorical, Columns, Derivation
from pipeline.derivation import Derivations, with_derived
from pipeline.errors import RegistryError, first_line
from pipeline.training.boosters import StoredBooster
from pipeline.training.calibration import Calibration

Predictions = Floats
"""One number per row: the probability of 1, or the expected value. Of a target of three or more
classes one row of probabilities, shape (n_rows, n_classes)."""
_COLUMNS: TypeAdapter[Columns] = TypeAdapter(Columns)


class _Card(TypedDict):
    task: Literal["classification", "regression"]
    columns: Columns
    categories: Categories
    estimator: str
    missing: NotRequired[float]
    """What XGBoost takes for a missing value, which its own file does not hold; by default NaN."""
    derive: NotRequired[dict[str, Derivation]]
    """Features that are functions of other columns."""
    classes: NotRequired[list[str]]
    """Labels of the target, where these are three or more."""
    seen: NotRequired[list[int]]
    """Places of the classes that the fitted rows held."""
    calibration: NotRequired[Calibration]
    """How predicted chances are moved."""


_CARD = TypeAdapter(_Card)
_HELPERS = {
    "functools": ("partial",),
    "numpy": ("dtype",),
    "sklearn._loss._loss": (  # only scikit-learn 1.8 asks for them
        *("CyAbsoluteError", "CyExponentialLoss", "CyHalfBinomialLoss", "CyHalfGammaLoss"),
        *("CyHalfMultinomialLoss", "CyHalfPoissonLoss", "CyHalfSquaredError"),
        *("CyHalfTweedieLoss", "CyHalfTweedieLossIdentity", "CyHuberLoss", "CyPinballLoss"),
    ),
    "sklearn._loss.loss": (
        *("AbsoluteError", "ExponentialLoss", "HalfBinomialLoss", "HalfGammaLoss"),
        *("HalfMultinomialLoss", "HalfPoissonLoss", "HalfSquaredError", "HalfTweedieLoss"),
        *("HalfTweedieLossIdentity", "HuberLoss", "PinballLoss"),
    ),
    "sklearn.calibration": (
        *("_CalibratedClassifier", "_SigmoidCalibration", "_TemperatureScaling"),
    ),
    "sklearn.ensemble._hist_gradient_boosting.predictor": ("TreePredictor",),
    "sklearn.gaussian_process._gpc": ("_BinaryGaussianProcessClassifierLaplace",),
    "sklearn.gaussian_process.kernels": (
        *("ConstantKernel", "DotProduct", "ExpSineSquared", "Matern", "Product", "RBF"),
        *("RationalQuadratic", "Sum", "WhiteKernel"),
    ),
    "sklearn.metrics._dist_metrics": (
        *("ChebyshevDistance64", "EuclideanDistance64", "ManhattanDistance64"),
        "MinkowskiDistance64",
    ),
    "sklearn.neighbors._ball_tree": ("BallTree",),
    "sklearn.neighbors._kd_tree": ("KDTree",),
    "sklearn.neural_network._stochastic_optimizers": ("AdamOptimizer", "SGDOptimizer"),
    "sklearn.tree._tree": ("Tree",),
    "sklearn.utils.validation": ("check_array",),
}
_TRUSTED = frozenset(f"{module}.{name}" for module, names in _HELPERS.items() for name in names)
"""Types that may be loaded besides skops' own list, which has every estimator of scikit-learn;
any other could run code."""


@dataclass(frozen=True)
class Model:
    """A fitted estimator with the columns and labels that it needs to predict rows.

    Attributes
    ----------
    task : str
        ``classification`` predicts the probability of 1 or of each of `classes`, ``regression`` a
        number.
    columns : dict of str to Column
        Declared columns, in the order of the encoded matrix.
    categories : dict of str to list of str
        Known labels of each categorical column, sorted.
    estimator : object
        Fitted on encoded matrices.
    derive : dict of str to Derived
        Columns that are functions of others, which a client may send instead.
    classes : tuple of str
        Labels of a target of three or more classes, in the order of its places; else empty.
    seen : list of int
        Places of the classes that the fitted rows held; the others have the probability 0.
    calibration : Calibration or None
        How the chances that the estimator predicts are moved; None: not at all.
    """

    task: str
    columns: Columns
    categories: Categories
    estimator: Any
    derive: Derivations = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    seen: list[int] = field(default_factory=list)
    calibration: Calibration | None = None

    def encode(self, frame: pd.DataFrame) -> Matrix:
        """Encode rows for the estimator, shape (n_rows, n_columns).

        What can be derived is derived as it was for this model, whatever a file says by now.
        """
        frame = with_derived(frame, self.derive, self.columns)
        return encode(frame, self.columns, self.categories)

    def predict(self, frame: pd.DataFrame) -> Predictions:
        """Predict the probability of 1, or the expected number, of each row, shape (n_rows,).

        Of three or more classes, predict the probability of each, shape (n_rows, n_classes).
        """
        return self.predict_encoded(self.encode(frame))

    def predict_encoded(self, matrix: Matrix) -> Predictions:
        """Predict the rows of an encoded matrix, shape (n_rows, n_columns)."""
        if len(matrix) == 0:
            return np.empty((0, len(self.classes)) if self.classes else 0)
        given = self.named(matrix) if hasattr(self.estimator, "feature_names_in_") else matrix
        if self.classes:
            found = np.asarray(self.estimator.predict_proba(given))
            if found.shape != (wanted := (len(matrix), len(self.seen))):
                message = f"predict_proba of shape {found.shape} where {wanted} is needed"
                raise ValueError(message)
            chances = np.zeros((len(matrix), len(self.classes)))
            chances[:, self.seen] = found
            return self.calibrated(chances)
        if self.task == "classification":
            predicted = self.estimator.predict_proba(given)[:, 1]
        else:
            predicted = self.estimator.predict(given)
        return self.calibrated(np.asarray(predicted, dtype=np.float64))

    def calibrated(self, predictions: Predictions) -> Predictions:
        """Move what the estimator predicts to what the model predicts."""
        if self.calibration is None:
            return predictions
        return self.calibration.apply(predictions, self.seen)

    def fit(self, matrix: Matrix, target: Floats) -> None:
        """Fit the estimator to encoded rows; a pipeline of the user's gets columns by name."""
        from pipeline.training.estimators import wants_names  # noqa: PLC0415 -- a server fits nothing

        named = wants_names(self.estimator)
        self.estimator.fit(self.named(matrix) if named else matrix, self.coded(target))

    def coded(self, target: Floats) -> Floats:
        """The target as the estimator is fitted to it: of several classes, those that occur.

        XGBoost takes 0, 1, 2, ... without a gap only, and rare classes are not in all rows.
        """
        if not self.classes:
            return target
        self.seen[:] = np.unique(target).astype(int).tolist()
        return np.searchsorted(self.seen, target).astype(np.float64)

    def named(self, matrix: Matrix) -> pd.DataFrame:
        """The columns of an encoded matrix by name, labels as text; an unknown label is null."""
        frame = pd.DataFrame(matrix, columns=list(self.columns))
        for name, labels in self.categories.items():
            known = np.array([*labels, np.nan], dtype=object)
            frame[name] = known[frame[name].fillna(len(labels)).astype("int64")]
        return frame

    def save(self, folder: Path) -> None:
        """Write the model into an empty folder."""
        folder.mkdir(parents=True, exist_ok=True)
        card: dict[str, Any] = {
            "task": self.task,
            "columns": _COLUMNS.dump_python(self.columns, mode="json"),
            "categories": self.categories,
            "estimator": f"{type(self.estimator).__module__}.{type(self.estimator).__qualname__}",
        }
        if self.derive:
            card["derive"] = {name: str(derived) for name, derived in self.derive.items()}
        if self.classes:
            card |= {"classes": self.classes, "seen": self.seen}
        if self.calibration is not None:
            card["calibration"] = asdict(self.calibration)
        if not np.isnan(missing := getattr(self.estimator, "missing", np.nan)):
            card["missing"] = float(missing)
        (folder / "model.json").write_text(json.dumps(card, indent=1))
        if hasattr(self.estimator, "get_booster"):
            self.estimator.save_model(folder / "estimator.ubj")
        else:
            from skops import io  # noqa: PLC0415 -- slow to import, needed by few

            io.dump(self.estimator, folder / "estimator.skops")

    @classmethod
    def load(cls, folder: Path) -> "Model":
        """Read a model that `save` wrote.

        Raises
        ------
        RegistryError
            If files are missing or damaged, or hold types that are not trusted.
        """
        try:
            card = _CARD.validate_json((folder / "model.json").read_bytes())
            labels = {n for n, one in card["columns"].items() if isinstance(one, Categorical)}
            if labels != set(card["categories"]):
                _refuse_categories(labels)
            _check_classes(card.get("classes", []), card.get("seen", []))
            estimator = _load_estimator(folder, card["estimator"], card.get("missing", np.nan))
        except RegistryError:
            raise
        except Exception as error:  # nonsense makes each library raise what it likes
            got = first_line(error)
            message = f"The model in {folder} is damaged or incomplete ({got}). Register it again."
            raise RegistryError(message) from error
        return cls(
            *(card["task"], card["columns"], card["categories"], estimator),
            derive=card.get("derive", {}),
            classes=tuple(card.get("classes", ())),
            seen=card.get("seen", []),
            calibration=card.get("calibration"),
        )


def _refuse_categories(labels: set[str]) -> None:
    message = f"categories must hold the labels of {', '.join(sorted(labels)) or 'no column'}"
    raise ValueError(message)


def _check_classes(classes: list[str], seen: list[int]) -> None:
    places = sorted({place for place in seen if 0 <= place < len(classes)})
    if places != seen or len(set(classes)) < len(classes) or bool(classes) != bool(seen):
        message = "classes must be different labels, and seen must hold their places, rising"
        raise ValueError(message)


def _load_estimator(folder: Path, path: str, missing: float) -> Any:
    file = folder / "estimator.ubj"
    if file.exists():
        return StoredBooster.load(file, path=path, missing=missing)
    return _load_skops(folder)


def _load_skops(folder: Path) -> Any:
    from skops import io  # noqa: PLC0415 -- slow to import, needed by few

    file = folder / "estimator.skops"
    unknown = io.get_untrusted_types(file=file)
    foreign = [name for name in unknown if name not in _TRUSTED]
    if foreign:
        message = (
            f"The model in {folder} must hold types of scikit-learn and numpy only. "
            f"Got {', '.join(foreign)}. Train it again from its configuration."
        )
        raise RegistryError(message)
    return io.load(file, trusted=unknown)


def _load_pyfunc(path: str) -> Model:
    """Load a registered version; MLflow calls this function by its name."""
    return Model.load(Path(path) / "model")
