"""Pile-ups: values that are far more frequent than before, being stuck or clipped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import ks_2samp

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import NATS, Case, Mask, Places
from pipeline.monitoring.diagnoses.likelihood import sampling_distance, shares_at, surprise
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause
from pipeline.reference.profile import CategoricalProfile, NumericProfile, largest_excess
from pipeline.reference.summaries import Trait

FREQUENT = 0.02
"""Share of rows from which a value counts as frequent."""
_FEWEST = 25
"""Fewest rows with a value, or beside it, that are judged."""
_FEW_VALUES, _MANY_VALUES = 5, 50
"""Fewest distinct values among which the outermost, and among which any, may pile up."""
_LEAP, _BEYOND = 0.2, 4.0
"""Growth of the share of a value or label that drift cannot explain.

The rest of the column has to be unchanged, and the growth has to be `_BEYOND` times the largest in
any block."""
_UNHEARD, _LITTLE = 0.1, 0.2
"""Growth of one of many values that only a fault explains, if no block came near it.

Below a share of `_LITTLE`, a value is not called stuck by other evidence."""
_CONTRADICTED = 4.0
"""Least ratio of the squared distance of rows from their prediction to that of other rows."""
_PROPORTION = 0.1
"""Largest distance at which the shares of all other values count as unchanged."""
_UNSEEN, _EXACTLY = 3.0, 0.3
"""Least ratio of a share's growth to that in any block, and tolerance of its origin.

One side has to have lost as much as the value gained, within that tolerance."""
_KNOWN = 0.9
"""Share of values on known grid points that makes a column one of steps."""
_RARE, _BELOW_STUCK = 0.01, 0.05
"""Share up to which a value is rare, and growth below which it is not called stuck."""
_MODE, _ALONE = 1.2, 2.0
"""Least ratio of the frequency of an outermost value, and of a new value, to any other."""


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


def _stuck_number(case: Case, name: str) -> tuple[str, Mask, float] | None:
    top = _grown_value(case, name)
    if top is None:
        return None
    value, share, before = top
    profile = case.profile(name)
    most, excess = case.most(Trait("atom", (name,))), share - before
    many = len(profile.grid) > 50  # among many values, none is frequent
    least = 0.05 if before < 0.02 and many else 0.12 if len(profile.grid) > 8 else 0.25
    constant = share > 0.98 and before < 0.8  # hardly any other value
    if excess < 1.5 * most or not (constant or excess - most > least):
        return None
    values = case.numbers(name)
    touched = values == value
    inside = (
        0.05 < profile.share(np.asarray([value]), "upto")[0] < 0.95
    )  # not at the ends of the range
    unheard = many and inside and before < 0.01 and excess > max(_UNHEARD, 2 * _BEYOND * most)
    leap = excess > max(_LEAP, _BEYOND * most) and _rest_as_before(profile, values, value)
    rare = leap or before < 0.01
    sure = constant or unheard or (inside and _contradicted(case, name, touched))
    if not sure and not _out_of_place(case, name, touched, rare=rare):
        return None
    return f"{value:g}", touched, before


def _grown_value(case: Case, name: str) -> tuple[float, float, float] | None:
    """The result of `top_value` where the share of some value grew noticeably."""
    excess = largest_excess(case.profile(name), case.tally.counts[name])
    return None if excess < FREQUENT else top_value(case, name)


def _rest_as_before(profile: NumericProfile, values: Floats, but: float) -> bool:
    """Whether all values but one keep their distribution; drift would move them as well."""
    rest = np.sort(values[~np.isnan(values) & (values != but)])
    if len(rest) < _FEWEST:
        return False
    low, high = (profile.share(np.asarray([but]), side)[0] for side in ("below", "upto"))
    before = profile.share(rest, "upto")
    before = (before - np.where(rest > but, high - low, 0.0)) / (1 - high + low)
    now = np.searchsorted(rest, rest, side="right") / len(rest)
    return bool(np.abs(before - now).max() < _PROPORTION + 1 / np.sqrt(len(rest)))


def _out_of_place(case: Case, name: str, touched: Mask, *, rare: bool) -> bool:
    """Whether the rows with a value are arbitrary rows, not rows that would have it anyway."""
    expected = case.expected(name)
    predicted = expected.now
    if touched.mean() < _LITTLE:  # on a muggy day a dew point is that frequent
        return False
    if expected.variance > 0.8:  # the other columns predict nothing
        return rare
    return bool(ks_2samp(predicted[touched], predicted[~touched]).statistic < 0.2)


def _contradicted(case: Case, name: str, touched: Mask) -> bool:
    """Whether the other columns predict other values for the rows with a value."""
    expected = case.expected(name)
    if touched.mean() < _LITTLE or touched.all():
        return False
    squared = (case.normal_scores(name, case.numbers(name)) - expected.now) ** 2 / expected.variance
    return bool(squared[touched].mean() > _CONTRADICTED * max(squared[~touched].mean(), 1.0))


def _stuck_label(case: Case, name: str) -> tuple[str, Mask, float] | None:
    places, labels = case.labels(name)
    known = places[places >= 0]
    profile = case.reference.columns[name]
    if len(known) < 20 or not isinstance(profile, CategoricalProfile) or profile.n == 0:
        return None
    counts = np.bincount(known, minlength=len(labels))
    best = int(counts.argmax())
    share, before = counts[best] / len(known), profile.counts.get(labels[best], 0) / profile.n
    most, excess = case.most(Trait("atom", (name,))), share - before
    leap = excess > max(_LEAP, _BEYOND * most) and _in_proportion(counts, labels, best, profile)
    constant = share > 0.98 and before < 0.9 and excess > 1.5 * most  # hardly any other label
    if before == 0 or not (leap or constant):
        return None
    return repr(labels[best]), places == best, float(before)


def _in_proportion(
    counts: Places, labels: Sequence[str], grown: int, profile: CategoricalProfile
) -> bool:
    """Whether all other labels lost in proportion, as when one label overwrites the others."""
    came = dict(zip(labels, counts, strict=True))
    others = sorted({*profile.counts, *labels} - {labels[grown]})
    rows = [np.asarray([side.get(label, 0) for label in others]) for side in (profile.counts, came)]
    known = [max(side.sum(), 1) for side in rows]
    before, now = (side / n for side, n in zip(rows, known, strict=True))
    several = (before > FREQUENT).sum() > 1  # a single label has no proportion
    distance = np.abs(before - now).sum() / 2
    return bool(several and distance < _PROPORTION + sampling_distance(before, *known))


@dataclass(frozen=True)
class _Pile:
    """The value whose share grew most, and the values beside it.

    Attributes
    ----------
    profile : NumericProfile
        Profile of the column in the reference.
    known : array of float, shape (n_known,)
        Values of the batch that are not missing.
    most, most_rare : float
        Largest growth of any value in a block, and largest share in a block of a rare value.
    bound : float
        The value whose share grew most.
    share, before : float
        Share of the value, now and in the reference.
    """

    profile: NumericProfile
    known: Floats
    most: float
    most_rare: float
    bound: float
    share: float
    before: float

    @property
    def excess(self) -> float:
        """Growth of the value's share."""
        return self.share - self.before

    @property
    def over(self) -> tuple[float, float]:
        """Shares of larger values, before and now."""
        upto = float(self.profile.share(np.asarray([self.bound]), "upto")[0])
        return 1 - upto, float((self.known > self.bound).mean())

    @property
    def under(self) -> tuple[float, float]:
        """Shares of smaller values, before and now."""
        below = float(self.profile.share(np.asarray([self.bound]), "below")[0])
        return below, float((self.known < self.bound).mean())

    @property
    def lost(self) -> tuple[float, float]:
        """Shares of rows that are missing above and below the value."""
        return self.over[0] - self.over[1], self.under[0] - self.under[1]


