"""Chances moved to the shares that are seen: what is stored with a model and applied to each row.

Each class of several is moved against the rest, and the chances of a row are then divided by their
sum (Zadrozny and Elkan 2002, KDD: 694-699). Both kinds are monotone functions of the log-odds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.columns import Floats

Kind = Literal["sigmoid", "isotonic"]
_LOWEST, _HIGHEST = 1e-7, 0.999
"""Chances beyond count as these: log-odds are infinite at 0 and 1, and near 1 the last bits of a
float32, which differ between ways of adding up trees, move them too far."""
_FAR = 16.0
"""Log-odds beyond which a calibrated chance does not go."""


def log_odds(chances: Floats) -> Floats:
    """Log-odds of chances, kept finite."""
    inside = np.clip(chances, _LOWEST, _HIGHEST)
    odds: Floats = np.log(inside) - np.log1p(-inside)
    return odds


@dataclass(frozen=True)
class Calibration:
    """Moves the chances that a model predicts.

    Attributes
    ----------
    kind : str
        ``sigmoid`` (Platt 1999) or ``isotonic`` (Zadrozny and Elkan 2002).
    curves : sequence of pairs of sequences of float
        Of 1, or of each of several classes: slope and intercept of the log-odds as lists of one
        number; or, of ``isotonic``, rising log-odds and the chances there, with straight lines
        between them. An empty pair leaves chances as they are.
    """

    kind: Kind
    curves: Sequence[tuple[Sequence[float], Sequence[float]]]

    def apply(self, predictions: Floats, seen: Sequence[int] = ()) -> Floats:
        """Move the chances of rows.

        Parameters
        ----------
        predictions : array of float, shape (n_rows,) or (n_rows, n_classes)
            The chance of 1, or of each of several classes.
        seen : sequence of int
            Places of the classes to move, of several; the others keep the chance 0.
        """
        if predictions.ndim == 1:
            return self._moved(0, predictions)
        moved = predictions.copy()
        for place in seen:
            moved[:, place] = self._moved(place, predictions[:, place])
        whole: Floats = moved / moved.sum(axis=1, keepdims=True)
        return whole

    def _moved(self, place: int, chances: Floats) -> Floats:
        first, second = self.curves[place]
        if not len(first):
            return chances
        odds = log_odds(chances)
        if self.kind == "isotonic":
            return np.interp(odds, first, second)
        moved: Floats = 1 / (1 + np.exp(-np.clip(first[0] * odds + second[0], -_FAR, _FAR)))
        return moved
