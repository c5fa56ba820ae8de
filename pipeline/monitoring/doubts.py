"""Reasons not to believe a diagnosis: each has to be a break with the last sound batches as well.

Seasons, growth and ageing sensors move away from the reference step by step; a fault comes between
two batches. What is said of the reference alone is the world moving.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from pipeline.columns import Floats
from pipeline.monitoring.calibration import Limits, strength
from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.far_values import far_rows
from pipeline.monitoring.diagnoses.identities import inconsistent
from pipeline.monitoring.diagnoses.likelihood import Mask
from pipeline.monitoring.diagnoses.memory import Memory
from pipeline.monitoring.diagnoses.novelty import new_values
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.findings import Cause
from pipeline.reference import Reference
from pipeline.reference.profile import MISSING
from pipeline.reference.sketches import KEPT, as_reference, own_blocks, panel
from pipeline.reference.summaries import Trait

Diagnosis = Callable[[Case], Iterator[Cause]]
_HELD = 0.95
"""Share of a block's rows with one value beyond which the block counts as one observation."""
_RENEWED, _FEW = 0.1, 0.1
"""Mean share of a later block's rows with values that no earlier block held, and most distinct
values for each row, from which a column tells the time of its rows."""
_LEVELS, _LEAPS = (0.05, 0.25, 0.5, 0.75, 0.95), 0.001
"""Quantiles of a column that tells the time, and the chance of a step from which it is a leap."""
_OF_ROWS = {
    *("schema", "volume", "frozen", "duplicate", "join", "nulls"),
    *("swapped", "shuffled", "inconsistent"),
}
"""Causes that do not rest on which values a column takes."""
_OF_THE_BATCH = {"schema", "volume", "duplicate"}
"""Causes that do not rest on some of the rows of the batch."""
_OF_LABELS = {"recode", "sentinel", "swapped"}
"""Causes for which a column's own new labels are evidence."""
_OF_RELATIONS = {"permuted", "shifted", "shuffled", "sign", "unit"}
"""Causes that rest on what the columns of a row have to do with one another."""
_MOVED = 0.3
"""How much further off than in any sound batch numbers lie that moved, in standard deviations."""
_MOSTLY_NEW = 0.7
"""Share of rows with new labels above which these are no newcomers beside known ones."""


