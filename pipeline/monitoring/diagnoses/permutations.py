"""Labels that stand for one another: another code book."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.monitoring.diagnoses.case import NATS, Case, Mask, Places
from pipeline.monitoring.diagnoses.likelihood import mixture, of_blocks, touched_rows
from pipeline.monitoring.diagnoses.relations import Told
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause
from pipeline.reference.profile import Floats
from pipeline.reference.summaries import Trait

_FEW = 3
_MOVED = 20
"""Rows that a label has to have lost or won, where a part of the rows is judged by shares."""
_LEAST_APART, _APART, _PUT_BACK = 0.1, 2.0, 0.25
"""How far apart shares have to be, in times of any ordinary batch as well, and how near they are
once put back, in terms of how far they came."""
_CONFIRMS = 10.0
"""Nats over all rows by which other columns confirm what shares say."""
_SEVERAL = 0.1
"""Share of the touched rows that hold other labels than the most frequent one."""
_SECOND = 15
"""Rows of the second of the labels that changed places."""
_TOTAL = 60.0
"""Nats over all rows below which nothing is said of an exchange."""
_EACH, _EACH_PART = 0.25, 0.4
"""Nats per touched row, where most rows are touched and where a part is."""
_TELLS = 0.2
"""Nats a row that the other columns must say of one, where a part of its rows is judged."""


def permuted(case: Case) -> Iterator[Cause]:
    """Known labels that stand for one another."""
    for name in case.categorical:
        if not case.suspect(name) or len(case.counts(name)) < 2:  # nothing to exchange
            continue
        found = _exchange(case, name) or _reordered(case, name) or _partly_reordered(case, name)
        if found is None:
            continue
        where = segment(case, found.touched, [name]) if found.share < 0.9 else ""  # all
        rows = "" if found.share > 0.9 else f" in {found.share:.0%} of rows"  # all
        shown = ", ".join(f"{old!r} as {now!r}" for now, old in list(found.pairs.items())[:4])
        yield Cause(
            "permuted",
            (name,),
            f"The labels of {name!r} seem to have changed places{rows}"
            f"{clause(where)}: {shown}. Another encoding?",
            {NATS: round(found.told, 3), **found.evidence},
            f"Compare the code book of {name!r} with that of the training rows.",
            share=round(found.share, 4),
            segment=where,
        )


class _Exchange(NamedTuple):
    """Labels that changed places.

    Attributes
    ----------
    pairs : dict of str to str
        What a label that came stands for.
    touched : array of bool, shape (n_drawn,)
    share : float
        Of rows.
    told : float
        Nats a row by which the labels put back are likelier.
    evidence : dict
    """

    pairs: dict[str, str]
    touched: Mask
    share: float
    told: float
    evidence: dict[str, float | str]


def _reordered(case: Case, name: str) -> _Exchange | None:
    """Shares far from what they were, and the same ones as ever of other labels."""
    counts = case.counts(name)
    places, labels = case.labels(name)
    every, before, now, n = _shares(case, name)
    total = max(sum(counts.values()), 1)
    if n < 50:  # too few rows to tell
        return None
    far = float(np.abs(now - before).sum() / 2)
    near = float(np.abs(np.sort(now) - np.sort(before)).sum() / 2)
    by_chance = len(every) * float(np.abs(before[:, None] - before[None, :]).mean()) / 2
    if far < max(0.2, 0.7 * by_chance) or near > max(0.25 * far, np.sqrt(len(counts) / n)):
        return None
    order = np.argsort(-now, kind="stable")
    pairs = {
        every[j]: every[i]
        for i, j in enumerate(order)
        if i != j and max(now[j], before[i]) * n >= _FEW
    }
    unknown = float(now[before == 0].sum())
    if len(pairs) < 3 or unknown > 0.7:  # two may have grown and shrunk; new ones are a recode
        return None
    to = np.empty(len(every), dtype=np.intp)
    to[order] = np.arange(len(every))
    likelier = np.log(np.maximum(before[to], 0.5 / total) / np.maximum(before, 0.5 / total))
    touched = np.isin(np.asarray([*labels, None], dtype=object)[places], list(pairs))
    evidence: dict[str, float | str] = {
        "distance of shares as they came": round(far, 3),
        "distance of shares put back": round(near, 3),
    }
    return _Exchange(pairs, touched, 1.0, float(now @ likelier), evidence)


def _shares(case: Case, name: str) -> tuple[list[str], Floats, Floats, int]:
    """All labels, the most frequent first, their shares before and now, and rows with one."""
    counts = case.counts(name)
    places, labels = case.labels(name)
    every = sorted(set(counts) | set(labels), key=lambda label: (-counts.get(label, 0), label))
    came = dict(zip(labels, np.bincount(places[places >= 0], minlength=len(labels)), strict=True))
    n, total = int((places >= 0).sum()), max(sum(counts.values()), 1)
    before = np.asarray([counts.get(label, 0) for label in every]) / total
    now = np.asarray([came.get(label, 0) for label in every]) / max(n, 1)
    return every, before, now, n


def _partly_reordered(case: Case, name: str) -> _Exchange | None:
    """The same in a part of the rows: what all labels lost alike came back under others.

    Of a share of the rows, less what the rest hold of each label as ever, the shares are those of
    the reference in another order, as nearly as so many rows tell. Shares that move by themselves
    do so in ordinary batches as well, if less.
    """
    every, before, now, n = _shares(case, name)
    if n < 50:  # too few rows to tell
        return None
    by_chance = len(every) * float(np.abs(before[:, None] - before[None, :]).mean()) / 2
    far = float(np.abs(now - before).sum() / 2)
    if far < max(_LEAST_APART, _APART * _usually_apart(case, name)):
        return None
    best: tuple[float, float, Floats] | None = None
    for share in np.arange(0.1, 0.71, 0.02):
        moved = (now - (1 - share) * before) / share
        near = float(np.abs(np.sort(moved) - np.sort(before)).sum() / 2)
        noise = float(np.sqrt(now * (1 - now) / n).sum() / np.sqrt(2 * np.pi) / share)
        several = (before * share * n >= _MOVED).sum() >= _FEW
        apart = far / share >= max(0.2, 0.7 * by_chance) and noise < 0.5 * far / share
        found = several and apart and near < max(_PUT_BACK * far / share, noise)
        if found and (best is None or near * share < best[0]):
            best = near * share, float(share), moved
    if best is None:
        return None
    _, share, moved = best
    order = np.argsort(-moved, kind="stable")
    pairs = {
        every[j]: every[i]
        for i, j in enumerate(order)
        if i != j and max(moved[j], before[i]) * share * n >= _MOVED
    }
    if len(pairs) < _FEW or not _confirmed(case, name, pairs):
        return None
    to = np.empty(len(every), dtype=np.intp)
    to[order] = np.arange(len(every))
    least = 0.5 / max(sum(case.counts(name).values()), 1)
    likelier = np.log(1 - share + share * before[to] / np.maximum(before, least))
    places, labels = case.labels(name)
    gained = [x for x, m, b in zip(every, moved, now, strict=True) if share * m > b / 2]
    touched = np.isin(np.asarray([*labels, None], dtype=object)[places], gained)
    evidence: dict[str, float | str] = {
        "distance of shares as they came": round(far, 3),
        "distance of shares put back": round(float(best[0]), 3),
    }
    return _Exchange(pairs, touched, share, float(now @ likelier), evidence)


def _confirmed(case: Case, name: str, pairs: dict[str, str]) -> bool:
    """Whether the other columns say of a part of the labels that they changed places like that.

    Shares alone move to whatever others, those in another order among them.
    """
    told = case.told(name)
    size = len(told.labels)
    rank = {label: i for i, label in enumerate(told.labels)}
    option = np.asarray([rank.get(pairs.get(x, x), i) for i, x in enumerate(told.labels)])
    places, labels = case.labels(name)
    classes = np.asarray([*(rank.get(x, size) for x in labels), size])[places]
    to = np.append(option, size)[classes]
    moved = to != classes
    if moved.sum() < _MOVED:
        return False
    rows, related = np.flatnonzero(moved), told.now - told.shares
    _, total = mixture(related[rows, to[moved]] - related[rows, classes[moved]])
    usual = of_blocks(told.blocks, _exchanged_before(told, option))
    total -= 2 * max(usual.max(initial=0.0), 0.0) * moved.sum()
    return bool(total > _CONFIRMS)


def _usually_apart(case: Case, name: str) -> float:
    """Largest distance of the shares of a block or recent batch from those of the reference."""
    counts = case.counts(name)
    total = max(sum(counts.values()), 1)
    distances = [
        sum(
            abs(one[trait] - n / total)
            for label, n in counts.items()
            if (trait := Trait("share", (name,), label)) in one
        )
        for one in (*case.reference.blocks, *case.recent)
    ]
    return max(distances, default=0.0) / 2


def _exchange(case: Case, name: str) -> _Exchange | None:
    """The exchange of labels that the other columns tell of, if any does."""
    told = case.told(name)
    places, labels = case.labels(name)
    rank = {label: i for i, label in enumerate(told.labels)}
    came = np.asarray([*(rank.get(x, len(rank)) for x in labels), -1])[places]
    size = len(told.labels)
    inside = (came >= 0) & (came < size)
    if inside.sum() < 50:  # too few rows to tell
        return None
    before = np.exp(told.shares[:size]) / np.exp(told.shares[:size]).sum()
    classes = np.clip(came, 0, size - 1)
    related = told.now[:, :size] - told.shares[:size]
    rows = np.arange(len(classes))
    best: _Exchange | None = None
    for option in _options(told, related, classes, inside):
        to = option[classes]
        moved = inside & (to != classes)
        if np.sort(np.bincount(classes[moved]))[-2:-1].sum() < max(_SECOND, 0.02 * len(classes)):
            continue  # one label may have grown
        gain = np.where(moved, related[rows, to] - related[rows, classes], 0.0)
        share, total = mixture(gain[moved])
        usual = of_blocks(told.blocks, _exchanged_before(told, option))
        total -= 2 * max(usual.max(initial=0.0), 0.0) * moved.sum()
        each = total / max(share * moved.sum(), 1)
        far, near = (
            float(np.abs(np.bincount(x[inside], minlength=size) / inside.sum() - before).sum() / 2)
            for x in (classes, to)
        )
        whole = share > 0.7 and each > _EACH and near < far + 0.1
        part = 0.05 < share <= 0.7 and each > _EACH_PART and told.information > _TELLS
        if total < _TOTAL or not (whole or part):
            continue
        # What the shares say counts in the choice among causes, though not as evidence.
        full = (told.now[rows, to] - told.now[rows, classes])[moved]
        nats = (float(full.sum()) if share > 0.7 else mixture(full)[1]) / len(classes)
        if best is None or nats > best.told:
            pairs = {told.labels[c]: told.labels[option[c]] for c in range(size) if option[c] != c}
            touched = touched_rows(gain, share) & moved
            held = np.sort(np.bincount(classes[touched]))
            if held[:-1].sum() < _SEVERAL * held.sum():  # one label written over others
                continue
            true_of = 1.0 if share > 0.9 else share  # all
            best = _Exchange(pairs, touched, true_of * float(moved.mean()), nats, {})
    return best


def _options(told: Told, related: Floats, classes: Places, inside: Mask) -> list[Places]:
    """Exchanges worth trying: the most likely ones of all rows, and of those that do not fit."""
    size = related.shape[1]
    own = np.bincount(classes[inside], minlength=size)
    options = []
    odd = inside & (related[np.arange(len(classes)), classes] < 0)
    for chosen in (inside, odd):
        sums = np.zeros((size, size))
        np.add.at(sums, classes[chosen], related[chosen])
        options += [
            linear_sum_assignment(-(sums + own[:, None] * told.shares[None, :size]))[1],
            linear_sum_assignment(-sums)[1],
        ]
    order = sorted(range(size), key=lambda i: told.labels[i])
    for step in (1, -1, 2):
        cycle = np.arange(size)
        for k in range(size):
            cycle[order[k]] = order[(k + step) % size]
        options.append(cycle)
    return options


def _exchanged_before(told: Told, option: Places) -> np.ndarray:
    """Nats a row that an exchange of labels gains in the reference."""
    size = len(option)
    rows = np.arange(len(told.classes))
    inside = told.classes < size
    to = np.where(inside, option[np.minimum(told.classes, size - 1)], told.classes)
    related = told.before - told.shares
    return related[rows, to] - related[rows, told.classes]
