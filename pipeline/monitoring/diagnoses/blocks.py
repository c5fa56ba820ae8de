"""What the blocks of a reference show of a column."""

import numpy as np

from pipeline.columns import Floats
from pipeline.reference import Reference
from pipeline.reference.blocks import NO_BLOCK
from pipeline.reference.profile import MISSING, NumericProfile
from pipeline.reference.summaries import Trait

_FEWEST = 3
"""Fewest blocks that show an order."""
_CONSTANT, _NARROW = 0.05, 0.5
"""Spread within blocks, in standard deviations of the column, below which the column names them.

The second counts where the blocks also rise or fall throughout."""


def count_cells(reference: Reference, name: str, profile: NumericProfile) -> Floats:
    """Count the sampled rows of each block by their cell of a numeric column.

    The shape is (n_blocks, 2 * n_points + 1); cell 2k + 1 is point k of the grid.
    """
    own = reference.cells[:, reference.names.index(name)]
    blocks = reference.cell_blocks
    known, n = (own != MISSING) & (blocks != NO_BLOCK), len(reference.blocks)
    size = 2 * len(profile.points) + 1
    cells = blocks[known].astype(np.intp) * size + own[known]
    counts: Floats = np.bincount(cells, minlength=n * size).astype(np.float64)
    return counts.reshape(n, size)


def names_the_block(reference: Reference, name: str) -> bool:
    """Whether a column mostly shows when a row was made, as an index or a date does."""
    spreads = [block.get(Trait("spread", (name,)), np.nan) for block in reference.blocks]
    places = [block.get(Trait("location", (name,)), np.nan) for block in reference.blocks]
    if len(places) < _FEWEST or not np.isfinite([*spreads, *places]).all():
        return False
    orderly = abs(np.sign(np.diff(places)).mean()) == 1
    inside = float(np.mean(spreads))
    return bool(inside < _CONSTANT or (orderly and inside < _NARROW))
