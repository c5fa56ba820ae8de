"""Options that many commands share: a moment, and what is printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token


def _moment(_: Any, tokens: Sequence[Token]) -> str:
    """A date or time in ISO 8601 as naive UTC, the clock of all stored times."""
    given = tokens[0].value
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        rule = f"must be a date or time such as 2013-02-26 or 2013-02-26T06:00. Got {given!r}."
        raise ValueError(rule) from None
    naive = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    return naive.isoformat(timespec="auto" if naive.second or naive.microsecond else "minutes")


Moment = Annotated[str | None, Parameter(converter=_moment)]


@Parameter(name="*", group=Group("Output", sort_key=1))
@dataclass(frozen=True)
class Output:
    """What a command prints."""

    json: bool = False
    """Print the result as one JSON object on the last line of standard output, nothing else."""
    verbose: bool = False
    """Print everything that is logged as well, with tracebacks."""


PLAIN = Output()
