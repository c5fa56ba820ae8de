"""Which columns of a table are its target, its time, its key and the time of its labels."""

import difflib
from dataclasses import dataclass
from typing import Final, Literal

import pandas as pd

from pipeline.columns import as_target, doubt
from pipeline.drafting.tables import Table
from pipeline.drafting.words import CLASSES, CLOCK, CODES, KEYS, OUTCOME, event_of, words
from pipeline.errors import DataError

FEWEST: Final = 100
"""Labelled rows that a model can be trained and judged on at least."""
SHORTEST_HISTORY: Final = pd.Timedelta("12h")
"""Least time that rows cover which can be cut into batches."""
_MOSTLY: Final = 0.99
_TIMED: Final = 0.9
"""Share of the rows that has a time at least; the others are refused."""
_FEW: Final = 5
_MOST_CLASSES: Final = 50
"""Labels of a target beyond which they are names or free text, and each has few rows."""


@dataclass(frozen=True)
class Target:
    """What is predicted.

    Attributes
    ----------
    name : str
        Its column.
    task : str
        ``classification`` or ``regression``.
    labels : Series of float64
        The target of each row, null where it is not known.
    classes : tuple of str or None
        The labels whose places the target holds, if they are not 0 and 1.
    comment : str
        What was seen.
    """

    name: str
    task: Literal["classification", "regression"]
    labels: pd.Series
    classes: tuple[str, ...] | None
    comment: str


@dataclass(frozen=True)
class Roles:
    """Columns that are not features, because they have another role.

    Attributes
    ----------
    time, key, label_time : str or None
        Names of the columns; None where the table has none.
    key_unique : bool
        Whether a key comes once.
    comments : dict of str to str
        What was seen, for each role.
    """

    time: str | None
    key: str | None
    label_time: str | None
    key_unique: bool
    comments: dict[str, str]

    @property
    def moments(self) -> list[str]:
        """The columns of times."""
        return [name for name in (self.time, self.label_time) if name]

    @property
    def names(self) -> set[str]:
        """The columns that have a role."""
        return {*self.moments, *([self.key] if self.key else [])}


def require_column(table: Table, name: str, option: str) -> None:
    """Check that a column exists that an option names, with one value in each row.

    Raises
    ------
    DataError
        If not, with the columns that are spelled most alike.
    """
    if name in table.frame:
        if table.kinds[name] == "collection":
            got = f"Got lists or maps in {name!r}. Take a value out of them in the source."
            message = f"{option} must name a column of one value in each row. {got}"
            raise DataError(message)
        return
    known = [str(column) for column in table.frame.columns]
    near = difflib.get_close_matches(name, known, n=_FEW, cutoff=0.5) or known[:20]
    message = f"{option} must name a column of the source. Got {name!r}; there are {_some(near)}."
    raise DataError(message)


def find_target(table: Table, name: str) -> Target:
    """Find out what a target asks for.

    Raises
    ------
    DataError
        If the column does not exist, holds too few labels, or is neither numbers nor labels of some
        classes.
    """
    require_column(table, name, "--target")
    values = table.frame[name]
    if values.notna().sum() < FEWEST:
        message = (
            f"Target {name!r} must hold at least {FEWEST} labels, to train and to judge on. "
            f"Got {values.notna().sum()} in {len(values):,} rows. Give more history."
        )
        raise DataError(message)
    texts = table.labels(name)
    shares = texts.value_counts(normalize=True)
    if len(shares) == 1 or table.kinds[name] == "moment":
        got = f"{shares.index[0]} in all rows" if len(shares) == 1 else "moments"
        message = f"Target {name!r} must hold labels or numbers. Got {got}. Name another one."
        raise DataError(message)
    labels, strays = as_target(texts, "classification")
    if not strays.any():
        return Target(name, "classification", labels, None, f"1 in {labels.mean():.1%} of rows")
    if len(shares) == 2:  # noqa: PLR2004 -- two classes
        return _of_two(name, texts, shares)
    number = table.kinds[name] == "number"
    named = (
        number
        and bool(set(words(name)) & (CODES | CLASSES))
        and bool((values.dropna() % 1 == 0).all())
    )
    if number and not (named and len(shares) <= _MOST_CLASSES):
        return Target(name, "regression", values, None, _numbers(values))
    if len(shares) > _MOST_CLASSES:
        message = (
            f"Target {name!r} must hold numbers, or labels of at most {_MOST_CLASSES} classes. Got "
            f"{len(shares)} labels ({_some(list(shares.index))}). Group them in the source, or add "
            "a column of 0 and 1 for the class to predict."
        )
        raise DataError(message)
    return _of_several(name, texts, shares, named=named)


