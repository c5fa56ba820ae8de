"""What a table's own history shows of each fault, with nothing wrong.

Thresholds that are chosen on some tables do not hold on others. The blocks of a reference are
sound by definition, so what a diagnosis says of them is a false alarm: each of some blocks is
judged by a reference of the others, and a cause that is said of a column has to exceed it by far.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

import numpy as np
from pydantic import TypeAdapter

from pipeline.monitoring.diagnoses.case import NATS
from pipeline.monitoring.findings import Cause
from pipeline.reference import Reference
from pipeline.reference.pairs import too_many
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
_TOGETHER = 50
"""Columns of a wide table whose blocks are judged together, in alphabetical order."""
_OF_THE_BATCH = {"schema", "volume", "frozen", "duplicate"}
"""Causes of whole batches, which a sample of rows does not show."""
Limits = Mapping[tuple[str, str], float]
"""Least evidence of causes and columns."""
Said = list[tuple[str, str, float]]
"""Causes that are said of a block: the cause, its column, its strength."""
Judge = Callable[..., Collection[Cause]]
"""Finds the causes in `current`, compared with `reference`; both are keyword arguments."""
_KEPT = TypeAdapter(dict[str, Said | None])


def limits(
    reference: Reference,
    judge: Judge,
    *,
    alpha: float,
    columns: Collection[str] | None = None,
    kept: Path | None = None,
) -> Limits:
    """Evidence that sound blocks show of each cause of a column, as a limit that a fault exceeds.

    Blocks of the first half are judged by all other blocks, those of the second half by the
    blocks before them, as live batches are. The rate of a cause and column is the mean of a beta
    distribution: a prior of `_STRENGTH` blocks at the rate of other tables, and the blocks tried.
    Evidence beyond the strongest that was seen is taken as exponential with that mean, the
    simplest tail of Pickands (1975), so that it is exceeded in one of e-fold fewer batches for
    each multiple. All that was seen shares `alpha` evenly. A table with too many columns for all
    pairs to be followed is judged by groups of columns, each beside the columns that are clearest
    correlated with it; a group is judged when one of its columns is asked for, and the others
    count as if they showed as many causes.

    Parameters
    ----------
    reference : Reference
        Whose blocks are judged, by the rows of its sample.
    judge : callable
        Finds causes, without asking for limits.
    alpha : float
        Largest share of sound batches that may show again, and more clearly, what blocks of the
        reference showed of a fault, over all faults and columns together. At 1 there are no limits.
    columns : collection of str, optional
        The columns whose limits are asked for; all by default.
    kept : Path, optional
        File that keeps what the blocks showed, block by block, so that it is found once; it is
        for one reference and one version of this code. Without it, it is found once a process.

    Returns
    -------
    dict of (str, str) to float
        The least evidence of a cause and column, in nats a row, or the share of rows of causes
        without nats; a pair that no block showed has none. Empty with fewer than `_FEWEST` + 1
        blocks.
    """
    if alpha >= 1:
        return {}
    groups, found = list(_groups(reference)), {}
    for group in groups:
        if columns is not None and not group & set(columns):
            continue
        said, tried = _said_of_sound_blocks(reference, judge, group, kept)
        for pair, seen in said.items():
            rate = (len(seen) + _STRENGTH * _ELSEWHERE) / (tried + _STRENGTH)
            beyond = np.log(rate * len(said) * len(groups) / alpha)
            if beyond > 0:
                found[pair] = float(max(seen) * (1 + beyond))
    return found


def strength(cause: Cause) -> float:
    """Evidence for a cause: nats a row, or the share of rows of causes without nats."""
    return float(cause.evidence.get(NATS, cause.share))


def _groups(reference: Reference) -> Iterator[frozenset[str]]:
    """The columns that are judged together: all, or of a wide table some at a time."""
    size = _TOGETHER if too_many(len(reference.features)) else max(len(reference.names), 1)
    for first in range(0, len(reference.names), size):
        yield frozenset(reference.names[first : first + size])


def _said_of_sound_blocks(
    reference: Reference, judge: Judge, group: frozenset[str], kept: Path | None
) -> tuple[dict[tuple[str, str], list[float]], int]:
    """Strength of what is said of each cause and column, and the number of blocks judged."""
    if "sound blocks" not in reference.derived:
        reference.derived["sound blocks"] = {} if kept is None else _read(kept)
    known = cast("dict[str, Said | None]", reference.derived["sound blocks"])
    number = len(reference.blocks)
    judged = np.unique(np.linspace(0, number - 1, TRIALS).astype(int)).tolist() if number else []
    names = {k: f"{min(group)} {k}" for k in judged}
    if missing := {k: name for k, name in names.items() if name not in known}:
        among = panel(reference, group)
        every = own_blocks(reference, last=number, among=among)
        blocks = [_of_its_rows(block) for block in every]
        for k, name in missing.items():
            known[name] = _said_of_block(reference, judge, blocks, k, among)
            if kept is not None:
                _write(kept, known)
    said, tried = defaultdict[tuple[str, str], list[float]](list), 0
    for name in names.values():
        tried += known[name] is not None
        for cause, column, evidence in known[name] or []:
            if column in group:
                said[cause, column].append(evidence)
    return said, tried


def _said_of_block(
    reference: Reference, judge: Judge, blocks: list[Summary], k: int, among: Collection[str]
) -> Said | None:
    """What is said of a block by some of the others; None where these are too few."""
    forward = k >= len(blocks) // 2
    others = blocks[:k] if forward else [*blocks[:k], *blocks[k + 1 :]]
    known = as_reference(reference, others, among=among) if len(others) >= _FEWEST else None
    if known is None or blocks[k].sketch is None:
        return None
    return [
        (one.cause, name, strength(one))
        for one in judge(reference=known, current=blocks[k].sketch)
        if one.cause not in _OF_THE_BATCH
        for name in one.columns
    ]


def _of_its_rows(block: Summary) -> Summary:
    """A block that has as many rows as its sample, so that no block seems to have lost rows."""
    rows = 0 if block.sketch is None else len(block.sketch)
    return Summary({**block, ROWS: float(rows)}, sketch=block.sketch)


def _read(kept: Path) -> dict[str, Said | None]:
    """What a file keeps; nothing of a file that is damaged or was never written."""
    try:
        return _KEPT.validate_python(json.loads(kept.read_bytes()))
    except (OSError, ValueError):  # it is found again, and written anew
        return {}


def _write(kept: Path, known: dict[str, Said | None]) -> None:
    part = kept.with_name(f"{kept.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(known), encoding="utf-8")
        part.replace(kept)
    except OSError:  # where it cannot be kept, it is found again in the next process
        with suppress(OSError):
            part.unlink(missing_ok=True)
