"""Recoded labels: labels in another spelling, or replaced by new labels."""

import re
import sys
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple
from unicodedata import normalize

import numpy as np

from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.likelihood import Mask, Places
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause


@dataclass(frozen=True)
class Parameters:
    """What shows that new labels stand for known labels.

    Attributes
    ----------
    new : float
        Least share of rows with labels that the reference never held.
    usually_new : float
        Median chance of the new labels of a block, below which new labels are the rule.
    respelled : int
        Fewest rows with labels that differ from known labels in their spelling alone.
    matched : float
        Share of the rows with new labels above which nearly all match known labels.
    halved : float
        Share of its rows below which a known label that others match is missed.
    few : int
        Fewest labels, or rows of a label, that count as several.
    left, near : float
        Largest share of known labels, and distance of sorted shares, where all were replaced.
    none : float
        Share of known labels up to which none is left, whatever the shares of the new labels are.
    least_several, most_several : float
        Least and largest number of new labels, relative to the labels that they may replace.
    most_for_gone : float
        Most new labels, rare ones too, for each label that is gone.
    as_frequent : float
        Largest difference of the logarithms of the shares of new labels and of labels that are
        gone.
    one_by_one, by_chance : float
        Largest distance of the sorted shares of new labels from those of known labels, and how
        much larger it may be by chance, times the root of the rows with new labels.
    lone : float
        Share of rows up to which one label in place of another may be a successor, as of a person.
    missed : float
        Expected rows of a known label that are enough to be missed.
    gone : float
        Share of its expected rows below which a known label is gone.
    """

    new: float = 0.03
    usually_new: float = 0.01
    respelled: int = 10
    matched: float = 0.8
    halved: float = 0.5
    few: int = 3
    left: float = 0.1
    near: float = 0.25
    none: float = 0.01
    least_several: float = 0.4
    most_several: float = 2.5
    most_for_gone: float = 2.0
    as_frequent: float = 0.4
    one_by_one: float = 0.15
    by_chance: float = 0.5
    lone: float = 0.1
    missed: float = 20.0
    gone: float = 0.1


PARAMS = Parameters()
_ALIKE = str.maketrans({"0": "o", "1": "l", "i": "l"})
_LAST = chr(sys.maxunicode)
"""The highest character: a text that begins with a prefix sorts before the prefix and this."""


def recode(case: Case) -> Iterator[Cause]:
    """Recognise labels new to the column that stand in place of known labels."""
    for name in case.categorical:
        places, labels = case.labels(name)
        before = case.counts(name)
        known = places >= 0
        total = max(sum(before.values()), 1)
        new = np.asarray([label not in before for label in labels], dtype=bool)
        touched = np.append(new, False)[places] & known
        if known.sum() < SHARED.fewest or len(before) == 0 or touched.sum() < PARAMS.respelled:
            continue
        counts = np.bincount(places[known], minlength=len(labels))
        found = _respelled(labels, new, counts, before)
        many = touched[known].mean() >= PARAMS.new
        if many and found is None:
            found = _rewritten(labels, new, counts, before, float(known.sum()))
            if found is None and not _ever_new(case, name):
                found = _replaced(labels, new, counts, before, total)
        elif not many and _ever_new(case, name):
            found = None  # among names that people type, other spellings are usual
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
    """A label without case, accents, spaces and punctuation, read in the right encoding.

    Zero and O, and one, I and L, are typed and recognised for one another.
    """
    with suppress(UnicodeError):  # UTF-8 that was read as Western European
        label = label.encode("cp1252").decode("utf-8")
    return re.sub(r"[\W_]+", "", normalize("NFKD", label.casefold())).translate(_ALIKE)


def _respelled(
    labels: list[str], new: Mask, counts: Places, before: dict[str, int]
) -> tuple[dict[str, str], str] | None:
    """Match new labels with known labels that differ in case or punctuation alone."""
    plain: dict[str, list[str]] = {}
    for label in before:
        plain.setdefault(_plain(label), []).append(label)
    strange = [label for label, is_new in zip(labels, new, strict=True) if is_new]
    weight = dict(zip(labels, counts.tolist(), strict=True))
    respelled = {x: plain[_plain(x)][0] for x in strange if _plain(x) in plain and _plain(x)}
    if sum(weight[x] for x in respelled) > PARAMS.matched * counts[new].sum():
        return respelled, "in another case, or with other spaces, punctuation or digits for letters"
    return None


def _rewritten(
    labels: list[str], new: Mask, counts: Places, before: dict[str, int], rows: float
) -> tuple[dict[str, str], str] | None:
    """Match new labels with known labels that are longer or shorter."""
    mass = counts[new].sum()
    strange = [label for label, is_new in zip(labels, new, strict=True) if is_new]
    weight = dict(zip(labels, counts.tolist(), strict=True))
    parts = _longer_or_shorter(strange, before)
    total = max(sum(before.values()), 1)
    gone = [
        label
        for label in set(parts.values())
        if weight.get(label, 0) / rows < PARAMS.halved * before[label] / total
    ]
    covered = sum(weight[x] for x in parts)
    if covered > PARAMS.matched * mass and (gone or len(set(parts.values())) >= PARAMS.few):
        return parts, "cut off, or with something before or after them"
    return None


