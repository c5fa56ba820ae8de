"""Stuck columns: an ordinary value or label that is far more frequent than before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import ks_2samp

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.likelihood import (
    Mask,
    Places,
    sampling_distance,
    surprise,
)
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.pile_ups import grown_value
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause
from pipeline.reference.profile import CategoricalProfile, NumericProfile
from pipeline.reference.summaries import Trait


@dataclass(frozen=True)
class Parameters:
    """What is more than the growth of a value by drift.

    Attributes
    ----------
    over : float
        Least ratio of the growth of a value to the largest growth in any block.
    grown, grown_of_few, grown_of_many : float
        Least growth of a value beyond that in any block: among several values, among few, and of a
        rare value among many.
    several_values : int
        Distinct values above which they are several, not few.
    hardly : float
        Share below which one of many values hardly occurred.
    constant : float
        Share of a value or label above which there is hardly any other.
    varied, varied_label : float
        Share of a value, and of a label, below which the column was not as good as constant before.
    end : float
        Share of rows at either end of the range that is not inside of it.
    leap, beyond : float
        Growth of the share of a value or label that drift cannot explain. The rest of the column
        has to be unchanged, and the growth has to be `beyond` times the largest in any block.
    unheard, far_beyond : float
        Growth of one of many values that only a fault explains, if no block came near it: the
        growth has to be `far_beyond` times the largest in any block.
    little : float
        Share below which a value is not called stuck by other evidence.
    unpredicted : float
        Residual variance above which the other columns predict nothing.
    arbitrary : float
        Largest distance of the predictions of arbitrary rows from those of the other rows.
    contradicted : float
        Least ratio of the squared distance of rows from their prediction to that of other rows.
    proportion : float
        Largest distance at which the shares of all other values count as unchanged.
    noise, tells : float
        Least loss of the predicted chance of a label, if it overwrote others, that is seen: in
        standard errors, and by itself.
    """

    over: float = 1.5
    grown: float = 0.12
    grown_of_few: float = 0.25
    grown_of_many: float = 0.05
    several_values: int = 8
    hardly: float = 0.02
    constant: float = 0.98
    varied: float = 0.8
    varied_label: float = 0.9
    end: float = 0.05
    leap: float = 0.2
    beyond: float = 4.0
    unheard: float = 0.1
    far_beyond: float = 8.0
    little: float = 0.2
    unpredicted: float = 0.8
    arbitrary: float = 0.2
    contradicted: float = 4.0
    proportion: float = 0.1
    noise: float = 4.0
    tells: float = 0.05


PARAMS = Parameters()


def stuck(case: Case) -> Iterator[Cause]:
    """Recognise an ordinary value that is far more frequent than in any ordinary batch."""
    for name in case.features:
        found = _stuck_number(case, name) if name in case.numeric else _stuck_label(case, name)
        if found is None:
            continue
        value, touched, before = found
        share, where = float(touched.mean()), segment(case, touched, [name])
        yield Cause(
            "stuck",
            (name,),
            f"{name!r} is {value} in {share:.0%} of rows, where {before:.1%} is "
            f"usual{clause(where)}: did it stop changing?",
            {
                NATS: surprise(share, before),
                "share of rows": round(share, 4),
                "usual share": round(before, 4),
                "value": value,
            },
            f"Check the sensor, the cache or the default behind {name!r}, and load the window "
            "again.",
            share=round((share - before) / (1 - before), 4),
            segment=where,
        )


class _Grown(NamedTuple):
    """A value that is more frequent than in the reference.

    Attributes
    ----------
    value : float
        The value.
    share, before : float
        Its share, now and in the reference.
    most : float
        Largest growth of any value in a block or recent batch.
    """

    value: float
    share: float
    before: float
    most: float

    @property
    def excess(self) -> float:
        """Growth of the value's share."""
        return self.share - self.before


def _stuck_number(case: Case, name: str) -> tuple[str, Mask, float] | None:
    top = grown_value(case, name)
    if top is None:
        return None
    grown = _Grown(*top, case.most(Trait("atom", (name,))))
    constant = grown.share > PARAMS.constant and grown.before < PARAMS.varied
    enough = constant or _grew_enough(grown, len(case.profile(name).grid))
    if grown.excess < PARAMS.over * grown.most or not enough:
        return None
    touched = case.numbers(name) == grown.value
    if not constant and not _beyond_drift(case, name, grown, touched):
        return None
    return f"{grown.value:g}", touched, grown.before


def _grew_enough(grown: _Grown, values: int) -> bool:
    """Whether the share of one of some values grew by more than in any block, noticeably."""
    least = PARAMS.grown if values > PARAMS.several_values else PARAMS.grown_of_few
    if grown.before < PARAMS.hardly and values > SHARED.many_values:
        least = PARAMS.grown_of_many
    return grown.excess - grown.most > least


