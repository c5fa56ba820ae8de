"""Find columns that fit the other columns of their rows worse than in any block."""

import numpy as np

from pipeline.columns import Floats
from pipeline.reference import Reference
from pipeline.reference.profile import Cells

_UNLIKE = 0.1
"""Relative excess over every block's misfit, beyond chance, of a suspect column."""
_FEWEST = 30
"""Fewest rows of a block from which its misfit is taken."""
_RIDGE = 1e-3
"""Added to the variance of each score, so that the correlation can be inverted."""
_FAR = 25.0
"""Largest squared misfit of one row, in standard deviations."""


def planes(correlation: Floats) -> Floats:
    """Coefficients of the plane that predicts each score from the others, as columns.

    Each column is divided by the standard deviation of its residuals, so that scores times
    planes are standardised residuals. `correlation` has shape (n_scores, n_scores).
    """
    precision = np.linalg.inv(correlation + _RIDGE * np.eye(len(correlation)))
    scaled: Floats = precision / np.sqrt(np.diag(precision))
    return scaled


def misfit(scores: Floats, predicting: Floats) -> Floats:
    """Squared standardised distance of each score from its plane, at most `_FAR`.

    Parameters
    ----------
    scores : array of float, shape (n_rows, n_scores)
        Normal scores of rows.
    predicting : array of float, shape (n_scores, n_scores)
        The planes.
    """
    return np.minimum((scores @ predicting) ** 2, _FAR)


def strained(reference: Reference, drawn: Cells, predicting: Floats) -> set[str]:
    """Find columns of a batch that lie further from their plane than in any block.

    Parameters
    ----------
    reference : Reference
        The training rows.
    drawn : array of uint16, shape (n_drawn, n_columns)
        Cells of rows of the batch.
    predicting : array of float, shape (n_scores, n_scores)
        The planes.
    """
    scores = reference.normal_scores
    before, now = (misfit(scores.of(x), predicting) for x in (reference.cells, drawn))
    numbers = reference.cell_blocks
    usual = [
        before[numbers == number].mean(axis=0)
        for number in np.unique(numbers)
        if (numbers == number).sum() >= _FEWEST
    ]
    most = np.max([*usual, before.mean(axis=0)], axis=0)
    margin = 1 + _UNLIKE + 3 / np.sqrt(max(len(now), 1))
    worse = now.mean(axis=0) > most * margin if len(now) else np.zeros(len(most), bool)
    return {reference.names[scores.columns[k]] for k in np.flatnonzero(worse)}
