"""Numbers and labels whose relation moves from block to block."""

from dataclasses import dataclass

import numpy as np

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.likelihood import Places
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.reference import Reference
from pipeline.reference.blocks import NO_BLOCK
from pipeline.reference.profile import MISSING, CategoricalProfile, NumericProfile


@dataclass(frozen=True)
class Parameters:
    """When numbers that belong to a label in one block belong to another label in the next.

    Attributes
    ----------
    rows : int
        Most rows of the sample that are looked at.
    blocks, rows_each : int
        Fewest blocks of a label, and fewest rows of the label in each of them.
    within, between : float
        Least standard deviation of a label's means of blocks, relative to that of its values in a
        block, and to that of the means of labels.
    exact : float
        Least standard deviation that values in a block are taken to have, in normal scores.
    """

    rows: int = 5_000
    blocks: int = 3
    rows_each: int = 5
    within: float = 2.0
    between: float = 0.1
    exact: float = 0.01


PARAMS = Parameters()


def wanders(reference: Reference, one: str, other: str) -> bool:
    """Whether the numbers of labels move from block to block, across those of other labels.

    The battery of each device falls week by week, and a rate moves with the key rate: a value that
    belongs to one label in one block belongs to another in the next.
    """
    key = "wanders", *sorted((one, other))
    if key not in reference.derived:
        reference.derived[key] = _wanders(reference, one, other)
    return bool(reference.derived[key])


def _wanders(reference: Reference, one: str, other: str) -> bool:
    names = {type(reference.columns[name]): name for name in (one, other)}
    if len(names) == 1 or len(reference.blocks) < PARAMS.blocks:
        return False
    number, label = names[NumericProfile], names[CategoricalProfile]
    profile = reference.columns[number]
    assert isinstance(profile, NumericProfile)  # noqa: S101 -- the name was found by this type
    cells = reference.cells[: PARAMS.rows]
    own, values = (cells[:, reference.names.index(name)] for name in (label, number))
    numbers = reference.cell_blocks[: PARAMS.rows]
    there = (own < SHARED.many_values) & (values != MISSING) & (numbers != NO_BLOCK)
    scores = profile.normal_scores[values[there]]
    place = own[there].astype(np.intp)
    return _moves(scores, place, numbers[there].astype(np.intp), len(reference.blocks))


def _moves(scores: Floats, place: Places, block: Places, blocks: int) -> bool:
    """Whether means of scores by label move by block, as `wanders` says."""
    labels = int(place.max(initial=0)) + 1
    group, shape = place * blocks + block, (labels, blocks)
    n, sums, squares = (
        np.bincount(group, weights, minlength=labels * blocks).reshape(shape)
        for weights in (np.ones(len(scores)), scores, scores**2)
    )
    often = n >= PARAMS.rows_each
    often &= (often.sum(axis=1) >= PARAMS.blocks)[:, None]
    if often.any(axis=1).sum() < 2:  # one label alone
        return False
    means = np.where(often, sums / np.maximum(n, 1), np.nan)[often.any(axis=1)]
    rows = np.where(often, n, 0)[often.any(axis=1)]
    inside = np.where(often, squares - sums**2 / np.maximum(n, 1), 0.0).sum()
    within = max(inside / max(rows.sum() - often.sum(), 1), PARAMS.exact**2)
    of_labels = np.nanmean(means, axis=1)
    moved = np.nanmean((means - of_labels[:, None]) ** 2)
    sampled = within * float((1 / rows[rows > 0]).mean())
    wander = max(moved - sampled, 0.0)
    return bool(wander > PARAMS.within**2 * within and wander > PARAMS.between**2 * of_labels.var())
