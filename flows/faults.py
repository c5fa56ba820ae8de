"""Faults of a batch that its features do not show: of its labels, and of its refused rows."""

from typing import Final

import pandas as pd

from pipeline.config import Settings
from pipeline.data.labels import labelled
from pipeline.data.validation import Validated
from pipeline.monitoring.findings import Cause
from pipeline.monitoring.refusals import Came, refused_fault
from pipeline.monitoring.targets import target_faults
from pipeline.registry.history import History
from pipeline.registry.versions import Registry
from pipeline.training.bundle import Bundle
from pipeline.training.predictions import HALVED, PREDICTION, in_columns, of_cells

_SOUND: Final = 8
"""Last sound batches that show how many rows are usually refused."""


def faults_of_labels(
    settings: Settings,
    registry: Registry,
    checked: Validated,
    predicted: pd.DataFrame,
    *,
    version: int,
    as_of: pd.Timestamp,
) -> tuple[Cause, ...]:
    """Faults of the labels that have arrived with a batch, which a `version` judges."""
    data, came, bundle = settings.data, predicted, registry.bundle(version)
    if checked.labels is not None:  # with the values that are not labels
        came = predicted.assign(**{data.target: checked.labels})
    known = labelled(came, data, as_of=as_of) if data.target in came else None
    if bundle.targets is None or known is None or known.empty:
        return ()
    return target_faults(
        bundle.targets,
        known[data.target],
        in_columns(of_cells(known[HALVED]), bundle.model.classes)[PREDICTION],
        broken_alpha=settings.monitoring.broken_alpha,
        classes=data.several,
        kept=registry.sound_blocks(version, "labels"),
    )


def fault_of_refusals(
    settings: Settings, bundle: Bundle, checked: Validated, before: History
) -> tuple[Cause, ...]:
    """Whether more rows than usual were refused. A batch without a valid row is handled before."""
    refused = len(checked.quarantined)
    if checked.valid.empty:
        return ()
    sound = [batch for batch in before.batches if not batch.set_aside and batch.rows][-_SOUND:]
    return refused_fault(
        Came(len(checked.valid) + refused, refused),
        checked.reasons,
        list(settings.data.features),
        trained=[Came(*stretch) for stretch in bundle.manifest.get("refused", [])],
        recent=[Came(batch.rows + batch.quarantined, batch.quarantined) for batch in sound],
        broken_alpha=settings.monitoring.broken_alpha,
    )
