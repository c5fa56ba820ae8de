"""Labels that arrive after their rows: joined by key, and usable only after a delay."""

import logging
from collections.abc import Sequence

import pandas as pd

from pipeline.columns import as_text, as_time, require
from pipeline.config import CaptureSource, Data
from pipeline.errors import DataError

logger = logging.getLogger(__name__)


def join_labels(
    rows: pd.DataFrame, labels: pd.DataFrame, data: Data, *, as_of: pd.Timestamp | None = None
) -> pd.DataFrame:
    """Join the newest label of each key to its row; rows without a label get a null target.

    Labels that were sent to the served API are of predicted rows: where those are the labels, rows
    of another source keep the target that they came with.

    Keys are compared as text, without blanks around them and with whole numbers such as `7.0`
    written `7`. A warning is logged if labels are due by now and no row has the key of a label.

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
    wanted = comparable(rows[data.key])
    now = pd.Timestamp.now("UTC").tz_localize(None)
    due = wanted[as_time(rows[data.time]) + data.label_delay <= now].dropna()
    if len(due) and len(newest) and not wanted.isin(newest.index).any():
        logger.warning(_nothing_joined(due, newest.index.to_series()))
    found = newest.reindex(pd.Index(wanted)).set_axis(rows.index)
    if isinstance(data.labels, CaptureSource) and data.target in rows:
        own = rows[data.target]
        found[data.target] = (
            found[data.target].astype(object).where(found[data.target].notna(), own)
        )
    return pd.concat([rows.drop(columns=newest.columns, errors="ignore"), found], axis=1)


def newest_labels(
    labels: pd.DataFrame,
    data: Data,
    *,
    as_of: pd.Timestamp | None = None,
    by: Sequence[str] = (),
) -> pd.DataFrame:
    """Select the newest label of each key: target and `data.label_time`, indexed by `comparable`.

    Parameters
    ----------
    labels : DataFrame
        Labels in the order in which they came; with `data.label_time`, in any order.
    data : Data
        Declared columns and their roles.
    as_of : Timestamp, optional
        Labels whose `data.label_time` is later are left out; None: none are.
    by : sequence of str
        Columns that together identify what a label belongs to; empty: the key.

    Raises
    ------
    DataError
        If the labels lack the key column, the target column or the column of their time.
    """
    by = list(by) or [data.key]
    columns = [*by, data.target, *([data.label_time] if data.label_time else [])]
    require(labels, columns)
    keyed = labels[columns].reset_index(drop=True)
    keyed = keyed.assign(**{data.key: comparable(keyed[data.key])})
    if data.label_time:
        keyed = keyed.assign(**{data.label_time: as_time(keyed[data.label_time])})
        known = keyed if as_of is None else keyed[~(keyed[data.label_time] > as_of)]
        # Of two labels of one moment the larger counts, in whatever order they come.
        as_words = known.assign(**{data.target: known[data.target].astype(str)})
        order = as_words.sort_values([data.label_time, data.target], na_position="first").index
        keyed = known.loc[order]
    return keyed.dropna(subset=data.key).drop_duplicates(by, keep="last").set_index(by)


def comparable(keys: pd.Series) -> pd.Series:
    """Keys as text, without blanks around them and with whole numbers such as `7.0` written `7`.

    Rows are identified and joined by these texts. An empty text is null.
    """
    texts = as_text(keys).str.strip().str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True)
    return texts.where(texts != "")


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