def _beyond_drift(case: Case, name: str, grown: _Grown, touched: Mask) -> bool:
    """Whether the rows with a value came by it in a way that drift does not explain."""
    profile, excess, most = case.profile(name), grown.excess, grown.most
    upto = profile.share(np.asarray([grown.value]), "upto")[0]
    inside = PARAMS.end < upto < 1 - PARAMS.end
    rare = grown.before < SHARED.rare
    many = inside and rare and len(profile.grid) > SHARED.many_values
    unheard = many and excess > max(PARAMS.unheard, PARAMS.far_beyond * most)
    if unheard or (inside and _contradicted(case, name, touched)):
        return True
    leap = excess > max(PARAMS.leap, PARAMS.beyond * most)
    leap = leap and _rest_as_before(profile, case.numbers(name), grown.value)
    return _out_of_place(case, name, touched, rare=leap or rare)


def _rest_as_before(profile: NumericProfile, values: Floats, but: float) -> bool:
    """Whether all values but one keep their distribution; drift would move them as well."""
    rest = np.sort(values[~np.isnan(values) & (values != but)])
    if len(rest) < SHARED.fewest_at_value:
        return False
    low, high = (profile.share(np.asarray([but]), side)[0] for side in ("below", "upto"))
    before = profile.share(rest, "upto")
    before = (before - np.where(rest > but, high - low, 0.0)) / (1 - high + low)
    now = np.searchsorted(rest, rest, side="right") / len(rest)
    return bool(np.abs(before - now).max() < PARAMS.proportion + 1 / np.sqrt(len(rest)))


def _out_of_place(case: Case, name: str, touched: Mask, *, rare: bool) -> bool:
    """Whether the rows with a value are arbitrary rows, not rows that would have it anyway."""
    expected = case.expected(name)
    predicted = expected.now
    if touched.mean() < PARAMS.little:  # on a muggy day a dew point is that frequent
        return False
    if expected.variance > PARAMS.unpredicted:
        return rare
    apart = ks_2samp(predicted[touched], predicted[~touched]).statistic
    return bool(apart < PARAMS.arbitrary)


def _contradicted(case: Case, name: str, touched: Mask) -> bool:
    """Whether the other columns predict other values for the rows with a value."""
    expected = case.expected(name)
    if touched.mean() < PARAMS.little or touched.all():
        return False
    squared = (case.normal_scores(name, case.numbers(name)) - expected.now) ** 2 / expected.variance
    return bool(squared[touched].mean() > PARAMS.contradicted * max(squared[~touched].mean(), 1.0))


def _stuck_label(case: Case, name: str) -> tuple[str, Mask, float] | None:
    places, labels = case.labels(name)
    known = places[places >= 0]
    profile = case.reference.columns[name]
    if len(known) < SHARED.fewest or not isinstance(profile, CategoricalProfile) or profile.n == 0:
        return None
    counts = np.bincount(known, minlength=len(labels))
    best = int(counts.argmax())
    share, before = counts[best] / len(known), profile.counts.get(labels[best], 0) / profile.n
    most, excess = case.most(Trait("atom", (name,))), share - before
    leap = excess > max(PARAMS.leap, PARAMS.beyond * most) and _in_proportion(
        counts, labels, best, profile
    )
    constant = share > PARAMS.constant and before < PARAMS.varied_label
    constant = constant and excess > PARAMS.over * most
    if before == 0 or not (leap or constant) or _grew(case, name, best, share, before):
        return None
    return repr(labels[best]), places == best, float(before)


def _grew(case: Case, name: str, place: int, share: float, before: float) -> bool:
    """Whether the rows with a label have what rows with it always had, so that they are more.

    Rows that a label overwrote have the other columns of any rows.
    """
    places, labels = case.labels(name)
    expected = case.expected_labels(name)
    if labels[place] not in expected.labels:
        return False
    number = expected.labels.index(labels[place])
    chance, own = np.exp(expected.before[:, number]), expected.classes == number
    if not own.any() or own.all():
        return False
    inside, outside = chance[own].mean(), chance[~own]
    now = np.exp(expected.now[places == place, number])
    overwritten = (1 - before / share) * (inside - outside.mean())
    noise = outside.std() / np.sqrt(len(now))
    tells = overwritten > PARAMS.noise * noise and overwritten > PARAMS.tells
    return bool(tells and inside - now.mean() < overwritten / 2)


def _in_proportion(
    counts: Places, labels: Sequence[str], grown: int, profile: CategoricalProfile
) -> bool:
    """Whether all other labels lost in proportion, as when one label overwrites the others."""
    came = dict(zip(labels, counts, strict=True))
    others = sorted({*profile.counts, *labels} - {labels[grown]})
    rows = [np.asarray([side.get(label, 0) for label in others]) for side in (profile.counts, came)]
    known = [max(side.sum(), 1) for side in rows]
    before, now = (side / n for side, n in zip(rows, known, strict=True))
    several = (before > SHARED.frequent).sum() > 1  # a single label has no proportion
    distance = np.abs(before - now).sum() / 2
    return bool(several and distance < PARAMS.proportion + sampling_distance(before, *known))
