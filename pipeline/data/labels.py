"""Labels that arrive after their rows: joined by key, and usable only after a delay."""

import pandas as pd

from pipeline.columns import as_text, as_time, require
from pipeline.config import Data
from pipeline.errors import DataError


def join_labels(
    rows: pd.DataFrame, labels: pd.DataFrame, data: Data, *, as_of: pd.Timestamp | None = None
) -> pd.DataFrame:
    """Join the newest label of each key to its row; rows without a label get a null target.

    Parameters
    ----------
    rows : DataFrame
        Rows of any window.
    labels : DataFrame
        Labels, as `newest_labels` takes them.
    data : Data
        Declared columns and their roles.
    as_of : Timestamp, optional
        Labels whose `data.label_time` is later are left out; None: none are.

    Raises
    ------
    DataError
        If the labels lack the key column, the target column or the column of their time.
    """
    newest = newest_labels(labels, data, as_of=as_of)
    others = rows.drop(columns=newest.columns.drop(data.key), errors="ignore")
    return others.merge(newest, on=data.key, how="left")


def newest_labels(
    labels: pd.DataFrame, data: Data, *, as_of: pd.Timestamp | None = None
) -> pd.DataFrame:
    """Select the newest label of each key: key, target and `data.label_time` if there is one.

    Parameters
    ----------
    labels : DataFrame
        Labels in the order in which they came; with `data.label_time`, in any order.
    data : Data
        Declared columns and their roles.
    as_of : Timestamp, optional
        Labels whose `data.label_time` is later are left out; None: none are.

    Raises
    ------
    DataError
        If the labels lack the key column, the target column or the column of their time.
    """
    columns = [data.key, data.target, *([data.label_time] if data.label_time else [])]
    require(labels, columns)
    keyed = labels[columns].assign(**{data.key: as_text(labels[data.key])})
    if data.label_time:
        keyed = keyed.assign(**{data.label_time: as_time(keyed[data.label_time])})
        known = keyed if as_of is None else keyed[~(keyed[data.label_time] > as_of)]
        # Of two labels of one moment the larger counts, in whatever order they come.
        keyed = known.sort_values([data.label_time, data.target], na_position="first")
    return keyed.drop_duplicates(data.key, keep="last")


def labelled(rows: pd.DataFrame, data: Data, *, as_of: pd.Timestamp) -> pd.DataFrame:
    """Select the rows whose label was known at the moment `as_of`.

    A label is known at its `data.label_time`, else `data.label_delay` after the time of its row.

    Raises
    ------
    DataError
        If the target column, or the column of the labels' time, is missing.
    """
    wanted = {"data.target": data.target, "data.label_time": data.label_time}
    missing = {setting: name for setting, name in wanted.items() if name and name not in rows}
    if missing:
        names = " and ".join(f"{name!r} ({setting})" for setting, name in missing.items())
        message = f"The rows must hold the column {names}. Correct the setting or the source."
        raise DataError(message)
    known = rows[data.time] + data.label_delay
    if data.label_time:
        known = as_time(rows[data.label_time]).fillna(known)
    return rows[(known <= as_of) & rows[data.target].notna()].reset_index(drop=True)
