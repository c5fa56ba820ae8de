"""What a diagnosis looks at: the rows of a batch as they came beside those of the reference."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import as_codes, as_number
from pipeline.monitoring.diagnoses.planes import misfit, planes, strained
from pipeline.monitoring.diagnoses.relations import Expected, Told, fit_classes, fit_scores
from pipeline.monitoring.findings import Cause, Finding
from pipeline.reference import Reference
from pipeline.reference.blocks import NO_BLOCK
from pipeline.reference.profile import MISSING, CategoricalProfile, Cells, Floats, NumericProfile
from pipeline.reference.summaries import Summary, Trait
from pipeline.reference.tally import Tally

Mask = NDArray[np.bool_]
Places = NDArray[np.intp]
JUDGED = 4_000
"""Most rows of a batch that are looked at one by one."""
FITTED = 2_500
"""Most rows that a column's relation to the others is learnt from."""
_CLASSES = 12
"""Most labels that are told apart."""
NATS = "nats a row"
"""Evidence by which causes that rest on several columns compete: the mean over all rows."""
_MARKED = 0.4
"""Correlation that tells something of a single row."""
_TELLING = 0.3
"""Correlation that makes a column one of those that tell of another."""
_INSIDE = 2.0
"""Normal score within which the reference knows a column well."""


