"""Arithmetic that rows no longer obey, such as a total that is not the sum of its parts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from pipeline.columns import Floats, as_number
from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.dependencies import BREAKS
from pipeline.monitoring.diagnoses.likelihood import Mask, surprise
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause, CauseName
from pipeline.reference.identities import Identity, decimals
from pipeline.reference.summaries import Summary


@dataclass(frozen=True)
class Parameters:
    """Which fault the rows that break a rule show.

    Attributes
    ----------
    nearly : float
        Share of these rows that one explanation has to put right.
    same : float
        Distance, relative to a factor, up to which two factors count as one.
    found : float
        Share of the implied values that came, in whichever row, where values changed rows.
    restored, near : float
        Least share of the rows that break a rule which a unit of a column puts right, and distance
        up to which a value is right, relative to it.
    varied : int
        Fewest distinct values of a column whose values may have changed rows.
    odd : float
        Share of usual values among those that arrived below which the column is at fault.
    plausible : float
        How much less plausible the values may be that a rule tells of a column at fault, relative
        to those of the most plausible column.
    tail : float
        Share of rows at either end that the usual range of a column leaves out.
    """

    nearly: float = 0.9
    same: float = 1e-3
    found: float = 0.8
    restored: float = 0.5
    near: float = 0.05
    varied: int = 20
    odd: float = 0.5
    plausible: float = 0.9
    tail: float = 0.005


PARAMS = Parameters()
_SIGNS = {"sum": " + ", "product": " x ", "quotient": " / ", "order": ""}


class _Broken(NamedTuple):
    """A rule that a batch breaks: the rule, drawn rows that show it, and those that break it."""

    rule: Identity
    judged: Mask
    breaks: Mask

    @property
    def share(self) -> float:
        """Share of the judged rows that break the rule."""
        return float(self.breaks.sum() / self.judged.sum())


class _Fault(NamedTuple):
    """What happened to columns of a broken rule, in words, with the figures that show it."""

    cause: CauseName
    columns: tuple[str, ...]
    words: str
    figures: dict[str, float | str] = {}  # noqa: RUF012 -- never changed


def inconsistent(case: Case) -> Iterator[Cause]:
    """Recognise columns that no longer follow from one another, as they did in every block."""
    broken, kept = _rules_of(case)
    number = Counter(name for one in broken for name in one.rule.columns)
    for one in sorted(broken, key=lambda one: -one.share):
        names = one.rule.columns
        most = max((number[name] for name in names if name not in kept), default=0)
        at_fault = [name for name in names if name not in kept and number[name] == most]
        yield _described(case, one, _fault(case, one, at_fault or list(names)))


def _rules_of(case: Case) -> tuple[list[_Broken], set[str]]:
    """Rules that the batch breaks, and columns that others show to be right."""
    broken, kept = list[_Broken](), set[str]()
    every, features = set(case.every), set(case.features)
    for rule in case.reference.identities:
        names = set(rule.columns)
        if not names <= every or not names & features:
            continue
        judged, breaks = rule.broken({name: case.numbers(name) for name in names})
        if judged.sum() < SHARED.fewest_related:
            continue
        usual = max([rule.usual, *(_share_of(rule, one) for one in case.recent)])
        if breaks.sum() / judged.sum() - usual > SHARED.part:
            broken.append(_Broken(rule._replace(usual=usual), judged, breaks))
        elif rule.kind != "order":
            kept |= names
    return broken, kept


def _share_of(rule: Identity, batch: Summary) -> float:
    """Share of the rows that an earlier batch left that break a rule; 0 if none shows it."""
    if batch.sketch is None or not set(rule.columns) <= set(batch.sketch):
        return 0.0
    judged, breaks = rule.broken(
        {name: as_number(batch.sketch[name]).to_numpy() for name in rule.columns}
    )
    return float(breaks.sum() / max(judged.sum(), 1))


def _fault(case: Case, one: _Broken, suspects: Sequence[str]) -> _Fault:
    """The fault that puts nearly all rows right that break a rule, or else the columns alone."""
    rule = one.rule
    values = {name: case.numbers(name)[one.breaks] for name in rule.columns}
    if rule.kind == "order":
        return _Fault("inconsistent", tuple(suspects), "is one of them wrong?")
    odd = {x for x in suspects if _plausible(case, x, values[x]) < PARAMS.odd}
    for pair in combinations(suspects, 2):
        # A negative difference is not an exchange of its terms, which look as ever.
        if odd <= set(pair) and _exchanged(rule, pair, values):
            return _Fault("swapped", pair, "were {0} exchanged?")
    implied = {x: rule.implied(x, values) for x in suspects if x in odd or not odd}
    names = _likeliest(case, implied)
    faults = [fault for x in names if (fault := _of_column(x, values[x], implied[x]))]
    return faults[0] if len(faults) == 1 else _Fault("inconsistent", names, "is {0} wrong?")


def _likeliest(case: Case, implied: Mapping[str, Floats]) -> tuple[str, ...]:
    """The columns of which a rule tells usual values; those that drifted, if some of them did."""
    plausible = {name: _plausible(case, name, values) for name, values in implied.items()}
    least = PARAMS.plausible * max(plausible.values())
    kept = [name for name, share in plausible.items() if share >= least]
    return tuple([name for name in kept if case.changed(name)] or kept)


def _exchanged(rule: Identity, pair: tuple[str, str], values: Mapping[str, Floats]) -> bool:
    """Whether nearly all rows obey a rule once the values of two columns change places."""
    one, other = pair
    judged, breaks = rule.broken({**values, one: values[other], other: values[one]})
    return bool((judged & ~breaks).mean() > PARAMS.nearly)


def _plausible(case: Case, name: str, implied: Floats) -> float:
    """Share of values within the usual range of a column, and with its decimals."""
    low, high = case.profile(name).span(PARAMS.tail)
    unit = decimals(case.profile(name).points)
    inside = (implied >= low) & (implied <= high)
    if unit:
        steps = implied / unit
        inside &= np.abs(steps - np.round(steps)) <= PARAMS.same * np.maximum(np.abs(steps), 1)
    return float(inside.mean())


def _of_column(name: str, values: Floats, implied: Floats) -> _Fault | None:
    """What happened to the values of a column, if these and the implied values show it."""
    some = (implied != 0) & np.isfinite(implied)
    factors = values[some] / implied[some]
    factor = float(np.median(factors)) if len(factors) else 0.0
    if factor and (np.abs(factors / factor - 1) <= PARAMS.same).mean() > PARAMS.nearly:
        if abs(factor + 1) <= PARAMS.same:
            return _Fault("sign", (name,), "was {0} multiplied by -1?")
        figures: dict[str, float | str] = {"factor": float(f"{factor:.6g}"), "offset": 0.0}
        return _Fault("unit", (name,), f"was {{0}} multiplied by {factor:.4g}?", figures)
    varied = len(np.unique(values)) >= PARAMS.varied
    if varied and _elsewhere(values, implied) > PARAMS.found:
        return _Fault("shuffled", (name,), "were values of {0} put in other rows?")
    return None


def contradicted(case: Case, cause: Cause) -> bool:
    """Whether rules that the batch breaks show that something else happened to a column."""
    for rule, _, breaks in _rules_of(case)[0]:
        own = [name for name in cause.columns if name in rule.columns]
        if rule.kind == "order" or not own:
            continue
        values = {x: case.numbers(x)[breaks] for x in rule.columns}
        if cause.cause == "unit" and "factor" in cause.evidence:
            name, change = own[0], cause.evidence
            values[name] = (values[name] - float(change["offset"])) / float(change["factor"])
            meant = rule.implied(name, values)
            right = np.abs(values[name] - meant) <= PARAMS.near * np.abs(meant)
            if right.mean() < PARAMS.restored:
                return True
        if cause.cause == "shuffled" and not any(
            _elsewhere(values[x], rule.implied(x, values)) > PARAMS.found for x in own
        ):
            return True
        if cause.cause == "swapped" and not _exchanged(rule, (own[0], own[-1]), values):
            return True
    return False


def _elsewhere(values: Floats, implied: Floats) -> float:
    """Share of the implied values that came, in whichever row."""
    came, meant = (Counter(f"{x:.6g}" for x in some) for some in (values, implied))
    return (came & meant).total() / max(len(values), 1)


def _described(case: Case, one: _Broken, fault: _Fault) -> Cause:
    rule = one.rule
    result, *terms = map(repr, rule.columns)
    right, where = _SIGNS[rule.kind].join(terms), ""
    if one.share < SHARED.nearly_all:
        where = segment(case, one.breaks, rule.columns, able=one.judged)
    said = (
        f"{result} was at most {right}, and is larger"
        if rule.kind == "order"
        else f"{result} used to be {right}, and is not"
    )
    joined = " and " if fault.cause == "swapped" else " or "
    names = joined.join(map(repr, fault.columns))
    return Cause(
        fault.cause,
        fault.columns,
        f"{said} in {one.share:.0%} of rows{clause(where)}: {fault.words.format(names)}",
        {
            NATS: surprise(one.share, rule.usual),
            BREAKS: round(one.share, 4),
            "usual share": round(rule.usual, 4),
            **fault.figures,
        },
        f"Ask the source what was changed in {names}; put the rows right before they arrive.",
        share=round(one.share, 4),
        segment=where,
    )
