"""Permuted labels that show by their shares, which are those of the reference in another order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.exchanges import Exchange, gained_before
from pipeline.monitoring.diagnoses.likelihood import (
    Mask,
    Places,
    mixture,
    of_chance,
    sampling_distance,
)
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.reference.profile import Cells
from pipeline.reference.summaries import Trait


@dataclass(frozen=True)
class Parameters:
    """How far shares have to be from the usual shares, and how near in another order.

    Attributes
    ----------
    few : int
        Fewest rows of a label that is listed, and fewest labels that changed places.
    moved : int
        Fewest rows that a label lost or won, where a part of the rows is judged by shares.
    far, at_random : float
        Least distance of shares from the usual shares in affected rows, and its least ratio to that
        of shares in a random order.
    least_apart, apart, put_back : float
        Limits of the distance of shares. They are the least distance in a part of the rows, its
        least ratio to that of any ordinary batch, and the largest distance of the shares put back,
        relative to their distance as they arrived.
    too_noisy : float
        Largest part of the distance of shares that may be sampling error.
    new : float
        Share of rows with new labels above which these are a recode.
    renewed : float
        Mean share of rows of a block with labels of no other block, above which labels come and go.
    reversed, exact : float
        Distance of shares from which drift does not end at the shares of two labels exchanged, and
        the largest distance of the shares put back, in sampling errors.
    first_part, last_part, step : float
        Shares of affected rows that are tried: the first, a bound of the last, and their step.
    confirms : float
        Least nats over all rows by which other columns confirm an exchange found by shares.
    """

    few: int = 3
    moved: int = 20
    far: float = 0.2
    at_random: float = 0.7
    least_apart: float = 0.1
    apart: float = 2.0
    put_back: float = 0.25
    too_noisy: float = 0.5
    new: float = 0.7
    renewed: float = 0.1
    reversed: float = 0.3
    exact: float = 2.0
    first_part: float = 0.1
    last_part: float = 0.71
    step: float = 0.02
    confirms: float = 10.0


PARAMS = Parameters()


class _Shares(NamedTuple):
    """Shares of the labels of a column.

    Attributes
    ----------
    labels : list of str
        All labels, those of the reference first, most frequent first.
    before, now : array of float, shape (n_labels,)
        Share of each label in the reference and in the batch.
    rows : int
        Drawn rows with a label.
    """

    labels: list[str]
    before: Floats
    now: Floats
    rows: int

    @property
    def far(self) -> float:
        """Distance of the shares from those of the reference."""
        return float(np.abs(self.now - self.before).sum() / 2)

    @property
    def least_far(self) -> float:
        """Least distance in affected rows: most of that of shares in a random order."""
        between = np.abs(self.before[:, None] - self.before[None, :])
        by_chance = len(self.labels) * float(between.mean()) / 2
        return max(PARAMS.far, PARAMS.at_random * by_chance)

    def near(self, now: Floats) -> float:
        """Distance of some shares, put back in order, from those of the reference."""
        return float(np.abs(np.sort(now) - np.sort(self.before)).sum() / 2)


def _shares(case: Case, name: str) -> _Shares:
    counts = case.counts(name)
    places, labels = case.labels(name)
    every = sorted(set(counts) | set(labels), key=lambda label: (-counts.get(label, 0), label))
    came = dict(zip(labels, np.bincount(places[places >= 0], minlength=len(labels)), strict=True))
    n, total = int((places >= 0).sum()), max(sum(counts.values()), 1)
    before = np.asarray([counts.get(label, 0) for label in every]) / total
    now = np.asarray([came.get(label, 0) for label in every]) / max(n, 1)
    return _Shares(every, before, now, n)


class _Order(NamedTuple):
    """Labels matched by the order of their shares.

    Attributes
    ----------
    pairs : dict of str to str
        True label of each label that arrived, without labels of few rows.
    to : array of int, shape (n_labels,)
        Place of the true label of each label.
    """

    pairs: dict[str, str]
    to: Places


def _matched(shares: _Shares, now: Floats, *, part: float, least: int) -> _Order:
    """Match labels by order of their shares `now` in a part of the rows, from `least` rows on."""
    order = np.argsort(-now, kind="stable")
    every, before = shares.labels, shares.before
    pairs = {
        every[j]: every[i]
        for i, j in enumerate(order)
        if i != j and max(now[j], before[i]) * part * shares.rows >= least
    }
    to = np.empty(len(every), dtype=np.intp)
    to[order] = np.arange(len(every))
    return _Order(pairs, to)


def reordered(case: Case, name: str) -> Exchange | None:
    """Find an exchange by which far-off shares become the usual shares, of other labels."""
    shares = _shares(case, name)
    if shares.rows < SHARED.fewest_related:
        return None
    _, before, now, n = shares
    far, near, noise = shares.far, shares.near(now), sampling_distance(now, n)
    moved = PARAMS.apart * _usually_apart(case, name)
    if far < max(shares.least_far, moved) or near > max(PARAMS.put_back * far, noise):
        return None
    # Among rare labels, any order of shares is as usual as another.
    if noise > PARAMS.too_noisy * far:
        return None
    order = _matched(shares, now, part=1.0, least=PARAMS.few)
    if float(now[before == 0].sum()) > PARAMS.new:
        return None
    # The shares of two labels may drift to those of one another.
    exact = far > PARAMS.reversed and near < PARAMS.exact * noise
    shown = (len(order.pairs) >= PARAMS.few or exact) and not _renewed(case, name)
    related = case.expected_labels(name).information > SHARED.tells  # others have to confirm it
    if (related or not shown) and not _confirmed(case, name, order.pairs, all_rows=True):
        return None
    least = 0.5 / max(sum(case.counts(name).values()), 1)
    likelier = np.log(np.maximum(before[order.to], least) / np.maximum(before, least))
    touched = _rows_with(case, name, list(order.pairs))
    return Exchange(order.pairs, touched, 1.0, float(now @ likelier), _evidence(far, near))


class _Part(NamedTuple):
    """A part of the rows, in which labels were exchanged.

    Attributes
    ----------
    left : float
        Distance of the shares put back from the usual shares, over all rows.
    share : float
        Share of affected rows.
    now : array of float, shape (n_labels,)
        Shares of labels in the affected rows.
    """

    left: float
    share: float
    now: Floats


def partly_reordered(case: Case, name: str) -> Exchange | None:
    """Find an exchange of labels in a part of the rows, by shares.

    If a share of the rows is affected and the rest keeps the usual shares, the affected rows have
    the shares of the reference in another order, within sampling error. Shares also move by
    themselves, but less, and they do so in ordinary batches.
    """
    shares = _shares(case, name)
    if shares.rows < SHARED.fewest_related:
        return None
    if shares.far < max(PARAMS.least_apart, PARAMS.apart * _usually_apart(case, name)):
        return None
    part = _likeliest_part(shares)
    if part is None:
        return None
    order = _matched(shares, part.now, part=part.share, least=PARAMS.moved)
    if len(order.pairs) < PARAMS.few or not _confirmed(case, name, order.pairs, all_rows=False):
        return None
    every, before, now, _ = shares
    least = 0.5 / max(sum(case.counts(name).values()), 1)
    likelier = np.log(1 - part.share + part.share * before[order.to] / np.maximum(before, least))
    gained = [x for x, m, b in zip(every, part.now, before, strict=True) if part.share * m > b / 2]
    return Exchange(
        order.pairs,
        _rows_with(case, name, gained),
        part.share,
        float(now @ likelier),
        _evidence(shares.far, part.left),
    )


def _likeliest_part(shares: _Shares) -> _Part | None:
    """The part of the rows that, put back, comes nearest to the usual shares."""
    _, before, now, n = shares
    far, least_far = shares.far, shares.least_far
    best: _Part | None = None
    for share in np.arange(PARAMS.first_part, PARAMS.last_part, PARAMS.step):
        moved = (now - (1 - share) * before) / share
        near = shares.near(moved)
        noise = sampling_distance(now, n) / share
        several = (before * share * n >= PARAMS.moved).sum() >= PARAMS.few
        apart = far / share >= least_far and noise < PARAMS.too_noisy * far / share
        found = several and apart and near < max(PARAMS.put_back * far / share, noise)
        if found and (best is None or near * share < best.left):
            best = _Part(near * share, float(share), moved)
    return best


def _rows_with(case: Case, name: str, chosen: list[str]) -> Mask:
    """Mark the drawn rows with one of some labels."""
    places, labels = case.labels(name)
    return np.isin(np.asarray([*labels, None], dtype=object)[places], chosen)


def _evidence(far: float, near: float) -> dict[str, float | str]:
    return {
        "distance of shares as they came": round(far, 3),
        "distance of shares put back": round(float(near), 3),
    }


def _confirmed(case: Case, name: str, pairs: dict[str, str], *, all_rows: bool) -> bool:
    """Whether the other columns confirm an exchange of labels found by shares.

    Shares may drift to any other values, by chance to the usual shares in another order. Where all
    rows are affected, those that contradict it count against it.
    """
    expected = case.expected_labels(name)
    size = len(expected.labels)
    rank = {label: i for i, label in enumerate(expected.labels)}
    option = np.asarray([rank.get(pairs.get(x, x), i) for i, x in enumerate(expected.labels)])
    places, labels = case.labels(name)
    classes = np.asarray([*(rank.get(x, size) for x in labels), size])[places]
    to = np.append(option, size)[classes]
    moved = to != classes
    if moved.sum() < PARAMS.moved:
        return False
    rows, related = np.flatnonzero(moved), expected.now - expected.shares
    gains = related[rows, to[moved]] - related[rows, classes[moved]]
    total = float(gains.sum()) if all_rows else mixture(gains)[1]
    total -= of_chance(expected.blocks, gained_before(expected, option)) * moved.sum()
    return bool(total > PARAMS.confirms)


def _usually_apart(case: Case, name: str) -> float:
    """Largest distance of the shares of a block or recent batch from those of the reference.

    Summaries hold the shares of a few labels; the drawn rows of a block show all of them, and the
    distance that sampling alone gives them is subtracted. Customers by the hundred come and go, and
    what few of them do says little of the rest.
    """
    counts = case.counts(name)
    before = np.asarray(list(counts.values())) / max(sum(counts.values()), 1)
    summed = [
        sum(
            abs(batch[trait] - share)
            for label, share in zip(counts, before, strict=True)
            if (trait := Trait("share", (name,), label)) in batch
        )
        for batch in (*case.reference.blocks, *case.recent)
    ]
    drawn = [
        np.abs(np.bincount(own, minlength=len(before)) / len(own) - before).sum() / 2
        - sampling_distance(before, len(own))
        for own in _cells_of_blocks(case, name)
    ]
    return float(max([*(distance / 2 for distance in summed), *drawn], default=0.0))


def _renewed(case: Case, name: str) -> bool:
    """Whether blocks bring labels of their own, as customers who come and go.

    Then frequent labels give way to others by themselves, whose shares may be those of the labels
    before, as shares of labels in order resemble one another (Zipf 1949).
    """
    held = [
        np.bincount(own, minlength=len(case.counts(name))) for own in _cells_of_blocks(case, name)
    ]
    every = np.sum(held, axis=0)
    own = [float(rows[rows == every].sum() / rows.sum()) for rows in held]
    return len(own) > 1 and float(np.mean(own)) > PARAMS.renewed


def _cells_of_blocks(case: Case, name: str) -> Iterator[Cells]:
    """Cells of the drawn rows of each block that have a label of the reference."""
    reference = case.reference
    cells = reference.cells[:, reference.names.index(name)]
    known = cells < len(case.counts(name))
    for number in range(len(reference.blocks)):
        own = cells[(reference.cell_blocks == number) & known]
        if len(own):
            yield own