class Doubt:
    """What is known against the diagnoses of one batch.

    Parameters
    ----------
    case : Case
        The batch beside its reference.
    find_limits : callable
        Finds the evidence that sound blocks show of some `columns`, about which something is said.
    """

    def __init__(self, case: Case, find_limits: Callable[..., Limits]) -> None:
        self._case = case
        self._find_limits = find_limits
        self._reasons: dict[str, str] = {}
        self._said: dict[tuple[Any, ...], list[Cause]] = {}
        self._known_rows: dict[bytes, Case] = {}

    def __call__(self, diagnosis: Diagnosis, cause: Cause, blamed: frozenset[str]) -> bool:
        """Whether not to believe a cause that a diagnosis found, some columns being blamed."""
        if reason := self._reason(diagnosis, cause, blamed):
            self._reasons[cause.name] = reason
        return bool(reason)

    def notes(self, believed: Collection[Cause]) -> list[str]:
        """Sentences about what is not believed, for people; nothing about what is, in the end."""
        names = {cause.name for cause in believed}
        return [
            f"{name} is not believed: {reason}."
            for name, reason in self._reasons.items()
            if name not in names
        ]

    def _reason(self, diagnosis: Diagnosis, cause: Cause, blamed: frozenset[str]) -> str:
        if cause.cause not in _OF_ROWS and any(self._is_time(cause, x) for x in cause.columns):
            return "the column tells the time of its rows"
        limits = self._find_limits(columns=cause.columns)
        limit = max((limits.get((cause.cause, x), 0.0) for x in cause.columns), default=0.0)
        if strength(cause) < limit:
            return (
                f"sound blocks of the reference show it as well; its evidence is "
                f"{strength(cause):.3g}, and has to be {limit:.3g}"
            )
        doubts = (
            (self._has_grown, "undone, the values would lie further from the last sound batch"),
            (self._showed_before, "beside the last sound batches alone it does not show"),
            (self._in_new_rows, "only rows with values that no training row has show it"),
            (self._by_what_moved, "it rests on columns that moved further than ever before"),
        )
        return next((why for holds, why in doubts if holds(diagnosis, cause, blamed)), "")

    def _has_grown(self, diagnosis: Diagnosis, cause: Cause, blamed: frozenset[str]) -> bool:
        """Whether the last sound batch was on the way to the values of a unit in all rows."""
        del diagnosis, blamed
        if cause.cause != "unit" or cause.share <= SHARED.most:
            return False
        (name,), case = cause.columns, self._case
        batches = [*own_blocks(case.reference, 1, among=cause.columns), *case.recent]
        kept = [
            one.sketch[name] for one in batches if one.sketch is not None and name in one.sketch
        ]
        if not kept or kept[-1].isna().all():
            return False
        now, before = float(np.nanmedian(case.numbers(name))), float(kept[-1].median())
        undone = (now - float(cause.evidence["offset"])) / float(cause.evidence["factor"])
        values = np.asarray([before, now, undone])
        sizes = np.log(values) if (values > 0).all() else values
        return bool(abs(sizes[2] - sizes[0]) > abs(sizes[1] - sizes[0]))

    def _showed_before(self, diagnosis: Diagnosis, cause: Cause, blamed: frozenset[str]) -> bool:
        """Whether the batch breaks with the reference, but not with the last sound batches."""
        nearby = self._nearby
        if cause.cause == "duplicate":  # rows are compared with all that are known
            return False
        if nearby is None or not set(cause.columns) <= set(nearby.reference.columns):
            return False
        key = diagnosis, blamed, cause.cause, cause.columns
        if key not in self._said:
            # What was found already is asked for as a fault that continues.
            asked = replace(nearby, standing=(*nearby.standing, cause))
            if self._case.wide:
                asked = replace(asked, asked=frozenset(cause.columns))
            self._said[key] = list(diagnosis(asked.without_columns(blamed)))
        return not _says_again(self._said[key], cause)

    def _in_new_rows(self, diagnosis: Diagnosis, cause: Cause, blamed: frozenset[str]) -> bool:
        """Whether only rows with new labels, or numbers that repeat and are new, show a cause.

        A new market, product or tariff has its own amounts: nothing was usual in its rows.
        """
        case = self._case
        if cause.cause in _OF_THE_BATCH:
            return False
        of_labels = cause.cause in _OF_LABELS
        own = {x for x in cause.columns if of_labels or case.is_number(x)}
        new = self._rows_with_new_values(frozenset(own | blamed))
        if not 0 < new.mean() < _MOSTLY_NEW:
            return False
        if new.tobytes() not in self._known_rows:
            rows = case.rows[~new]
            tally = case.reference.tally(rows)
            summary = case.reference.summarise(tally)
            self._known_rows[new.tobytes()] = replace(
                case, rows=rows, tally=tally, summary=summary, memory=Memory()
            )
        return not _again(self._known_rows[new.tobytes()], diagnosis, cause, blamed)

    def _by_what_moved(self, diagnosis: Diagnosis, cause: Cause, blamed: frozenset[str]) -> bool:
        """Whether only numbers that moved show a relation to be lost, as in a week of strikes.

        Nobody knows what else goes with values that no batch had; values in other rows than their
        own have their usual distribution.
        """
        if diagnosis is inconsistent:  # arithmetic holds however far numbers move
            return False
        moved = self._moved - blamed if cause.cause in _OF_RELATIONS else frozenset[str]()
        if cause.cause == "shuffled" and moved & set(cause.columns):
            return True
        others = moved - set(cause.columns)
        return bool(others) and not _again(self._case, diagnosis, cause, blamed | others)

    @cached_property
    def _moved(self) -> frozenset[str]:
        """Numbers that lie further off than in any block and recent batch."""
        case = self._case
        before = [*case.reference.blocks, *case.recent]
        moved = set()
        for name in filter(case.is_number, case.known):
            trait = Trait("location", (name,))
            usual = [batch[trait] for batch in before if trait in batch]
            if usual and trait in case.summary:
                now = case.summary[trait]
                off = max(now - max(usual), min(usual) - now)
                moved |= {name} if off > _MOVED else set()
        return frozenset(moved)

    def _rows_with_new_values(self, but: frozenset[str]) -> Mask:
        """Mark rows with a label or number, seen several times, that the reference never held."""
        case, marked = self._case, np.zeros(len(self._case.rows), dtype=bool)
        for name in case.known:
            if name not in but and (case.is_number(name) or case.tally.novel.get(name)):
                mine = case.memory.recall(("new rows", name), partial(self._new_rows, name))
                if mine.any() and mine.mean() < _MOSTLY_NEW and not self._brings_new(name):
                    marked |= mine
        return marked

    def _brings_new(self, name: str) -> bool:
        """Whether each later block brought values that no earlier block held, as films change."""
        new = self._blocks_of(name).new
        return bool(len(new) and np.median(new) >= _RENEWED)

    def _new_rows(self, name: str) -> Mask:
        """Mark the rows with new values of a column."""
        places, new = new_values(self._case.reference.columns[name], self._case.rows[name])
        rows = np.bincount(places + 1, minlength=len(new) + 1)[1:]
        mine: Mask = np.append(new & (rows >= SHARED.seen), [False])[places]
        return mine

    def _is_time(self, cause: Cause, name: str) -> bool:
        """Whether a new block alone explains a cause, as its values are new in each block."""
        usual = self.held(name)
        if usual == 0 or self._leaps(name):
            return False
        if cause.cause == "stuck" and 0 < usual < _HELD:
            return _odds(cause.share) <= SHARED.odds * _odds(usual)
        return True

    def _leaps(self, name: str) -> bool:
        """Whether numbers lie further from the last sound batch than any crisis leads to.

        A part of the rows does not leap alone. Steps from batch to batch are taken to have a tail
        as heavy as a Pareto distribution with exponent 1: the largest of n is exceeded k-fold with
        a chance of 1 / ((n + 1) k).
        """
        case = self._case
        if not case.is_number(name):
            return False
        kept = self._case.memory.recall(
            ("quantiles of batches", name), lambda: self._quantiles_of_batches(name)
        )
        if len(kept) < 2:  # noqa: PLR2004 -- one batch shows no step
            return False
        if far_rows(case, name).any():
            return True
        furthest = np.abs(np.diff(kept, axis=0)).max()
        now = np.abs(np.nanquantile(case.numbers(name), _LEVELS) - kept[-1]).max()
        return bool(furthest > 0 and now * _LEAPS * len(kept) > furthest)

    def _quantiles_of_batches(self, name: str) -> Floats:
        """Quantiles of the reference's blocks and the recent batches, shape (n_batches, 5)."""
        case = self._case
        blocks = own_blocks(case.reference, len(case.reference.blocks), among={name})
        found = [
            np.nanquantile(one.sketch[name], _LEVELS)
            for one in (*blocks, *case.recent)
            if one.sketch is not None and name in one.sketch and one.sketch[name].notna().any()
        ]
        return np.asarray(found).reshape(-1, len(_LEVELS))

    def held(self, name: str) -> float:
        """Largest share of a value in a block of a column that tells the time of its rows, or 0.

        Such a column (a rate of the month, a season, a version) holds one value throughout a block
        and another in the next, or a few values of which later blocks bring new ones. However many
        rows repeat a value, it is one observation, and a value that was never seen before is what
        the next block brings; but not one in far more rows than any value of any block had.
        """
        return self._case.memory.recall(("held", name), lambda: self._largest_held(name))

    def _largest_held(self, name: str) -> float:
        blocks = self._blocks_of(name)
        if len(blocks.most) < 2:  # noqa: PLR2004 -- a single block shows no change
            return 0.0
        changes = len(set(blocks.most)) > 1 and np.median(blocks.tops) >= _HELD
        habit = np.count_nonzero(blocks.new >= _RENEWED) > 1  # a price list is revised once
        renewed = habit and blocks.new.mean() >= _RENEWED and np.median(blocks.distinct) <= _FEW
        return float(max(blocks.tops)) if blocks.values == 1 or changes or renewed else 0.0

    def _blocks_of(self, name: str) -> "_Blocks":
        return self._case.memory.recall(
            ("blocks", name), lambda: _values_of_blocks(self._case.reference, name)
        )

    @cached_property
    def _nearby(self) -> Case | None:
        """The batch beside the last sound ones; None where these left no rows."""
        case = self._case
        if not case.recent and len(case.reference.blocks) <= KEPT:
            return None  # it would be the reference again, by fewer rows
        among = panel(case.reference, case.examined)
        before = [*own_blocks(case.reference, among=among), *case.recent][-KEPT:]
        reference = as_reference(case.reference, before, among=among)
        if reference is None:
            return None
        # Rows of the sample hold quantiles, which obey no rule; those of all training rows stay.
        rules = [x for x in case.reference.identities if set(x.columns) <= reference.columns.keys()]
        reference = reference.with_blocks(reference.blocks, identities=tuple(rules))
        rows = case.rows
        tally = reference.tally(rows)
        summary = reference.summarise(tally)
        return Case(reference, rows, tally, summary, (), case.findings, case.standing)


