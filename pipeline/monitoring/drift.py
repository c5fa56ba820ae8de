"""A live batch against the reference: what differs, how much, how sure, and whether it lasts.

Two levels of evidence share one false-alarm budget. *Rows*: this batch alone, each column's
test judged by how much the reference's own blocks differ. *Blocks*: the last batches, each
one observation of every summary, against the blocks of the reference; this is persistence.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline.columns import as_number, as_text, require
from pipeline.monitoring.statistics import (
    blocks_p,
    blocks_reach,
    calibrated,
    homogeneity_p,
    kolmogorov_p,
    novelty_p,
    proportions_p,
    psi,
    total_variation_reach,
)
from pipeline.reference import (
    CategoricalProfile,
    Effect,
    NumericProfile,
    Profile,
    Reference,
    Summary,
    grid_distance,
)

Level = Literal["rows", "blocks"]

FLOORS = {
    "distribution": 0.03,  # Kolmogorov-Smirnov distance
    "labels": 0.03,  # total variation of the label shares
    "missing": 0.01,  # share of rows
    "unseen": 0.005,  # share of rows
    "location": 0.25,  # reference standard deviations
    "spread": 0.25,  # logarithm of the ratio of standard deviations
    "share": 0.03,  # share of rows
}
"""Smallest effect of each kind that a person would want to hear of."""
BUDGET = {
    "location": 0.5,
    "spread": 0.1,
    "share": 0.1,
    "missing in blocks": 0.1,
    "distribution": 0.08,
    "labels": 0.06,
    "missing": 0.04,
    "unseen": 0.02,
}
"""Parts of the false-alarm budget, shared out again over the families that were tested.

