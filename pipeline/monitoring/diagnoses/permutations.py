"""Permuted labels: known labels that stand for one another, as with another code book."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import NATS, Case, Mask, Places
from pipeline.monitoring.diagnoses.likelihood import (
    mixture,
    of_blocks,
    sampling_distance,
    touched_rows,
)
from pipeline.monitoring.diagnoses.relations import ExpectedLabels
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause
from pipeline.reference.summaries import Trait

_FEW = 3
"""Fewest rows of a label that is listed, and fewest labels that changed places."""
_MOVED = 20
"""Fewest rows that a label lost or won, where a part of the rows is judged by shares."""
_LEAST_APART, _APART, _PUT_BACK = 0.1, 2.0, 0.25
"""Limits of the distance of shares.

They are the least distance in a part of the rows, its least ratio to that of any ordinary batch,
and the largest distance of the shares put back, relative to their distance as they arrived."""
_TOO_NOISY = 0.5
"""Largest part of the distance of shares that may be sampling error."""
_REVERSED = 0.3
"""Distance of shares from which drift does not end at the shares of two labels exchanged."""
_CONFIRMS = 10.0
"""Least nats over all rows by which other columns confirm an exchange found by shares."""
_SEVERAL = 0.1
"""Least share of affected rows with other labels than the most frequent of them."""
_SECOND = 15
"""Fewest rows of the second most frequent of the exchanged labels."""
_TOTAL = 60.0
"""Least nats over all rows of an exchange."""
_EACH, _EACH_PART = 0.25, 0.4
"""Least nats per affected row, where most rows are affected and where a part is."""
_TELLS = 0.2
"""Least nats per row from the other columns, where a part of the rows is judged."""


def permuted(case: Case) -> Iterator[Cause]:
    """Recognise known labels that changed places."""
    for name in case.categorical:
        if not case.suspect(name) or len(case.counts(name)) < 2:  # nothing to exchange
            continue
        found = _exchange(case, name) or _reordered(case, name) or _partly_reordered(case, name)
        if found is None:
            continue
        where = segment(case, found.touched, [name]) if found.share < 0.9 else ""  # all rows
        rows = "" if found.share > 0.9 else f" in {found.share:.0%} of rows"  # all
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


class _Exchange(NamedTuple):
    """Labels that changed places.

    Attributes
    ----------
    pairs : dict of str to str
        True label of each label that arrived.
    touched : array of bool, shape (n_drawn,)
        Affected rows.
    share : float
        Share of affected rows.
    nats : float
        Nats per row by which the labels are likelier once put back.
    evidence : dict
        Further figures for people.
    """

    pairs: dict[str, str]
    touched: Mask
    share: float
    nats: float
    evidence: dict[str, float | str]


def _reordered(case: Case, name: str) -> _Exchange | None:
    """Find an exchange by which far-off shares become the usual shares, of other labels."""
    counts = case.counts(name)
    places, labels = case.labels(name)
    every, before, now, n = _shares(case, name)
    total = max(sum(counts.values()), 1)
    if n < 50:  # too few rows to tell
        return None
    far = float(np.abs(now - before).sum() / 2)
    near = float(np.abs(np.sort(now) - np.sort(before)).sum() / 2)
    by_chance = len(every) * float(np.abs(before[:, None] - before[None, :]).mean()) / 2
    moved, noise = _APART * _usually_apart(case, name), sampling_distance(now, n)
    if far < max(0.2, 0.7 * by_chance, moved) or near > max(_PUT_BACK * far, noise):
        return None
    if noise > _TOO_NOISY * far:  # among rare labels, any order of shares is as usual as another
        return None
    order = np.argsort(-now, kind="stable")
    pairs = {
        every[j]: every[i]
        for i, j in enumerate(order)
        if i != j and max(now[j], before[i]) * n >= _FEW
    }
    unknown = float(now[before == 0].sum())
    if unknown > 0.7:  # new labels are a recode
        return None
    exact = far > _REVERSED and near < 2 * noise
    if len(pairs) < _FEW and not exact and not _confirmed(case, name, pairs):  # two may drift
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
    """All labels, most frequent first, their shares before and now, and the rows with a label."""
    counts = case.counts(name)
    places, labels = case.labels(name)
    every = sorted(set(counts) | set(labels), key=lambda label: (-counts.get(label, 0), label))
    came = dict(zip(labels, np.bincount(places[places >= 0], minlength=len(labels)), strict=True))
    n, total = int((places >= 0).sum()), max(sum(counts.values()), 1)
    before = np.asarray([counts.get(label, 0) for label in every]) / total
    now = np.asarray([came.get(label, 0) for label in every]) / max(n, 1)
    return every, before, now, n


def _partly_reordered(case: Case, name: str) -> _Exchange | None:
    """Find an exchange of labels in a part of the rows, by shares.

    If a share of the rows is affected and the rest keeps the usual shares, the affected rows have
    the shares of the reference in another order, within sampling error. Shares also move by
    themselves, but less, and they do so in ordinary batches.
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
        noise = sampling_distance(now, n) / share
        several = (before * share * n >= _MOVED).sum() >= _FEW
        apart = far / share >= max(0.2, 0.7 * by_chance) and noise < _TOO_NOISY * far / share
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
    """Whether the other columns confirm an exchange of labels found by shares.

    Shares may drift to any other values, by chance to the usual shares in another order.
    """
    expected = case.expected_labels(name)
    size = len(expected.labels)
    rank = {label: i for i, label in enumerate(expected.labels)}
    option = np.asarray([rank.get(pairs.get(x, x), i) for i, x in enumerate(expected.labels)])
    places, labels = case.labels(name)
    classes = np.asarray([*(rank.get(x, size) for x in labels), size])[places]
    to = np.append(option, size)[classes]
    moved = to != classes
    if moved.sum() < _MOVED:
        return False
    rows, related = np.flatnonzero(moved), expected.now - expected.shares
    _, total = mixture(related[rows, to[moved]] - related[rows, classes[moved]])
    usual = of_blocks(expected.blocks, _exchanged_before(expected, option))
    total -= 2 * max(usual.max(initial=0.0), 0.0) * moved.sum()
    return bool(total > _CONFIRMS)


