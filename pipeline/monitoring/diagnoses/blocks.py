"""What the blocks of a reference show of a column."""

from dataclasses import dataclass

import numpy as np

from pipeline.columns import Floats
from pipeline.reference import Reference
from pipeline.reference.blocks import NO_BLOCK
from pipeline.reference.profile import MISSING, NumericProfile
from pipeline.reference.summaries import Trait


@dataclass(frozen=True)
class Parameters:
    """When a column shows the block of a row.

    Attributes
    ----------
    fewest : int
        Fewest blocks that show an order.
    constant, narrow : float
        Spread within blocks, in standard deviations of the column, below which the column names
        them. The second counts where the blocks also rise or fall throughout.
    """

    fewest: int = 3
    constant: float = 0.05
    narrow: float = 0.5


PARAMS = Parameters()


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


def usual(reference: Reference, trait: Trait) -> tuple[float, float]:
    """Mean and standard deviation of a trait over the blocks; 0 if undefined."""
    values = np.asarray([block.get(trait, np.nan) for block in reference.blocks])
    values = values[np.isfinite(values)]
    if len(values) < 2:  # a single value has no spread
        return float(values.mean()) if len(values) else 0.0, 0.0
    return float(values.mean()), float(values.std(ddof=1))


def names_the_block(reference: Reference, name: str) -> bool:
    """Whether a column mostly shows when a row was made, as an index or a date does."""
    spreads = [block.get(Trait("spread", (name,)), np.nan) for block in reference.blocks]
    places = [block.get(Trait("location", (name,)), np.nan) for block in reference.blocks]
    if len(places) < PARAMS.fewest or not np.isfinite([*spreads, *places]).all():
        return False
    orderly = abs(np.sign(np.diff(places)).mean()) == 1
    inside = float(np.mean(spreads))
    return bool(inside < PARAMS.constant or (orderly and inside < PARAMS.narrow))
