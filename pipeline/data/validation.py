"""Splits rows into valid and refused ones, and keeps the refused ones with their reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pandera.errors import SchemaErrors

from pipeline.columns import (
    as_target,
    as_text,
    as_time,
    conform,
    range_rule,
    require,
)
from pipeline.config import REASON, Categorical, Data, Numeric
from pipeline.data.contract import pandera_schema
from pipeline.data.labels import comparable
from pipeline.data.repeats import Seen
from pipeline.errors import DataError, writing

_NUMBER = "must be a number"
_DERIVED = "must be derived from values that can be read"
_TIME = "must be a time"
_NULL = "must not be null"
_UNIQUE = "multiple_fields_uniqueness"
"""Pandera's name of the check that rows are distinct."""


@dataclass(frozen=True)
class Validated:
    """The rows of a batch, split into valid and refused ones. No row is lost.

    Attributes
    ----------
    valid : DataFrame
        Conformed rows that obey the declared rules, with all columns of the source.
    quarantined : DataFrame
        Refused rows, unchanged, with an extra column ``quarantine_reason``.
    reasons : dict of str to int
        Number of rows refused for each reason; a row may have several reasons.
    labels : Series or None
        Targets of `valid` as they arrived, if some of them are not labels and null in `valid`.
    """

    valid: pd.DataFrame
    quarantined: pd.DataFrame
    reasons: dict[str, int]
    labels: pd.Series | None = None


def validate(frame: pd.DataFrame, data: Data, *, source: str = "batch") -> Validated:
    """Split rows into rows that obey the declared rules and rows that break one.

    Parameters
    ----------
    frame : DataFrame
        Rows as the source returned them, with key, time and features.
    data : Data
        The declared columns and their roles.
    source : str
        What to call the rows in an error message.

    Raises
    ------
    NoValidRowError
        If there are no rows, a feature is missing, or no row is valid.
    DataError
        If the key or time column is missing, or two columns share a name.
    """
    if frame.empty:
        message = f"{source} has no rows. Check the source for this window."
        raise NoValidRowError(message, _all_refused(frame, data, []))
    found = split(frame, data)
    if found.valid.empty:
        raise NoValidRowError(none_valid(source, found.reasons, len(frame)), found)
    return found


def split(frame: pd.DataFrame, data: Data, seen: Seen | None = None) -> Validated:
    """Split rows as `validate` does, though none may be valid.

    Parameters
    ----------
    frame : DataFrame
        Rows as the source returned them, with key, time and features.
    data : Data
        The declared columns and their roles.
    seen : Seen, optional
        The keys of earlier parts, if the rows are a part of a table. A row that repeats an earlier
        key is refused, and the keys of these rows are added.

    Raises
    ------
    NoValidRowError
        If a feature is missing.
    DataError
        If the key or time column is missing, or two columns share a name.
    """
    _require(frame, data)
    rows = frame.reset_index(drop=True)
    checked = _conform(rows, data)
    reasons = _unreadable(rows, checked, data)
    if seen is not None:
        reasons = pd.concat([reasons, _repeated(checked, data, seen)])
    try:
        schema = pandera_schema(data.features, key=data.key, time=data.time, identity=data.identity)
        schema.validate(checked, lazy=True)
    except SchemaErrors as error:
        reasons = pd.concat([reasons, _failures(error, data, reasons)])
    refused = reasons.index.unique().sort_values()
    text = reasons.groupby(level=0).agg("; ".join)
    quarantined = rows.loc[refused].assign(**{REASON: text.reindex(refused)})
    others = rows.drop(columns=[*data.features, data.key, data.time])
    valid = pd.concat([checked, others], axis=1).drop(index=refused)
    counts = most_frequent({str(reason): int(n) for reason, n in reasons.value_counts().items()})
    return Validated(valid.reset_index(drop=True), quarantined.reset_index(drop=True), counts)


def most_frequent(reasons: Mapping[str, int]) -> dict[str, int]:
    """Reasons, the most frequent first; equally frequent ones by the alphabet."""
    return dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0])))


def none_valid(source: str, reasons: dict[str, int], rows: int) -> str:
    """Say that none of some rows is valid, and why most are not."""
    most, n = next(iter(reasons.items()))
    return (
        f"{source} has no valid row among its {rows}; the most frequent reason: "
        f"{most} ({n} rows). Fix the source or data.features."
    )


def with_labels(validated: Validated, data: Data, task: str) -> Validated:
    """Convert the labels of valid rows to numbers; a value that is not a label becomes null.

    A stray label says nothing against its row, so the row stays and counts as unlabelled.
    """
    target = data.target
    if target not in validated.valid:
        return validated
    came = validated.valid[target]
    labels, strays = as_target(came, task, data.class_count)
    mixed = labels.astype(object).where(~strays, came) if strays.any() else None
    return replace(validated, valid=validated.valid.assign(**{target: labels}), labels=mixed)


def stray_labels(validated: Validated, data: Data) -> pd.Series:
    """Targets of valid rows, as they arrived, that `with_labels` found not to be labels."""
    if validated.labels is None:
        return pd.Series(dtype=object)
    return validated.labels[validated.valid[data.target].isna()].dropna()


def as_they_came(validated: Validated, target: str) -> pd.DataFrame:
    """Valid rows with their targets as they arrived, even values that are not labels."""
    if validated.labels is None:
        return validated.valid
    return validated.valid.assign(**{target: validated.labels})