Most goes where observations are few: a handful of batches needs a mild level to say anything,
while thousands of rows reach the strictest one when something is wrong.
"""
FEWEST_BLOCKS = 4
"""Blocks of the reference below which the last batches get no verdict."""


@dataclass(frozen=True)
class Finding:
    """One test of one column.

    Attributes
    ----------
    column : str
        The column.
    level : str
        ``rows``: this batch alone; ``blocks``: the last batches together.
    kind : str
        What was compared, a key of `FLOORS`, with the label behind a share.
    statistic : float
        Size of the difference, in the unit of its floor; signed for locations and shares.
    p_value : float
        Calibrated, for this test alone.
    floor : float
        Smallest difference that counts.
    reach : float
        Chance that a batch with nothing wrong differs by the floor or more.
    adjusted : float
        `p_value`, so corrected that at most `alpha` of batches with nothing wrong alarm.
    drifted : bool
        Whether it is both significant and larger than the floor.
    """

    column: str
    level: Level
    kind: str
    statistic: float
    p_value: float
    floor: float
    reach: float
    adjusted: float = float("nan")
    drifted: bool = False

    @property
    def family(self) -> str:
        """The part of the budget it draws on, a key of `BUDGET`."""
        kind = self.kind.split(" of ")[0]
        return f"{kind} in blocks" if kind == "missing" and self.level == "blocks" else kind


@dataclass(frozen=True)
class ColumnDrift:
    """All there is to say of one column.

    Attributes
    ----------
    name : str
        The column.
    statistic, p_value, effect : float
        Of its most significant test: size, corrected p-value, size over floor.
    drifted : bool
        Whether any of its tests found drift.
    psi : float
        Population stability index, for drawing; NaN when the batch holds no value.
    distance : float
        Kolmogorov-Smirnov distance or total variation; NaN likewise.
    missing : float
        Share of rows without a value.
    """

    name: str
    statistic: float
    p_value: float
    effect: float
    drifted: bool
    psi: float
    distance: float
    missing: float


@dataclass(frozen=True)
class DriftReport:
    """What the comparison of one batch found.

    Attributes
    ----------
    rows : int
        Rows of the batch.
    alpha : float
        Chance that a batch with nothing wrong alarms.
    columns : tuple of ColumnDrift
        In declared order.
    findings : tuple of Finding
        Every test, most significant first.
    summary : Summary
        This batch as one observation; the last ones are given as `recent`.
    batches : int
        Batches judged together at the level of blocks.
    note : str
        Why a level gave no verdict; empty when both did.
    """

    rows: int
    alpha: float
    columns: tuple[ColumnDrift, ...]
    findings: tuple[Finding, ...]
    summary: Summary
    batches: int
    note: str

    @property
    def alarm(self) -> bool:
        """Whether this batch alarms, at either level."""
        return any(finding.drifted for finding in self.findings)

    @property
    def persisted(self) -> bool:
        """Whether the last batches together differ from the reference."""
        return bool(self.persistent)

    @property
    def persistent(self) -> tuple[str, ...]:
        """Names of the columns in which the last batches together differ from the reference."""
        blocks = (f for f in self.findings if f.drifted and f.level == "blocks")
        return tuple(dict.fromkeys(finding.column for finding in blocks))

    @property
    def outcome(self) -> Literal["quiet", "moved"]:
        """The report in one word."""
        return "moved" if self.alarm else "quiet"

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the drifted columns, most significant first."""
        found = (finding.column for finding in self.findings if finding.drifted)
        return tuple(dict.fromkeys(found))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values; what is undefined is None."""
        values = asdict(self) | {"alarm": self.alarm, "outcome": self.outcome}
        cleaned: dict[str, Any] = _without_nan(values)
        return cleaned

    def to_frame(self) -> pd.DataFrame:
        """One row per test, most significant first."""
        return pd.DataFrame([asdict(finding) for finding in self.findings])


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def compare(
    *,
    reference: Reference,
    current: pd.DataFrame,
    recent: Sequence[Summary] = (),
    alpha: float = 0.05,
    persistence: int = 3,
) -> DriftReport:
    """Compare a live batch, and the last ones, with the reference.

    Parameters
    ----------
    reference : Reference
        The training rows.
    current : DataFrame
        Rows of the batch with the reference's columns; others are ignored.
    recent : sequence of Summary
        `DriftReport.summary` of earlier batches, oldest first.
    alpha : float
        Chance that a batch with nothing wrong alarms, over all tests together.
    persistence : int
        Batches, this one included, that are judged together.

    Raises
    ------
    DataError
        If columns of the reference are missing or a name stands twice.
    """
    require(current, list(reference.columns))
    summary = reference.summarise(current)
    observed = [*recent, summary][-persistence:]
    note = _no_verdict(reference, observed, persistence)
    blocks = [] if note else list(_blocks(reference, observed))
    findings = _decide([*_rows(reference, current), *blocks], alpha)
    findings.sort(key=lambda found: (not found.drifted, _largest(found.adjusted), found.column))
    return DriftReport(
        rows=len(current),
        alpha=alpha,
        columns=tuple(_column(reference, current, name, findings) for name in reference.columns),
        findings=tuple(findings),
        summary=summary,
        batches=len(observed),
        note=note,
    )


def _no_verdict(reference: Reference, observed: Sequence[Summary], persistence: int) -> str:
    if len(reference.blocks) < FEWEST_BLOCKS:
        return (
            f"No verdict on persistence: it needs {FEWEST_BLOCKS} blocks in the reference, "
            f"which has {len(reference.blocks)}."
        )
    if len(observed) < persistence:
        return f"No verdict on persistence: {len(observed)} of {persistence} batches are in."
    return ""


def _largest(p_value: float) -> float:
    return p_value if np.isfinite(p_value) else 2.0


def _decide(findings: Sequence[Finding], alpha: float) -> list[Finding]:
    """Share `alpha` out over the families that were tested."""
    tested = {found.family for found in findings if np.isfinite(found.p_value)}
    whole = sum(BUDGET[family] for family in tested)
    decided = []
    for family in sorted({found.family for found in findings}):
        members = [found for found in findings if found.family == family]
        share = BUDGET[family] / whole if family in tested else 0.0
        decided += _decide_family(members, alpha, share)
    return decided


def _decide_family(members: Sequence[Finding], alpha: float, share: float) -> list[Finding]:
    """Spend a family's budget on the tests that could reach their floor by chance.

    A test with nothing wrong is called drifted with chance min(reach, p) at the level p, so
    the sum of that over all tests bounds the chance that any is: Bonferroni's bound, made
    sharper by what the floors already exclude.
    """
    reach = np.sort([found.reach for found in members if np.isfinite(found.p_value)])
    spent = np.concatenate([[0.0], np.cumsum(reach)])
    decided = []
    for found in members:
        below = int(np.searchsorted(reach, found.p_value))
        chance = float(spent[below] + (len(reach) - below) * found.p_value)
        adjusted = min(chance / share, 1.0) if share else float("nan")
        drifted = bool(adjusted <= alpha and abs(found.statistic) >= found.floor)
        decided.append(replace(found, adjusted=adjusted, drifted=drifted))
    return decided


def _rows(reference: Reference, current: pd.DataFrame) -> list[Finding]:
    findings: list[Finding] = []

    def add(column: str, kind: str, statistic: float, levels: Levels, effect: Effect) -> None:
        p_value, reach = (
            calibrated(
                level, effect=effect.effect, dependent=effect.dependent, n_blocks=effect.blocks
            )
            for level in levels
        )
        found = Finding(column, "rows", kind, statistic, p_value, FLOORS[kind], reach)
        findings.append(found)

    for name, profile in reference.columns.items():
        if isinstance(profile, NumericProfile):
            missing = _compare_numbers(name, profile, current[name], add)
        else:
            missing = _compare_labels(name, profile, current[name], add)
        _compare_missing(name, profile, missing, len(current), add)
    return findings


Levels = tuple[float, float]
"""Textbook p-values: of what was seen, and of a difference as large as the floor."""
Add = Callable[[str, str, float, Levels, Effect], None]


def _compare_numbers(name: str, profile: NumericProfile, values: pd.Series, add: Add) -> int:
    known = _known(values)
    distance = _distance(profile, known)
    seen, floor = (
        kolmogorov_p(size, n_reference=profile.n, n_current=len(known))
        for size in (distance, FLOORS["distribution"])
    )
    add(name, "distribution", distance, (seen, floor), profile.values)
    return len(values) - len(known)


def _compare_labels(name: str, profile: CategoricalProfile, values: pd.Series, add: Add) -> int:
    before, now, unseen = _counts(profile, values)
    levels = homogeneity_p(before, now), total_variation_reach(before, now, FLOORS["labels"])
    add(name, "labels", _total_variation(before, now), levels, profile.values)
    n = int(now.sum()) + unseen
    singletons = sum(count == 1 for count in profile.counts.values())
    seen, floor = (
        novelty_p(unseen=count, n_current=n, singletons=singletons, n_reference=profile.n)
        for count in (unseen, int(np.ceil(FLOORS["unseen"] * n)))
    )
    # A new label has no spread between blocks to be judged by.
    add(
        name,
        "unseen",
        unseen / max(n, 1),
        (seen, floor),
        Effect(float("nan"), dependent=False, blocks=0),
    )
    return len(values) - n


def _compare_missing(name: str, profile: Profile, missing: int, n: int, add: Add) -> None:
    rows = profile.n + profile.missing
    share = profile.missing / max(rows, 1)
    nearest = [round((share + step * FLOORS["missing"]) * n) for step in (1, -1)]
    seen, *floors = (
        proportions_p(reference=profile.missing, n_reference=rows, current=count, n_current=n)
        for count in (missing, *(count for count in nearest if 0 <= count <= n))
    )
    floor = max(floors, default=0.0)
    add(name, "missing", missing / max(n, 1) - share, (seen, floor), profile.nulls)


def _known(values: pd.Series) -> np.ndarray[Any, np.dtype[np.float64]]:
    x = as_number(values).to_numpy()
    return np.sort(x[np.isfinite(x)])


def _distance(profile: NumericProfile, known: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    grid, below, upto = (np.asarray(v) for v in (profile.grid, profile.below, profile.upto))
    return grid_distance(grid, below, upto, known)


def _counts(
    profile: CategoricalProfile, values: pd.Series
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
    """Rows per known label on both sides, and rows with labels the reference never held."""
    counts = as_text(values).value_counts()
    now = counts.reindex(list(profile.counts), fill_value=0).to_numpy(dtype=np.float64)
    before = np.asarray(list(profile.counts.values()), dtype=np.float64)
    return before, now, int(counts.sum() - now.sum())


def _total_variation(before: np.ndarray[Any, Any], now: np.ndarray[Any, Any]) -> float:
    if before.sum() == 0 or now.sum() == 0:
        return float("nan")
    return float(np.abs(before / before.sum() - now / now.sum()).sum() / 2)


def _blocks(reference: Reference, observed: Sequence[Summary]) -> Iterable[Finding]:
    """One test per summary that both the reference's blocks and the batches hold."""
    rows = float(np.median([block["|rows"] for block in reference.blocks]))
    for key in sorted(set().union(*reference.blocks) - {"|rows"}):
        before = np.asarray([block.get(key, np.nan) for block in reference.blocks])
        now = np.asarray([batch.get(key, np.nan) for batch in observed])
        column, _, kind = key.rpartition("|")
        plain = kind.split(" of ")[0]
        floor = FLOORS[plain]
        variance = _sampling_variance(plain, before, rows)
        p_value, difference = blocks_p(before, now, sampling_variance=variance)
        reach = blocks_reach(before, len(now), floor, sampling_variance=variance)
        yield Finding(column, "blocks", kind, difference, p_value, floor, reach)


