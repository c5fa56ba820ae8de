"""Loss of each slice of the rows, such as one carrier's, beside that of the slice in training.

A fault of a tenth of the rows hardly moves the loss of them all. So each value of some columns is
judged by itself, with a limit on false slices over all of them together.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.columns import as_number, as_text
from pipeline.config import Columns, Numeric
from pipeline.monitoring.means import (
    CONFIDENCE,
    HORIZON,
    Baseline,
    Difference,
    Part,
    Sevenths,
    Side,
    before_and_between,
    compare,
    part_of,
    part_sums,
    together,
)

MOST = 30
"""Slices that are judged: those of the most training rows."""
LONGEST = 50
"""Characters of the name of a slice; slices whose names differ later only count as one."""
_QUARTERS = (0.25, 0.5, 0.75)
_DIGITS = 6

Cuts = dict[str, list[float] | None]
"""How columns are cut: numbers at which a slice ends, or None: each label is a slice."""


@dataclass(frozen=True)
class SliceLoss:
    """Loss of a slice in a batch, and in the batches that are judged with it.

    Attributes
    ----------
    name : str
        The slice, such as ``carrier = HA``.
    rows : int
        Labelled rows that `change` is of.
    before : float
        Mean loss of the slice in training, by models that had not seen the rows.
    change : float
        Relative change of its loss; 0 where too few rows have labels yet.
    at_least : float
        Lower end of the one-sided 95% interval of `change`; minus infinity where too few rows
        have labels yet.
    worse : bool
        Whether its loss is surely above what is allowed, over all slices together.
    parts, counts : tuple of float, tuple of int
        Mean loss of each seventh of the batch that has rows of the slice, and these rows.
    """

    name: str
    rows: int
    before: float
    change: float
    at_least: float
    worse: bool
    parts: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def judged(self) -> bool:
        """Whether enough of its rows have labels."""
        return bool(np.isfinite(self.at_least))

    @property
    def observed(self) -> Sevenths:
        """Means of its sevenths, and their rows."""
        return np.array(self.parts), np.array(self.counts, dtype=np.float64)

    @property
    def sentence(self) -> str:
        """The slice with its change, as pages name it."""
        change = f"{self.change:+.0%} (at least {self.at_least:+.0%})"
        return f"{self.name}, loss {change}, {self.rows:,} rows"


def cuts_of(rows: pd.DataFrame, columns: Columns) -> Cuts:
    """How columns are cut into slices: by label, or numbers at their quartiles.

    Parameters
    ----------
    rows : DataFrame
        Rows of training.
    columns : mapping of str to Column
        The columns to slice by; private ones, whose values are never stored, are left out.
    """
    found: Cuts = {}
    for name, column in columns.items():
        if column.private:
            continue
        if not isinstance(column, Numeric):
            found[name] = None
            continue
        values = as_number(rows[name]).dropna().to_numpy(dtype=np.float64)
        if not len(values):
            values = np.zeros(1)
        ends = np.unique(np.quantile(values, _QUARTERS, method="inverted_cdf"))
        found[name] = ends[ends < values.max()].tolist() or [float(values.min())]
    return found


def slices_of(rows: pd.DataFrame, cuts: Cuts) -> pd.DataFrame:
    """Name of the slice that each row belongs to, one column for each that rows are sliced by.

    Parameters
    ----------
    rows : DataFrame
        Valid rows with the columns of `cuts`.
    cuts : Cuts
        As of `cuts_of`.
    """
    return pd.DataFrame(
        {name: _names(rows[name], name, ends) for name, ends in cuts.items()}, index=rows.index
    )


def _names(values: pd.Series, name: str, ends: list[float] | None) -> pd.Series:
    if ends is None:
        values = as_text(values)
        named = f"{name} = " + values
    else:
        values = as_number(values)
        places = np.searchsorted(ends, values.to_numpy(dtype=np.float64))
        named = pd.Series(np.array(_ranges(name, ends))[places], index=values.index, dtype="str")
    return named.where(values.notna(), f"{name} is null").str.slice(stop=LONGEST)


def _ranges(name: str, ends: list[float]) -> list[str]:
    """Names of the slices of a column of numbers."""
    shown = [f"{end:.10g}" for end in ends]
    inner = [f"{low} < {name} <= {high}" for low, high in pairwise(shown)]
    return [f"{name} <= {shown[0]}", *inner, f"{name} > {shown[-1]}"]


def slice_baselines(
    losses: pd.Series, slices: pd.DataFrame, length: pd.Timedelta, *, heavy: bool, fewest: int
) -> dict[str, Baseline]:
    """Baselines of the slices with enough rows, at most `MOST`, those with the most rows first.

    Parameters
    ----------
    losses : Series of float, indexed by time
        Loss of each row of training, by models that had not seen it.
    slices : DataFrame
        The slices of each row, as of `slices_of`.
    length : Timedelta
        Length of a batch.
    heavy : bool
        Whether losses have heavy tails, as for `Baseline.of`.
    fewest : int
        Fewest rows of a slice.
    """
    own = {name: part for name, part in _split(losses, slices).items() if len(part) >= fewest}
    largest = sorted(own, key=lambda name: (-len(own[name]), name))[:MOST]
    return {name: Baseline.of(own[name], length, heavy=heavy) for name in largest}


def _split(losses: pd.Series, slices: pd.DataFrame) -> dict[str, pd.Series]:
    """Losses of the rows of each slice."""
    found: dict[str, pd.Series] = {}
    for column in slices:
        places = slices.groupby(str(column)).indices
        found |= {str(name): losses.iloc[rows] for name, rows in places.items()}
    return found


class _Test(NamedTuple):
    """A stretch of batches of a slice: its p-value, its batches, its change and its rows."""

    p: float
    batches: int
    change: Difference
    rows: int


def judge_slices(
    losses: pd.Series,
    slices: pd.DataFrame,
    baselines: Mapping[str, Baseline],
    *,
    length: pd.Timedelta,
    allowed: float,
    alpha: float,
    fewest: int,
    persistence: int = 3,
    earlier: Sequence[Sequence[SliceLoss]] = (),
) -> tuple[SliceLoss, ...]:
    """Compare the loss of each slice of a batch with that of the slice in training.

    A slice is judged as all rows are (`performance.realised`): sevenths of a batch are the
    observations, and the batch, the last `persistence` batches and four times as many are compared
    with training, each if it has enough rows. A slice is worse if its loss in the batch is larger
    than allowed, and a test rejects that the loss is at most 1 + `allowed` times that of training:
    Welch's t of the difference of the loss and so many times the baseline (Fieller 1954), times the
    number of stretches (Bonferroni), and by Holm over the slices. The chance that any slice is
    called worse although none is worse than allowed is at most `alpha`, whatever slices have in
    common, such as rows.

    Parameters
    ----------
    losses : Series of float, indexed by time
        Loss of each labelled row of the batch.
    slices : DataFrame
        The slices of each row, as of `slices_of`.
    baselines : mapping of str to Baseline
        Of each slice.
    length : Timedelta
        Length of a batch.
    allowed : float
        Relative increase of the loss that is still accepted.
    alpha : float
        Largest chance of a false slice in a batch.
    fewest : int
        Fewest labelled rows of a slice.
    persistence : int
        Batches that are judged together.
    earlier : sequence of sequence of SliceLoss
        What the batches before showed, oldest first.

    Returns
    -------
    tuple of SliceLoss
        Each slice that has rows in the batch and a baseline above 0, the worst first.

    References
    ----------
    Holm (1979), Scand. J. Stat. 6(2): 65-70; Fieller (1954), J. R. Stat. Soc. B 16(2): 175-185;
    Welch (1947), Biometrika 34: 28-35.
    """
    own = {
        name: part.clip(upper=baselines[name].cap)
        for name, part in _split(losses, slices).items()
        if name in baselines and baselines[name].mean > 0
    }
    before = [{one.name: one.observed for one in batch} for batch in earlier]
    spans = sorted({min(span, len(before) + 1) for span in (1, persistence, HORIZON * persistence)})
    seventh = part_of(losses, length) if own else length
    sides = {
        name: Side.of(*part_sums(part, seventh, losses.index.min())) for name, part in own.items()
    }
    tests = {
        name: _tests(
            side,
            baselines[name],
            [batch.get(name) for batch in before],
            spans=spans,
            allowed=allowed,
            fewest=fewest,
        )
        for name, side in sides.items()
    }
    adjusted = _holm({name: len(of) * min(of).p for name, of in tests.items() if of})
    found = []
    for name, side in sides.items():
        usual = baselines[name].mean
        larger = side.mean > (1 + allowed) * usual
        worse = bool(larger and adjusted.get(name, 1.0) <= alpha)
        found.append(
            _loss_of(name, side, usual, _shown(tests[name], persistence, worse=worse), worse=worse)
        )
    return tuple(sorted(found, key=_order))


def worst_slice(slices: Sequence[SliceLoss]) -> SliceLoss | None:
    """The slice whose loss is the most above its baseline, as far as that is sure; None: none is.

    Parameters
    ----------
    slices : sequence of SliceLoss
        As of `judge_slices`.
    """
    return next((one for one in slices if one.worse), None)


def figures_of(slices: Sequence[SliceLoss]) -> dict[str, float]:
    """What is charted of slices: how many are worse, and the change of the worst one.

    Slices that are not surely worse count as well, so that a chart has no gaps.
    """
    judged = [one for one in slices if one.judged]
    if not judged:
        return {}
    return {
        "worse_slices": float(sum(one.worse for one in judged)),
        "worst_slice_change": judged[0].change,
        "worst_slice_change_at_least": judged[0].at_least,
    }


def to_text(slices: Sequence[SliceLoss]) -> str:
    """Slices as JSON, in fewer than 8,000 characters."""
    return json.dumps([astuple(one) for one in slices], separators=(",", ":"), ensure_ascii=False)


def from_text(text: str) -> tuple[SliceLoss, ...]:
    """Read what `to_text` wrote."""
    names = [one.name for one in fields(SliceLoss)]
    found = [dict(zip(names, values, strict=True)) for values in json.loads(text)]
    lists = ("parts", "counts")
    return tuple(SliceLoss(**one | {key: tuple(one[key]) for key in lists}) for one in found)


def _tests(
    own: Side,
    baseline: Baseline,
    earlier: Sequence[Sevenths | None],
    *,
    spans: Sequence[int],
    allowed: float,
    fewest: int,
) -> list[_Test]:
    """Test each stretch of batches in which a slice has enough rows."""
    before, between = before_and_between(baseline)
    limit = 1 + allowed
    raised = before._replace(
        mean=limit * before.mean,
        parts=tuple(Part(limit**2 * part.variance, part.freedom) for part in before.parts),
    )
    found = []
    for span in spans:
        known = [one for one in earlier[len(earlier) - span + 1 :] if one is not None]
        now = together(known, own, between)
        if (rows := int(now.counts.sum())) >= fewest:
            p = _above(compare(raised, now))
            found.append(_Test(p, span, compare(before, now), rows))
    return found


def _above(found: Difference) -> float:
    """One-sided p-value of a difference above 0, by Student's t."""
    if not found.error > 0:
        return float(not found.mean > 0)
    return float(stats.t.sf(found.mean / found.error, found.freedom))