def _of_two(name: str, texts: pd.Series, shares: pd.Series) -> Target:
    rarer = str(shares.index[-1])
    event = event_of(shares.index) or rarer
    other = next(str(label) for label in shares.index if label != event)
    labels = texts.map({other: 0.0, event: 1.0}).astype("float64")
    why = "" if event_of(shares.index) else ", taken for the event because it is the rarer one"
    comment = f"{event} in {labels.mean():.1%} of rows{why}"
    return Target(name, "classification", labels, (other, event), comment)


def _of_several(name: str, texts: pd.Series, shares: pd.Series, *, named: bool) -> Target:
    """Three or more classes; numbers are classes where the name of the target says so."""
    classes = tuple(sorted(map(str, shares.index), key=float if named else None))
    labels = texts.map({label: place for place, label in enumerate(classes)}).astype("float64")
    rarest, n = shares.index[-1], int((texts == shares.index[-1]).sum())
    comment = (
        f"{len(classes)} classes, of which {shares.index[0]} is in {shares.iloc[0]:.1%} of rows "
        f"and {rarest} in {n:,}"
    )
    if named:
        comment += f"; numbers, but {name} names classes: else remove classes, and regress"
    return Target(name, "classification", labels, classes, comment)


def _numbers(values: pd.Series) -> str:
    seen = f"seen: {values.min():.6g} .. {values.max():.6g}, mean {values.mean():.4g}"
    if values.nunique() <= _FEW * 2:
        return (
            f"{seen}; numbers of some size: if its {values.nunique()} values are names of classes, "
            "write task: classification and list them in classes"
        )
    return seen


def find_roles(table: Table, target: str, *, time: str | None, key: str | None) -> Roles:
    """Find the time, the key and the time of the labels, as far as they are not named.

    Raises
    ------
    DataError
        If a named column does not exist or cannot have its role.
    """
    for option, name in (("--time", time), ("--key", key)):
        if name is not None:
            require_column(table, name, option)
    named = [name for name in (target, time, key) if name is not None]
    if len(set(named)) < len(named):
        message = (
            "--target, --time and --key must name different columns, as rows that share a time "
            f"would share a key. Got {_some(named)}. Leave --key out for a table without a key."
        )
        raise DataError(message)
    comments: dict[str, str] = {}
    if time is not None:
        _require_moments(table, time)
    else:
        time = _best_time(table, {target, key}, comments)
    unique = True
    if key is not None:
        unique = _is_unique_key(table, key, time)
    else:
        key = _best_key(table, {target, time} - {None})
    label_time = _label_time(table, target, time)
    return Roles(time, key, label_time, unique, comments)


def _require_moments(table: Table, name: str) -> None:
    if table.kinds[name] == "moment":
        if table.frame[name].max() - table.frame[name].min() < SHORTEST_HISTORY:
            message = (
                f"--time must name a column of {SHORTEST_HISTORY / pd.Timedelta('1h'):g} hours or "
                f"more. Got {name!r} from {table.frame[name].min()} to {table.frame[name].max()}. "
                "Give more history, or leave --time out for a table without times."
            )
            raise DataError(message)
        return
    got = table.labels(name).dropna().iloc[:1].tolist()
    message = (
        f"--time must name a column of dates such as 2013-02-26T05:00. Got {name!r} with "
        f"{', '.join(map(repr, got)) or 'no value'}. Convert it in the source, or leave --time out "
        "for a table without times."
    )
    raise DataError(message)


