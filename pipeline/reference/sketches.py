"""Rows of a few batches, kept as they came: the last sound batches as a reference of their own.

A reference describes long ago; a season or growth moves away from it step by step. What is said
of a batch against its neighbours needs rows of these: each batch leaves a small random sample.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from pipeline.config import Categorical, Columns, Numeric
from pipeline.reference.order import interquartile
from pipeline.reference.pairs import too_many
from pipeline.reference.profile import MISSING, NumericProfile, Profile
from pipeline.reference.reference import Reference
from pipeline.reference.sampling import SKETCHED
from pipeline.reference.summaries import ROWS, Summary, Trait

KEPT = 8
"""Batches that form a reference."""
_PANEL = 100
"""Columns by which faults are judged, where there are too many columns for all."""
_AS_RECORDED = ("rows", "copies", "repeats", "strays", "even", "stretch", "gap")
"""Numbers that a sample of the rows does not tell: those of the whole batch stay."""


def own_blocks(
    reference: Reference, last: int = KEPT, *, among: Collection[str] | None = None
) -> list[Summary]:
    """The last blocks of a reference, each with its rows of the stored sample as its sketch.

    The sketches hold the columns in `among`; by default they hold all.
    """
    first = max(len(reference.blocks) - last, 0)
    found = []
    for number, block in enumerate(reference.blocks[first:], start=first):
        cells = reference.cells[reference.cell_blocks == number][:SKETCHED]
        columns = {
            name: _decoded(reference.columns[name], cells[:, i])
            for i, name in enumerate(reference.names)
            if among is None or name in among
        }
        found.append(Summary(block, sketch=pd.DataFrame(columns)))
    return found


def _decoded(profile: Profile, cells: np.ndarray) -> np.ndarray:
    """A value for each cell that the column did hold: a gap's is the quantile above it."""
    there = cells != MISSING
    if not isinstance(profile, NumericProfile):
        labels = np.asarray([*profile.counts, None], dtype=object)
        return labels[np.where(there, np.minimum(cells, len(labels) - 1), len(labels) - 1)]
    if not len(profile.points):
        return np.full(len(cells), np.nan)
    place = np.minimum(np.where(there, cells, 0) >> 1, len(profile.points) - 1)
    return np.where(there, profile.points[place], np.nan)


def panel(reference: Reference, names: Collection[str]) -> frozenset[str]:
    """Columns by which faults of some columns are judged.

    All columns; in a table with too many for all pairs to be followed, `names` and the columns
    clearest correlated with them, `_PANEL` in all.
    """
    if not too_many(len(reference.features)):
        return frozenset(reference.names)
    scores = reference.normal_scores
    own = [k for k, i in enumerate(scores.columns) if reference.names[i] in names]
    size = np.abs(np.nan_to_num(scores.correlation[own])).max(axis=0, initial=0.0)
    others = [reference.names[scores.columns[k]] for k in np.argsort(-size, kind="stable")]
    kept = dict.fromkeys([*sorted(set(names) & set(reference.names)), *others])
    return frozenset(list(kept)[: max(_PANEL, len(names))])


def as_reference(
    reference: Reference,
    batches: Sequence[Summary],
    *,
    among: Collection[str] | None = None,
) -> Reference | None:
    """A reference of some batches, each a block, by the rows that they left.

    Parameters
    ----------
    reference : Reference
        Whose columns they hold.
    batches : sequence of Summary
        With sketches; others are left out.
    among : collection of str, optional
        The columns to describe; all by default.

    Returns
    -------
    Reference or None
        None if no batch left rows.
    """
    kept = [one for one in batches if one.sketch is not None and len(one.sketch)]
    if not kept:
        return None
    sketches = [one.sketch for one in kept if one.sketch is not None]
    columns = _shared_columns(reference, sketches, among)
    rows = pd.concat([one[list(columns)] for one in sketches], ignore_index=True)
    number = np.repeat(np.arange(len(sketches)), [len(one) for one in sketches])
    found = Reference.describe(
        rows,
        columns,
        blocks=lambda _: [np.flatnonzero(number == k) for k in range(len(sketches))],
        sampled=True,
        seed=reference.seed,
        prediction=tuple(name for name in reference.prediction if name in columns),
    )
    return found.with_blocks(
        [
            _completed(found, block, of=reference, recorded=one)
            for block, one in zip(found.blocks, kept, strict=True)
        ]
    )


def _shared_columns(
    reference: Reference, sketches: Sequence[pd.DataFrame], among: Collection[str] | None
) -> Columns:
    """The columns that all sketches hold, of those in `among`, by their types in a reference."""
    asked = reference.names if among is None else [x for x in reference.names if x in among]
    return {
        name: Numeric(nullable=True)
        if isinstance(reference.columns[name], NumericProfile)
        else Categorical(nullable=True)
        for name in asked
        if all(name in one for one in sketches)
    }


def _completed(found: Reference, block: Summary, *, of: Reference, recorded: Summary) -> Summary:
    """A block's numbers, with those of its whole batch where a sample does not tell them."""
    whole = {trait: value for trait, value in recorded.items() if trait.kind in _AS_RECORDED}
    for name, profile in found.columns.items():
        step, before = Trait("step", (name,)), of.columns[name]
        if step in recorded and isinstance(profile, NumericProfile):
            assert isinstance(before, NumericProfile)  # noqa: S101 -- the declared type is one
            wide = interquartile(profile)
            whole[step] = recorded[step] * interquartile(before) / wide if wide > 0 else 0.0
    return Summary({**block, **whole, ROWS: recorded[ROWS]})
