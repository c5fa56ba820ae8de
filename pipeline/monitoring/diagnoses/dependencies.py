"""Label columns that tell another, as a city tells its country, and rows that break such a rule.

Trees learn a column with hundreds of labels badly, because each has few rows. Where one column
tells another without exception, every row that breaks the rule counts by itself.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, NamedTuple, cast

import numpy as np

from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.likelihood import Mask, Places, surprise
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.segments import clause, segment
from pipeline.monitoring.findings import Cause


@dataclass(frozen=True)
class Parameters:
    """When one column tells another, and which rows that break this are a fault.

    Attributes
    ----------
    labels : int
        Fewest labels of a column that tells another; columns with fewer are learnt by trees.
    twice : int
        Fewest rows of a label by which its rows are compared with one another.
    pure : float
        Least share of a label's rows with one label of the other column, for it to tell that one.
    obeyed : float
        Least share of the reference's rows that obey what other blocks show.
    by_chance : float
        Largest share of rows that would obey if labels were in any rows.
    part : float
        Least share of rows that break a rule, beyond that of every block.
    widely : float
        Least share of a column's labels that break a rule; where few labels do, the world changed.
    fewest : int
        Fewest labels of which anything is said.
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
    pure: float = 0.9
    obeyed: float = 0.98
    by_chance: float = 0.7
    part: float = 0.04
    widely: float = 0.5
    fewest: int = 10
    several: int = 4
    one: float = 0.8
    apart: float = 0.1


PARAMS = Parameters()
BREAKS = "share of rows that break the rule"
"""Evidence of the causes that are found here."""


class Rule(NamedTuple):
    """A column that tells another.

    Attributes
    ----------
    implied : array of int, shape (n_labels,)
        Cell of the other column that each label tells; -1 where it tells none.
    usual : float
        Largest share of rows of a block that break the rule as other blocks show it.
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


def rule_broken(case: Case) -> Iterator[Cause]:
    """Recognise labels in wrong rows, or exchanged, by a column that tells another."""
    broken, kept = _rules_of(case)
    number = Counter(name for pair in broken for name in pair)
    for pair, found in broken.items():
        most = max(number[name] for name in pair)
        at_fault = [name for name in pair if name not in kept and number[name] == most]
        cause = _kind(case, *pair, found)
        if cause and at_fault:
            yield _described(case, cause, pair, at_fault, found)


def _rules_of(case: Case) -> tuple[dict[tuple[str, str], _Broken], set[str]]:
    """Rules that the batch breaks, by their two columns, and the columns of rules that it keeps."""
    broken, kept = dict[tuple[str, str], _Broken](), set[str]()
    features = {*case.features}
    looked_at = case.examined | features
    known = [name for name in case.every if name in looked_at and not case.is_number(name)]
    for one, other in permutations(known, 2):
        rule = _rule(case, one, other) if one in features or other in features else None
        if rule is None:
            continue
        judged, breaks = _rows(case, rule, one, other)
        if judged.sum() < SHARED.fewest_related:
            continue
        beyond = float(breaks.sum() / judged.sum()) - rule.usual
        if beyond > PARAMS.part:
            broken[one, other] = _Broken(rule, judged, breaks)
        elif beyond < PARAMS.part * (1 - rule.by_chance):  # so few rows would show
            kept |= {one, other}
    return broken, kept


def _rule(case: Case, one: str, other: str) -> Rule | None:
    """What the labels of a column tell of another in the reference; None if they do not."""
    few = len(case.counts(one)) < max(PARAMS.labels, len(case.counts(other)))
    if few or len(case.counts(other)) < 2:  # one label follows from anything
        return None
    rules = case.reference.derived.setdefault("rules", {})
    if (one, other) not in rules:
        rules[one, other] = _learnt(case, one, other)
    return cast("Rule | None", rules[one, other])


def _learnt(case: Case, one: str, other: str) -> Rule | None:
    """The rule, if each half of the reference's blocks obeys what the other half shows."""
    reference, sizes = case.reference, (len(case.counts(one)), len(case.counts(other)) + 1)
    a, b = (reference.cells[:, case.place(name)].astype(np.intp) for name in (one, other))
    there = (a < sizes[0]) & (b < sizes[1])
    a, b, blocks = a[there], b[there], reference.cell_blocks[there].astype(np.intp)
    several = len(reference.blocks) > 1
    halves = (blocks if several else np.arange(len(blocks))) % 2 == 0
    implied = np.full(len(a), -1)
    for half in (halves, ~halves):
        implied[half] = _implied(a[~half], b[~half], sizes)[a[half]]
    judged = implied >= 0
    if judged.sum() < SHARED.fewest_related:
        return None
    shares = np.bincount(b, minlength=sizes[1]) / len(b)
    by_chance, breaks = float(shares[implied[judged]].mean()), judged & (implied != b)
    if by_chance > PARAMS.by_chance or 1 - breaks.sum() / judged.sum() < PARAMS.obeyed:
        return None
    usual = [
        breaks[own].mean()
        for number in np.unique(blocks)
        if (own := judged & (blocks == number)).sum() >= SHARED.fewest_of_a_block
    ]
    least = breaks.sum() / judged.sum()
    return Rule(_implied(a, b, sizes), float(max(usual, default=least)), by_chance)


