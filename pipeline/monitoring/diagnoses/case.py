"""The case that diagnoses look at: a batch as it arrived, and the reference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd

from pipeline.columns import Floats, as_codes, as_number
from pipeline.monitoring.diagnoses import blocks
from pipeline.monitoring.diagnoses.attention import few_valued, most_suspicious
from pipeline.monitoring.diagnoses.likelihood import Mask, Places
from pipeline.monitoring.diagnoses.memory import Memory, T
from pipeline.monitoring.diagnoses.novelty import share_of_new_values
from pipeline.monitoring.diagnoses.planes import strain
from pipeline.monitoring.diagnoses.predictors import (
    Predictors,
    best_predictors,
    exactly,
    learn_labels,
    learn_scores,
    learn_steps,
)
from pipeline.monitoring.diagnoses.relations import Expected, ExpectedLabels
from pipeline.monitoring.findings import Cause, Finding
from pipeline.reference import Reference
from pipeline.reference.identities import implied_by
from pipeline.reference.pairs import too_many
from pipeline.reference.profile import MISSING, CategoricalProfile, Cells, NumericProfile
from pipeline.reference.summaries import Summary, Trait
from pipeline.reference.tally import Tally

NATS = "nats a row"
"""Name of the evidence by which causes compete: mean log-likelihood ratio over all rows."""


@dataclass(frozen=True)
class Parameters:
    """What is looked at, and which columns say something about one another.

    Attributes
    ----------
    judged : int
        Most rows of a batch that are judged one by one.
    marked : float
        Correlation from which two columns say something about each other in a single row.
    telling : float
        Correlation from which a column counts among those that predict another column.
    foreign : float
        Share of rows with new values from which a column is another column than it was.
    inside : float
        Normal score up to which the reference knows a column well.
    """

    judged: int = 4_000
    marked: float = 0.4
    telling: float = 0.3
    foreign: float = 0.5
    inside: float = 2.0


PARAMS = Parameters()


@dataclass(frozen=True)
class Case:
    """A batch whose changes are to be explained.

    Attributes
    ----------
    reference : Reference
        The training rows.
    rows : DataFrame
        The batch as it arrived, with the rows that validation refused.
    tally : Tally
        Counts of the rows as they arrived.
    summary : Summary
        The valid rows of the batch as one observation, as are those it is compared with: the
        reference's blocks and the recent batches.
    recent : sequence of Summary
        Valid rows of earlier batches, oldest first.
    findings : sequence of Finding
        Tests of the valid rows.
    standing : sequence of Cause
        Faults of the batches right before this batch, if these are in quarantine.
    blamed : frozenset of str
        Columns whose fault is known; nothing is concluded from them.
    asked : frozenset of str or None
        The only columns in which faults are looked for; None for no such limit.
    memory : Memory
        What was computed about the batch; its copies share it.
    """

    reference: Reference
    rows: pd.DataFrame
    tally: Tally
    summary: Summary
    recent: Sequence[Summary]
    findings: Sequence[Finding]
    standing: Sequence[Cause] = ()
    blamed: frozenset[str] = frozenset()
    asked: frozenset[str] | None = None
    memory: Memory = field(default_factory=Memory, repr=False)

    def without(self, cause: Cause) -> "Case":
        """Copy of the case in which the columns of a known fault are blamed."""
        return self.without_columns(frozenset(cause.columns))

    def without_columns(self, names: frozenset[str]) -> "Case":
        """Copy of the case in which some columns are blamed: nothing is concluded about them."""
        return replace(self, blamed=self.blamed | names)

    @cached_property
    def every(self) -> list[str]:
        """Columns of both reference and batch, without the prediction and blamed columns."""
        return [name for name in self.known if name not in self.blamed]

    @property
    def known(self) -> list[str]:
        """Columns of both reference and batch, blamed columns among them."""
        names, came, own = self.reference.names, self.rows.columns, self.reference.prediction
        return self.memory.recall("known", lambda: [x for x in names if x in came and x not in own])

    @cached_property
    def features(self) -> list[str]:
        """Columns in which faults are looked for: `every` column, or the most suspicious of many.

        Columns with a fault in the batches right before this batch are among them.
        """
        if self.asked is not None:
            return [name for name in self.every if name in self.asked]
        stood = {name for cause in self.standing for name in cause.columns}
        return [name for name in self.every if name in self.examined or name in stood]

    @property
    def wide(self) -> bool:
        """Whether there are too many columns for faults to be looked for in all."""
        return too_many(len(self.known))

    @property
    def examined(self) -> frozenset[str]:
        """Columns in which faults are looked for, whether or not they are blamed by now."""
        return self.memory.recall("examined", self._chosen)

    def _chosen(self) -> frozenset[str]:
        if not self.wide:
            return frozenset(self.known)
        traits = {name: Trait("atom", (name,)) for name in self.known}
        atoms = {name: self.summary.get(x, 0.0) - self.most(x) for name, x in traits.items()}
        return most_suspicious(self.known, self.findings, strain=self._strain, atoms=atoms)

    @cached_property
    def naming(self) -> list[str]:
        """Columns by whose values segments are named; in a wide table those with few values."""
        if not self.wide:
            return self.every
        few = self.memory.recall("few values", lambda: few_valued(self.reference, self.known))
        return [name for name in few if name not in self.blamed]

    def once(self, what: str, name: str, compute: Callable[[], T]) -> T:
        """A result about a column, computed anew where what it depends on has changed.

        These are the columns that predict it, those that name segments, and its faults in the
        batches right before this batch.
        """
        stood = tuple((one.cause, one.share) for one in self.standing if name in one.columns)
        key = what, name, self.predicting(name), tuple(self.naming), stood
        return self.memory.recall(key, compute)

    def is_number(self, name: str) -> bool:
        """Whether a column is numeric."""
        return isinstance(self.reference.columns[name], NumericProfile)

    @cached_property
    def numeric(self) -> list[str]:
        """Numeric columns among the features."""
        return [name for name in self.features if self.is_number(name)]

    @cached_property
    def categorical(self) -> list[str]:
        """Categorical columns among the features."""
        return [name for name in self.features if not self.is_number(name)]

    @property
    def drawn(self) -> pd.DataFrame:
        """Rows of the batch drawn at random, as they arrived."""
        chosen = self.tally.chosen[: PARAMS.judged]
        return self.memory.recall("drawn", lambda: self.rows.iloc[chosen])

    @cached_property
    def drawn_cells(self) -> Cells:
        """Cells of the drawn rows, columns in alphabetical order."""
        return self.tally.cells[: PARAMS.judged]

    def profile(self, name: str) -> NumericProfile:
        """Profile of a numeric column."""
        profile = self.reference.columns[name]
        assert isinstance(profile, NumericProfile)  # noqa: S101 -- `numeric` holds only these
        return profile

    def counts(self, name: str) -> dict[str, int]:
        """Rows of the reference per label of a categorical column."""
        profile = self.reference.columns[name]
        assert isinstance(profile, CategoricalProfile)  # noqa: S101 -- `categorical` holds only these
        return profile.counts

    def numbers(self, name: str) -> Floats:
        """Values of the drawn rows; NaN where a value is not a finite number."""
        return self.memory.recall(("numbers", name), lambda: self._parsed(name))

    def _parsed(self, name: str) -> Floats:
        values = as_number(self.drawn[name]).to_numpy(dtype=np.float64)
        return np.where(np.isfinite(values), values, np.nan)

    def labels(self, name: str) -> tuple[Places, list[str]]:
        """Labels of the drawn rows: places in a list of labels, -1 where missing; and the list."""
        return self.memory.recall(("labels", name), lambda: as_codes(self.drawn[name]))

    def foreign(self, name: str) -> bool:
        """Whether most values of a column are new, so that they relate to nothing known.

        New are labels that the reference does not hold, and numbers where no row of it lies: after
        another change of the key rate all rates are new, and tell nothing of other columns.
        """
        return self.memory.recall(("foreign", name), lambda: self._mostly_new(name))

    def _mostly_new(self, name: str) -> bool:
        return share_of_new_values(self.reference.columns[name], self.drawn[name]) > PARAMS.foreign

    def missing(self, name: str) -> Mask:
        """Mark the drawn rows that have no value."""
        if self.is_number(name):
            return np.isnan(self.numbers(name))
        return self.labels(name)[0] < 0

    def place(self, name: str) -> int:
        """Place of a column in the cells."""
        return self.reference.names.index(name)

    def normal_scores(self, name: str, values: Floats) -> Floats:
        """Normal scores of values of a column; 0 where missing."""
        profile = self.profile(name)
        cells = profile.cells(values)
        there = cells != MISSING
        return np.where(there, profile.normal_scores[np.where(there, cells, 0)], 0.0)

    def correlation(self, left: str, right: str) -> float:
        """Correlation of the leading scores of two columns in the reference; 0 without scores."""
        return self._entry(self.reference.normal_scores.correlation, left, right)

    def correlation_now(self, left: str, right: str) -> float:
        """Correlation of the leading scores of two columns in the batch; 0 without scores."""
        return self._entry(self.tally.correlation, left, right)

    @cached_property
    def leading(self) -> dict[str, int]:
        """Place of the leading score of each column that has scores."""
        scores = self.reference.normal_scores
        return {self.reference.names[scores.columns[k]]: k for k in scores.leading}

    def _entry(self, matrix: Floats, left: str, right: str) -> float:
        if left not in self.leading or right not in self.leading:
            return 0.0
        return float(np.nan_to_num(matrix[self.leading[left], self.leading[right]]))

    def partners(self, name: str, *, marked: float = PARAMS.marked) -> list[str]:
        """Columns whose correlation with a column is at least `marked` in the reference."""
        if name not in self.leading:
            return []
        correlation = self.reference.normal_scores.correlation
        size = np.abs(np.nan_to_num(correlation[self.leading[name]]))
        return [
            other
            for other in self.every
            if other != name and other in self.leading and size[self.leading[other]] >= marked
        ]

    def suspect(self, name: str) -> bool:
        """Whether a test found drift in the column, or it fits others worse than in any block."""
        return name in self._drifted or self._strain.get(name, 0.0) > 1

    @cached_property
    def _drifted(self) -> set[str]:
        return {column for found in self.findings if found.drifted for column in found.columns}

    def stood(self, cause: str, *columns: str) -> float:
        """Largest share of rows with a fault in the batches right before this batch; 0 for none."""
        shares = [
            standing.share
            for standing in self.standing
            if standing.cause == cause and set(standing.columns) == set(columns)
        ]
        return max(shares, default=0.0)

    def changed(self, name: str) -> bool:
        """Whether the column drifted by itself, not only in its relations to others."""
        return any(
            found.drifted and found.level == "rows" and found.columns == (name,)
            for found in self.findings
        )

    @property
    def _strain(self) -> dict[str, float]:
        return self.memory.recall("strain", lambda: strain(self.reference, self.drawn_cells))

    def most(self, trait: Trait) -> float:
        """Largest value of a trait over the reference's blocks and the recent batches; else 0."""
        values = [batch.get(trait, np.nan) for batch in (*self.reference.blocks, *self.recent)]
        finite = [value for value in values if np.isfinite(value)]
        return max(finite, default=0.0)

    def block_cells(self, name: str) -> Floats:
        """Count the sampled rows of each block by their cell, as `blocks.count_cells` does."""
        profile = self.profile(name)
        count = partial(blocks.count_cells, self.reference, name, profile)
        return self.memory.recall(("cells", name), count)

    def names_the_block(self, name: str) -> bool:
        """Whether a column mostly shows when a row was made, as an index or a date does."""
        ask = partial(blocks.names_the_block, self.reference, name)
        return self.memory.recall(("names the block", name), ask)

    def expected(self, name: str, without: Sequence[str] = ()) -> Expected:
        """Predict a numeric column from the other columns, as learnt from the reference.

        Each half of the reference is predicted by a fit of the other half, the batch by both fits.
        Columns in `without`, and blamed columns, are not used. Arithmetic that all training rows
        obey is surer than what is learnt.
        """
        others = self.predicting(name, without)
        return self.memory.recall(("expected", name, others), lambda: self._learnt(name, others))

    def _learnt(self, name: str, others: Sequence[str]) -> Expected:
        learnt = learn_scores(self._predictors(others), name, self.profile(name))
        if implied := implied_by(self.reference.identities, name, others, self.numbers):
            return exactly(learnt, self.normal_scores(name, implied[0]), implied[1])
        return learnt

    def loosened(self, name: str, without: Sequence[str] = ()) -> Expected:
        """Predict a numeric column, adjusted to the relation that most rows of the batch show."""
        values = self.numbers(name)
        scores = self.normal_scores(name, values)
        return self.expected(name, without).loosened(scores, ~np.isnan(values))

    def supported(self, name: str, without: Sequence[str] = ()) -> Mask:
        """Mark drawn rows whose predictors of a column lie where the reference knows them.

        In a hot summer a model of winters extrapolates, and its predictions are not evidence.
        """
        others = self.predicting(name, without)
        return self.memory.recall(
            ("supported", name, others), lambda: self._inside(name, frozenset(others))
        )

    def _inside(self, name: str, others: frozenset[str]) -> Mask:
        inside = np.ones(len(self.drawn), dtype=bool)
        for other in self.partners(name, marked=PARAMS.telling):
            if self.is_number(other) and (other in others or self.foreign(other)):
                inside &= np.abs(self.normal_scores(other, self.numbers(other))) < PARAMS.inside
        return inside

    def expected_labels(self, name: str, without: Sequence[str] = ()) -> ExpectedLabels:
        """Predict a categorical column from the other columns, as learnt from the reference."""
        others = self.predicting(name, without)
        return self.memory.recall(
            ("labels expected", name, others),
            lambda: learn_labels(self._predictors(others), name, list(self.counts(name))),
        )

    def expected_steps(self, name: str, first: float, step: float, length: int) -> ExpectedLabels:
        """Predict a numeric column of whole steps, by the number of the step."""
        others = self.predicting(name)
        return self.memory.recall(
            ("steps expected", name, others),
            lambda: learn_steps(
                self._predictors(others),
                name,
                self.profile(name),
                first=first,
                step=step,
                length=length,
            ),
        )

    def predicting(self, name: str, without: Sequence[str] = ()) -> tuple[str, ...]:
        """The columns that predict a column, in alphabetical order.

        Columns in `without`, and blamed columns, are not used.
        """
        left = name, *sorted({*without, *self.blamed} - {name})
        return self.memory.recall(("predicting", *left), lambda: self._best_of_others(left))

    def _best_of_others(self, left: Sequence[str]) -> tuple[str, ...]:
        kept = [name for name in self.every if name not in left and not self.foreign(name)]
        return best_predictors(self.reference, left[0], kept)

    def _predictors(self, others: Sequence[str]) -> Predictors:
        return Predictors(self.reference, self.drawn_cells, others)