def _usually_apart(case: Case, name: str) -> float:
    """Largest distance of the shares of a block or recent batch from those of the reference."""
    counts = case.counts(name)
    total = max(sum(counts.values()), 1)
    distances = [
        sum(
            abs(batch[trait] - n / total)
            for label, n in counts.items()
            if (trait := Trait("share", (name,), label)) in batch
        )
        for batch in (*case.reference.blocks, *case.recent)
    ]
    return max(distances, default=0.0) / 2


def _exchange(case: Case, name: str) -> _Exchange | None:
    """Find an exchange of labels that the other columns show."""
    expected = case.expected_labels(name)
    places, labels = case.labels(name)
    rank = {label: i for i, label in enumerate(expected.labels)}
    came = np.asarray([*(rank.get(x, len(rank)) for x in labels), -1])[places]
    size = len(expected.labels)
    inside = (came >= 0) & (came < size)
    if inside.sum() < 50:  # too few rows to tell
        return None
    before = np.exp(expected.shares[:size]) / np.exp(expected.shares[:size]).sum()
    classes = np.clip(came, 0, size - 1)
    related = expected.now[:, :size] - expected.shares[:size]
    rows = np.arange(len(classes))
    best: _Exchange | None = None
    for option in _options(expected, related, classes, inside):
        to = option[classes]
        moved = inside & (to != classes)
        if np.sort(np.bincount(classes[moved]))[-2:-1].sum() < max(_SECOND, 0.02 * len(classes)):
            continue  # one label may have grown
        gain = np.where(moved, related[rows, to] - related[rows, classes], 0.0)
        share, total = mixture(gain[moved])
        usual = of_blocks(expected.blocks, _exchanged_before(expected, option))
        total -= 2 * max(usual.max(initial=0.0), 0.0) * moved.sum()
        each = total / max(share * moved.sum(), 1)
        far, near = (
            float(np.abs(np.bincount(x[inside], minlength=size) / inside.sum() - before).sum() / 2)
            for x in (classes, to)
        )
        whole = share > 0.7 and each > _EACH and near < far + 0.1
        part = 0.05 < share <= 0.7 and each > _EACH_PART and expected.information > _TELLS
        if total < _TOTAL or not (whole or part):
            continue
        # The shares count in the choice among causes, though not as evidence.
        full = (expected.now[rows, to] - expected.now[rows, classes])[moved]
        nats = (float(full.sum()) if share > 0.7 else mixture(full)[1]) / len(classes)
        if best is None or nats > best.nats:
            pairs = {
                expected.labels[c]: expected.labels[option[c]]
                for c in range(size)
                if option[c] != c
            }
            touched = touched_rows(gain, share) & moved
            held = np.sort(np.bincount(classes[touched]))
            if held[:-1].sum() < _SEVERAL * held.sum():  # one label overwrote others
                continue
            true_of = 1.0 if share > 0.9 else share  # all rows
            best = _Exchange(pairs, touched, true_of * float(moved.mean()), nats, {})
    return best


def _options(
    expected: ExpectedLabels, related: Floats, classes: Places, inside: Mask
) -> list[Places]:
    """Exchanges worth trying: the likeliest for all rows and for misfits, and rotations."""
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


def _exchanged_before(expected: ExpectedLabels, option: Places) -> np.ndarray:
    """Nats per row that an exchange of labels gains in the reference."""
    size = len(option)
    rows = np.arange(len(expected.classes))
    inside = expected.classes < size
    to = np.where(inside, option[np.minimum(expected.classes, size - 1)], expected.classes)
    related = expected.before - expected.shares
    return related[rows, to] - related[rows, expected.classes]
