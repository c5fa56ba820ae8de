"""How well a transformation of a numeric column explains a batch, row by row."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import Case, Mask
from pipeline.monitoring.diagnoses.likelihood import (
    Change,
    drift_gain,
    log_mass,
    mixture,
    of_blocks,
    plain_gain,
    touched_rows,
)
from pipeline.monitoring.diagnoses.relations import Expected
from pipeline.reference.summaries import Trait

CONVINCING = 1.0
"""Least nats per affected row."""
TOTAL = 25.0
"""Least nats over all rows."""
_SHARE = 0.04
"""Smallest share of affected rows that is looked for."""
MOST = 0.7
"""Share of rows above which a fault is taken to affect all rows."""
ROWS = 2_000
"""Number of drawn rows that candidates are tried on."""


@dataclass(frozen=True)
class Fit:
    """How well a transformation explains a column.

    Attributes
    ----------
    change : Change
        The transformation.
    share : float
        Share of affected rows.
    total : float
        Nats over all rows.
    gain : array of float, shape (n_rows,)
        Nats of each row.
    related : float
        Mean nats of affected rows that come from the other columns.
    """

    change: Change
    share: float
    total: float
    gain: Floats
    related: float

    @property
    def each(self) -> float:
        """Nats per affected row."""
        return self.total / max(self.share * len(self.gain), 1.0)

    @property
    def convincing(self) -> bool:
        """Whether the gain is large enough, over all rows and per affected row."""
        return self.total > TOTAL and self.each > CONVINCING


@dataclass(frozen=True)
class Relation:
    """What the other columns say of a column of the batch.

    Attributes
    ----------
    expected : Expected
        Their prediction of each value.
    arrived : array of float, shape (n_rows,)
        Nats by which they make each value, as it arrived, likelier.
    """

    expected: Expected
    arrived: Floats


@dataclass(frozen=True)
class Column:
    """A numeric column of the batch, with all that does not depend on the transformation tried.

    Attributes
    ----------
    case : Case
        The batch.
    name : str
        The column.
    values : array of float, shape (n_rows,)
        Its values in the first drawn rows.
    """

    case: Case
    name: str
    values: Floats

    @cached_property
    def mass(self) -> Floats:
        """Logarithm of the reference's mass at each value as it arrived."""
        return log_mass(self.case.profile(self.name), self.values)[0]

    @cached_property
    def supported(self) -> Mask:
        """Rows for which the other columns can predict."""
        return self.case.supported(self.name)[: len(self.values)]

    @cached_property
    def related(self) -> Relation:
        """The relation to the other columns that the reference shows."""
        return self._relation(self.case.expected(self.name))

    @cached_property
    def loosened(self) -> Relation:
        """The relation to the other columns that most rows of the batch show."""
        return self._relation(self.case.loosened(self.name))

    @cached_property
    def most_related(self) -> Floats:
        """Most nats per row that any change gains in the relation to the other columns."""
        most = [
            np.where(np.isnan(self.values), 0.0, one.expected.most_nats - one.arrived)
            for one in (self.related, self.loosened)
        ]
        return np.where(self.supported, np.maximum(*most), 0.0)

    def _relation(self, expected: Expected) -> Relation:
        expected = replace(expected, now=expected.now[: len(self.values)])
        scores = self.case.normal_scores(self.name, self.values)
        return Relation(expected, expected.log_ratio(scores))


def fit_change(column: Column, change: Change) -> Fit | None:
    """Fit a transformation: its share of rows and its gain; None where it explains too little."""
    case, name, values = column.case, column.name, column.values
    plain = plain_gain(case.profile(name), values, change, mass=column.mass)
    share, total = mixture(plain)
    if (share < _SHARE or total < TOTAL / 2) and not case.suspect(name):
        return None
    if np.maximum(plain + column.most_related, 0.0).sum() < TOTAL:  # whatever the others say
        return None
    undone = case.normal_scores(name, change.undone(values))
    related = column.supported * _related_gain(values, undone, column.related)
    share, total = mixture(plain + related)
    if share < MOST:  # then the other rows show what is usual in this batch
        related = column.supported * _related_gain(values, undone, column.loosened)
        share, total = mixture(plain + related)
    gain = plain + related
    touched = touched_rows(gain, share)
    if share < _SHARE or total < TOTAL or not touched.any():
        return None
    return Fit(change, share, total, gain, float(related[touched].mean()))


def _related_gain(values: Floats, undone: Floats, relation: Relation) -> Floats:
    """Nats per row that undoing a change gains in the relation to the other columns.

    Parameters
    ----------
    values : array of float, shape (n_rows,)
        Values as they arrived.
    undone : array of float, shape (n_rows,)
        Normal scores of the values with the change undone.
    relation : Relation
        What the other columns say of the values.
    """
    gain = relation.expected.log_ratio(undone) - relation.arrived
    return np.where(np.isnan(values), 0.0, gain)


def settled(case: Case, name: str, values: Floats, fit: Fit) -> Fit:
    """Reduce the gain of a fit by what ordinary drift, and the worst block, gain as well."""
    expected = case.expected(name)
    there = expected.values[:ROWS]
    before = replace(expected, now=expected.before[: len(there)])
    relation = Relation(before, before.log_ratio(case.normal_scores(name, there)))
    undone = case.normal_scores(name, fit.change.undone(there))
    usual = of_blocks(
        expected.blocks[:ROWS],
        plain_gain(case.profile(name), there, fit.change) + _related_gain(there, undone, relation),
    )
    # Drift moves all rows, not a part of them, and does not begin just as a fault ends.
    _, wander = case.usual(Trait("location", (name,)))
    stood = max(case.stood("unit", name), case.stood("sign", name))
    drifts = fit.share > 0.5 and stood < MOST
    natural = drift_gain(case.profile(name), values, wander) if drifts else 0.0
    total = fit.total - natural - 2 * max(usual.max(initial=0.0), 0.0) * len(fit.gain)
    return replace(fit, total=total)