def clipped(case: Case) -> Iterator[Cause]:
    """Recognise values that pile up at a bound which the training rows exceed."""
    for name in case.numeric:
        pile = _pile(case, name)
        if pile is None or (side := _cut_side(pile)) is None:
            continue
        bound, share = pile.bound, pile.share
        before, now = pile.over if side == "above" else pile.under
        where = segment(case, case.numbers(name) == bound, [name])
        yield Cause(
            "clipped",
            (name,),
            f"{name!r} is {bound:g} in {share:.0%} of rows, and {now:.1%} lie {side} it where "
            f"{before:.1%} used to{clause(where)}: cut off at that value?",
            {
                NATS: surprise(share, pile.before),
                "bound": bound,
                "share at the bound": round(share, 4),
                f"share {side} it before": round(before, 4),
                f"share {side} it now": round(now, 4),
            },
            f"Check the range of the sensor or of the type that carries {name!r}.",
            share=round(max(1 - now / before, 0.0), 4),
            segment=where,
        )


def _pile(case: Case, name: str) -> _Pile | None:
    top = _grown_value(case, name)
    if top is None:
        return None
    values = case.numbers(name)
    known = values[~np.isnan(values)]
    profile, most = case.profile(name), case.most(Trait("atom", (name,)))
    rare = np.asarray(profile.upto) - np.asarray(profile.below) < _RARE
    most_rare = float(_most_in_a_block(case, name)[rare].max(initial=0.0))
    return _Pile(profile, known, most, most_rare, *top)