def _holm(p: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted so that all that are at most a level have it as their familywise error."""
    found, largest = {}, 0.0
    for place, name in enumerate(sorted(p, key=lambda one: p[one])):
        largest = max(largest, min((len(p) - place) * p[name], 1.0))
        found[name] = largest
    return found


def _shown(tests: Sequence[_Test], persistence: int, *, worse: bool) -> _Test | None:
    """The stretch that shows a slice: the clearest if it is worse, else as of all rows."""
    if worse:
        return min(tests)
    usual = [one for one in tests if one.batches <= persistence]
    return next(iter([*usual[::-1], *tests]), None)


def _loss_of(name: str, own: Side, before: float, shown: _Test | None, *, worse: bool) -> SliceLoss:
    at_least = -np.inf if shown is None else shown.change.at_least(CONFIDENCE)
    change, at_least = (
        (shown.change.mean, at_least) if shown and np.isfinite(at_least) else (0.0, -np.inf)
    )
    return SliceLoss(
        name=name,
        rows=int(own.counts.sum()) if shown is None else shown.rows,
        before=_short(before),
        change=_short(change),
        at_least=_short(at_least),
        worse=worse,
        parts=tuple(map(_short, own.means.tolist())),
        counts=tuple(map(int, own.counts.tolist())),
    )


def _order(one: SliceLoss) -> tuple[bool, float, str]:
    """Worse slices first, then by how much they are surely worse; those not judged last."""
    return not one.worse, -one.at_least, one.name


def _short(value: float) -> float:
    """A number as it is stored."""
    return float(f"{value:.{_DIGITS}g}")
