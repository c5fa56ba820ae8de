"""The page of each batch: what is known of it is gathered here, and drawn in `reporting`."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd
from prefect import runtime

from flows.paging import links, prefect_link
from flows.slices import not_judged
from pipeline.config import Settings
from pipeline.monitoring.estimate import Estimate
from pipeline.monitoring.performance import Performance
from pipeline.monitoring.verdicts import Verdict
from pipeline.registry import answers, champions, records
from pipeline.registry.history import Batch, History
from pipeline.registry.versions import Registry
from pipeline.reporting.advice import Answered
from pipeline.reporting.batch_report import SHOWN, About, Past, batch_report
from pipeline.reporting.estimated import expected_change
from pipeline.reporting.rendering import drawn
from pipeline.training.metrics import rates
from pipeline.training.predictions import PREDICTION, ROW_LOSS, of_cells


def draw(
    settings: Settings,
    registry: Registry,
    history: History,
    *,
    verdict: Verdict,
    record: Mapping[str, Any],
    run_id: str,
    quarantined: int,
    performance: Performance | None = None,
    answered: Answered | None = None,
    estimates: Sequence[Estimate] = (),
    reading: int = 1,
) -> str:
    """Draw the page of a batch.

    Parameters
    ----------
    settings : Settings
        The model's.
    registry : Registry
        The model's.
    history : History
        All recorded batches; those before it are shown beside it.
    verdict : Verdict
        Evidence and decision.
    record : mapping of str to Any
        The comparison, as it is stored.
    run_id : str
        The batch's run.
    quarantined : int
        Refused rows.
    performance : Performance or None
        Of the batch; None: no label has come.
    answered : Answered or None
        What people have answered for it; None: nothing yet.
    estimates : sequence of Estimate
        Its metrics, as they were estimated before its labels came.
    reading : int
        How often it was read from its source, this time included.
    """
    evidence, policy = verdict.evidence, settings.monitoring
    start = pd.Timestamp(evidence.batch)
    end = start + policy.batch
    lost = registry.bundle(evidence.version).heldout[ROW_LOSS]
    usual = float(lost.mean()) if len(lost) else float(np.nan)
    worse = bool(evidence.worse) or bool(performance and performance.worse)
    own = About(
        model=settings.name,
        conf=settings.conf,
        verdict=verdict,
        start=start,
        end=end,
        quarantined=quarantined,
        loss=settings.loss,
        usual_loss=usual,
        allowed=policy.performance_loss,
        labels_due=end + settings.data.label_delay,
        made=f"{pd.Timestamp.now('UTC'):%Y-%m-%d %H:%M} UTC",
        past=[
            _past(batch, settings.loss, usual if batch.version == evidence.version else np.nan)
            for batch in history.before(evidence.batch).batches[1 - SHOWN :]
        ],
        performance=performance,
        metrics=_heldout(settings, registry, evidence.version),
        where=_where(registry, run_id, evidence.batch),
        answered=answered,
        estimates=estimates,
        waiting=[b.name for b in history.batches if b.is_open and b.name != evidence.batch],
        diagnosed=policy.diagnosis,
        reading=reading,
        not_sliced=not_judged(settings, registry.bundle(evidence.version), evidence.version),
        overdue=_overdue(settings, history.before(evidence.batch), end),
        before=champions.to_go_back_to(registry, evidence.version) if worse else None,
    )
    return batch_report(record, own)


def _overdue(settings: Settings, before: History, end: pd.Timestamp) -> list[str]:
    """Batches after the last one with labels whose own were due before a moment."""
    newest = takewhile(lambda batch: batch.performance is None, reversed(before.batches))
    return [b.name for b in newest if b.rows and b.end + settings.data.label_delay < end][::-1]


def redraw(settings: Settings, registry: Registry, history: History, batch: Batch) -> None:
    """Draw the page of a batch again, as more is known of it; batches of before have no page."""
    record = registry.read(batch.run_id, records.REPORT)
    if record is None or "shapes" not in record:
        return
    page = partial(
        draw,
        settings,
        registry,
        history,
        verdict=batch.verdict,
        record=record,
        run_id=batch.run_id,
        quarantined=batch.quarantined,
        performance=batch.performance,
        answered=answers.answered(registry, batch),
        estimates=batch.estimates,
        reading=batch.reading,
    )
    records.store_page(registry, batch.run_id, drawn(page, f"batch {batch.name}"))


def _past(batch: Batch, loss: str, usual: float) -> Past:
    """A batch of the strip; `usual` is the mean held-out loss of its version, NaN: unknown."""
    known = batch.performance
    return Past(
        name=batch.name,
        state=batch.state,
        action=batch.verdict.decision.action,
        version=batch.version,
        change=None if known is None else known.change,
        expected=expected_change(batch.estimates, loss, usual),
        reason=batch.verdict.decision.reason,
    )


def _heldout(settings: Settings, registry: Registry, number: int) -> dict[str, float]:
    """Metrics and rates of a version on the rows that its training held out."""
    prefix = "heldout_"
    metrics = registry.run_of(registry.version(number).run_id).data.metrics
    heldout = registry.bundle(number).heldout
    target = heldout[settings.data.target].to_numpy(dtype=np.float64)
    known = {
        name.removeprefix(prefix): value
        for name, value in metrics.items()
        if name.startswith(prefix)
    }
    return known | rates(target, of_cells(heldout[PREDICTION]))


def _where(registry: Registry, run_id: str, batch: str) -> dict[str, str]:
    """Where to see more of a batch, and what to type."""
    lines = [*links(registry, run_id, records.PAGE)[:-1], _judged_by(registry, run_id)]
    shown = dict(line.split(": ", 1) for line in lines if line)
    return {
        **shown,
        "Run in MLflow": run_id,
        "Open questions": f"holdfast review {registry.conf}",
        "Judge it again": f"holdfast monitor {registry.conf} --batch {batch}",
    }


def _judged_by(registry: Registry, run_id: str) -> str:
    """A line with the address of the flow run that judged a batch, if a server shows it."""
    noted = registry.run_of(run_id).data.tags.get("prefect", "")
    return f"Prefect: {noted}" if noted else prefect_link(runtime.flow_run.id or "")
