"""Labelled rows of a window, read as training reads them, without a store."""

import pandas as pd

from pipeline.config import Settings
from pipeline.data import tables, validation
from pipeline.data.labels import labelled
from pipeline.training.target import checked_target


def labelled_rows(
    settings: Settings, start: pd.Timestamp | None, end: pd.Timestamp | None
) -> pd.DataFrame:
    """Valid rows of `train` with their labels as numbers."""
    data = settings.data
    rows = tables.read(data.train, data, start=start, end=end)
    checked = validation.validate(rows, data, source="benchmark")
    now = pd.Timestamp.now("UTC").tz_localize(None)
    known = labelled(validation.as_they_came(checked, data.target), data, as_of=end or now)
    return known.assign(**{data.target: checked_target(known, data, settings.task)})
