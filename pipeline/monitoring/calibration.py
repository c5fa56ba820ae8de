"""What a table's own history shows of each fault, with nothing wrong.

Thresholds that are chosen on some tables do not hold on others. The blocks of a reference are
sound by definition, so what a diagnosis says of them is a false alarm: each of some blocks is
judged by a reference of the others, and a cause that is said of a column has to exceed it by far.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import cast

import numpy as np

from pipeline.monitoring.diagnoses.case import NATS
from pipeline.monitoring.findings import Cause
from pipeline.reference import Reference
from pipeline.reference.sketches import as_reference, own_blocks, panel
from pipeline.reference.summaries import ROWS, Summary

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
Limits = Mapping[tuple[str, str], float]
"""Least evidence of causes and columns."""
Judge = Callable[..., Collection[Cause]]
"""Finds the causes in `current`, compared with `reference`; both are keyword arguments."""


def limits(
    reference: Reference,
    judge: Judge,
    *,
    alpha: float,
    columns: Collection[str] | None = None,
) -> Limits:
    """Evidence that sound blocks show of each cause of a column, as a limit that a fault exceeds.

    Blocks of the first half are judged by all other blocks, those of the second half by the
    blocks before them, as live batches are. The rate of a cause and column is the mean of a beta
    distribution: a prior of `_STRENGTH` blocks at the rate of other tables, and the blocks tried.
    Evidence beyond the strongest that was seen is taken as exponential with that mean, the
    simplest tail of Pickands (1975), so that it is exceeded in one of e-fold fewer batches for
    each multiple. All that was seen shares `alpha` evenly.

    Parameters
    ----------
    reference : Reference
        Whose blocks are judged, by the rows of its sample.
    judge : callable
        Finds causes, without asking for limits.
    alpha : float
        Largest share of sound batches in which what was seen is said again.
    columns : collection of str, optional
        The columns whose limits are asked for, with their relations; all by default. A limit that
        was found once is kept.

    Returns
    -------
    dict of (str, str) to float
        The least evidence of a cause and column, in nats a row, or the share of rows of causes
        without nats; empty with fewer than `_FEWEST` + 1 blocks.
    """
    key = "limits of causes", alpha
    found, known = reference.derived.setdefault(key, ({}, set()))
    new = set(reference.names if columns is None else columns) - known
    if new:
        among = panel(reference, new)
        for pair, limit in _limits(reference, judge, alpha, among).items():
            found.setdefault(pair, limit)
        known |= among | new
    return cast("Limits", found)


def strength(cause: Cause) -> float:
    """Evidence for a cause: nats a row, or the share of rows of causes without nats."""
    return float(cause.evidence.get(NATS, cause.share))


def _limits(reference: Reference, judge: Judge, alpha: float, among: Collection[str]) -> Limits:
    if alpha >= 1:
        return {}
    said, tried = _said_of_sound_blocks(reference, judge, among)
    found = {}
    for pair, seen in said.items():
        rate = (len(seen) + _STRENGTH * _ELSEWHERE) / (tried + _STRENGTH)
        beyond = np.log(rate * len(said) / alpha)
        if beyond > 0:
            found[pair] = float(max(seen) * (1 + beyond))
    return found


def _said_of_sound_blocks(
    reference: Reference, judge: Judge, among: Collection[str]
) -> tuple[dict[tuple[str, str], list[float]], int]:
    """Strength of what is said of each cause and column, and the number of blocks judged."""
    every = own_blocks(reference, last=len(reference.blocks), among=among)
    blocks = [_of_its_rows(block) for block in every]
    said, tried = defaultdict[tuple[str, str], list[float]](list), 0
    for k in np.unique(np.linspace(0, len(blocks) - 1, TRIALS).astype(int)) if blocks else []:
        forward = k >= len(blocks) // 2
        others = blocks[:k] if forward else [*blocks[:k], *blocks[k + 1 :]]
        known = as_reference(reference, others, among=among) if len(others) >= _FEWEST else None
        if known is None or blocks[k].sketch is None:
            continue
        tried += 1
        for one in judge(reference=known, current=blocks[k].sketch):
            if one.cause not in _OF_THE_BATCH:
                for name in one.columns:
                    said[one.cause, name].append(strength(one))
    return said, tried


def _of_its_rows(block: Summary) -> Summary:
    """A block that has as many rows as its sample, so that no block seems to have lost rows."""
    rows = 0 if block.sketch is None else len(block.sketch)
    return Summary({**block, ROWS: float(rows)}, sketch=block.sketch)
