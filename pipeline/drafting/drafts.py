"""The draft of a configuration: every choice with what it was made from."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline.columns import as_time
from pipeline.config import (
    RESERVED,
    Arrival,
    Categorical,
    Data,
    FileSource,
    Numeric,
    Source,
    spelled,
)
from pipeline.data import tables as own_tables
from pipeline.data.dialects import is_csv
from pipeline.data.validation import NoValidRowError, validate
from pipeline.drafting.estimators import estimator_of
from pipeline.drafting.judging import REFUSED, Kept, LeftOut, judge_columns
from pipeline.drafting.leaks import Judge
from pipeline.drafting.order import sorted_by
from pipeline.drafting.roles import Roles, Target, find_roles, find_target
from pipeline.drafting.schedule import Schedule, arrival_of, explained, far_off, schedule
from pipeline.drafting.sourcing import windowed
from pipeline.drafting.tables import Table, typed
from pipeline.errors import DataError


@dataclass(frozen=True)
class Draft:
    """A configuration and the reasons for it.

    Attributes
    ----------
    source : Source
        Where its rows come from.
    target : Target
        What is predicted.
    roles : Roles
        Time, key and time of the labels.
    arrival : Arrival or None
        When rows come that have no time.
    sorted_by : str
        Column by which a table without a time looks sorted; empty if there is none.
    kept, left_out : list
        Features, and columns that the model does not see.
    plan : Schedule
        Batches, training window and held-out part.
    estimator : tuple
        Import path, parameters and the reason.
    rows, columns, doubled : int
        Rows and columns of the table, and rows that repeat another one.
    comments : dict of str to str
        What was seen of roles.
    """

    source: Source
    target: Target
    roles: Roles
    arrival: Arrival | None
    sorted_by: str
    kept: list[Kept]
    left_out: list[LeftOut]
    plan: Schedule
    estimator: tuple[str, dict[str, Any], str]
    rows: int
    columns: int
    doubled: int
    comments: dict[str, str]

    @property
    def data(self) -> Data:
        """The section `data` of the configuration."""
        roles = self.roles
        given = {
            "key": roles.key,
            "time": roles.time,
            "arrival": self.arrival,
            "label_time": roles.label_time,
            "classes": self.target.classes,
        }
        return Data(
            train=self.source,
            target=self.target.name,
            key_unique=roles.key_unique,
            features={one.name: one.column for one in self.kept},
            **{name: value for name, value in given.items() if value is not None},
        )


def draft(
    rows: pd.DataFrame,
    source: Source,
    target: str,
    *,
    time: str | None = None,
    key: str | None = None,
    today: pd.Timestamp,
) -> Draft:
    """Draft the configuration of a model from the rows of its source.

    Parameters
    ----------
    rows : DataFrame
        All rows, read without any declaration.
    source : Source
        Where they come from.
    target : str
        The column to predict.
    time, key : str, optional
        The columns of time and key; empty: the best that is found.
    today : Timestamp
        The midnight before which the rows of a table without a time have come.

    Raises
    ------
    DataError
        If a named column does not exist or cannot have its role, the target is neither numbers nor
        labels of classes, or no column is left for the model.
    """
    files = isinstance(source, FileSource)
    csv = isinstance(source, FileSource) and is_csv(source)
    _check_names(rows)
    table = typed(rows, csv=csv, files=files, decimal=getattr(source, "decimal", "."))
    aim = find_target(table, target)
    roles = find_roles(table, target, time=time, key=key)
    written = [table.formats[name] for name in roles.moments if name in table.formats]
    options = {"na_values": table.nulls, "date_format": written[0] if written else None}
    source = source.model_copy(update={name: it for name, it in options.items() if it})
    arrival, by = None, ""
    if roles.time is None:
        by = sorted_by(table, target)
        arrival = arrival_of(len(rows), today).model_copy(
            update={"shuffled": len(rows) if by else 0}
        )
    order = _order(table, roles, shuffled=bool(by))
    classes = len(aim.classes or "01")
    judge = Judge(table.frame.iloc[order], aim.labels.iloc[order], aim.task, classes)
    kept, left_out = judge_columns(table, aim, roles, judge=judge)
    if not kept:
        message = (
            "The table must hold a column that a model can learn from. Got "
            f"{'; '.join(f'{one.name}: {one.why}' for one in left_out[:5]) or 'none'}. Add columns."
        )
        raise DataError(message)
    plan = _plan(table, aim, roles, arrival)
    drafted = Draft(
        source=source,
        target=aim,
        roles=roles,
        arrival=arrival,
        sorted_by=by,
        kept=kept,
        left_out=left_out,
        plan=plan,
        estimator=estimator_of(aim.task, plan.fitted),
        rows=len(rows),
        columns=rows.shape[1],
        doubled=int(
            table.frame.drop(columns=[roles.key or ""], errors="ignore").duplicated().sum()
        ),
        comments=_comments(table, roles, plan),
    )
    narrowed = replace(drafted, source=windowed(source, roles.time))
    return _accepting(*_read_back(narrowed, source))


def _check_names(rows: pd.DataFrame) -> None:
    taken = sorted(str(name) for name in rows.columns if str(name).startswith(RESERVED))
    if taken:
        names = ", ".join(taken)
        message = f"No column may begin with {RESERVED!r}. Got {names}. Rename it in the source."
        raise DataError(message)


def _order(table: Table, roles: Roles, *, shuffled: bool) -> np.ndarray[Any, Any]:
    """Places of the rows in the order in which they come."""
    if roles.time is not None:
        return table.frame[roles.time].argsort(kind="stable").to_numpy()
    places = np.arange(len(table.frame))
    return np.random.default_rng(0).permutation(places) if shuffled else places


def _plan(table: Table, aim: Target, roles: Roles, arrival: Arrival | None) -> Schedule:
    known = aim.labels.notna()
    if arrival is None:
        times = table.frame[roles.time]
        known_at = times if roles.label_time is None else table.frame[roles.label_time]
        return schedule(times, known_at.where(known))
    turns = np.arange(len(table.frame)) * arrival.every.to_timedelta64()
    times = pd.Series(arrival.start.as_unit("us") + pd.to_timedelta(turns), index=known.index)
    return schedule(times, times.where(known), batch=pd.Timedelta("7D"))


def _comments(table: Table, roles: Roles, plan: Schedule) -> dict[str, str]:
    found = {"batch": explained(plan)}
    if roles.time is not None:
        times = table.frame[roles.time]
        low, high = times.min(), times.max()
        more = roles.comments.get("time", "")
        if times.isna().any():
            more = f"; {times.isna().sum():,} rows without a time are refused{more}"
        if far := far_off(times):
            more = f"; {far:,} lie far from all others: check them{more}"
        found["time"] = f"seen: {low:%Y-%m-%d %H:%M} .. {high:%Y-%m-%d %H:%M}{more}"
    return found


def _read_back(drafted: Draft, source: Source) -> tuple[Draft, pd.DataFrame]:
    """Read the rows as training will; `source` replaces a narrowed query that loses some."""
    try:
        rows = own_tables.read(drafted.source, drafted.data)
    except DataError:
        if drafted.source == source:
            raise
        rows = pd.DataFrame()
    if len(rows) < drafted.rows and drafted.source != source:
        drafted = replace(drafted, source=source)
        rows = own_tables.read(drafted.source, drafted.data)
    return drafted, rows


def _accepting(drafted: Draft, rows: pd.DataFrame) -> Draft:
    """Drop the rules of features that refuse more than a few of the very rows.

    Raises
    ------
    DataError
        If rows are refused for another reason.
    """
    reasons = _refusals(drafted, rows)
    if not reasons:
        return drafted
    rules = {why.rpartition(" must ")[0] for why in reasons}
    kept = [_without_rules(one) if one.name in rules else one for one in drafted.kept]
    milder = replace(drafted, kept=kept)
    left = _refusals(milder, rows)
    if left:
        most = max(left, key=lambda why: left[why])
        message = (
            f"{left[most]:,} of {drafted.rows:,} rows would be refused: {most}. Mend the source, "
            "or name other columns with --time and --key."
        )
        raise DataError(message)
    return milder


def _refusals(drafted: Draft, rows: pd.DataFrame) -> dict[str, int]:
    """Reasons why rows are refused, if more than a few are."""
    try:
        checked = validate(rows, drafted.data, source="the source")
    except NoValidRowError as error:
        return error.validated.reasons
    # What no row holds a time of cannot be judged, and was seen when the time was chosen.
    timed = as_time(checked.quarantined[drafted.data.time]).notna()
    return checked.reasons if timed.sum() > REFUSED * len(rows) else {}


def _without_rules(one: Kept) -> Kept:
    kind = Numeric if isinstance(one.column, Numeric) else Categorical
    return replace(one, column=kind(nullable=True))


def spelled_arrival(arrival: Arrival) -> dict[str, Any]:
    """An arrival as a file names it."""
    values = {"start": arrival.start.isoformat(), "every": spelled(arrival.every)}
    return values | ({"shuffled": arrival.shuffled} if arrival.shuffled else {})
