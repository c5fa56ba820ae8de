"""A model version ready to serve: loaded, and checked by predicting its golden rows."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NotRequired

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import TypeAdapter
from typing_extensions import TypedDict  # Python's own is too old before 3.12

from pipeline.columns import Matrix
from pipeline.config import Categorical, Columns, Costs
from pipeline.data.captures import Layout, Unseen
from pipeline.errors import PipelineError, RegistryError, first_line
from pipeline.serving import requests
from pipeline.serving.problems import MOST_PROBLEMS
from pipeline.serving.requests import Contract, Row
from pipeline.serving.trees import FEW, predictor
from pipeline.training import parity
from pipeline.training.contributions import contributions
from pipeline.training.golden import Golden
from pipeline.training.intervals import Margins, Sets
from pipeline.training.model import Model, Predictions
from pipeline.training.parity import ABSOLUTE, RELATIVE
from pipeline.training.seals import check_seal


class Predicted(NamedTuple):
    """Predictions of rows, and how the rows compare with the training rows.

    Attributes
    ----------
    predictions : array of float64, shape (n_rows,)
        Probability of 1 in a classification, a number in a regression; of three or more classes
        the probability of each, shape (n_rows, n_classes).
    features : array of float64, shape (n_rows, n_columns)
        Numbers and codes of labels that the model predicted from.
    unseen : list of Unseen
        Labels that the training rows do not hold; NaN in `features`.
    outside : dict of str to int
        Values outside the training rows' range, and unseen labels, by column; columns without
        any are left out.
    """

    predictions: Predictions
    features: Matrix
    unseen: list[Unseen]
    outside: dict[str, int]


@dataclass(frozen=True)
class ServedVersion:
    """A model version that predicts accepted rows of requests.

    Attributes
    ----------
    name, version : str
        The registered model and its version.
    model : Model
        The model with its declared columns and known labels.
    contract : Contract
        What requests must hold.
    example : dict
        A golden row that the contract accepts, as an example for clients.
    trained_until : str
        End of the training window; empty if it is not known.
    steps : array of float
        Bounds of the prediction histogram.
    layout : Layout
        How the capture store reads the features of this version back.
    costs : Costs or None
        Of wrong decisions about two classes; None if the version decides nothing.
    margins : Margins or None
        Of intervals around predictions; None if the version has none.
    sets : Sets or None
        Of classes; None if the version has none.
    training_means : dict of str to tuple of float
        Means of training rows, such as of predictions, each with the standard deviation of the
        means of a seventh of a batch; empty in a version of before.
    """

    name: str
    version: str
    model: Model
    contract: Contract
    example: Row
    trained_until: str
    steps: NDArray[np.float64]
    layout: Layout
    costs: Costs | None
    margins: Margins | None
    sets: Sets | None
    training_means: dict[str, tuple[float, float]]
    _encode: Callable[[Sequence[Row]], Matrix]
    _predict: Callable[[Matrix], Predictions]
    _low: NDArray[np.float64]
    _high: NDArray[np.float64]
    _labels: NDArray[np.intp]

    @classmethod
    def load(cls, folder: Path) -> "ServedVersion":
        """Read a version's folder, and predict its golden rows as requests.

        Raises
        ------
        RegistryError
            If a part is missing, broken or was changed, or golden rows are refused or predicted
            differently.
        """
        check_seal(folder)
        try:
            return cls._load(folder)
        except PipelineError:
            raise
        except Exception as error:  # sealed nonsense makes each library raise what it likes
            got = first_line(error)
            message = f"The version in {folder} cannot be served ({got}). Export the model again."
            raise RegistryError(message) from error

    @classmethod
    def _load(cls, folder: Path) -> "ServedVersion":
        model, golden = Model.load(folder / "model"), Golden.load(folder / "golden")
        parity.replay(model, golden)
        manifest = _manifest(folder / "manifest.json")
        rows = _rows(golden)
        low, high = _ranges(model.columns, manifest.get("ranges", {}))
        known = {name: model.categories.get(name) for name in model.columns}
        served = cls(
            name=manifest["name"],
            version=str(manifest["version"]),
            model=model,
            contract=Contract.of(model.columns, model.categories),
            example=rows[0],
            trained_until=manifest.get("until", ""),
            steps=_steps(model.task, golden.predictions),
            layout=Layout(
                json.dumps(model.classes) if model.classes else model.task, json.dumps(known)
            ),
            costs=manifest.get("costs"),
            margins=manifest.get("interval"),
            sets=manifest.get("sets"),
            training_means=manifest.get("indicators", {}),
            _encode=requests.encoder(model.columns, model.categories),
            _predict=predictor(model),
            _low=low,
            _high=high,
            _labels=np.flatnonzero(
                [isinstance(column, Categorical) for column in model.columns.values()]
            ),
        )
        served._replay(rows, golden)
        return served

    def predict(self, rows: Sequence[Row]) -> Predicted:
        """Predict accepted rows, and note values outside of the training rows."""
        features = self._encode(rows)
        beyond = (features < self._low) | (features > self._high)
        if not beyond.any():
            return Predicted(self._predict(features), features, [], {})
        names, counts = list(self.model.columns), beyond.sum(axis=0)
        outside = {names[i]: int(counts[i]) for i in np.flatnonzero(counts)}
        unseen = [
            Unseen(int(row), int(self._labels[i]), rows[row][names[self._labels[i]]])
            for row, i in np.argwhere(beyond[:, self._labels])
        ]
        for row, column, _ in unseen:
            features[row, column] = np.nan
        return Predicted(self._predict(features), features, unseen, outside)

    def outside(self, predicted: Predicted, places: Sequence[int]) -> dict[str, Any]:
        """Values outside of the training rows: how many by column, and the first of them.

        Parameters
        ----------
        predicted : Predicted
            Rows that were predicted.
        places : sequence of int
            Place of each of these rows in its request.
        """
        names = list(self.model.columns)
        labels = [
            {"row": places[row], "column": names[i], "got": label[:40], "range": None}
            for row, i, label in predicted.unseen[:MOST_PROBLEMS]
        ]
        features = predicted.features  # unseen labels are NaN by now
        beyond = np.argwhere((features < self._low) | (features > self._high))
        numbers = [
            {
                "row": places[row],
                "column": names[i],
                "got": float(features[row, i]),
                "range": [float(self._low[i]), float(self._high[i])],
            }
            for row, i in beyond[:MOST_PROBLEMS].tolist()
        ]
        found = sorted([*numbers, *labels], key=lambda one: one["row"])
        return {"columns": predicted.outside, "values": found[:MOST_PROBLEMS]}

    def contributions(self, predicted: Predicted) -> list[dict[str, Any]]:
        """What each column added to the margin of each row, and the base; XGBoost only."""
        found = contributions(self.model, predicted.features).tolist()
        return [
            {"base": row[-1], "columns": dict(zip(self.model.columns, row[:-1], strict=True))}
            for row in found
        ]

    def _replay(self, rows: list[Row], golden: Golden) -> None:
        """Check that golden rows, sent as requests, are predicted as they were at training."""
        accepted = self.contract.request.validate_json(json.dumps({"rows": rows}))["rows"]
        features = self.predict(accepted).features
        close = np.isclose(features, golden.encoded, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
        if not close.all():
            names = np.array(list(self.model.columns))[~close.all(axis=0)]
            message = (
                "Requests must be encoded as rows were at training. Got other values of golden "
                f"rows in {', '.join(names)}. {golden.since_training}"
            )
            raise RegistryError(message)
        few = [accepted[i : i + FEW] for i in range(0, len(accepted), FEW)]
        # Sums of leaves that cancel out are as exact as the leaves, not as what is left of them.
        scale = np.abs(golden.predictions).mean() if self.model.task == "regression" else 0.0
        atol = max(ABSOLUTE, RELATIVE * scale)
        apart = np.zeros(golden.predictions.shape)
        close = np.ones(len(accepted), dtype=bool)
        for parts in ([accepted], few):  # many rows and few rows are predicted by different code
            predicted = np.concatenate([self.predict(part).predictions for part in parts])
            close &= parity.are_close(predicted, golden.predictions, atol=atol)
            apart = np.maximum(apart, np.abs(predicted - golden.predictions))
        if not close.all():
            message = (
                "The served model must predict its golden rows as it did at training. Got "
                f"{int((~close).sum())} of {len(close)} different, by up to {apart.max():.3g}. "
                f"{golden.since_training}"
            )
            raise RegistryError(message)


def _ranges(
    columns: Columns, ranges: Mapping[str, Sequence[float]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and greatest training value by column; codes of unseen labels lie below."""
    bounds = [
        (0.0, np.inf)
        if isinstance(column, Categorical)
        else tuple(ranges.get(name, (-np.inf, np.inf)))
        for name, column in columns.items()
    ]
    low, high = np.array(bounds).T
    return low, high