class NoValidRowError(DataError):
    """No row of a batch is valid; `validated` holds the refused rows, so that none is lost."""

    def __init__(self, message: str, validated: Validated) -> None:
        super().__init__(message)
        self.validated = validated


def _require(frame: pd.DataFrame, data: Data) -> None:
    try:
        require(frame, [data.key, data.time, *data.features])
    except DataError as error:
        known = frame.columns
        if not known.is_unique or data.key not in known or data.time not in known:
            raise
        reasons = [f"{name} must be present" for name in data.features if name not in known]
        raise NoValidRowError(str(error), _all_refused(frame, data, reasons)) from error


def _all_refused(frame: pd.DataFrame, data: Data, reasons: list[str]) -> Validated:
    """Refuse all rows at once, without checking them one by one."""
    names = dict.fromkeys([*frame.columns, data.key, data.time, *data.features])
    none = pd.DataFrame(columns=list(names))
    checked = _conform(none, data)
    valid = pd.concat([checked, none.drop(columns=checked.columns)], axis=1)
    refused = frame.reset_index(drop=True).assign(**{REASON: "; ".join(reasons)})
    return Validated(valid, refused, dict.fromkeys(reasons, len(refused)))


def _conform(rows: pd.DataFrame, data: Data) -> pd.DataFrame:
    return conform(rows, data.features).assign(
        **{data.key: comparable(rows[data.key]), data.time: as_time(rows[data.time])}
    )


def _unreadable(rows: pd.DataFrame, checked: pd.DataFrame, data: Data) -> pd.Series:
    """Find values that conforming turned into nulls because it could not read them."""
    rules = {n: _NUMBER for n, column in data.features.items() if isinstance(column, Numeric)}
    found = []
    for name, rule in (rules | {data.time: _TIME}).items():
        bad = rows.index[checked[name].isna() & rows[name].notna()]
        found.append(pd.Series(f"{name} {rule}", index=bad, dtype="str"))
    for name, derived in data.derive.items():
        if isinstance(data.features.get(name), Categorical):
            marked = checked[name].str.startswith(f"{derived.function}(").fillna(value=False)
            bad = rows.index[marked.astype(bool)]
            found.append(pd.Series(f"{name} {_DERIVED}", index=bad, dtype="str"))
    return pd.concat(found)


def _failures(error: SchemaErrors, data: Data, already: pd.Series) -> pd.Series:
    cases = error.failure_cases.dropna(subset=["index"])
    # Pandera reports a repetition once for each of the columns that identify a row.
    again = (cases["check"] == _UNIQUE) & (cases["column"] != data.key)
    cases = cases[~again]
    text = [
        _reason(str(column), str(check), data)
        for column, check in zip(cases["column"], cases["check"], strict=True)
    ]
    reasons = pd.Series(text, index=pd.Index(cases["index"].astype("int64")), dtype="str")
    # An unreadable value has become a null and has its reason already.
    nulls = already.str.removesuffix(_NUMBER).str.removesuffix(_TIME) + _NULL
    known = {*nulls.items(), *already.items()}
    return reasons[[case not in known for case in reasons.items()]]


def _repeated(checked: pd.DataFrame, data: Data, seen: Seen) -> pd.Series:
    """Find rows that repeat one of an earlier part."""
    keyed = checked.loc[checked[data.key].notna(), data.identity]
    again = keyed.index[seen.again(keyed)]
    return pd.Series(_reason(data.key, _UNIQUE, data), index=again, dtype="str")


def _reason(name: str, check: str, data: Data) -> str:
    column = data.features.get(name)
    if check == "not_nullable":
        return f"{name} {_NULL}"
    if check == _UNIQUE:
        together = " together" if len(data.identity) > 1 else ""
        return f"{' and '.join(data.identity)} must be unique{together}"
    if isinstance(column, Categorical):
        return f"{name} must be one of {{{', '.join(column.values or ())}}}"
    if isinstance(column, Numeric):
        return f"{name} {range_rule(column)}"
    return f"{name} must obey {check}"


def quarantine(validated: Validated, folder: Path, batch: str) -> Path | None:
    """Write the refused rows of a batch to a file of its name, replacing an earlier one.

    Returns
    -------
    Path or None
        The Parquet file; None when no row was refused.
    """
    path = folder / f"{batch}.parquet"
    if validated.quarantined.empty:
        if path.exists():
            with writing(folder):
                path.unlink(missing_ok=True)
        return None
    keep(validated.quarantined, path)
    return path


def keep(rows: pd.DataFrame, path: Path) -> None:
    """Write rows to a Parquet file; a killed process never leaves half of one."""
    partial = path.with_suffix(".partial")
    with writing(path.parent):
        storable(rows).to_parquet(partial)
        partial.replace(path)


def storable(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert columns of mixed types, which Parquet cannot store, to text."""
    mixed = [name for name in frame.columns if not _is_uniform(frame[name])]
    return frame.assign(**{name: as_text(frame[name]) for name in mixed}).rename(columns=str)


def _is_uniform(values: pd.Series) -> bool:
    if isinstance(values.dtype, pd.DatetimeTZDtype):  # pandas warns of Arrow's way to its values
        return True
    try:
        pa.Array.from_pandas(values)
    # Arrow cannot store mixed types, integers beyond 64 bits or half surrogate pairs.
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return False
    return True