def _most_in_a_block(case: Case, name: str) -> Floats:
    """Largest share of each grid point in any block of the reference; 1 without blocks."""
    cells = case.block_cells(name)
    counted = cells[cells.sum(axis=1) >= 4 * _FEWEST]
    if not len(counted):
        return np.ones(cells.shape[1] // 2)
    most: Floats = (counted / counted.sum(axis=1, keepdims=True))[:, 1::2].max(axis=0)
    return most


def _cut_side(pile: _Pile) -> str | None:
    """The side of the value on which others were cut off: above, below, or None."""
    excess, (upper, lower) = pile.excess, pile.lost
    edge, new, exact = _edge(pile), _new_atom(pile), _exact(pile)
    usual = excess < max(FREQUENT, 1.3 * pile.most + 0.01)
    if usual and not edge and not new and not exact:
        return None
    low, high = pile.profile.points[[0, -1]]
    piled = pile.before > 0.3 * excess and not exact
    if piled or not low < pile.bound < high:  # it was piled up before
        return None
    side = _side(pile, edge=edge, new=new)
    if side is None:
        return None
    before, now = pile.over if side == "above" else pile.under
    partly = now > 0.05 * before and not new and not exact
    even = abs((before - now) / excess - 1) < 0.3 and min(upper, lower) < 0.2 * excess
    if before < 0.02 or (partly and (not even or excess < 0.06)):
        return None
    return side


def _side(pile: _Pile, *, edge: bool, new: bool) -> str | None:
    """The side on which values are missing, whether or not they were cut off."""
    excess, (upper, lower) = pile.excess, pile.lost
    if upper > 0.5 * excess and lower < 0.5 * excess and pile.over[0] <= 0.4:  # only a tail was cut
        return "above"
    if lower > 0.5 * excess and upper < 0.5 * excess and pile.under[0] <= 0.4:
        return "below"
    if edge:
        return "above" if pile.bound == pile.known.max() else "below"
    if new and (excess < _BELOW_STUCK or not _evenly_lost(excess, pile.over, pile.under)):
        return "above" if pile.over[0] < pile.under[0] else "below"
    return None


def _edge(pile: _Pile) -> bool:
    """Whether the value is the outermost value and far more frequent than any other."""
    if pile.bound not in (pile.known.min(), pile.known.max()):
        return False
    cliff = _cliff(pile.known, pile.bound) and pile.excess > 2 * FREQUENT
    often = pile.excess > max(3 * FREQUENT, pile.most)
    return cliff or (often and _times(pile.known, pile.bound) > _MODE)


def _exact(pile: _Pile) -> bool:
    """Whether, in a column of steps, the value gained exactly what one side of it lost."""
    excess, (upper, lower) = pile.excess, pile.lost
    return bool(
        excess * len(pile.known) > _FEWEST
        and np.isin(pile.known, pile.profile.points).mean() > _KNOWN
        and excess > max(FREQUENT, _UNSEEN * pile.most)
        and min(abs(upper), abs(lower)) < _EXACTLY * excess
        and abs(max(upper, lower) - excess) < _EXACTLY * excess
    )


def _times(known: Floats, bound: float, but: Floats | None = None) -> float:
    """Ratio of the frequency of a value to that of the most frequent other value.

    Values in `but` are left out; 0 with few distinct values.
    """
    distinct, counts = np.unique(known, return_counts=True)
    others = counts[(distinct != bound) & ~np.isin(distinct, [] if but is None else but)]
    if len(distinct) < _FEW_VALUES:
        return 0.0
    return float(counts[distinct == bound][0] / max(others.max(initial=0), 1))


def _evenly_lost(excess: float, over: tuple[float, float], under: tuple[float, float]) -> bool:
    """Whether the rows that now hold a value came from both sides of it, not from one side."""
    stuck = sum((now - before * (1 - excess)) ** 2 for before, now in (over, under))
    cut, whole = (over, under) if over[0] < under[0] else (under, over)
    clipped = (cut[1] - cut[0] + excess) ** 2 + (whole[1] - whole[0]) ** 2
    return stuck < clipped


def _new_atom(pile: _Pile) -> bool:
    """Whether a value that was rare, also in every block, is now the only new frequent value."""
    profile, known, excess = pile.profile, pile.known, pile.excess
    if pile.before > _RARE or excess < max(0.025, 2 * pile.most_rare):
        return False
    if len(np.unique(known)) < _MANY_VALUES or excess * len(known) < _FEWEST:
        return False
    atoms = profile.points[np.asarray(profile.upto) - np.asarray(profile.below) > FREQUENT / 2]
    return _times(known, pile.bound, atoms) > _ALONE


def _cliff(known: Floats, bound: float) -> bool:
    """Whether the outermost value is far more frequent than its neighbours."""
    distinct, counts = np.unique(known, return_counts=True)
    near = np.argsort(np.abs(distinct - bound), kind="stable")[1:6]
    at = counts[distinct == bound][0]
    return bool(len(near) > 2 and at > 3 * counts[near].max() and at > 0.04 * len(known))


def top_value(case: Case, name: str) -> tuple[float, float, float] | None:
    """Find the value whose share grew most: value, share now, share in the reference."""
    values, profile = case.numbers(name), case.profile(name)
    known = values[~np.isnan(values)]
    if len(known) < 20 or len(profile.grid) < 2:  # a constant cannot get stuck
        return None
    distinct, counts = np.unique(known, return_counts=True)
    shares = counts / len(known)
    grown = shares - shares_at(profile, distinct)
    best = int(grown.argmax())
    return float(distinct[best]), float(shares[best]), float(shares[best] - grown[best])
