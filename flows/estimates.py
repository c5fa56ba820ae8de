"""Estimated performance of a batch, from what labels of earlier batches of its version showed."""

import pandas as pd

from pipeline.columns import Floats
from pipeline.config import Settings
from pipeline.data.labels import labelled
from pipeline.monitoring.estimate import Estimate, estimate
from pipeline.monitoring.expectations import Cells, edges_of
from pipeline.registry.history import History
from pipeline.registry.versions import Registry
from pipeline.training.bundle import Bundle
from pipeline.training.metrics import losses
from pipeline.training.model import Predictions
from pipeline.training.predictions import PREDICTION, of_cells

KNOWN = 0.5
"""Share of a batch's rows with labels from which on it is not estimated."""


def cells_of(
    settings: Settings, bundle: Bundle, predictions: Predictions, target: Floats | None = None
) -> Cells | None:
    """Rows of a batch summed for later estimates; None of three or more classes, which have none.

    Parameters
    ----------
    settings : Settings
        The model's.
    bundle : Bundle
        The version that predicted; its held-out predictions give the edges of the cells.
    predictions : array of float, shape (n_rows,)
        Of its model.
    target : array of float, shape (n_rows,), optional
        Labels, if they are known.
    """
    if settings.data.several:
        return None
    edges = edges_of(of_cells(bundle.heldout[PREDICTION]), settings.task)
    if target is None:
        return Cells.of(predictions, edges)
    if settings.task == "classification":
        return Cells.of(predictions, edges, target=target)
    names = dict.fromkeys([settings.loss, "mae"])
    return Cells.of(
        predictions, edges, losses={name: losses(name, target, predictions) for name in names}
    )


def estimates_of(
    settings: Settings,
    registry: Registry,
    history: History,
    *,
    start: pd.Timestamp,
    version: int,
    predicted: pd.DataFrame,
) -> list[Estimate]:
    """Estimate the metrics of a batch, unless half of its labels are there already.

    Parameters
    ----------
    settings : Settings
        The model's.
    registry : Registry
        The model's.
    history : History
        The batches before it, with the performance that is known by now.
    start : Timestamp
        Start of the batch.
    version : int
        The champion.
    predicted : DataFrame
        Valid rows of the batch with their predictions, and with the labels that came with them.
    """
    data, length = settings.data, settings.monitoring.batch
    if data.target in predicted:
        seen = labelled(predicted, data, as_of=start + length)
        if len(seen) >= KNOWN * len(predicted):
            return []
    bundle = registry.bundle(version)
    current = cells_of(settings, bundle, of_cells(predicted[PREDICTION]))
    if current is None:
        return []
    before = _held_out(settings, bundle)
    live = [one for one in history.performances(version) if one.cells is not None]
    newest = pd.Timestamp(live[-1].batch) if live else registry.version(version).until - length
    return estimate(
        current,
        [*before, *(one.cells for one in live if one.cells is not None)],
        loss=settings.loss,
        gap=max(round((start - newest) / length), 1),
    )


def _held_out(settings: Settings, bundle: Bundle) -> list[Cells]:
    """The held-out rows of a version in stretches as long as a batch, oldest first."""
    rows = bundle.heldout
    if rows.empty:
        return []
    times = rows[settings.data.time]
    ago = ((times.max() - times) // settings.monitoring.batch).to_numpy()
    found = []
    for stretch in sorted(set(ago.tolist()), reverse=True):
        part = rows[ago == stretch]
        target = part[settings.data.target].to_numpy(dtype="float64")
        found.append(cells_of(settings, bundle, of_cells(part[PREDICTION]), target))
    return [one for one in found if one is not None]
