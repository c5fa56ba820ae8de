"""Labels that were written otherwise, or mean another thing now."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.monitoring.diagnoses.case import NATS, Case, Mask, Places
from pipeline.monitoring.diagnoses.likelihood import mixture, of_blocks, touched_rows
from pipeline.monitoring.diagnoses.relations import Told
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause
from pipeline.profile import Floats

_NEW = 0.03
"""Share of rows with labels that were not there before, below which nothing is said."""
_FEW = 3
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


def recode(case: Case) -> Iterator[Cause]:
    """Labels that the training rows never held, in place of some that they did."""
    for name in case.categorical:
        places, labels = case.labels(name)
        before = case.counts(name)
        known = places >= 0
        total = max(sum(before.values()), 1)
        new = np.asarray([label not in before for label in labels], dtype=bool)
        touched = np.append(new, False)[places] & known
        if known.sum() < 20 or len(before) == 0 or touched[known].mean() < _NEW:
            continue
        counts = np.bincount(places[known], minlength=len(labels))
        found = _rewritten(labels, new, counts, before, float(known.sum()))
        if found is None and not _ever_new(case, name):
            found = _replaced(labels, new, counts, before, total)
        if found is None:
            continue
        pairs, words = found
        share, where = float(touched.mean()), segment(case, touched, [name])
        shown = ", ".join(f"{old!r} as {now!r}" for now, old in list(pairs.items())[:3])
        yield Cause(
            "recode",
            (name,),
            f"{share:.0%} of the labels of {name!r} are new{clause(where)}: "
            f"{words}{f', such as {shown}' if shown else ''}.",
            {
                NATS: round(float(share * np.log(total)), 3),
                "share of new labels": round(share, 4),
                "new labels": float(new.sum()),
            },
            f"Have the source of {name!r} write the labels as before, or map them back.",
            share=share,
            segment=where,
        )


def _plain(label: str) -> str:
    return re.sub(r"[\W_]+", "", label.casefold())


def _rewritten(
    labels: list[str], new: Mask, counts: Places, before: dict[str, int], rows: float
) -> tuple[dict[str, str], str] | None:
    """New labels that are known ones in another spelling."""
    mass = counts[new].sum()
    plain: dict[str, list[str]] = {}
    for label in before:
        plain.setdefault(_plain(label), []).append(label)
    strange = [label for label, is_new in zip(labels, new, strict=True) if is_new]
    weight = dict(zip(labels, counts.tolist(), strict=True))
    same = {x: plain[_plain(x)][0] for x in strange if _plain(x) in plain and _plain(x)}
    if sum(weight[x] for x in same) > 0.8 * mass:  # nearly all
        return same, "in another case, or with other spaces or signs"
    parts: dict[str, str] = {}
    for x in strange:
        short = _plain(x)
        matches = [
            label
            for label in before
            if short
            and _plain(label)
            and (
                _plain(label).startswith(short)
                or short.endswith(_plain(label))
                or short.startswith(_plain(label))
            )
        ]
        if matches:
            parts[x] = max(matches, key=lambda label: before[label])
    total = max(sum(before.values()), 1)
    gone = [
        label
        for label in set(parts.values())
        if weight.get(label, 0) / rows < 0.5 * before[label] / total  # half of it went
    ]
    covered = sum(weight[x] for x in parts)
    if covered > 0.8 * mass and (gone or len(set(parts.values())) >= _FEW):
        return parts, "cut off, or with something before or after them"
    return None


def _ever_new(case: Case, name: str) -> bool:
    """Whether new labels come in every block of the reference."""
    p_values = case.reference.novelties.get(name, ())
    return bool(p_values) and float(np.median(p_values)) < 0.01  # as a rule


def _replaced(
    labels: list[str], new: Mask, counts: Places, before: dict[str, int], total: int
) -> tuple[dict[str, str], str] | None:
    """New labels that come as often as those they replace used to."""
    mass = float(counts[new].sum())
    fresh = sorted(
        ((int(n), x) for n, x, is_new in zip(counts, labels, new, strict=True) if is_new),
        reverse=True,
    )
    rest = max(float(counts.sum()) - mass, 0.0)
    gone = [x for x, n in before.items() if _vanished(x, n / total, labels, counts)]
    gone_share = sum(before[x] for x in gone) / total
    share = mass / counts.sum()
    if rest < 0.1 * counts.sum():  # hardly a known label is left
        expected = [x for x, n in before.items() if n / total * mass >= 5]
        alike = 0.4 * len(expected) <= len([n for n, _ in fresh if n >= _FEW]) <= 2.5 * len(before)
        if alike and _sorted_distance(fresh, before, mass, total) < 0.25:
            return _by_rank(fresh, before), "every label was replaced by another one"
    if gone and abs(np.log(share / max(gone_share, 1e-9))) < 0.4 and len(fresh) <= 2 * len(gone):
        kept = {x: before[x] for x in gone}
        return _by_rank(fresh, kept), "they come as often as labels that are gone"
    many = [n for n, _ in fresh if n >= _FEW]
    expected_labels = [x for x, n in before.items() if n / total * mass >= 5]
    alike = len(expected_labels) > 1 and 0.5 <= len(many) / len(expected_labels) <= 2
    if alike and _sorted_distance(fresh, before, mass, total) < 0.15 + 0.5 / np.sqrt(mass):
        return _by_rank(fresh, before), "they come as often, one by one, as the known ones"
    return None


def _vanished(label: str, share: float, labels: list[str], counts: Places) -> bool:
    n = counts.sum()
    now = counts[labels.index(label)] if label in labels else 0
    return bool(share * n >= 20 and now < 0.1 * share * n)  # enough to be missed


def _sorted_distance(
    fresh: list[tuple[int, str]], before: dict[str, int], mass: float, total: int
) -> float:
    """Total variation of the shares, both sorted."""
    size = max(len(fresh), len(before))
    one, other = np.zeros(size), np.zeros(size)
    one[: len(fresh)] = np.asarray([n for n, _ in fresh]) / mass
    other[: len(before)] = np.sort(list(before.values()))[::-1] / total
    return float(np.abs(one - other).sum() / 2)


def _by_rank(fresh: list[tuple[int, str]], before: dict[str, int]) -> dict[str, str]:
    old = sorted(before, key=lambda x: (-before[x], x))
    return {x: y for (_, x), y in zip(fresh, old, strict=False)}


def permuted(case: Case) -> Iterator[Cause]:
    """Known labels that stand for one another."""
    for name in case.categorical:
        if not case.suspect(name) or len(case.counts(name)) < 2:  # nothing to exchange
            continue
        found = _exchange(case, name) or _reordered(case, name)
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
    places, labels = case.labels(name)
    counts = case.counts(name)
    every = sorted(set(counts) | set(labels), key=lambda label: (-counts.get(label, 0), label))
    known = places >= 0
    n, total = int(known.sum()), max(sum(counts.values()), 1)
    if n < 50:  # too few rows to tell
        return None
    before = np.asarray([counts.get(label, 0) for label in every]) / total
    came = dict(zip(labels, np.bincount(places[known], minlength=len(labels)) / n, strict=True))
    now = np.asarray([came.get(label, 0.0) for label in every])
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