def _sampling_variance(kind: str, before: np.ndarray[Any, Any], rows: float) -> float:
    """Variance of one summary if rows were independent and, for numbers, normal."""
    if kind == "location":
        return 1 / rows
    if kind == "spread":
        return 1 / (2 * rows)
    share = float(np.nanmean(before))
    return max(share * (1 - share), 1 / rows) / rows


def _column(
    reference: Reference, current: pd.DataFrame, name: str, findings: Sequence[Finding]
) -> ColumnDrift:
    profile = reference.columns[name]
    own = [found for found in findings if found.column == name]
    first = own[0]
    known = current[name].notna()
    if isinstance(profile, NumericProfile):
        values = _known(current[name])
        known = pd.Series(np.isfinite(as_number(current[name]).to_numpy()))
        distance, index = _distance(profile, values), _numeric_psi(profile, values)
    else:
        before, now, unseen = _counts(profile, current[name])
        distance = _total_variation(np.append(before, 0), np.append(now, unseen))
        index = _smoothed_psi(np.append(before, 0), np.append(now, unseen))
    return ColumnDrift(
        name=name,
        statistic=first.statistic,
        p_value=first.adjusted,
        effect=abs(first.statistic) / first.floor,
        drifted=any(found.drifted for found in own),
        psi=index,
        distance=distance,
        missing=float(1 - known.mean()) if len(known) else float("nan"),
    )


def _numeric_psi(profile: NumericProfile, known: np.ndarray[Any, Any]) -> float:
    """Over the tenths of the reference."""
    grid = np.asarray(profile.grid)
    cuts = np.searchsorted(np.asarray(profile.upto), np.linspace(0.1, 0.9, 9))
    cuts = np.unique(np.minimum(cuts, len(grid) - 1))
    if len(grid) == 0:
        return float("nan")
    before = np.diff(np.concatenate([[0.0], np.asarray(profile.upto)[cuts], [1.0]]))
    upto = np.searchsorted(known, grid[cuts], side="right")
    now = np.diff(np.concatenate([[0], upto, [len(known)]]))
    return _smoothed_psi(before * profile.n, now.astype(np.float64))


def _smoothed_psi(before: np.ndarray[Any, Any], now: np.ndarray[Any, Any]) -> float:
    """Half a row is added to every bin (Jeffreys' prior), so that no bin is empty."""
    if before.sum() == 0 or now.sum() == 0:
        return float("nan")
    before, now = before + 0.5, now + 0.5
    return psi(reference=before / before.sum(), current=now / now.sum())
