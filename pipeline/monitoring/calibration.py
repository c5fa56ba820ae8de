"""Which diagnoses a table's own history contradicts.

Thresholds that are chosen on some tables do not hold on others. The blocks of a reference are
sound by definition, so what a diagnosis says of them is a false alarm: each of some blocks is
judged by a reference of the others, and a cause that is said of a column too often is off for it.
"""

from collections import Counter
from collections.abc import Callable, Collection
from typing import cast

import numpy as np

from pipeline.monitoring.findings import Cause
from pipeline.reference import Reference
from pipeline.reference.sketches import as_reference, own_blocks

TRIALS = 8
"""Most blocks that are judged."""
_FEWEST = 4
"""Blocks of a reference below which another block is not judged by them."""
_STRENGTH = 20.0
"""Blocks that the rate of other tables counts for, beside the table's own blocks."""
_ELSEWHERE = 0.001
"""Share of sound batches in which a cause is said of a column, over other tables."""
_OF_THE_BATCH = {"schema", "volume", "frozen", "duplicate"}
"""Causes of whole batches, which a sample of rows does not show."""
Judge = Callable[..., Collection[Cause]]
"""Finds the causes in `current`, compared with `reference`; both are keyword arguments."""


def unreliable(reference: Reference, judge: Judge, *, alpha: float) -> frozenset[tuple[str, str]]:
    """Find the causes that are said of a column of sound blocks more often than `alpha`.

    Blocks of the first half are judged by all other blocks, those of the second half by the
    blocks before them, as live batches are. The rate of a cause and column is the mean of a beta
    distribution: a prior of `_STRENGTH` blocks at the rate of other tables, and the blocks tried.

    Parameters
    ----------
    reference : Reference
        Whose blocks are judged, by the rows of its sample.
    judge : callable
        Finds causes, without asking what is unreliable.
    alpha : float
        Largest share of sound batches for one cause of one column.

    Returns
    -------
    frozenset of (str, str)
        Causes and columns; empty with fewer than `_FEWEST` + 1 blocks.
    """
    key = "unreliable causes", alpha
    if key not in reference.derived:
        reference.derived[key] = _found(reference, judge, alpha)
    return cast("frozenset[tuple[str, str]]", reference.derived[key])


def _found(reference: Reference, judge: Judge, alpha: float) -> frozenset[tuple[str, str]]:
    if alpha >= 1:
        return frozenset()
    blocks = own_blocks(reference, last=len(reference.blocks))
    half, said, tried = len(blocks) // 2, Counter[tuple[str, str]](), 0
    for k in np.unique(np.linspace(0, len(blocks) - 1, TRIALS).astype(int)) if blocks else []:
        others = blocks[:k] if k >= half else [*blocks[:k], *blocks[k + 1 :]]
        known = as_reference(reference, others) if len(others) >= _FEWEST else None
        if known is None or blocks[k].sketch is None:
            continue
        tried += 1
        causes = judge(reference=known, current=blocks[k].sketch)
        said.update({(one.cause, name) for one in causes for name in one.columns})
    return frozenset(
        pair
        for pair, times in said.items()
        if pair[0] not in _OF_THE_BATCH
        and (times + _STRENGTH * _ELSEWHERE) / (tried + _STRENGTH) > alpha
    )