def _rows(golden: Golden) -> list[Row]:
    """Golden rows as clients send them: missing values are left out."""
    records = golden.rows.to_dict("records")
    return [
        {str(name): value for name, value in record.items() if not pd.isna(value)}
        for record in records
    ]


def _steps(task: str, predictions: Predictions) -> NDArray[np.float64]:
    tenths = np.arange(1, 11) / 10
    return tenths if task == "classification" else np.unique(np.quantile(predictions, tenths))


class _Manifest(TypedDict):
    name: str
    version: int | str
    until: NotRequired[str]
    ranges: NotRequired[dict[str, tuple[float, float]]]
    interval: NotRequired[Margins]
    sets: NotRequired[Sets]
    costs: NotRequired[Costs]
    indicators: NotRequired[dict[str, tuple[float, float]]]


_MANIFEST = TypeAdapter(_Manifest)


def _manifest(path: Path) -> _Manifest:
    try:
        manifest = _MANIFEST.validate_json(path.read_bytes())
        pd.Timestamp(manifest.get("until", ""))
    except (OSError, ValueError) as error:
        message = (
            f"{path} must hold name and version, and may hold until, ranges, interval, sets, "
            f"costs and indicators. Got: {' '.join(str(error).split())[:200]}. Export the model "
            "again."
        )
        raise RegistryError(message) from error
    return manifest
