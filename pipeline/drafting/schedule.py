"""How long a batch is, and which part of the history trains the first version."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from pipeline.config import Arrival, spelled

_LENGTHS: Final = ("1h", "6h", "12h", "1D", "7D", "14D", "28D", "31D", "92D", "366D")
_EVERY: Final = (
    *("1D", "12h", "6h", "4h", "3h", "2h", "1h", "30min", "20min", "10min", "5min", "2min", "1min"),
    *("30s", "10s", "5s", "2s", "1s"),
)
"""Times from row to row that a table without a time may be given."""
_WEEK: Final = pd.Timedelta("7D")
_DAY: Final = pd.Timedelta("1D")
_ROWS: Final = 150
"""Rows of the median batch from which on it is large enough for a verdict."""
_BATCHES: Final = 12
"""Batches that the history should have at least."""
_REFERENCE: Final = 8
"""Batches that the reference should be cut into at least."""
_LIVE: Final = (3, 8)
"""Batches that are left for the monitor, at least and at most."""
_WEEKS: Final = 26
"""Weeks of history from which on a batch has whole weeks."""
_MOST_BATCHES: Final = 40
_OUTER: Final = 0.005
"""Share of the rows at each end that does not tell how long a history is."""
_HELD: Final = 1_000
"""Held-out rows that are enough to judge a version on."""
_FEWEST_HELD: Final = 40
"""Held-out rows with which a version can be judged at all."""
_DEFAULT_ROWS: Final = 200
"""`promotion.min_rows`, where nothing else is said."""


@dataclass(frozen=True)
class Schedule:
    """When batches start, and what is trained on.

    Attributes
    ----------
    batch : Timedelta
        Length of a batch.
    until : Timestamp
        End of the rows that train the first version.
    holdout : Timedelta
        Newest part of them, on which a version is judged.
    min_rows : int or None
        Fewest rows to judge on; None: the default.
    rows : int
        Rows of the usual batch.
    batches, live : int
        Batches of the whole history, and after `until`.
    fitted, held : int
        Labelled rows before the holdout, and in it.
    """

    batch: pd.Timedelta
    until: pd.Timestamp
    holdout: pd.Timedelta
    min_rows: int | None
    rows: int
    batches: int
    live: int
    fitted: int
    held: int


def arrival_of(rows: int, today: pd.Timestamp) -> Arrival:
    """Spread the rows of a table without a time evenly, so that the last comes before today.

    Parameters
    ----------
    rows : int
        Rows of the table.
    today : Timestamp
        The midnight at which the last row has come.
    """
    lengths = [pd.Timedelta(text) for text in _EVERY]
    fits = [one for one in lengths if _BATCHES <= rows / (_WEEK / one) <= _MOST_BATCHES]
    enough = [one for one in fits if _WEEK / one >= _ROWS]
    if not fits:
        every = lengths[0] if rows < _BATCHES * (_WEEK / lengths[0]) else lengths[-1]
    else:
        every = max(enough) if enough else min(fits)
    return Arrival(start=(today - rows * every).isoformat(), every=every)


def schedule(
    times: pd.Series, known_at: pd.Series, *, batch: pd.Timedelta | None = None
) -> Schedule:
    """Choose the length of a batch, the end of the first training window and its held-out part.

    Parameters
    ----------
    times : Series of datetime
        Time of each row.
    known_at : Series of datetime
        When the target of each row is known; null if it is not.
    batch : Timedelta, optional
        Length of a batch, if it is given.
    """
    times = _usual(times.dropna())
    start = times.min().normalize()
    batch = batch or _batch(times, start)
    unit = _DAY if batch >= _DAY else pd.Timedelta("1h")
    end = times.max().floor(unit) + unit
    batches = int((end - start) / batch)
    live = min(max(_LIVE[0], batches // 5), _LIVE[1])
    live = max(1, min(live, max(batches - _REFERENCE, batches // 4)))
    until = end - live * batch
    labelled = times[known_at.reindex(times.index) < until]
    parts = _held(labelled, until, batch, batches - live)
    holdout = parts * batch
    held = int(((labelled >= until - holdout) & (labelled < until)).sum())
    return Schedule(
        batch=batch,
        until=until,
        holdout=holdout,
        min_rows=max(20, held // 2) if held < _DEFAULT_ROWS * 5 // 4 else None,
        rows=int(_median(times, start, batch)),
        batches=batches,
        live=live,
        fitted=int((labelled < until - holdout).sum()),
        held=held,
    )


def _usual(times: pd.Series) -> pd.Series:
    """Times but those that lie far from nearly all others, such as 1900-01-01 for unknown."""
    low, high = times.quantile(_OUTER), times.quantile(1 - _OUTER)
    return times[times.between(low - (high - low), high + (high - low))]


def far_off(times: pd.Series) -> int:
    """How many times lie far from nearly all others."""
    times = times.dropna()
    return len(times) - len(_usual(times))


def _batch(times: pd.Series, start: pd.Timestamp) -> pd.Timedelta:
    """The shortest round length with enough rows, of whole weeks where the history is long.

    A batch is at least as long as the usual gap between two times, or batches would be empty.
    """
    lengths = [pd.Timedelta(text) for text in _LENGTHS]
    span = times.max() - start
    gaps = pd.Series(np.sort(times.unique())).diff().dropna()
    gap = gaps.quantile(0.9) if len(gaps) else pd.Timedelta(0)
    least = max(gap, _WEEK if span >= _WEEKS * _WEEK else pd.Timedelta(0))
    long = [one for one in lengths if one >= least] or lengths[-1:]
    fits = [one for one in long if span / one >= _BATCHES] or long[:1]
    enough = [one for one in fits if _median(times, start, one) >= _ROWS]
    return enough[0] if enough else fits[-1]


def _median(times: pd.Series, start: pd.Timestamp, length: pd.Timedelta) -> float:
    """Rows of the median batch, of all or of the newest quarter, whichever are fewer.

    Batches will come at the rate of the newest rows; empty batches count.
    """
    counts = np.bincount(((times - start) // length).to_numpy(dtype=np.int64))
    newest = counts[-max(1, len(counts) // 4) :]
    return float(min(np.median(counts), np.median(newest)))


def _held(labelled: pd.Series, until: pd.Timestamp, batch: pd.Timedelta, blocks: int) -> int:
    """Batches that are held out: enough rows to judge on, and at most a quarter of them.

    More only where the newest batches hold next to nothing.
    """
    usual = max(2, blocks // 4)
    for parts in range(2, max(usual, blocks)):
        newest = ((labelled >= until - parts * batch) & (labelled < until)).sum()
        if newest >= _HELD or (parts >= usual and newest >= _FEWEST_HELD):
            return parts
    return usual


def explained(plan: Schedule) -> str:
    """Why a batch is as long as it is."""
    weeks = ", in whole weeks" if plan.batch % _WEEK == pd.Timedelta(0) else ""
    return (
        f"{plan.rows:,} rows in the usual batch and {plan.batches:,} batches in the history, of "
        f"{spelled(plan.batch)} each{weeks}"
    )
