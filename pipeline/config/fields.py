"""What all sections of the settings share: how strict they are, and how they read times.

A file spells a length of time as text such as ``7D`` or ``12h``, and a moment as ``2013-02-26``.
The settings hold them as a `pandas.Timedelta` and a naive UTC `pandas.Timestamp`, and dump them as
text again, in the largest unit that fits.
"""

from datetime import date, datetime, timedelta
from typing import Annotated, Any

from pandas import Timedelta, Timestamp, isna
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

_UNITS = ("D", "h", "min", "s", "ms", "us", "ns")


class Section(BaseModel):
    """A part of the settings: it cannot be changed, and unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
        defer_build=True,  # a server of an exported model uses two of them
    )


def written(text: str) -> Any:
    """A default as a file would spell it, so that the schema shows it like that."""
    return Field(default=text)


def _duration(value: Any) -> Timedelta:
    rule = f"must be a length of time such as 7D or 12h. Got {value!r}"
    without_unit = isinstance(value, str) and value.strip().isnumeric()
    if without_unit or not isinstance(value, str | timedelta):
        raise ValueError(rule)
    try:
        length = Timedelta(value)
    except ValueError as error:
        raise ValueError(rule) from error
    if isna(length):
        raise ValueError(rule)
    if length < Timedelta(0):
        rule = f"must not be negative. Got {value!r}"
        raise ValueError(rule)
    return length


def _length(value: Any) -> Timedelta:
    length = _duration(value)
    if length == Timedelta(0):
        rule = f"must be longer than zero. Got {value!r}"
        raise ValueError(rule)
    return length


def spelled(length: Timedelta) -> str:
    """A length of time as a file would spell it, in the largest unit that fits, such as 36h."""
    unit = next(unit for unit in _UNITS if not length % Timedelta(f"1{unit}"))
    return f"{length // Timedelta(f'1{unit}')}{unit}"


_FIRST_YEAR, _LAST_YEAR = 1700, 2261
"""Years whose moments and batches fit into nanoseconds, by which pandas spells them."""


def _moment(value: Any) -> Timestamp:
    rule = f"must be a date or time such as 2013-02-26. Got {value!r}"
    if not isinstance(value, str | date):  # YAML reads an unquoted 2013-02-26 as a date
        raise ValueError(rule)  # noqa: TRY004 -- pydantic reports a ValueError with its key
    try:
        # pandas would read 01/02/2024 as January, and words such as today.
        moment = Timestamp(datetime.fromisoformat(value) if isinstance(value, str) else value)
        moment = moment if moment.tz is None else moment.tz_convert("UTC").tz_localize(None)
    except (ValueError, OverflowError) as error:
        raise ValueError(rule) from error
    if isna(moment):
        raise ValueError(rule)
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        years = f"{_FIRST_YEAR} to {_LAST_YEAR}"
        raise ValueError(f"must be a date or time of the years {years}. Got {value!r}")
    return moment


def _as_iso(moment: Timestamp) -> str:
    return f"{moment:%Y-%m-%d}" if moment == moment.normalize() else moment.isoformat()


_dumped = PlainSerializer(spelled, return_type=str, when_used="json")
Duration = Annotated[Timedelta, PlainValidator(_duration, json_schema_input_type=str), _dumped]
"""A length of time, zero included."""
Length = Annotated[Timedelta, PlainValidator(_length, json_schema_input_type=str), _dumped]
"""A length of time longer than zero."""
Moment = Annotated[
    Timestamp,
    PlainValidator(_moment, json_schema_input_type=str),
    PlainSerializer(_as_iso, return_type=str, when_used="json"),
]
"""A moment in UTC, without a time zone."""
