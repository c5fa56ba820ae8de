"""What models predict for the rows of a batch."""

from typing import Any

import pandas as pd

from flows.slices import slices_of_rows
from pipeline.config import Settings
from pipeline.errors import ConfigError, RegistryError
from pipeline.registry import champions
from pipeline.registry.versions import Registry
from pipeline.training import parity
from pipeline.training.model import Model
from pipeline.training.predictions import HALVED, PREDICTION, PREVIOUS, as_cells


def predict(
    settings: Settings, registry: Registry, number: int, valid: pd.DataFrame
) -> pd.DataFrame:
    """Predict rows by a version, by the half fits of its reference, and by its predecessor.

    Parameters
    ----------
    settings : Settings
        The model's.
    registry : Registry
        The model's.
    number : int
        The version.
    valid : DataFrame
        Valid rows of a batch.

    Returns
    -------
    DataFrame
        Key and time, the label as far as it came with the row, the columns ``prediction``,
        ``halved`` and, where there is a predecessor that can be loaded, ``previous``, and the
        slices that each row belongs to.

    Raises
    ------
    ConfigError
        If the classes of the target are not those of the version any more.
    RegistryError
        If the version does not predict the held-out rows of its training as it did then: that is
        a fault of the environment, not drift.
    """
    bundle = registry.bundle(number)
    check_classes(settings, number, bundle.model)
    if bundle.holdout is not None:
        parity.replay(bundle.model, bundle.holdout, "held-out", types=False)
    rival = champions.replaced_by(registry, number)
    roles = [settings.data.key, settings.data.time, settings.data.target, settings.data.label_time]
    return valid[[name for name in roles if name in valid]].assign(
        **{
            PREDICTION: as_cells(bundle.model.predict(valid)),
            HALVED: as_cells(bundle.predict_as_reference(valid, valid[settings.data.key])),
        },
        **_of_rival(registry, rival, valid),
        **slices_of_rows(settings, bundle, valid),
    )


def check_classes(settings: Settings, number: int, model: Model) -> None:
    """Check that places of classes mean for a version what they mean in its file.

    Raises
    ------
    ConfigError
        If not: classes may be added at the end, where there are three or more.
    """
    known, now = model.classes, settings.data.several
    if bool(known) == bool(now) and now[: len(known)] == known:
        return
    message = (
        f"data.classes must begin with the classes of version {number} "
        f"({', '.join(known) or 'one number is predicted'}), which its predictions are of. Got "
        f"{', '.join(now) or 'one number to predict'}. Add classes at the end, or give the model "
        "another name."
    )
    raise ConfigError(message)


def _of_rival(registry: Registry, rival: int | None, valid: pd.DataFrame) -> dict[str, Any]:
    """Predictions by the champion before, which show what the promotion was worth."""
    if rival is None or valid.empty:
        return {}
    try:
        return {PREVIOUS: as_cells(registry.bundle(rival).model.predict(valid))}
    except RegistryError:  # its files are gone, or another environment predicts otherwise
        return {}
