"""Clipped numbers: values that pile up where others beyond them were cut off."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.likelihood import surprise
from pipeline.monitoring.diagnoses.novelty import repeats
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.pile_ups import grown_value
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause
from pipeline.reference.profile import NumericProfile
from pipeline.reference.summaries import Trait


@dataclass(frozen=True)
class Parameters:
    """What shows that values beyond a value were cut off.

    Attributes
    ----------
    over, over_by : float
        Growth of a value that is more than usual: a factor of the largest growth in any block, and
        what is added to it.
    piled : float
        Share before, relative to the growth, above which a value was piled up before.
    one_side, tail : float
        Share of the growth that one side lost, and the other did not; and the largest share of rows
        on the side that was cut: only a tail is cut.
    below_stuck : float
        Growth below which a value is not called stuck.
    beyond : float
        Least share of rows that used to lie beyond the value.
    left : float
        Share of them up to which hardly any is left.
    even, other_side, part_growth : float
        Where more are left: largest relative difference of what one side lost from the growth,
        largest loss of the other side relative to it, and least growth.
    few_values : int
        Fewest distinct values among which the outermost may pile up.
    mode, alone : float
        Least ratio of the frequency of an outermost value, and of a new value, to any other.
    edge_growth, cliff_growth : float
        Least growth of an outermost value, and least growth and share of one that is a cliff.
    neighbours, few_neighbours : int
        Nearest values of a cliff, and how many are too few to tell.
    steep : float
        Least ratio of the frequency of a cliff to that of its neighbours.
    unseen, exactly : float
        Least ratio of a share's growth to that in any block, and tolerance of its origin. One side
        has to have lost as much as the value gained, within that tolerance.
    known : float
        Share of values on known grid points that makes a column one of steps.
    new, over_rare : float
        Least growth of a rare value, and least ratio of it to the share of any rare value in a
        block.
    block_rows : int
        Fewest rows of a block that shows how frequent rare values are.
    """

    over: float = 1.3
    over_by: float = 0.01
    piled: float = 0.3
    one_side: float = 0.5
    tail: float = 0.4
    below_stuck: float = 0.05
    beyond: float = 0.02
    left: float = 0.05
    even: float = 0.3
    other_side: float = 0.2
    part_growth: float = 0.06
    few_values: int = 5
    mode: float = 1.2
    alone: float = 2.0
    edge_growth: float = 0.06
    cliff_growth: float = 0.04
    neighbours: int = 5
    few_neighbours: int = 2
    steep: float = 3.0
    unseen: float = 3.0
    exactly: float = 0.3
    known: float = 0.9
    new: float = 0.025
    over_rare: float = 2.0
    block_rows: int = 100


PARAMS = Parameters()


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
    top = grown_value(case, name)
    if top is None:
        return None
    values = case.numbers(name)
    known = values[~np.isnan(values)]
    profile, most = case.profile(name), case.most(Trait("atom", (name,)))
    rare = np.asarray(profile.upto) - np.asarray(profile.below) < SHARED.rare
    most_rare = float(_most_in_a_block(case, name)[rare].max(initial=0.0))
    return _Pile(profile, known, most, most_rare, *top)


def _most_in_a_block(case: Case, name: str) -> Floats:
    """Largest share of each grid point in any block of the reference; 1 without blocks."""
    cells = case.block_cells(name)
    counted = cells[cells.sum(axis=1) >= PARAMS.block_rows]
    if not len(counted):
        return np.ones(cells.shape[1] // 2)
    most: Floats = (counted / counted.sum(axis=1, keepdims=True))[:, 1::2].max(axis=0)
    return most


def _cut_side(pile: _Pile) -> str | None:
    """The side of the value on which others were cut off: above, below, or None."""
    if pile.share == 1:  # one value alone shows no bound
        return None
    edge, new, exact = _edge(pile), _new_atom(pile), _exact(pile)
    if not (edge or new or exact or _unusual(pile)):
        return None
    if _piled_before(pile, exact=exact):
        return None
    side = _side(pile, edge=edge, new=new)
    if side is None or not _is_cut_off(pile, side, sure=new or exact):
        return None
    return side


def _unusual(pile: _Pile) -> bool:
    """Whether the value grew by more than any value does in ordinary batches."""
    return pile.excess >= max(SHARED.frequent, PARAMS.over * pile.most + PARAMS.over_by)


def _piled_before(pile: _Pile, *, exact: bool) -> bool:
    """Whether the value was an end of the range before, or frequent already.

    Of numbers that repeat, a new one is as frequent as others: a price or a pay that was raised.
    """
    profile = pile.profile
    low, high = profile.points[[0, -1]]
    piled = pile.before > PARAMS.piled * pile.excess and not exact
    usual = (np.asarray(profile.upto) - np.asarray(profile.below)).max()
    raised = pile.before == 0 and repeats(profile) and pile.share <= usual
    return bool(piled or raised or not low < pile.bound < high)


def _is_cut_off(pile: _Pile, side: str, *, sure: bool) -> bool:
    """Whether the values on a side are gone, or a part of them moved to the value.

    Some may stay if they lost about what the value gained; without limit if the value is `sure`.
    """
    excess, (upper, lower) = pile.excess, pile.lost
    before, now = pile.over if side == "above" else pile.under
    if before < PARAMS.beyond:
        return False
    if sure or now <= PARAMS.left * before:
        return True
    even = abs((before - now) / excess - 1) < PARAMS.even
    even = even and min(upper, lower) < PARAMS.other_side * excess
    return even and excess >= PARAMS.part_growth


def _side(pile: _Pile, *, edge: bool, new: bool) -> str | None:
    """The side on which values are missing, whether or not they were cut off."""
    excess, (upper, lower) = pile.excess, pile.lost
    most = PARAMS.one_side * excess
    if upper > most and lower < most and pile.over[0] <= PARAMS.tail:
        return "above"
    if lower > most and upper < most and pile.under[0] <= PARAMS.tail:
        return "below"
    if edge:
        return "above" if pile.bound == pile.known.max() else "below"
    if new and (excess < PARAMS.below_stuck or not _evenly_lost(excess, pile.over, pile.under)):
        return "above" if pile.over[0] < pile.under[0] else "below"
    return None


def _edge(pile: _Pile) -> bool:
    """Whether the value is the outermost value and far more frequent than any other."""
    if pile.bound not in (pile.known.min(), pile.known.max()):
        return False
    cliff = _cliff(pile.known, pile.bound) and pile.excess > PARAMS.cliff_growth
    often = pile.excess > max(PARAMS.edge_growth, pile.most)
    return cliff or (often and _times(pile.known, pile.bound) > PARAMS.mode)


def _exact(pile: _Pile) -> bool:
    """Whether, in a column of steps, the value gained exactly what one side of it lost."""
    excess, (upper, lower) = pile.excess, pile.lost
    return bool(
        excess * len(pile.known) > SHARED.fewest_at_value
        and np.isin(pile.known, pile.profile.points).mean() > PARAMS.known
        and excess > max(SHARED.frequent, PARAMS.unseen * pile.most)
        and min(abs(upper), abs(lower)) < PARAMS.exactly * excess
        and abs(max(upper, lower) - excess) < PARAMS.exactly * excess
    )


def _times(known: Floats, bound: float, but: Floats | None = None) -> float:
    """Ratio of the frequency of a value to that of the most frequent other value.

    Values in `but` are left out; 0 with few distinct values.
    """
    distinct, counts = np.unique(known, return_counts=True)
    others = counts[(distinct != bound) & ~np.isin(distinct, [] if but is None else but)]
    if len(distinct) < PARAMS.few_values:
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
    if pile.before > SHARED.rare or excess < max(PARAMS.new, PARAMS.over_rare * pile.most_rare):
        return False
    if len(np.unique(known)) < SHARED.many_values or excess * len(known) < SHARED.fewest_at_value:
        return False
    atoms = profile.points[np.asarray(profile.upto) - np.asarray(profile.below) > SHARED.rare]
    return _times(known, pile.bound, atoms) > PARAMS.alone


def _cliff(known: Floats, bound: float) -> bool:
    """Whether the outermost value is far more frequent than its neighbours."""
    distinct, counts = np.unique(known, return_counts=True)
    near = np.argsort(np.abs(distinct - bound), kind="stable")[1 : 1 + PARAMS.neighbours]
    at = counts[distinct == bound][0]
    return bool(
        len(near) > PARAMS.few_neighbours
        and at > PARAMS.steep * counts[near].max()
        and at > PARAMS.cliff_growth * len(known)
    )
