"""Columns that lost their relation to all other columns, in all rows of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.likelihood import Mask, Places
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.diagnoses.relations import ExpectedLabels
from pipeline.monitoring.diagnoses.sequences import mean_run


@dataclass(frozen=True)
class Parameters:
    """When a relation is clear, when it is lost, and when drift is not what undid it.

    Attributes
    ----------
    varied, constant, predicted : float
        Least spread of normal scores: of the batch, of a block that shows the relation, and of the
        predictions.
    related : float
        Least correlation of a column with its prediction, before and in every block.
    errors, left : float
        Largest correlation that is hardly any: standard errors, and a share of that before.
    halved : float
        Share of the least correlation in any block up to which a relation is lost.
    left_of_labels : float
        Share of the nats by which labels are related up to which hardly any are left.
    other_shares : float
        Largest distance at which the shares of labels count as unchanged.
    blocks, steady : int, float
        Fewest blocks that show how steady a relation is, and its least fall in their sd.
    marked : float
        Least correlation whose loss is noticed.
    vanished : float
        Share of a correlation below which it vanished.
    joint : float
        Residual variance below which columns are related though no pair of them is.
    near : float
        Residual variance of a relation that drift hardly undoes.
    moved : float
        Largest change of a correlation, relative to it, with which most of the relation is left.
    """

    varied: float = 0.2
    constant: float = 0.1
    predicted: float = 1e-6
    related: float = 0.3
    errors: float = 2.5
    left: float = 0.1
    halved: float = 0.5
    left_of_labels: float = 0.15
    other_shares: float = 0.12
    blocks: int = 3
    steady: float = 6.0
    marked: float = 0.2
    vanished: float = 0.35
    joint: float = 0.75
    near: float = 0.4
    moved: float = 0.4


PARAMS = Parameters()


def lost_number(case: Case, name: str) -> tuple[float, float, float] | None:
    """Nats per row that a numeric column lost, and its relation to the others before and now.

    None unless hardly any relation is left.
    """
    expected = case.expected(name)
    values = case.numbers(name)
    there = ~np.isnan(values) & case.supported(name)
    few = there.sum() < max(SHARED.fewest_related, SHARED.supported * len(values))
    if few or not expected.before.any():
        return None
    before = float(np.corrcoef(expected.before, expected.scores)[0, 1])
    scores = case.normal_scores(name, values)[there]
    predicted = expected.now[there]
    flat = scores.std() < PARAMS.varied or predicted.std() < PARAMS.predicted
    if flat or before < PARAMS.related:  # nothing to lose
        return None
    now = float(np.corrcoef(predicted, scores)[0, 1])
    gone = abs(now) <= PARAMS.errors / np.sqrt(there.sum()) + PARAMS.left * before
    if not gone:
        return None
    usual = [
        np.corrcoef(expected.before[rows], expected.scores[rows])[0, 1]
        for number in np.unique(expected.blocks)
        if (rows := expected.blocks == number).sum() >= SHARED.fewest_of_a_block
        and expected.scores[rows].std() > PARAMS.constant
    ]
    least = min(usual, default=before)
    if least < PARAMS.related or now > PARAMS.halved * least:
        return None
    error = np.sqrt(mean_run(case, name) / there.sum())
    if not _several_lost(case, name) and not _at_once(case, name, usual, now, error):
        return None
    return -float(expected.log_ratio(scores, predicted=predicted).mean()), before, now


def lost_label(case: Case, name: str) -> tuple[float, float, float] | None:
    """Nats per row that a categorical column lost, and its relation to the others before and now.

    None unless hardly any relation is left, and the shares of labels are as before.
    """
    expected = case.expected_labels(name)
    before = expected.information
    classes, there = classes_of(case, name, expected)
    if before < SHARED.says or there.sum() < SHARED.fewest_related:  # nothing to lose
        return None
    gains = (expected.now[np.arange(len(classes)), classes] - expected.shares[classes])[there]
    now = float(gains.mean())
    if now > PARAMS.left_of_labels * before:
        return None
    shares = np.bincount(classes[there], minlength=len(expected.shares)) / there.sum()
    if float(np.abs(shares - np.exp(expected.shares)).sum() / 2) > PARAMS.other_shares:
        return None
    seen = (
        expected.before[np.arange(len(expected.classes)), expected.classes]
        - expected.shares[expected.classes]
    )
    usual = [
        seen[rows].mean()
        for number in np.unique(expected.blocks)
        if (rows := expected.blocks == number).sum() >= SHARED.fewest_of_a_block
    ]
    error = float(gains.std()) / np.sqrt(len(gains))
    if before < SHARED.tells and not _at_once(case, name, usual, now, error):
        return None
    return -now, before, now


def classes_of(case: Case, name: str, expected: ExpectedLabels) -> tuple[Places, Mask]:
    """Class of each drawn row, and which rows have a label."""
    places, labels = case.labels(name)
    rank = {label: i for i, label in enumerate(expected.labels)}
    return np.asarray([*(rank.get(x, len(rank)) for x in labels), 0])[places], places >= 0


def _at_once(case: Case, name: str, usual: Sequence[float], now: float, error: float) -> bool:
    """Whether a relation that was steady in all blocks vanished between two batches."""
    if len(usual) < PARAMS.blocks or not _abrupt(case, name):
        return False
    return bool(np.mean(usual) - now > PARAMS.steady * np.hypot(np.std(usual, ddof=1), error))


def _several_lost(case: Case, name: str) -> bool:
    """Whether clear correlations with several columns vanished; a single one may drift."""
    partners = case.partners(name, marked=PARAMS.marked)
    lost = [
        other
        for other in partners
        if abs(case.correlation_now(name, other))
        < PARAMS.vanished * abs(case.correlation(name, other))
    ]
    if not partners:
        return (
            case.expected(name).variance < PARAMS.joint
        )  # a relation that no pair of columns shows
    near = case.expected(name).variance < PARAMS.near
    return len(lost) > 1 or near


def _abrupt(case: Case, name: str) -> bool:
    """Whether the previous batch, or else the reference, still had the relation."""
    if not case.recent:
        return True
    for trait, value in case.recent[-1].items():
        if trait.kind == "correlation" and name in trait.columns:
            before = case.correlation(*trait.columns)
            if abs(before) >= PARAMS.marked:
                return abs(value - before) < PARAMS.moved * abs(before)
    return False
