"""The slices of a version's training rows, and those of a batch beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import Settings
from pipeline.monitoring.means import Baseline
from pipeline.monitoring.performance import Performance
from pipeline.monitoring.slice_drift import SliceDrift
from pipeline.monitoring.slice_tests import compare_slices
from pipeline.monitoring.slices import (
    Cuts,
    SliceLoss,
    cuts_of,
    judge_slices,
    slice_baselines,
    slices_of,
)
from pipeline.monitoring.usual_slices import UsualSlices
from pipeline.reference import Reference
from pipeline.reference.blocks import cut
from pipeline.training.bundle import Bundle
from pipeline.training.predictions import SLICE


def baselines_of_slices(
    settings: Settings, known: pd.DataFrame, losses: pd.Series
) -> dict[str, Any]:
    """How a version's rows are cut into slices, and baselines of these, as they are stored.

    Parameters
    ----------
    settings : Settings
        The model's.
    known : DataFrame
        Labelled rows of training.
    losses : Series of float, indexed by time
        Their losses, by models that had not seen them.
    """
    policy, features = settings.promotion, settings.data.features
    cuts = cuts_of(known, {name: features[name] for name in policy.slices})
    found = slice_baselines(
        losses,
        slices_of(known, cuts),
        settings.monitoring.batch,
        heavy=settings.task == "regression",
        fewest=policy.slice_rows,
    )
    return {"cuts": cuts, "baselines": {name: one.to_dict() for name, one in found.items()}}


def usual_slices(
    settings: Settings,
    reference: Reference,
    rows: pd.DataFrame,
    cuts: Cuts,
    importance: Mapping[str, float],
) -> dict[str, Any]:
    """How far the slices of a version's rows are from the others, as it is stored; {}: no slices.

    Parameters
    ----------
    settings : Settings
        The model's.
    reference : Reference
        Of the rows.
    rows : DataFrame
        Valid rows of training with predictions, as the reference describes them.
    cuts : Cuts
        How they are cut into slices.
    importance : mapping of str to float
        How much the model relies on each column.
    """
    if not cuts:
        return {}
    found = UsualSlices.fit(
        reference,
        # A share is of a label, and labels of private columns are never stored.
        rows.drop(columns=_private(settings)),
        slices_of(rows, cuts),
        blocks=cut(rows[settings.data.time], settings.monitoring.batch, np.arange(len(rows))),
        fewest=settings.promotion.slice_rows,
        importance=importance,
    )
    return {"usual": found.to_dict()}


def slices_of_rows(settings: Settings, bundle: Bundle, valid: pd.DataFrame) -> dict[str, pd.Series]:
    """The slices of valid rows as a version cuts them, in columns beside its predictions."""
    cuts = _stored(bundle).get("cuts", {})
    private = _private(settings)  # which a column may have become since
    asked = [name for name in settings.promotion.slices if name in cuts and name not in private]
    return {
        f"{SLICE}{name}": names
        for name, names in slices_of(valid, {one: cuts[one] for one in asked}).items()
    }


def slice_drifts(
    settings: Settings, bundle: Bundle, current: pd.DataFrame, predicted: pd.DataFrame
) -> tuple[SliceDrift, ...]:
    """Find the slices that moved apart from the rest of a batch; versions of before have none.

    Parameters
    ----------
    settings : Settings
        The model's.
    bundle : Bundle
        The champion.
    current : DataFrame
        Valid rows of the batch with predictions, as they are compared with the reference.
    predicted : DataFrame
        The slices of these rows, beside what was predicted for them.
    """
    stored = _stored(bundle).get("usual")
    if stored is None:
        return ()
    names = {f"{SLICE}{name}": name for name in settings.promotion.slices}
    return compare_slices(
        reference=bundle.reference,
        usual=UsualSlices.from_dict(stored),
        current=current.drop(columns=_private(settings)),
        slices=predicted[predicted.columns.intersection(list(names))].rename(columns=names),
        alpha=settings.monitoring.alpha,
    )


def slice_losses(
    settings: Settings,
    bundle: Bundle,
    known: pd.DataFrame,
    losses: pd.Series,
    earlier: Sequence[Performance],
) -> tuple[SliceLoss, ...]:
    """Compare the slices of a batch with those of training; versions of before have none.

    Parameters
    ----------
    settings : Settings
        The model's.
    bundle : Bundle
        The version that predicted.
    known : DataFrame
        Labelled rows of the batch with their slices.
    losses : Series of float, indexed by time
        Their losses, by the half fits.
    earlier : sequence of Performance
        Of the version's batches before, oldest first.
    """
    policy, asked = settings.monitoring, settings.promotion.slices
    stored = _stored(bundle).get("baselines", {})
    return judge_slices(
        losses,
        known[known.columns.intersection([f"{SLICE}{name}" for name in asked])],
        {name: Baseline.from_dict(one) for name, one in stored.items()},
        length=policy.batch,
        allowed=policy.performance_loss,
        alpha=policy.alpha,
        fewest=settings.promotion.slice_rows,
        persistence=policy.persistence,
        earlier=[one.slices for one in earlier],
    )


def not_judged(settings: Settings, bundle: Bundle, version: int) -> list[str]:
    """Say which of the configured slices are not judged of a version, and why."""
    asked, features = settings.promotion.slices, settings.data.features
    cuts = _stored(bundle).get("cuts", {})
    private = [name for name in asked if features[name].private]
    lacking = [name for name in asked if name not in cuts and name not in private]
    found = []
    if lacking:
        found.append(
            f"Slices by {', '.join(lacking)} are not judged, because version {version} was "
            "trained without baselines of them. The next version will have baselines."
        )
    if asked and cuts and "usual" not in _stored(bundle):
        found.append(
            f"Drift of slices is not judged, because version {version} was trained by a release "
            "that did not describe them. The next version will be judged."
        )
    if private:
        found.append(f"Slices by private columns are not judged: {', '.join(private)}.")
    return found


def _private(settings: Settings) -> list[str]:
    return [name for name, column in settings.data.features.items() if column.private]


def _stored(bundle: Bundle) -> dict[str, Any]:
    stored: dict[str, Any] = (bundle.baseline or {}).get("slices", {})
    return stored
