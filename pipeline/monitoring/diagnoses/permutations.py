"""Permuted labels: known labels that stand for one another, as with another code book."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.exchanges import Exchange, gained_before
from pipeline.monitoring.diagnoses.likelihood import (
    Mask,
    Places,
    mixture,
    of_chance,
    touched_rows,
)
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.relations import ExpectedLabels
from pipeline.monitoring.diagnoses.reorderings import partly_reordered, reordered
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause
from pipeline.reference.profile import MISSING


@dataclass(frozen=True)
class Parameters:
    """What shows an exchange of labels by the other columns.

    Attributes
    ----------
    second, second_share : int, float
        Fewest rows of the second most frequent of the exchanged labels, and their least share: one
        label may have grown.
    several : float
        Least share of affected rows with other labels than the most frequent of them.
    total : float
        Least nats over all rows of an exchange.
    each, each_part : float
        Least nats per affected row, where most rows are affected and where a part is.
    part : float
        Smallest share of affected rows, among those whose labels changed places.
    further : float
        How much further from the usual shares those put back may be, where most rows are affected.
    unmet : float
        Rows that two labels would share in the reference by chance, from which it is no chance
        that they share none.
    unheard : float
        Least share of rows with two labels that never went together that shows an exchange in most
        rows, however little the other rows tell.
    closer : float
        Largest distance from the usual shares of those put back, relative to that of those that
        came, if the other rows tell little.
    """

    second: int = 15
    second_share: float = 0.02
    several: float = 0.1
    total: float = 60.0
    each: float = 0.25
    each_part: float = 0.4
    part: float = 0.05
    further: float = 0.1
    unmet: float = 10.0
    unheard: float = 0.05
    closer: float = 0.5


PARAMS = Parameters()


def permuted(case: Case) -> Iterator[Cause]:
    """Recognise known labels that changed places."""
    several = [name for name in case.categorical if len(case.counts(name)) > 1]
    for name in (*several, *(name for name in case.numeric if _is_flag(case, name))):
        if not case.suspect(name):
            continue
        found = _exchange(case, name)
        if name in several:  # the shares of two numbers may drift to those of one another
            found = found or reordered(case, name) or partly_reordered(case, name)
        if found is None:
            continue
        where = segment(case, found.touched, [name]) if found.share < SHARED.nearly_all else ""
        rows = "" if found.share > SHARED.nearly_all else f" in {found.share:.0%} of rows"
        shown = ", ".join(f"{old!r} as {now!r}" for now, old in list(found.pairs.items())[:4])
        yield Cause(
            "permuted",
            (name,),
            f"The labels of {name!r} seem to have changed places{rows}"
            f"{clause(where)}: {shown}. Another encoding?",
            {NATS: round(found.nats, 3), **found.evidence},
            f"Compare the code book of {name!r} with that of the training rows.",
            share=round(found.share, 4),
            segment=where,
        )


class _Drawn(NamedTuple):
    """Labels of the drawn rows beside what the other columns predict.

    Attributes
    ----------
    expected : ExpectedLabels
        The prediction.
    classes : array of int, shape (n_drawn,)
        Class of each row.
    inside : array of bool, shape (n_drawn,)
        Rows with a label that has a class of its own.
    related : array of float, shape (n_drawn, n_labels)
        Nats by which the other columns make each label likelier.
    """

    expected: ExpectedLabels
    classes: Places
    inside: Mask
    related: Floats


def _exchange(case: Case, name: str) -> Exchange | None:
    """Find an exchange of labels that the other columns show."""
    drawn = _drawn(case, name)
    if drawn.inside.sum() < SHARED.fewest_related:
        return None
    found = [one for option in _options(drawn) if (one := _tried(case, name, drawn, option))]
    return max(found, key=lambda one: one.nats, default=None)


def _is_flag(case: Case, name: str) -> bool:
    """Whether a numeric column holds two values."""
    return len(case.profile(name).points) == 2


def _drawn(case: Case, name: str) -> _Drawn:
    if case.is_number(name):
        first, last = case.profile(name).points
        expected = case.expected_steps(name, first, last - first, 2)
        expected = replace(expected, labels=[f"{first:g}", f"{last:g}"])
        values = case.numbers(name)
        came = np.select([values == first, values == last, np.isnan(values)], [0, 1, -1], 2)
    else:
        expected = case.expected_labels(name)
        places, labels = case.labels(name)
        rank = {label: i for i, label in enumerate(expected.labels)}
        came = np.asarray([*(rank.get(x, len(rank)) for x in labels), -1])[places]
    size = len(expected.labels)
    related = expected.now[:, :size] - expected.shares[:size]
    return _Drawn(expected, np.clip(came, 0, size - 1), (came >= 0) & (came < size), related)


def _tried(case: Case, name: str, drawn: _Drawn, option: Places) -> Exchange | None:
    """Try an exchange of labels; None unless the other columns show that it was made."""
    expected, classes, inside, related = drawn
    to, rows = option[classes], np.arange(len(classes))
    moved = inside & (to != classes)
    second = np.sort(np.bincount(classes[moved]))[-2:-1].sum()
    if second < max(PARAMS.second, PARAMS.second_share * len(classes)):
        return None
    gain = np.where(moved, related[rows, to] - related[rows, classes], 0.0)
    share, total = mixture(gain[moved])
    total -= of_chance(expected.blocks, gained_before(expected, option)) * moved.sum()
    each = total / max(share * moved.sum(), 1)
    if total < PARAMS.total or not (
        _enough(drawn, to, share=share, each=each)
        or (share > SHARED.most and _unheard_of(case, name, drawn, to))
    ):
        return None
    touched = touched_rows(gain, share) & moved
    held = np.sort(np.bincount(classes[touched]))
    if held[:-1].sum() < PARAMS.several * held.sum():  # one label overwrote others
        return None
    labels = expected.labels
    pairs = {labels[c]: labels[true] for c, true in enumerate(option.tolist()) if true != c}
    # The shares count in the choice among causes, though not as evidence.
    full = (expected.now[rows, to] - expected.now[rows, classes])[moved]
    nats = (float(full.sum()) if share > SHARED.most else mixture(full)[1]) / len(classes)
    affected = 1.0 if share > SHARED.nearly_all else share
    return Exchange(pairs, touched, affected * float(moved.mean()), nats, {})


def _enough(drawn: _Drawn, to: Places, *, share: float, each: float) -> bool:
    """Whether the nats of each row suffice for an exchange in most rows, or in a part of them."""
    if share > SHARED.most:
        near, far = _from_usual(drawn, to), _from_usual(drawn, drawn.classes)
        return each > PARAMS.each and near < far + PARAMS.further
    telling = drawn.expected.information > SHARED.tells
    return share > PARAMS.part and each > PARAMS.each_part and telling


def _unheard_of(case: Case, name: str, drawn: _Drawn, to: Places) -> bool:
    """Whether an exchange parts labels that never went together, and brings none such together."""
    expected, classes, inside, _ = drawn
    parted, joined = np.zeros_like(inside), np.zeros_like(inside)
    for other in case.categorical:
        if other in {name, *case.blamed}:
            continue
        place = case.place(other)
        before = case.reference.cells[: len(expected.classes), place]  # those it is learnt from
        now = case.drawn_cells[:, place]
        there, known = before != MISSING, inside & (now != MISSING)
        together = np.zeros((int(max(before.max(), now.max())) + 1, len(expected.shares)))
        np.add.at(together, (before[there], expected.classes[there]), 1)
        by_chance = np.outer(together.sum(axis=1), together.sum(axis=0)) / max(there.sum(), 1)
        never = (together == 0) & (by_chance >= PARAMS.unmet)
        odd, would_be = never[now[known], classes[known]], never[now[known], to[known]]
        parted[known] |= odd & ~would_be
        joined[known] |= would_be & ~odd
    nearer = _from_usual(drawn, to) < PARAMS.closer * _from_usual(drawn, classes)
    return bool(nearer and parted.mean() >= PARAMS.unheard and not joined.any())


def _from_usual(drawn: _Drawn, classes: Places) -> float:
    """Distance of the shares of classes from those of the reference."""
    size = drawn.related.shape[1]
    before = np.exp(drawn.expected.shares[:size])
    now = np.bincount(classes[drawn.inside], minlength=size) / drawn.inside.sum()
    return float(np.abs(now - before / before.sum()).sum() / 2)


def _options(drawn: _Drawn) -> list[Places]:
    """Exchanges worth trying: the likeliest for all rows and for misfits, and rotations."""
    expected, classes, inside, related = drawn
    size = related.shape[1]
    own = np.bincount(classes[inside], minlength=size)
    options = []
    odd = inside & (related[np.arange(len(classes)), classes] < 0)
    for chosen in (inside, odd):
        sums = np.zeros((size, size))
        np.add.at(sums, classes[chosen], related[chosen])
        options += [
            linear_sum_assignment(-(sums + own[:, None] * expected.shares[None, :size]))[1],
            linear_sum_assignment(-sums)[1],
        ]
    order = sorted(range(size), key=lambda i: expected.labels[i])
    for step in (1, -1, 2):
        cycle = np.arange(size)
        for k in range(size):
            cycle[order[k]] = order[(k + step) % size]
        options.append(cycle)
    return options