def _implied(a: Places, b: Places, sizes: tuple[int, int]) -> Places:
    """The label of the other column that nearly all rows of each label have; -1 without one."""
    pairs, rows = np.unique(a * sizes[1] + b, return_counts=True)
    order = np.argsort(rows, kind="stable")
    most, implied = np.zeros(sizes[0], dtype=np.intp), np.full(sizes[0], -1)
    label, of_other = np.divmod(pairs[order], sizes[1])
    most[label], implied[label] = rows[order], of_other
    every = np.bincount(a, minlength=sizes[0])
    implied[(most < PARAMS.twice) | (most < PARAMS.pure * every)] = -1
    return implied


def _rows(case: Case, rule: Rule, one: str, other: str) -> tuple[Mask, Mask]:
    """The drawn rows whose labels are known to a rule, and those that break it."""
    a, b = _cells(case, one, other)
    known = (a < len(rule.implied)) & (b < len(case.counts(other)))
    implied = np.where(known, rule.implied[np.where(known, a, 0)], -1)
    judged = implied >= 0
    return judged, judged & (implied != b)


def _cells(case: Case, one: str, other: str) -> tuple[Places, Places]:
    cells = case.drawn_cells
    return cells[:, case.place(one)].astype(np.intp), cells[:, case.place(other)].astype(np.intp)


def _kind(
    case: Case, one: str, other: str, found: _Broken
) -> Literal["shuffled", "permuted"] | None:
    """Which fault the rows that break a rule show; none where the world may have changed."""
    a, b = _cells(case, one, other)
    a, b, breaks = a[found.judged], b[found.judged], found.breaks[found.judged]
    size = len(found.rule.implied)
    rows, wrong = (np.bincount(x, minlength=size) for x in (a, a[breaks]))
    hit = wrong > rows * (found.rule.usual + PARAMS.part)  # others hold single errors, as ever
    overwritten = max(wrong.max(), np.bincount(b[breaks]).max()) > PARAMS.one * breaks.sum()
    if overwritten or hit.sum() < PARAMS.fewest:
        return None
    width = int(b.max()) + 1
    pairs, times = np.unique(a[breaks] * width + b[breaks], return_counts=True)
    largest = np.zeros(size, dtype=np.intp)
    np.maximum.at(largest, pairs // width, times)
    twice, seen = hit & (wrong >= PARAMS.twice), rows >= PARAMS.several
    if twice.sum() < PARAMS.fewest:
        return None
    if largest[twice].sum() <= (1 - PARAMS.apart) * wrong[twice].sum():
        return "shuffled"
    widely = seen.sum() >= PARAMS.fewest and hit[seen].mean() >= PARAMS.widely
    return "permuted" if widely else None


def _described(
    case: Case,
    cause: Literal["shuffled", "permuted"],
    pair: tuple[str, str],
    at_fault: list[str],
    found: _Broken,
) -> Cause:
    one, other = pair
    share = float(found.breaks.mean())
    # Rows that obey by chance were touched as well, and so were some that the rule does not know.
    of_judged = share / found.judged.mean() / (1 - found.rule.by_chance)
    affected = float(min(of_judged, 1.0))
    where = ""
    if affected < SHARED.nearly_all:
        where = segment(case, found.breaks, list(pair), able=found.judged)
    columns = " or of ".join(map(repr, at_fault))
    asked = {
        "shuffled": f"were values of {columns} put in other rows?",
        "permuted": f"were labels of {columns} exchanged, as by another code book?",
    }
    return Cause(
        cause,
        tuple(at_fault),
        f"{one!r} used to tell {other!r}, and does not in {share:.0%} of rows{clause(where)}: "
        f"{asked[cause]}",
        {
            NATS: surprise(share, found.rule.usual),
            BREAKS: round(share, 4),
            "usual share": round(found.rule.usual, 4),
        },
        f"Check the join, the sort or the code book by which {at_fault[0]!r} comes to its rows.",
        share=round(affected, 4),
        segment=where,
    )
