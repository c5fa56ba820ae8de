"""Predict a column of a batch from its other columns, as learnt from the reference's rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.likelihood import Mask, Places
from pipeline.monitoring.diagnoses.relations import (
    Expected,
    ExpectedLabels,
    fit_classes,
    fit_scores,
)
from pipeline.monitoring.diagnoses.wandering import wanders
from pipeline.reference import Reference
from pipeline.reference.profile import MISSING, Cells, NumericProfile


@dataclass(frozen=True)
class Parameters:
    """How much is learnt from, and what is predicted.

    Attributes
    ----------
    fitted : int
        Half of the most rows that the relations of columns are learnt from.
    all_predict, predict : int
        Other columns up to which all predict a column, and how many do where there are more. A
        column then costs about as much in a wide table as in a narrow table.
    classes : int
        Most labels that are predicted; all rarer labels are one class.
    least_variance : float
        Least variance about a prediction: no column is predicted exactly.
    """

    fitted: int = 2_500
    all_predict: int = 40
    predict: int = 30
    classes: int = 12
    least_variance: float = 0.01


PARAMS = Parameters()


@dataclass(frozen=True)
class Predictors:
    """The columns that predict another column.

    Attributes
    ----------
    reference : Reference
        Whose first sampled rows the relations are learnt from.
    drawn : array of uint16, shape (n_drawn, n_columns)
        Cells of rows of the batch.
    among : sequence of str
        The columns that may predict, in alphabetical order.
    """

    reference: Reference
    drawn: Cells
    among: Sequence[str]

    @cached_property
    def _places(self) -> list[int]:
        """Places of the predicting columns in the cells."""
        place = {name: i for i, name in enumerate(self.reference.names)}
        return [place[name] for name in self.among]

    @cached_property
    def before(self) -> NDArray[np.float32]:
        """Ranks of the predicting columns in the reference, shape (n_rows, n_predicting)."""
        return self.reference.ranks(self.reference.cells[: 2 * PARAMS.fitted], self._places)

    @cached_property
    def now(self) -> NDArray[np.float32]:
        """Ranks of the predicting columns in the batch, shape (n_drawn, n_predicting)."""
        return self.reference.ranks(self.drawn, self._places)

    def cells(self, name: str) -> Cells:
        """Cells of a column in the reference."""
        return self.reference.cells[: 2 * PARAMS.fitted, self.reference.names.index(name)]

    @cached_property
    def blocks(self) -> Places:
        """Number of the block of each row of the reference."""
        return self.reference.cell_blocks[: 2 * PARAMS.fitted].astype(np.intp)

    @cached_property
    def halves(self) -> Mask:
        """Mark every other block: rows of a block share a day, so halves must not share blocks."""
        several = len(self.reference.blocks) > 1
        number = self.blocks if several else np.arange(len(self.blocks))
        halves: Mask = number % 2 == 0
        return halves

    def named(self, sources: Places) -> frozenset[str]:
        """Names of predicting columns, by their place among these."""
        return frozenset(self.among[j] for j in sources)


def best_predictors(reference: Reference, name: str, others: Sequence[str]) -> tuple[str, ...]:
    """The other columns, or those of many that are clearest correlated with a column.

    Columns whose relation to it moves from block to block predict nothing of the next block.
    """
    others = [other for other in others if not wanders(reference, name, other)]
    if len(others) <= PARAMS.all_predict:
        return tuple(others)
    scores, names = reference.normal_scores, reference.names
    own = [k for k, column in enumerate(scores.columns) if names[column] == name]
    largest = np.abs(np.nan_to_num(scores.correlation[own])).max(axis=0, initial=0.0)
    size: dict[str, float] = {}
    for column, value in zip(scores.columns, largest.tolist(), strict=True):
        size[names[column]] = max(value, size.get(names[column], 0.0))
    return tuple(sorted(sorted(others, key=lambda other: -size.get(other, 0.0))[: PARAMS.predict]))


def learn_scores(others: Predictors, name: str, profile: NumericProfile) -> Expected:
    """Predict the normal scores of a numeric column."""
    own = others.cells(name)
    there = own != MISSING
    scores = np.where(there, profile.normal_scores[np.where(there, own, 0)], 0.0)
    before, now, sources = fit_scores(others.before, others.now, scores, there, others.halves)
    residual = (scores - before)[there]
    variance = float(
        np.clip((residual**2).mean() if len(residual) else 1.0, PARAMS.least_variance, 1.0)
    )
    return Expected(
        before=before[there],
        now=now,
        scores=scores[there],
        values=profile.values(own)[there],
        blocks=others.blocks[there],
        variance=variance,
        sources=others.named(sources),
    )


def exactly(learnt: Expected, scores: Floats, sources: frozenset[str]) -> Expected:
    """The prediction of a column whose normal scores in the batch follow by arithmetic."""
    return replace(
        learnt, before=learnt.scores, now=scores, variance=PARAMS.least_variance, sources=sources
    )


def learn_labels(others: Predictors, name: str, labels: list[str]) -> ExpectedLabels:
    """Predict the labels of a categorical column; `labels` are in the order of their cells."""
    own, labels = others.cells(name), labels[: PARAMS.classes]
    classes = np.minimum(own.astype(np.intp), len(labels))
    return _learn_classes(others, labels, classes, own != MISSING, length=len(labels) + 1)


def learn_steps(
    others: Predictors,
    name: str,
    profile: NumericProfile,
    *,
    first: float,
    step: float,
    length: int,
) -> ExpectedLabels:
    """Predict a numeric column of `length` whole steps from `first`, by the number of the step."""
    values = profile.values(others.cells(name))
    there = ~np.isnan(values)
    classes = np.round((np.where(there, values, first) - first) / step).astype(np.intp)
    return _learn_classes(others, [str(k) for k in range(length)], classes, there, length=length)


def _learn_classes(
    others: Predictors, labels: list[str], classes: Places, there: Mask, *, length: int
) -> ExpectedLabels:
    counts: Floats = np.bincount(classes[there], minlength=length).astype(np.float64) + 0.5
    shares = counts / counts.sum()
    before, now, sources = fit_classes(
        others.before, others.now, classes, there, others.halves, shares=shares
    )
    return ExpectedLabels(
        labels=labels,
        shares=np.log(shares),
        before=before[there],
        classes=classes[there],
        blocks=others.blocks[there],
        now=now,
        sources=others.named(sources),
    )
