"""Reasons not to believe a diagnosis: each has to be a break with the last sound batches as well.

Seasons, growth and ageing sensors move away from the reference step by step; a fault comes between
two batches. What is said of the reference alone is the world moving.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.monitoring.calibration import Limits, strength
from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.findings import Cause
from pipeline.reference.profile import MISSING
from pipeline.reference.sketches import KEPT, as_reference, own_blocks, panel

Diagnosis = Callable[[Case], Iterator[Cause]]
_HELD = 0.95
"""Share of a block's rows with one value beyond which the block counts as one observation."""
_RENEWED, _FEW = 0.1, 0.1
"""Mean share of a later block's rows with values that no earlier block held, and most distinct
values for each row, from which a column tells the time of its rows."""
_OF_ROWS = {"schema", "volume", "frozen", "duplicate", "join", "nulls", "swapped", "shuffled"}
"""Causes that do not rest on which values a column takes."""


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
        if cause.cause == "unit" and self._has_grown(cause):
            return "undone, the values would lie further from those of the last sound batch"
        if not self._breaks_with_nearby(diagnosis, cause, blamed):
            return "the last sound batches showed it before"
        return ""

    def _has_grown(self, cause: Cause) -> bool:
        """Whether the last sound batch was on the way to the values of a unit in all rows."""
        (name,), case = cause.columns, self._case
        if cause.share <= SHARED.most:
            return False
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

    def _breaks_with_nearby(
        self, diagnosis: Diagnosis, cause: Cause, blamed: frozenset[str]
    ) -> bool:
        nearby = self._nearby
        if cause.cause == "duplicate":  # rows are compared with all that are known
            return True
        if nearby is None or not set(cause.columns) <= set(nearby.reference.columns):
            return True
        key = diagnosis, blamed, cause.cause, cause.columns
        if key not in self._said:
            # What was found already is asked for as a fault that continues.
            asked = replace(nearby, standing=(*nearby.standing, cause))
            if self._case.wide:
                asked = replace(asked, asked=frozenset(cause.columns))
            self._said[key] = list(diagnosis(asked.without_columns(blamed)))
        return any(
            one.cause == cause.cause
            and (not cause.columns or set(one.columns) & set(cause.columns))
            for one in self._said[key]
        )

    def _is_time(self, cause: Cause, name: str) -> bool:
        """Whether a new block alone explains a cause, as its values are new in each block."""
        usual = self.held(name)
        if cause.cause == "stuck" and 0 < usual < _HELD:
            return _odds(cause.share) <= SHARED.odds * _odds(usual)
        return usual > 0

    def held(self, name: str) -> float:
        """Largest share of a value in a block of a column that tells the time of its rows, or 0.

        Such a column (a rate of the month, a season, a version) holds one value throughout a block
        and another in the next, or a few values of which later blocks bring new ones. However many
        rows repeat a value, it is one observation, and a value that was never seen before is what
        the next block brings; but not one in far more rows than any value of any block had.
        """
        return self._case.memory.recall(("held", name), lambda: self._largest_held(name))

    def _largest_held(self, name: str) -> float:
        reference = self._case.reference
        if name not in reference.columns:
            return 0.0
        cells, seen = reference.cells[:, reference.names.index(name)], set[int]()
        most, tops, new, distinct = [], [], [], []
        for number in range(len(reference.blocks)):
            own = cells[(reference.cell_blocks == number) & (cells != MISSING)]
            if len(own):
                values, counts = np.unique(own, return_counts=True)
                most.append(int(values[counts.argmax()]))
                tops.append(counts.max() / len(own))
                unseen = [value not in seen for value in values.tolist()]
                new.append(counts[unseen].sum() / len(own))
                distinct.append(len(values) / len(own))
                seen |= set(values.tolist())
        if len(most) < 2:  # noqa: PLR2004 -- a single block shows no change
            return 0.0
        changes = len(set(most)) > 1 and np.median(tops) >= _HELD
        later = new[max(1, len(new) // 2) :]  # of weather, the first weeks are new as well
        renewed = np.mean(later) >= _RENEWED and np.median(distinct) <= _FEW
        return float(max(tops)) if len(seen) == 1 or changes or renewed else 0.0

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
        rows = case.rows
        tally = reference.tally(rows)
        summary = reference.summarise(tally)
        return Case(reference, rows, tally, summary, (), case.findings, case.standing)


def _odds(share: float) -> float:
    return share / max(1 - share, 1e-9)
