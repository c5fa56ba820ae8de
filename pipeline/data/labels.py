"""Labels that arrive after their rows: joined by key, and usable only after a delay."""

import pandas as pd

from pipeline.columns import as_text, require
from pipeline.config import Data
from pipeline.errors import DataError


def join_labels(rows: pd.DataFrame, labels: pd.DataFrame, data: Data) -> pd.DataFrame:
    """Join the newest label of each key to its row; rows without a label get a null target.

    Raises
    ------
    DataError
        If the labels lack the key column or the target column.
    """
    require(labels, [data.key, data.target])
    keyed = labels[[data.key, data.target]].assign(**{data.key: as_text(labels[data.key])})
    newest = keyed.drop_duplicates(data.key, keep="last")
    return rows.drop(columns=data.target, errors="ignore").merge(newest, on=data.key, how="left")


def labelled(rows: pd.DataFrame, data: Data, *, as_of: pd.Timestamp) -> pd.DataFrame:
    """Select the rows whose label was known at the moment `as_of`.

    A label is known `data.label_delay` after the time of its row.

    Raises
    ------
    DataError
        If the target column is missing.
    """
    if data.target not in rows.columns:
        message = f"The rows lack the target column {data.target!r}. Fix data.target or the source."
        raise DataError(message)
    arrived = rows[data.time] + data.label_delay <= as_of
    return rows[arrived & rows[data.target].notna()].reset_index(drop=True)