@dataclass(frozen=True)
class Case:
    """A batch to be explained.

    Attributes
    ----------
    reference : Reference
    rows : DataFrame
        As they came.
    tally : Tally
        The same, counted.
    summary : Summary
        The batch as one observation.
    recent : sequence of Summary
        Earlier batches, oldest first.
    findings : sequence of Finding
        What the tests say.
    standing : sequence of Cause
        Faults of the batches right before, if these are set aside.
    blamed : frozenset of str
        Columns whose fault is known: nothing is concluded from them.
    """

    reference: Reference
    rows: pd.DataFrame
    tally: Tally
    summary: Summary
    recent: Sequence[Summary]
    findings: Sequence[Finding]
    standing: Sequence[Cause] = ()
    blamed: frozenset[str] = frozenset()
    _numbers: dict[str, Floats] = field(default_factory=dict, repr=False)
    _labels: dict[str, tuple[Places, list[str]]] = field(default_factory=dict, repr=False)
    _expected: dict[tuple[str, ...], Expected] = field(default_factory=dict, repr=False)
    _told: dict[tuple[str, ...], Told] = field(default_factory=dict, repr=False)
    _supported: dict[tuple[str, ...], Mask] = field(default_factory=dict, repr=False)
    _block_cells: dict[str, Floats] = field(default_factory=dict, repr=False)

    def without(self, cause: Cause) -> "Case":
        """The same with the columns of a known fault set aside."""
        return replace(self, blamed=self.blamed | set(cause.columns))

    @cached_property
    def features(self) -> list[str]:
        """Columns that both sides have, without the prediction and those already blamed."""
        return [
            name
            for name in self.reference.names
            if name in self.rows.columns
            and name != self.reference.prediction
            and name not in self.blamed
        ]

    @cached_property
    def numeric(self) -> list[str]:
        """Those of numbers."""
        columns = self.reference.columns
        return [name for name in self.features if isinstance(columns[name], NumericProfile)]

    @cached_property
    def categorical(self) -> list[str]:
        """Those of labels."""
        return [name for name in self.features if name not in self.numeric]

    @cached_property
    def drawn(self) -> pd.DataFrame:
        """Rows drawn at random, as they came."""
        return self.rows.iloc[self.tally.chosen[:JUDGED]]

    @cached_property
    def drawn_cells(self) -> Cells:
        """The same as cells, columns in alphabetical order."""
        return self.tally.cells[:JUDGED]

    def profile(self, name: str) -> NumericProfile:
        """Profile of a column of numbers."""
        profile = self.reference.columns[name]
        assert isinstance(profile, NumericProfile)  # noqa: S101 -- `numeric` names no other
        return profile

    def counts(self, name: str) -> dict[str, int]:
        """Rows of the reference per label."""
        profile = self.reference.columns[name]
        assert isinstance(profile, CategoricalProfile)  # noqa: S101 -- `categorical` names no other
        return profile.counts

    def numbers(self, name: str) -> Floats:
        """Values of the drawn rows; NaN for what is no number."""
        if name not in self._numbers:
            values = as_number(self.drawn[name]).to_numpy(dtype=np.float64)
            self._numbers[name] = np.where(np.isfinite(values), values, np.nan)
        return self._numbers[name]

    def labels(self, name: str) -> tuple[Places, list[str]]:
        """Labels of the drawn rows, as places in a list of them; -1 for none."""
        if name not in self._labels:
            self._labels[name] = as_codes(self.drawn[name])
        return self._labels[name]

    def missing(self, name: str) -> Mask:
        """Which of the drawn rows have no value."""
        if name in self.numeric:
            return np.isnan(self.numbers(name))
        return self.labels(name)[0] < 0

    def place(self, name: str) -> int:
        """Of a column in the cells."""
        return self.reference.names.index(name)

    def normal_scores(self, name: str, values: Floats) -> Floats:
        """Normal scores of values; 0 where missing."""
        profile = self.profile(name)
        cells = profile.cells(values)
        there = cells != MISSING
        return np.where(there, profile.normal_scores[np.where(there, cells, 0)], 0.0)

    def correlation(self, one: str, other: str) -> float:
        """Of the leading scores of two columns, in the reference; 0 where one has none."""
        return self._entry(self.reference.normal_scores.correlation, one, other)

    def correlation_now(self, one: str, other: str) -> float:
        """The same in the batch."""
        return self._entry(self.tally.correlation, one, other)

    @cached_property
    def leading(self) -> dict[str, int]:
        """Place of the leading score of each column that has one."""
        scores = self.reference.normal_scores
        return {self.reference.names[scores.columns[k]]: k for k in scores.leading}

    def _entry(self, matrix: Floats, one: str, other: str) -> float:
        if one not in self.leading or other not in self.leading:
            return 0.0
        return float(np.nan_to_num(matrix[self.leading[one], self.leading[other]]))

    def partners(self, name: str, *, marked: float = _MARKED) -> list[str]:
        """Columns with a marked correlation with one, in the reference."""
        return [
            other
            for other in self.features
            if other != name and abs(self.correlation(name, other)) >= marked
        ]

    def suspect(self, name: str) -> bool:
        """Whether any test names the column, or it fits the others worse than in any block."""
        return name in self._drifted or name in self._strained

    @cached_property
    def _drifted(self) -> set[str]:
        return {column for found in self.findings if found.drifted for column in found.columns}

    def stood(self, cause: str, *columns: str) -> float:
        """Largest share of rows with this fault in the batches right before; 0: in none."""
        same = [
            one.share
            for one in self.standing
            if one.cause == cause and set(one.columns) == set(columns)
        ]
        return max(same, default=0.0)

    def changed(self, name: str) -> bool:
        """Whether the column differs by itself, and not only in its relations."""
        return any(
            found.drifted and found.level == "rows" and found.columns == (name,)
            for found in self.findings
        )

    def misfit(self, scores: Floats) -> Floats:
        """Squared distance of each score from what the others of its row say, by a plane."""
        return misfit(scores, self._planes)

    @cached_property
    def _planes(self) -> Floats:
        return planes(self.reference.normal_scores.correlation)

    @cached_property
    def _strained(self) -> set[str]:
        return strained(self.reference, self.drawn_cells, self._planes)

    def usual(self, trait: Trait) -> tuple[float, float]:
        """Mean and standard deviation of a trait over the blocks of the reference; 0 without."""
        values = np.asarray([block.get(trait, np.nan) for block in self.reference.blocks])
        values = values[np.isfinite(values)]
        if len(values) < 2:  # one has no spread
            return float(values.mean()) if len(values) else 0.0, 0.0
        return float(values.mean()), float(values.std(ddof=1))

    def most(self, trait: Trait) -> float:
        """Largest of a trait over the blocks of the reference and the recent batches."""
        values = [one.get(trait, np.nan) for one in (*self.reference.blocks, *self.recent)]
        finite = [value for value in values if np.isfinite(value)]
        return max(finite, default=0.0)

    def block_cells(self, name: str) -> Floats:
        """Rows of each block of the reference by their cell of a column of numbers.

        Of shape (n_blocks, 2 * n_points + 1); cell 2k + 1 is the point k of the grid.
        """
        if name not in self._block_cells:
            own = self.reference.cells[:, self.place(name)]
            blocks = self.reference.cell_blocks
            known, n = (own != MISSING) & (blocks != NO_BLOCK), len(self.reference.blocks)
            size = 2 * len(self.profile(name).points) + 1
            cells = blocks[known].astype(np.intp) * size + own[known]
            counts = np.bincount(cells, minlength=n * size).astype(np.float64)
            self._block_cells[name] = counts.reshape(n, size)
        return self._block_cells[name]

    def names_the_block(self, name: str) -> bool:
        """Whether a column mostly says when a row came, as an index or a date does."""
        spreads = [block.get(Trait("spread", (name,)), np.nan) for block in self.reference.blocks]
        places = [block.get(Trait("location", (name,)), np.nan) for block in self.reference.blocks]
        if len(places) < 3 or not np.isfinite([*spreads, *places]).all():  # no order in two
            return False
        steps = np.sign(np.diff(places))
        orderly = abs(steps.mean()) == 1
        inside = float(np.mean(spreads))  # of a block, in standard deviations of the whole
        return bool(inside < 0.05 or (orderly and inside < 0.5))

    def run(self, name: str) -> float:
        """Mean number of rows one after another with one value; those of one day are not many."""
        values = as_number(self.rows[name]).to_numpy(dtype=np.float64)
        return len(values) / (1 + np.count_nonzero(np.diff(values)))

    def expected(self, name: str, without: Sequence[str] = ()) -> Expected:
        """What the other columns say of a column of numbers, learnt from the reference.

        The reference is predicted by two crossed fits, the batch by both.
        """
        key = (name, *sorted({*without, *self.blamed} - {name}))
        if key not in self._expected:
            self._expected[key] = self._fit(name, key)
        return self._expected[key]

    def loosened(self, name: str, without: Sequence[str] = ()) -> Expected:
        """The same as most rows of the batch have it."""
        values = self.numbers(name)
        scores = self.normal_scores(name, values)
        return self.expected(name, without).loosened(scores, ~np.isnan(values))

    def supported(self, name: str, without: Sequence[str] = ()) -> Mask:
        """Drawn rows in which the columns that tell of one lie where the reference knows them.

        A hot summer shows a model of winters nothing but its edge, and what that says of the
        other columns is no evidence.
        """
        key = (name, *sorted({*without, *self.blamed} - {name}))
        if key not in self._supported:
            inside = np.ones(len(self.drawn), dtype=bool)
            for other in self.partners(name, marked=_TELLING):
                if other in self.numeric and other not in key:
                    inside &= np.abs(self.normal_scores(other, self.numbers(other))) < _INSIDE
            self._supported[key] = inside
        return self._supported[key]

    def _others(
        self, left: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
        """What the model of one column sees, of the reference and of the batch, and its names."""
        reference = self.reference
        names = [reference.names[i] for i in reference.features]
        kept = [j for j, name in enumerate(names) if name not in left and name in self.features]
        before = reference.ranks(reference.cells[: 2 * FITTED])
        now = reference.ranks(self.drawn_cells)
        return before[:, kept], now[:, kept], [names[j] for j in kept]

    @cached_property
    def _blocks(self) -> Places:
        return self.reference.cell_blocks[: 2 * FITTED].astype(np.intp)

    @cached_property
    def _halves(self) -> Mask:
        """Every other block; rows of one block share a day, which another batch does not."""
        several = len(self.reference.blocks) > 1
        number = self._blocks if several else np.arange(len(self._blocks))
        halves: Mask = number % 2 == 0
        return halves

    def _fit(self, name: str, left: Sequence[str]) -> Expected:
        before, now, names = self._others(left)
        own = self.reference.cells[: 2 * FITTED, self.place(name)]
        there = own != MISSING
        scores = np.where(there, self.profile(name).normal_scores[np.where(there, own, 0)], 0.0)
        told_before, told_now, sources = fit_scores(before, now, scores, there, self._halves)
        residual = (scores - told_before)[there]
        variance = float(np.clip((residual**2).mean() if len(residual) else 1.0, 0.01, 1.0))
        values = self.profile(name).values(own)
        blocks = self._blocks[there]
        return Expected(
            told_before[there],
            told_now,
            scores[there],
            values[there],
            blocks,
            variance,
            frozenset(names[j] for j in sources),
        )

    def told(self, name: str, without: Sequence[str] = ()) -> Told:
        """What the other columns say of a column of labels, learnt from the reference."""
        key = (name, *sorted({*without, *self.blamed} - {name}))
        if key not in self._told:
            self._told[key] = self._fit_labels(name, key)
        return self._told[key]

    def told_steps(self, name: str, first: float, step: float, length: int) -> Told:
        """What they say of a column of whole steps, by its place among them."""
        key = (name, "\nsteps", *sorted(self.blamed))
        if key not in self._told:
            values = self.profile(name).values(self.reference.cells[: 2 * FITTED, self.place(name)])
            there = ~np.isnan(values)
            classes = np.round((np.where(there, values, first) - first) / step).astype(np.intp)
            shares: Floats = np.bincount(classes[there], minlength=length).astype(np.float64) + 0.5
            labels = [str(k) for k in range(length)]
            self._told[key] = self._classified(labels, classes, there, shares, (name,))
        return self._told[key]

    def _fit_labels(self, name: str, left: Sequence[str]) -> Told:
        own = self.reference.cells[: 2 * FITTED, self.place(name)].astype(np.intp)
        labels = list(self.counts(name))[:_CLASSES]
        there = own != MISSING
        classes = np.minimum(own, len(labels))
        shares: Floats = (
            np.bincount(classes[there], minlength=len(labels) + 1).astype(np.float64) + 0.5
        )
        return self._classified(labels, classes, there, shares, left)

    def _classified(
        self, labels: list[str], classes: Places, there: Mask, shares: Floats, left: Sequence[str]
    ) -> Told:
        before, now, names = self._others((*left, *self.blamed))
        shares = shares / shares.sum()
        logs_before, logs_now, sources = fit_classes(
            before, now, classes, there, self._halves, shares=shares
        )
        return Told(
            labels,
            np.log(shares),
            logs_before[there],
            classes[there],
            self._blocks[there],
            logs_now,
            frozenset(names[j] for j in sources),
        )
