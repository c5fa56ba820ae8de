"""How well a transformation of a numeric column explains a batch, row by row."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.stats import ks_2samp

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses import blocks
from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.likelihood import (
    Change,
    Mask,
    at_most,
    drift_gain,
    log_mass,
    mixture,
    of_chance,
    plain_gain,
    touched_rows,
)
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.relations import Expected
from pipeline.monitoring.diagnoses.segments import segment
from pipeline.reference.profile import NumericProfile
from pipeline.reference.summaries import Trait


@dataclass(frozen=True)
class Parameters:
    """What a transformation has to explain.

    Attributes
    ----------
    glance : float
        Share of the least nats that the values alone have to gain, where no test found drift.
    drifts : float
        Share of rows above which ordinary drift, which moves all rows, is compared.
    outside : float
        Share of values outside the range of the reference from which a column is judged.
    rows : int
        Number of drawn rows that candidates are tried on.
    """

    glance: float = 0.5
    drifts: float = 0.5
    outside: float = 0.01
    rows: int = 2_000


PARAMS = Parameters()


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
        return self.total > SHARED.total and self.each > SHARED.convincing


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


def column_of(case: Case, name: str) -> Column:
    """A column in the drawn rows that candidates are tried on."""
    return Column(case, name, case.numbers(name)[: PARAMS.rows])


def fit_change(column: Column, change: Change) -> Fit | None:
    """Fit a transformation: its share of rows and its gain; None where it explains too little."""
    case, name, values = column.case, column.name, column.values
    plain = plain_gain(case.profile(name), values, change, mass=column.mass)
    if not case.suspect(name):
        share, total = mixture(plain)
        if share < SHARED.part or total < PARAMS.glance * SHARED.total:
            return None
    if at_most(plain + column.most_related) < SHARED.total:  # whatever the others say
        return None
    undone = case.normal_scores(name, change.undone(values))
    related, loosened = (
        column.supported * _related_gain(values, undone, relation)
        for relation in (column.related, column.loosened)
    )
    if max(at_most(plain + related), at_most(plain + loosened)) < SHARED.total:
        return None
    share, total = mixture(plain + related)
    if share < SHARED.most:  # then the other rows show what is usual in this batch
        related = loosened
        share, total = mixture(plain + related)
    gain = plain + related
    touched = touched_rows(gain, share)
    if share < SHARED.part or total < SHARED.total or not touched.any():
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
    there = expected.values[: PARAMS.rows]
    before = replace(expected, now=expected.before[: len(there)])
    relation = Relation(before, before.log_ratio(case.normal_scores(name, there)))
    undone = case.normal_scores(name, fit.change.undone(there))
    usual = of_chance(
        expected.blocks[: PARAMS.rows],
        plain_gain(case.profile(name), there, fit.change) + _related_gain(there, undone, relation),
    )
    # Drift moves all rows, not a part of them, and does not begin just as a fault ends.
    _, wander = blocks.usual(case.reference, Trait("location", (name,)))
    stood = max(case.stood("unit", name), case.stood("sign", name))
    drifts = fit.share > PARAMS.drifts and stood < SHARED.most
    natural = drift_gain(case.profile(name), values, wander) if drifts else 0.0
    return replace(fit, total=fit.total - natural - usual * len(fit.gain))


def transformable(case: Case, name: str) -> bool:
    """Whether a column can be judged: it varies, is no index, and something about it changed."""
    profile, values = case.profile(name), case.numbers(name)
    known = values[~np.isnan(values)]
    if not (case.suspect(name) or profile.n == 0 or _outside(profile, known) > PARAMS.outside):
        return False
    return len(known) >= SHARED.fewest and len(profile.grid) > 2 and not case.names_the_block(name)


def _outside(profile: NumericProfile, known: Floats) -> float:
    """Share of values outside the range of the reference."""
    if not len(known) or not len(profile.points):
        return 0.0
    return float(((known < profile.points[0]) | (known > profile.points[-1])).mean())


def even(values: Floats, fit: Fit) -> float:
    """How well the affected rows, put back, match the other rows, from 0 to 1.

    The warm days of a week, put back from another unit, would be colder than the rest.
    """
    if fit.share >= SHARED.most:
        return 1.0
    known = ~np.isnan(values)
    touched = touched_rows(fit.gain, fit.share)
    undone = fit.change.undone(values[touched & known])
    others = values[~touched & known]
    if min(len(undone), len(others)) < SHARED.fewest:
        return 0.0
    return 1 - float(ks_2samp(undone, others).statistic)


def evidence(fit: Fit) -> dict[str, float | str]:
    """Figures of a fit, for people."""
    return {
        NATS: round(mixture(fit.gain)[1] / len(fit.gain), 3),
        "share of rows": round(fit.share, 4),
        "of them from other columns": round(fit.related, 2),
    }


def segment_of(case: Case, name: str, touched: Mask) -> str:
    """Name the segment of the affected rows among the first drawn rows."""
    whole = np.zeros(len(case.drawn), dtype=bool)
    able = whole.copy()
    whole[: len(touched)], able[: len(touched)] = touched, True
    return segment(case, whole, [name], able)
