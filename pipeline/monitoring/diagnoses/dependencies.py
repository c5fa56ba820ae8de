"""Labels that tell labels of another column, as a city tells its country: rows that break it.

Trees learn a column with hundreds of labels badly, because each has few rows. Where one column
tells another without exception, every row that breaks the rule counts by itself.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, NamedTuple

import numpy as np

from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.likelihood import Mask, Places, surprise
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause
from pipeline.reference.profile import MISSING


@dataclass(frozen=True)
class Parameters:
    """What is a rule, and what shows that labels came to other rows.

    Attributes
    ----------
    labels : int
        Fewest labels of a column that tells another; columns with fewer are learnt by trees.
    twice : int
        Fewest rows of a label in the reference, with the same label of the other column.
    obeyed : float
        Least share of the reference's rows that obey a rule.
    by_chance : float
        Largest share of rows that would obey it if the labels were in any rows.
    part : float
        Least share of rows that break it, beyond that of every block.
    widely : float
        Least share of a column's labels of which rows break it; of few labels, the world changed.
    fewest : int
        Fewest labels of which rows break it.
    several : int
        Rows of a label in the batch from which it would be seen to break a rule.
    one : float
        Share of the rows that break it with one label, from which that label overwrote others.
    apart : float
        Least share of rows that disagree with others of their label on what it tells now: their
        labels were put in any rows. Where all agree, labels changed places.
    """

    labels: int = 13
    twice: int = 2
    obeyed: float = 0.98
    by_chance: float = 0.7
    part: float = 0.04
    widely: float = 0.5
    fewest: int = 10
    several: int = 4
    one: float = 0.8
    apart: float = 0.1


PARAMS = Parameters()


class Rule(NamedTuple):
    """A column that tells another.

    Attributes
    ----------
    implied : array of int, shape (n_labels,)
        Cell of the other column that each label tells; -1 where it tells none.
    usual : float
        Largest share of rows of a block that break the rule.
    by_chance : float
        Share of rows that would obey it if the labels were in any rows.
    """

    implied: Places
    usual: float
    by_chance: float


class _Broken(NamedTuple):
    """A rule that a batch breaks.

    Attributes
    ----------
    rule : Rule
        The rule.
    judged, breaks : array of bool, shape (n_drawn,)
        Drawn rows whose labels it knows, and those that break it.
    """

    rule: Rule
    judged: Mask
    breaks: Mask


def misfit(case: Case) -> Iterator[Cause]:
    """Recognise labels in the wrong rows, or exchanged, by a column that tells another."""
    broken, kept = dict[tuple[str, str], _Broken](), set[str]()
    for one, other in permutations(case.categorical, 2):
        rule = _rule(case, one, other)
        if rule is None:
            continue
        judged, breaks = _rows(case, rule, one, other)
        if judged.sum() < SHARED.fewest_related:
            continue
        share = float(breaks.sum() / judged.sum())
        if share - rule.usual > PARAMS.part:
            broken[one, other] = _Broken(rule, judged, breaks)
        else:
            kept |= {one, other}
    number = Counter(name for pair in broken for name in pair)
    for pair, found in broken.items():
        most = max(number[name] for name in pair)
        at_fault = [name for name in pair if name not in kept and number[name] == most]
        cause = _kind(case, *pair, found.breaks)
        if cause and at_fault:
            yield _described(case, cause, pair, at_fault, found)


def _rule(case: Case, one: str, other: str) -> Rule | None:
    """What the labels of a column tell of another in the reference; None if they do not."""
    few = len(case.counts(one)) < max(PARAMS.labels, len(case.counts(other)))
    if few or len(case.counts(other)) < 2:  # one label follows from anything
        return None
    return case.memory.recall(("rule", one, other), lambda: _learnt(case, one, other))


def _learnt(case: Case, one: str, other: str) -> Rule | None:
    reference, size = case.reference, len(case.counts(one))
    a, b = (reference.cells[:, case.place(name)].astype(np.intp) for name in (one, other))
    there = (a != MISSING) & (b != MISSING)
    a, b, blocks = a[there], b[there], reference.cell_blocks[there]
    if not len(a):
        return None
    pairs, rows = np.unique(np.column_stack([a, b]), axis=0, return_counts=True)
    order = np.argsort(rows, kind="stable")
    most, implied = np.zeros(size, dtype=np.intp), np.full(size, -1)
    most[pairs[order, 0]], implied[pairs[order, 0]] = rows[order], pairs[order, 1]
    judged = np.bincount(a, minlength=size)[a] >= PARAMS.twice
    obeys = (implied[a] == b) & (most[a] >= PARAMS.twice)
    implied[most < PARAMS.twice] = -1
    shares = np.bincount(b) / len(b)
    by_chance = float(np.where(implied[a] >= 0, shares[implied[a]], 0.0)[judged].mean())
    few = judged.sum() < SHARED.fewest_related or by_chance > PARAMS.by_chance
    if few or obeys[judged].mean() < PARAMS.obeyed:
        return None
    breaks = [
        1 - obeys[own].mean()
        for number in np.unique(blocks)
        if (own := judged & (blocks == number)).sum() >= SHARED.fewest_of_a_block
    ]
    return Rule(implied, float(max(breaks, default=1 - obeys[judged].mean())), by_chance)


def _rows(case: Case, rule: Rule, one: str, other: str) -> tuple[Mask, Mask]:
    """The drawn rows whose labels are known to a rule, and those that break it."""
    a, b = (case.drawn_cells[:, case.place(name)].astype(np.intp) for name in (one, other))
    known = (a < len(rule.implied)) & (b < len(case.counts(other)))
    implied = np.where(known, rule.implied[np.where(known, a, 0)], -1)
    judged = implied >= 0
    return judged, judged & (implied != b)


def _kind(case: Case, one: str, other: str, breaks: Mask) -> Literal["shuffled", "permuted"] | None:
    """Which fault the rows that break a rule show; none where the world may have changed."""
    a, b = (case.drawn_cells[:, case.place(name)].astype(np.intp) for name in (one, other))
    rows, wrong = (np.bincount(x, minlength=int(a.max()) + 1) for x in (a, a[breaks]))
    overwritten = max(wrong.max(), np.bincount(b[breaks]).max()) > PARAMS.one * breaks.sum()
    if overwritten or (wrong > 0).sum() < PARAMS.fewest:
        return None
    pairs, times = np.unique(np.column_stack([a, b])[breaks], axis=0, return_counts=True)
    largest = np.zeros(len(wrong), dtype=np.intp)
    np.maximum.at(largest, pairs[:, 0], times)
    twice = wrong >= PARAMS.twice
    if largest[twice].sum() <= (1 - PARAMS.apart) * wrong[twice].sum():
        return "shuffled"
    seen = rows >= PARAMS.several
    return "permuted" if seen.any() and (wrong[seen] > 0).mean() >= PARAMS.widely else None


def _described(
    case: Case,
    cause: Literal["shuffled", "permuted"],
    pair: tuple[str, str],
    at_fault: list[str],
    found: _Broken,
) -> Cause:
    one, other = pair
    share = float(found.breaks.sum() / found.judged.sum())
    affected = min(share / (1 - found.rule.by_chance), 1.0)
    where = segment(case, found.breaks, list(pair)) if affected < SHARED.nearly_all else ""
    said = (
        "its values were put in other rows"
        if cause == "shuffled"
        else "labels changed places, as with another code book"
    )
    return Cause(
        cause,
        tuple(at_fault),
        f"{one!r} used to tell {other!r}, and does not in {share:.0%} of rows{clause(where)}: "
        f"{said}, in {' or '.join(map(repr, at_fault))}?",
        {
            NATS: surprise(share, found.rule.usual),
            "share of rows that break the rule": round(share, 4),
            "usual share": round(found.rule.usual, 4),
        },
        f"Check the join, the sort or the code book by which {at_fault[0]!r} comes to its rows.",
        share=round(affected, 4),
        segment=where,
    )
