"""Find columns that fit the other columns of their rows worse than in any block."""

from dataclasses import dataclass
from typing import cast

import numpy as np

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.reference import Reference
from pipeline.reference.profile import Cells


@dataclass(frozen=True)
class Parameters:
    """How misfit is measured, and what is more than usual.

    Attributes
    ----------
    unlike : float
        Relative excess over every block's misfit, beyond chance, of a suspect column.
    errors : float
        Standard errors of the misfit that count as chance.
    at_once : int
        Most rows whose misfit is held in memory at once.
    ridge : float
        Added to the variance of each score, so that the correlation can be inverted.
    far : float
        Largest squared misfit of one row, in standard deviations.
    """

    unlike: float = 0.1
    errors: float = 3.0
    at_once: int = 500
    ridge: float = 1e-3
    far: float = 25.0


PARAMS = Parameters()


def planes(reference: Reference) -> Floats:
    """Planes of a reference, as `fit_planes` computes them; computed once."""
    if "planes" not in reference.derived:
        reference.derived["planes"] = fit_planes(reference.normal_scores.correlation)
    return cast("Floats", reference.derived["planes"])


def fit_planes(correlation: Floats) -> Floats:
    """Coefficients of the plane that predicts each score from the others, as columns.

    Each column is divided by the standard deviation of its residuals, so that scores times
    planes are standardised residuals. `correlation` has shape (n_scores, n_scores).
    """
    precision = np.linalg.inv(correlation + PARAMS.ridge * np.eye(len(correlation)))
    scaled: Floats = precision / np.sqrt(np.diag(precision))
    return scaled


def misfit(scores: Floats, predicting: Floats) -> Floats:
    """Squared standardised distance of each score from its plane, at most `PARAMS.far`.

    Parameters
    ----------
    scores : array of float, shape (n_rows, n_scores)
        Normal scores of rows.
    predicting : array of float, shape (n_scores, n_scores)
        The planes.
    """
    return squared(scores @ predicting)


def squared(residuals: Floats) -> Floats:
    """Squares of standardised residuals, each at most `PARAMS.far`."""
    return np.minimum(residuals**2, PARAMS.far)


def strain(reference: Reference, drawn: Cells) -> dict[str, float]:
    """How much further columns of a batch lie from their plane than in any block.

    Parameters
    ----------
    reference : Reference
        The training rows.
    drawn : array of uint16, shape (n_drawn, n_columns)
        Cells of rows of the batch.

    Returns
    -------
    dict of str to float
        Ratio of the misfit of each column that has scores to the largest that is usual; a column
        above 1 is strained.
    """
    scores = reference.normal_scores
    if not len(drawn):
        return {}
    margin = 1 + PARAMS.unlike + PARAMS.errors / np.sqrt(len(drawn))
    ratio = _mean_misfit(reference, drawn) / (_most_usual(reference) * margin)
    found: dict[str, float] = {}
    for k, value in zip(scores.columns, ratio.tolist(), strict=True):
        name = reference.names[k]
        found[name] = max(value, found.get(name, 0.0))
    return found


def _mean_misfit(reference: Reference, cells: Cells) -> Floats:
    """Mean squared misfit of each score over rows, shape (n_scores,)."""
    scores, predicting = reference.normal_scores, planes(reference)
    total = np.zeros(len(predicting))
    for start in range(0, len(cells), PARAMS.at_once):
        total += misfit(scores.of(cells[start : start + PARAMS.at_once]), predicting).sum(axis=0)
    return total / max(len(cells), 1)


def _most_usual(reference: Reference) -> Floats:
    """Largest mean misfit of each score in any block, and over all rows; computed once."""
    key = "usual misfit"
    if key not in reference.derived:
        cells, numbers = reference.cells, reference.cell_blocks
        parts = [cells[numbers == number] for number in np.unique(numbers)]
        usual = [
            _mean_misfit(reference, part) for part in parts if len(part) >= SHARED.fewest_of_a_block
        ]
        reference.derived[key] = np.max([*usual, _mean_misfit(reference, cells)], axis=0)
    return cast("Floats", reference.derived[key])