class _Blocks(NamedTuple):
    """The values of a column in the blocks of a reference that hold any.

    Attributes
    ----------
    most : list of int
        The most frequent value of each block.
    tops, distinct : list of float
        Its share, and the number of distinct values for each row.
    new : array of float
        Share of rows with values that no earlier block held, of the later half of the blocks: of
        weather, first weeks are new as well.
    values : int
        Distinct values of all blocks.
    """

    most: list[int]
    tops: list[float]
    distinct: list[float]
    new: Floats
    values: int


def _values_of_blocks(reference: Reference, name: str) -> _Blocks:
    most, tops, distinct, new, seen = list[int](), [], [], list[float](), set[int]()
    if name in reference.columns:
        cells = reference.cells[:, reference.names.index(name)]
        for number in range(len(reference.blocks)):
            own = cells[(reference.cell_blocks == number) & (cells != MISSING)]
            if len(own):
                values, counts = np.unique(own, return_counts=True)
                most.append(int(values[counts.argmax()]))
                tops.append(float(counts.max() / len(own)))
                unseen = [value not in seen for value in values.tolist()]
                new.append(float(counts[unseen].sum() / len(own)))
                distinct.append(len(values) / len(own))
                seen |= set(values.tolist())
    return _Blocks(most, tops, distinct, np.asarray(new[max(1, len(new) // 2) :]), len(seen))


def _again(case: Case, diagnosis: Diagnosis, cause: Cause, blamed: frozenset[str]) -> bool:
    """Whether a cause is said again when it is asked for as a fault that continues."""
    asked = replace(case, standing=(*case.standing, cause), asked=frozenset(cause.columns))
    return _says_again(diagnosis(asked.without_columns(blamed)), cause)


def _says_again(causes: Iterable[Cause], cause: Cause) -> bool:
    """Whether a cause is among others, of one of its columns."""
    return any(
        one.cause == cause.cause and (not cause.columns or set(one.columns) & set(cause.columns))
        for one in causes
    )


def _odds(share: float) -> float:
    return share / max(1 - share, 1e-9)