def _longer_or_shorter(strange: list[str], before: dict[str, int]) -> dict[str, str]:
    """Match new labels with the most frequent known label that is longer or shorter.

    A longer one starts with the new label; a shorter one is its start or its end.
    """
    known: dict[str, str] = {}  # by spelling without punctuation, the most frequent first
    for label in sorted(before, key=lambda label: -before[label]):
        known.setdefault(_plain(label), label)
    ordered, sizes = sorted(known), {len(label) for label in known} - {0}
    found = {}
    for label in strange:
        short = _plain(label)
        if not short:
            continue
        first, last = bisect_left(ordered, short), bisect_left(ordered, short + _LAST)
        parts = {part for k in sizes for part in (short[:k], short[-k:])}
        if matches := [*ordered[first:last], *(parts & known.keys())]:
            found[label] = max((known[x] for x in matches), key=lambda x: (before[x], x))
    return found


def _ever_new(case: Case, name: str) -> bool:
    """Whether new labels are usual: most blocks of the reference hold labels of their own."""
    p_values = case.reference.novelties.get(name, ())
    return bool(p_values) and float(np.median(p_values)) < PARAMS.usually_new


class _Newcomers(NamedTuple):
    """Labels that the reference never held, beside those it held.

    Attributes
    ----------
    fresh : list of (int, str)
        Rows and name of each new label, most frequent first.
    gone : list of str
        Known labels of which hardly a row is left.
    before : dict of str to int
        Rows of each known label in the reference.
    total : int
        Rows of the reference.
    mass, rows : float
        Rows of the batch with a new label, and with any.
    """

    fresh: list[tuple[int, str]]
    gone: list[str]
    before: dict[str, int]
    total: int
    mass: float
    rows: float

    @property
    def several(self) -> int:
        """Number of new labels that are not single rows."""
        return len([n for n, _ in self.fresh if n >= PARAMS.few])

    def expected(self, rows: float) -> int:
        """Number of known labels of which so many rows would hold enough to be seen."""
        return len([n for n in self.before.values() if n / self.total * rows >= SHARED.seen])


def _replaced(
    labels: list[str], new: Mask, counts: Places, before: dict[str, int], total: int
) -> tuple[dict[str, str], str] | None:
    """Match new labels with known labels by frequency; also says how they compare."""
    fresh = sorted(
        ((int(n), x) for n, x, is_new in zip(counts, labels, new, strict=True) if is_new),
        reverse=True,
    )
    gone = [x for x, n in before.items() if _vanished(x, n / total, labels, counts)]
    rows = float(counts.sum())
    came = _Newcomers(fresh, gone, before, total, float(counts[new].sum()), rows)
    if _for_all(came):
        return _by_rank(fresh, before), "every label was replaced by another label"
    if _for_the_gone(came):
        kept = {x: before[x] for x in gone}
        return _by_rank(fresh, kept), "they are as frequent as labels that are gone"
    if _one_by_one(came):
        return _by_rank(fresh, before), "they are as frequent, one by one, as the known labels"
    return None


def _for_all(came: _Newcomers) -> bool:
    """Whether hardly a known label is left, and the new ones are as frequent, or none is.

    A single label may take over, as a new version does.
    """
    left = came.rows - came.mass
    if left >= PARAMS.left * came.rows:
        return False
    least = PARAMS.least_several * came.expected(came.mass)
    most = PARAMS.most_several * len(came.before)
    near = _sorted_distance(came.fresh, came.before, came.mass, came.total) < PARAMS.near
    none = left <= PARAMS.none * came.rows and min(came.several, came.expected(came.mass)) > 1
    return least <= came.several <= most and (near or none)


def _for_the_gone(came: _Newcomers) -> bool:
    """Whether new labels are as frequent together as the labels that are gone.

    Where all labels are gone, the new labels are as frequent in any case: they would have to be
    about as many. One label in place of several takes over, as a new version does.
    """
    if not came.gone or len(came.fresh) > PARAMS.most_for_gone * len(came.gone):
        return False
    listed = [x for x in came.gone if came.before[x] / came.total * came.rows >= SHARED.seen]
    gone_share = sum(came.before[x] for x in came.gone) / came.total
    share = came.mass / came.rows
    successor = len(came.gone) == 1 and share <= PARAMS.lone
    takes_over = came.several < 2 <= len(came.gone)
    if successor or takes_over:
        return False
    as_frequent = abs(np.log(share / max(gone_share, 1e-9))) < PARAMS.as_frequent
    return bool(as_frequent and came.several >= PARAMS.least_several * len(listed))


def _one_by_one(came: _Newcomers) -> bool:
    """Whether new labels are as many and, in order, as frequent as the known labels."""
    expected = came.expected(came.mass)
    factor = SHARED.as_many
    if expected < 2 or not expected / factor <= came.several <= factor * expected:
        return False  # a single label has no order
    distance = _sorted_distance(came.fresh, came.before, came.mass, came.total)
    return bool(distance < PARAMS.one_by_one + PARAMS.by_chance / np.sqrt(came.mass))


def _vanished(label: str, share: float, labels: list[str], counts: Places) -> bool:
    n = counts.sum()
    now = counts[labels.index(label)] if label in labels else 0
    return bool(share * n >= PARAMS.missed and now < PARAMS.gone * share * n)


def _sorted_distance(
    fresh: list[tuple[int, str]], before: dict[str, int], mass: float, total: int
) -> float:
    """Total variation distance of the sorted shares of new and of known labels."""
    size = max(len(fresh), len(before))
    now, then = np.zeros(size), np.zeros(size)
    now[: len(fresh)] = np.asarray([n for n, _ in fresh]) / mass
    then[: len(before)] = np.sort(list(before.values()))[::-1] / total
    return float(np.abs(now - then).sum() / 2)


def _by_rank(fresh: list[tuple[int, str]], before: dict[str, int]) -> dict[str, str]:
    old = sorted(before, key=lambda x: (-before[x], x))
    return {x: y for (_, x), y in zip(fresh, old, strict=False)}
