"""Compare a live batch with the reference: what differs, how much, how surely, since when.

Three levels of evidence share one false-alarm budget. *Rows*: this batch alone, each test
calibrated by how much the reference's own blocks differ. *Batches*: the last batches, each an
observation of every trait, against the blocks; this is persistence. *Decay*: all batches since
the reference, for changes too slow to show in the last batches.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.columns import Floats
from pipeline.monitoring.budget import DECAY, apply_budget
from pipeline.monitoring.calibration import limits
from pipeline.monitoring.causes import diagnose
from pipeline.monitoring.findings import (
    Cause,
    ColumnDrift,
    Drift,
    DriftReport,
    Finding,
    PairDrift,
)
from pipeline.monitoring.persistence import batch_tests, changes_since, decay_tests
from pipeline.monitoring.rows import Judged, row_tests
from pipeline.monitoring.shapes import shapes
from pipeline.reference import Reference
from pipeline.reference.pairs import FOLLOWED
from pipeline.reference.profile import NumericProfile, Profile
from pipeline.reference.sampling import sketch
from pipeline.reference.statistics import jensen_shannon, psi, total_variation
from pipeline.reference.summaries import ROWS, Summary, Trait
from pipeline.reference.tally import OUTLYING, Tally
from pipeline.reference.variation import FEWEST_BLOCKS

__all__ = ["compare"]

ALPHA = 0.05
"""Chance that a batch with nothing wrong alarms, unless another one is asked for."""


def compare(
    *,
    reference: Reference,
    current: pd.DataFrame,
    recent: Sequence[Summary] = (),
    alpha: float = ALPHA,
    persistence: int = 3,
    importance: Mapping[str, float] | None = None,
    arrived: pd.DataFrame | None = None,
    diagnosis: bool = True,
    standing: Sequence[Cause] = (),
    broken_alpha: float = 0.01,
    kept: Path | None = None,
) -> DriftReport:
    """Compare a live batch, together with the batches before it, with the reference.

    Parameters
    ----------
    reference : Reference
        The training rows.
    current : DataFrame
        Valid rows of the batch. A missing column of the reference counts as drift; a column that
        the reference does not know is noted.
    recent : sequence of Summary
        `DriftReport.summary` of earlier batches since the reference, oldest first: summaries of
        valid rows, as are those of the reference's blocks.
    alpha : float
        Chance that a batch with nothing wrong alarms, over all tests together.
    persistence : int
        Number of batches that are judged together, this batch included.
    importance : mapping of str to float, optional
        How much the model relies on each column; what drifted is listed in that order.
    arrived : DataFrame, optional
        All rows of the batch as they arrived, with the rows that validation refused; by default
        `current`. Faults are looked for in these rows, because many faults make rows invalid.
    diagnosis : bool
        Whether to look for faults; without diagnosis, a broken batch counts as moved.
    standing : sequence of Cause
        Faults of the batches right before this batch, if these are in quarantine: that a fault
        continues takes less evidence than that it begins.
    broken_alpha : float
        Largest share of sound batches that may show again, and more clearly, what blocks of the
        reference showed of a fault, over all faults and columns together; see
        `calibration.limits`.
    kept : Path, optional
        File that keeps what these blocks show, so that another process need not judge them again;
        it is for this reference and this version of the code alone.

    Raises
    ------
    DataError
        If a column name occurs twice.
    """
    tally = reference.tally(current)
    summary = Summary(
        reference.summarise(tally), sketch=sketch(current, reference.columns, reference.seed)
    )
    # As in the reference, batches under half the usual length are left out.
    observed = [batch for batch in (*recent, summary) if batch[ROWS] >= reference.block_rows / 2]
    last = observed[-persistence:]
    note = _no_verdict(reference, last, persistence)
    enough = len(reference.blocks) >= FEWEST_BLOCKS and len(observed) > 1
    since = changes_since(reference, observed)
    groups = list(row_tests(Judged(reference, tally, summary, since)))
    groups += [] if note else list(batch_tests(reference, last, since))
    decay = decay_tests(reference, observed, since) if enough else []
    findings, spent = apply_budget(groups, decay, alpha)
    findings = sorted(_weighted(findings, importance or {}), key=_order)
    rows = current if arrived is None else arrived
    came = tally if arrived is None else reference.tally(arrived)
    causes: tuple[Cause, ...] = ()
    doubts: list[str] = []
    if diagnosis:
        causes, doubts = diagnose(
            reference,
            rows,
            came,
            summary,
            recent=observed[:-1],
            findings=findings,
            standing=standing,
            find_limits=partial(limits, reference, _causes_of, alpha=broken_alpha, kept=kept),
        )
    return DriftReport(
        rows=tally.rows,
        alpha=alpha,
        broken_alpha=broken_alpha,
        columns=tuple(
            replace(column, outliers=came.outliers.get(column.name, 0))
            for column in _columns(reference, tally, findings)
        ),
        pairs=tuple(_pairs(reference, summary, findings)),
        findings=tuple(findings),
        summary=summary,
        batches=len(last),
        run_length=1 / (DECAY * alpha),
        false_persisted=spent + (DECAY * alpha if decay else 0.0),
        notes=(
            *_notes(reference, tally, note),
            *_out_of_range(tally, findings),
            *_odd_values(rows, came),
            *doubts,
        ),
        causes=causes,
        shapes=tuple(
            shapes(reference, tally, came, at_fault={n for c in causes for n in c.columns})
        ),
    )


def _causes_of(*, reference: Reference, current: pd.DataFrame) -> tuple[Cause, ...]:
    """Causes that a sound block shows by itself, whatever the others show.

    A reference of samples has no classifier to compare with; the other tests share its part.
    """
    tally = reference.tally(current)
    summary = reference.summarise(tally)
    judged = Judged(reference, tally, summary, {})
    findings, _ = apply_budget(list(row_tests(judged, classifier=False)), [], ALPHA)
    causes, _ = diagnose(reference, current, tally, summary, recent=(), findings=findings)
    return causes


def _weighted(findings: Sequence[Finding], importance: Mapping[str, float]) -> list[Finding]:
    """Add to each finding how much the model relies on its columns, where that is known."""
    if not importance:
        return list(findings)
    return [
        replace(found, importance=sum(importance.get(name, 0.0) for name in found.columns))
        for found in findings
    ]


def _no_verdict(reference: Reference, last: Sequence[Summary], persistence: int) -> str:
    if len(reference.blocks) < FEWEST_BLOCKS:
        return (
            f"No verdict on persistence: it needs {FEWEST_BLOCKS} blocks in the reference, "
            f"which has {len(reference.blocks)}."
        )
    if len(last) < persistence:
        return (
            f"No verdict on persistence: {len(last)} of {persistence} batches of at least "
            f"{reference.block_rows / 2:g} rows, half a usual block, are in."
        )
    return ""


def _notes(reference: Reference, tally: Tally, note: str) -> Iterator[str]:
    if tally.rows == 0:
        yield "No verdict on this batch: it holds no row."
    if note:
        yield note
    if tally.absent:
        yield f"Columns of the reference that the batch lacks: {', '.join(tally.absent)}."
    if tally.extra:
        yield f"Columns that the reference does not know: {', '.join(tally.extra)}."
    if reference.followed is not None:
        n = len(reference.features)
        every, followed = n * (n - 1) // 2, len(reference.followed)
        yield (
            f"Correlations of {every - followed:,} of {every:,} pairs of columns are left out, "
            f"because at most {FOLLOWED:,} are followed: first those of the most important "
            "columns, then the clearest correlations of each column, then neighbours by name."
        )


def _out_of_range(tally: Tally, findings: Sequence[Finding]) -> Iterator[str]:
    """Sentences that say how far columns lie beyond the training rows."""
    for found in findings:
        if found.kind == "range" and found.drifted:
            (name,), above = found.columns, found.statistic > 0
            values = int(tally.known(name))
            outside = int(tally.counts[name][-1 if above else 0])
            way = "above" if above else "below"
            yield (
                f"{outside:,} of {values:,} values of {name!r} lie {way} every value of training. "
                f"The median lies {abs(found.statistic):.3g} widths of the usual range {way} that "
                "range, which holds the median of every block."
            )


def _odd_values(rows: pd.DataFrame, came: Tally) -> Iterator[str]:
    """Sentences about single values that are odd, also where the batch goes on."""
    for name, count in came.outliers.items():
        if count:
            yield (
                f"{name!r} holds {count} value(s) at least {OUTLYING:g} times as far from the "
                "median as any training row."
            )
    numbers = [name for name in came.order if name in rows.columns]
    text = [name for name in numbers if pd.api.types.infer_dtype(rows[name]) == "string"]
    if text:
        yield f"Numbers that arrived as text and were parsed: {', '.join(text)}."


def _order(found: Finding) -> tuple[bool, float, float, str, str, str]:
    weight = found.importance if found.drifted and np.isfinite(found.importance) else 0.0
    adjusted = found.adjusted if np.isfinite(found.adjusted) else 2.0
    return (not found.drifted, -weight, adjusted, found.name, found.level, found.kind)


def _columns(reference: Reference, tally: Tally, findings: Sequence[Finding]) -> list[ColumnDrift]:
    own: dict[str, list[Finding]] = {name: [] for name in reference.names}
    for found in findings:
        if len(found.columns) == 1 and not found.whole:
            own[found.columns[0]].append(found)
    drifts = []
    for name, tests in own.items():
        figures = _figures(reference.columns[name], tally, name)
        drifts.append(ColumnDrift(**(vars(_drift((name,), tests)) | figures)))
    return sorted(drifts, key=_drift_order)


def _pairs(reference: Reference, summary: Summary, findings: Sequence[Finding]) -> list[PairDrift]:
    own: dict[tuple[str, ...], list[Finding]] = {}
    for found in findings:
        if found.kind == "correlation":
            own.setdefault(found.columns, []).append(found)
    pairs = []
    for names, tests in own.items():
        drift, trait = _drift(names, tests), Trait("correlation", names)
        known = [block[trait] for block in reference.blocks if drift.drifted and trait in block]
        correlations = {}
        if known and trait in summary:
            correlations = {"before": float(np.mean(known)), "now": summary[trait]}
        pairs.append(PairDrift(**(vars(drift) | correlations)))
    return sorted(pairs, key=_drift_order)


def _drift(columns: tuple[str, ...], findings: Sequence[Finding]) -> Drift:
    first = findings[0]
    return Drift(
        name=first.name,
        columns=columns,
        statistic=first.statistic,
        p_value=first.adjusted,
        effect=abs(first.statistic) / first.floor,
        drifted=any(found.drifted for found in findings),
        since=first.since,
        importance=first.importance,
    )


def _drift_order(drift: Drift) -> tuple[bool, float, str]:
    return not drift.drifted, drift.p_value if np.isfinite(drift.p_value) else 2.0, drift.name


def _figures(profile: Profile, tally: Tally, name: str) -> dict[str, float]:
    """Figures of a column that are displayed and never tested."""
    counts, n = tally.counts[name], tally.known(name)
    figures = {"missing": 1 - n / tally.rows if tally.rows else float("nan")}
    if n == 0 or profile.n == 0:
        return figures
    if not isinstance(profile, NumericProfile):
        before = np.append(profile.rows, 0)
        distance = total_variation(reference=before, current=counts)
        return figures | {"distance": distance} | _indices(before, counts)
    tenths = profile.tenths(counts)
    return (
        figures
        | {"distance": profile.distance(counts)}
        | {"wasserstein": profile.wasserstein(counts, beyond=tally.beyond[name])}
        | _indices(*tenths)
    )


def _indices(before: Floats, now: Floats) -> dict[str, float]:
    """Compute indices of rows per bin, adding half a row to each bin (Jeffreys' prior)."""
    before, now = before + 0.5, now + 0.5
    before, now = before / before.sum(), now / now.sum()
    return {
        "psi": psi(reference=before, current=now),
        "jensen_shannon": jensen_shannon(reference=before, current=now),
    }
