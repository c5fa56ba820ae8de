"""Labels that arrive after their rows: joined by key, and usable only after a delay."""

import logging

import pandas as pd

from pipeline.columns import as_text, as_time, require
from pipeline.config import Data
from pipeline.errors import DataError

logger = logging.getLogger(__name__)


def join_labels(rows: pd.DataFrame, labels: pd.DataFrame, data: Data) -> pd.DataFrame:
    """Join the newest label of each key to its row; rows without a label get a null target.

    Keys are compared as text, without blanks around them and with whole numbers such as `7.0`
    written `7`. A warning is logged if labels are due by now and no row has the key of a label.

    Raises
    ------
    DataError
        If the labels lack the key column or the target column.
    """
    require(labels, [data.key, data.target])
    keyed = labels[[data.key, data.target]].assign(**{data.key: _comparable(labels[data.key])})
    newest = keyed.dropna(subset=data.key).drop_duplicates(data.key, keep="last")
    wanted = _comparable(rows[data.key])
    now = pd.Timestamp.now("UTC").tz_localize(None)
    due = wanted[as_time(rows[data.time]) + data.label_delay <= now].dropna()
    if len(due) and len(newest) and not wanted.isin(newest[data.key]).any():
        logger.warning(_nothing_joined(due, newest[data.key]))
    found = newest.set_index(data.key).reindex(pd.Index(wanted)).set_axis(rows.index)
    return pd.concat([rows.drop(columns=data.target, errors="ignore"), found], axis=1)


def _comparable(keys: pd.Series) -> pd.Series:
    return as_text(keys).str.strip().str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True)


def _nothing_joined(rows: pd.Series, labels: pd.Series) -> str:
    """Say that no row has the key of a label, with examples of both and what may differ."""
    message = (
        f"None of the {len(labels)} keys of data.labels ({_some(labels)}) is the key of one of "
        f"{len(rows)} rows whose labels are due ({_some(rows)}), so that no row has a label."
    )
    plain = [keys.str.lstrip("0").str.casefold() for keys in (rows, labels)]
    if plain[0].isin(plain[1]).any():
        return f"{message} They differ in zeros before them or in case: spell them alike."
    return f"{message} Correct data.key, data.labels or data.label_delay."


def _some(keys: pd.Series) -> str:
    return ", ".join(map(repr, keys[:3]))


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