def _best_time(table: Table, taken: set[str | None], comments: dict[str, str]) -> str | None:
    """The column that most likely says when a row came: best in the order of the rows."""
    moments = [
        name
        for name, kind in table.kinds.items()
        if kind == "moment"
        and name not in taken
        and table.frame[name].notna().mean() >= _TIMED
        and table.frame[name].nunique() >= FEWEST // 10
        and table.frame[name].max() - table.frame[name].min() >= SHORTEST_HISTORY
    ]
    if not moments:
        return None

    def merit(name: str) -> tuple[bool, bool, int]:
        values = table.frame[name].dropna()
        named = bool(set(words(name)) & CLOCK)
        outcome = bool(set(words(name)) & OUTCOME)
        return values.is_monotonic_increasing, named and not outcome, -moments.index(name)

    best = max(moments, key=merit)
    days = table.frame[best].dt.normalize()
    others = [n for n in moments if n != best and not (table.frame[n].dt.normalize() == days).all()]
    if others:
        comments["time"] = (
            f"; {_some(others)} hold{'s' if len(others) == 1 else ''} moments too: name with "
            "--time the one at which a prediction is needed"
        )
    return best


def _best_key(table: Table, taken: set[str | None]) -> str | None:
    """A column that identifies rows: named as one first, else of text."""
    found: list[tuple[bool, bool, int, str]] = []
    for name in table.frame.columns:
        values = table.frame[name]
        single = table.kinds[name] != "collection"
        if name in taken or not single or values.isna().any() or not values.is_unique:
            continue
        reason = doubt(values, None)
        if reason is None or reason.kind != "identifier":
            continue
        named = bool(set(words(name)) & KEYS)
        if named or table.kinds[name] == "label" or counts_up(values):
            found.append((not named, table.kinds[name] != "label", len(found), name))
    return min(found)[-1] if found else None


def counts_up(values: pd.Series) -> bool:
    """Whether whole numbers are numbered consecutively, in whatever order they come."""
    return bool(values.max() - values.min() == len(values) - 1)


def _is_unique_key(table: Table, key: str, time: str | None) -> bool:
    """Whether a named key is unique by itself, and not only with the time.

    Raises
    ------
    DataError
        If rows repeat a key, at one time where they have a time.
    """
    together = [key] if time is None else [key, time]
    if not table.frame[key].duplicated().any():
        return True
    if time is not None and not table.frame.duplicated(together).any():
        return False
    message = (
        f"Key column {key!r} must be unique, alone or together with the time. Got "
        f"{table.frame.duplicated(together).sum():,} repeats in {len(table.frame):,} rows. Name "
        "another column, or leave --key out."
    )
    raise DataError(message)


def _label_time(table: Table, target: str, time: str | None) -> str | None:
    """A moment that comes after its row and is named for the outcome."""
    if time is None:
        return None
    known = table.frame[target].notna()
    for name, kind in table.kinds.items():
        if kind != "moment" or name in {time, target}:
            continue
        at = table.frame[name]
        later = (at >= table.frame[time])[known & at.notna()]
        named = set(words(name)) & (OUTCOME | set(words(target)))
        if len({table.formats[one] for one in (time, name) if one in table.formats}) > 1:
            continue
        if named and len(later) and later.mean() >= _MOSTLY and at[known].notna().mean() >= _MOSTLY:
            return name
    return None


def _some(names: list[str]) -> str:
    return ", ".join(map(str, names[:20])) + (", ..." if len(names) > 20 else "")  # noqa: PLR2004
