"""What commands share: the help of all, a moment as an option, and what is printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token

from pipeline.logs import LogFormat

HELP = """\
Train, serve and monitor a tabular model that one YAML file describes.

`holdfast train conf/flights.yaml` trains a version and makes it the champion, `holdfast serve
conf/flights.yaml` serves it, and `holdfast monitor conf/flights.yaml` judges the next batch of live
rows. State is kept in the folder .holdfast, with the log of all commands in .holdfast/logs.

Environment: HOLDFAST__SECTION__KEY overrides a setting of the file. PREFECT_API_URL and
MLFLOW_TRACKING_URI name servers to work with; without them a command needs none.

Exit codes: 0 done, 1 failed, 2 input refused.
"""


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
NamedMoment = Annotated[str, Parameter(converter=_moment)]
"""A moment that has to be given."""


@Parameter(name="*", group=Group("Output", sort_key=1))
@dataclass(frozen=True)
class Output:
    """What a command prints."""

    json: bool = False
    """Print the result as one JSON object on the last line of standard output, nothing else."""
    verbose: bool = False
    """Print everything that is logged as well, with tracebacks."""
    log_format: LogFormat = "text"
    """json: Log each record as one JSON object, to standard error and to the log file."""


PLAIN = Output()
