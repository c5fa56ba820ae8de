"""The other sections: training, promotion, monitoring, alerts, serving, retention, tracking."""

import re
from datetime import datetime, time, tzinfo
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, field_validator

from pipeline.config.fields import Length, Moment, Section, written
from pipeline.logs import LogFormat

Severity = Literal["info", "warning", "failure"]
"""How much an event matters."""
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""The least severe first."""


class Costs(Section):
    """What wrong decisions about two classes cost, both in one unit; only their ratio decides."""

    false_positive: float = Field(gt=0, lt=1e100)
    """Cost of deciding for 1 where 0 is true."""
    false_negative: float = Field(gt=0, lt=1e100)
    """Cost of deciding for 0 where 1 is true."""

    @property
    def threshold(self) -> float:
        """The chance of 1 from which deciding for 1 costs less than deciding for 0."""
        return self.false_positive / (self.false_positive + self.false_negative)


class Training(Section):
    """How a version is trained."""

    estimator: str = "xgboost.XGBClassifier"
    """Import path of any estimator with scikit-learn's interface."""
    params: dict[str, Any] = Field(default={})
    """Arguments of the estimator."""
    search: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default={})
    """Values of `params` that `holdfast tune` chooses among; empty: ranges that suit XGBoost, the
    histogram boosting and forests of scikit-learn, and its linear models with a penalty."""
    until: Moment | None = None
    """The first version is trained on rows before this moment; empty: on all rows."""
    window: Length | None = None
    """Length of the history to train on; empty: all of it."""
    holdout: Length = written("14D")
    """Newest part of the window, on which a version is judged before it is refitted with it; by
    default two batches where these are longer."""
    loss: Literal["squared", "absolute", "log"] | None = None
    """Error by which models of a regression are compared: squared (the default), absolute, or
    squared after a logarithm, log(1 + y), where errors are relative. The estimator's own objective
    is one of its `params`."""
    intervals: float | None = Field(default=None, ge=0.5, lt=1)
    """Share of targets that an interval around each prediction of a regression, or a set of classes
    for each row of a classification, shall hold, such as 0.9; empty: neither."""
    calibration: Literal["sigmoid", "isotonic"] | None = None
    """How predicted chances are moved to the shares that are seen, where that lowers the log-loss
    of held-out rows; empty: not at all."""
    costs: Costs | None = None
    """What wrong decisions about two classes cost, from which a threshold follows; empty: chances
    are predicted, and nothing is decided."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of everything random."""

    def metric(self, task: str) -> str:
        """The metric by which models of a task are compared; smaller is better."""
        if task == "classification":
            return "log_loss"
        errors = {"absolute": "mae", "log": "squared_log_error"}
        return errors.get(self.loss or "", "squared_error")


class Promotion(Section):
    """What a challenger has to show to become champion."""

    first: Literal["serve", "refuse"] = "refuse"
    """What becomes of a first version that is not better than the trivial baseline: it serves
    anyway, is watched and can be replaced, or it is refused. People are paged either way."""

    min_gain: float = Field(default=-0.02, gt=-1, lt=1)
    """Smallest relative gain in the loss over the champion. The fit that is judged lacks the
    newest rows that the served fit has, so that a small loss may be accepted (a negative gain)."""
    confidence: float = Field(default=0.8, gt=0.5, lt=1)
    """Confidence that the gain is that large, by paired bootstrap over parts of a batch."""
    min_rows: int = Field(default=200, ge=20)
    """Fewest labelled rows to judge on."""
    max_loss: float | None = Field(default=None, gt=0)
    """Largest mean loss of a challenger, whatever the champion's; empty: no limit."""
    slices: tuple[str, ...] = ()
    """Features whose values are judged separately, such as a carrier: at the gate, and by the
    monitor, for drift and once labels have come for performance, which cuts numbers at their
    quartiles and leaves private features out."""
    slice_rows: int = Field(default=200, ge=20)
    """Fewest rows of a slice that is judged: with labels, or of training for drift."""
    slice_loss: float = Field(default=0.1, gt=0)
    """Largest relative worsening against the champion on a slice."""
    approval: Literal["automatic", "manual"] = "automatic"
    """Whether a person has to approve a version that passed the gate."""
    shadow: int = Field(default=0, ge=0)
    """Live batches that a challenger scores beside the champion, and is judged on as well."""


class Monitoring(Section):
    """When a batch alarms and what follows."""

    batch: Length = written("7D")
    """Length of a live batch, and of the blocks of the reference."""
    alpha: float = Field(default=0.05, gt=0, le=0.5)
    """Chance that a batch with nothing wrong alarms, over all tests together."""
    persistence: int = Field(default=3, ge=2, le=100)
    """Batches that are judged together before drift counts as persistent."""
    cooldown: int = Field(default=4, ge=0)
    """Batches after a request for a retrain before the next request."""
    performance_loss: float = Field(default=0.05, ge=0)
    """Relative worsening of the loss against the held-out baseline that opens an episode."""
    harmless: Literal["retrain", "record"] = "retrain"
    """What to do about drift while the champion's last batches show that its loss stays within
    `performance_loss`: retrain as for any drift, or only record it."""
    escalate_after: int = Field(default=3, ge=1)
    """Broken batches in a row with a fault that nobody answers for, after which people are paged
    again, with what would follow if the fault were the world as it is now. They are paged about the
    first of these batches, then after this many, and at each doubling."""
    on_unanswered: Literal["hold", "accept"] = "hold"
    """What a fault counts as that nobody has answered for in `escalate_after` batches in a row:
    `hold` keeps the batches set aside; `accept` takes it for the world as it is now, so that the
    batches count and models are trained on them."""
    diagnosis: bool = True
    """Whether batches with a recognised fault are set aside; if not, they count as moved."""
    broken_alpha: float = Field(default=0.01, gt=0, le=1)
    """Largest share of sound batches that may show again, and more clearly, what blocks of the
    reference showed of a fault, over all faults and columns together. What a fault has to exceed
    grows with what the blocks showed of it; a fault that none of them showed has no such limit. At
    1 there are no limits."""


class Route(Section):
    """An address that takes pages from a severity on."""

    url: SecretStr
    """Apprise address."""
    least: Severity = "info"
    """Least severe pages to send there: `info` (promotions, what is resolved), `warning` (drift,
    decisions of the gate) or `failure` (broken batches, lost performance, failed runs, silence)."""


class Alerts(Section):
    """Whom to page, and when."""

    urls: tuple[SecretStr, ...] = ()
    """Apprise addresses; better set as HOLDFAST__ALERTS__URLS than in a file."""
    routes: tuple[Route, ...] = ()
    """Further addresses, each with the least severe pages that it takes; better set as
    HOLDFAST__ALERTS__ROUTES than in a file."""
    quiet: str | None = None
    """Hours in which only failures are sent and all else waits, such as `22:00-07:00` or
    `22:00-07:00 Europe/Vienna`; UTC where no time zone is named."""
    per_hour: int = Field(default=10, ge=1)
    """Most messages to an address within an hour; further pages wait, and become one message."""

    @field_validator("quiet")
    @classmethod
    def _hours(cls, quiet: str | None) -> str | None:
        if quiet is not None:
            _quiet_hours(quiet)
        return quiet

    @property
    def all_routes(self) -> list[Route]:
        """Each address once, with the least severe pages that it takes; `urls` take all."""
        routes = [*(Route(url=url) for url in self.urls), *self.routes]
        widest: dict[str, Route] = {}
        for route in sorted(routes, key=lambda one: SEVERITIES.index(one.least)):
            widest.setdefault(route.url.get_secret_value(), route)
        return list(widest.values())

    def is_quiet(self, moment: float) -> bool:
        """Whether a moment, in seconds since 1970, lies in the quiet hours."""
        if self.quiet is None:
            return False
        start, end, zone = _quiet_hours(self.quiet)
        now = datetime.fromtimestamp(moment, zone).time()
        return start <= now < end if start <= end else now >= start or now < end


def _quiet_hours(quiet: str) -> tuple[time, time, tzinfo]:
    hours, _, zone = quiet.partition(" ")
    start, _, end = hours.partition("-")
    try:
        first, last = (datetime.strptime(one, "%H:%M").time() for one in (start, end))  # noqa: DTZ007 -- a time of day in `zone`
        return first, last, ZoneInfo(zone.strip() or "UTC")
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        message = f"must be hours such as 22:00-07:00 Europe/Vienna. Got {quiet!r}"
        raise ValueError(message) from error


class Serving(Section):
    """The served API."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on."""
    token: SecretStr | None = None
    """Token that requests must carry, `Authorization: Bearer ...`; empty: none is asked for.
    Better set as HOLDFAST__SERVING__TOKEN than in a file."""

    @field_validator("token")
    @classmethod
    def _is_sendable(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not re.fullmatch(r"[!-~]+", token.get_secret_value()):
            message = "must be printable ASCII without blanks, or unset for an API without a token"
            raise ValueError(message)
        return token

    poll: Length = written("10s")
    """How often the registry is asked for its champion."""
    bad_rows: Literal["request", "row"] = "request"
    """What a bad row makes fail: its whole request, or only itself."""
    max_bytes: int = Field(default=8_000_000, ge=1_000)
    """Longest body of a request."""
    max_requests: int = Field(default=64, ge=1)
    """Long requests that wait or are worked on; clients of further ones are asked to retry. Short
    requests are answered at once."""
    max_connections: int = Field(default=512, ge=1)
    """Connections that are open at once; further ones are refused."""
    max_client_connections: int = Field(default=128, ge=1)
    """Connections from one address; set it to `max_connections` behind a proxy, which is one."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that answer, each with the limits above; of more than one, another process starts
    them, and starts those again that end."""
    log_format: LogFormat = "text"
    """How the server logs to standard error: `text`, or `json`, an object on a line."""
    timeout: Length = written("10s")
    """How long a client may take to send the headers of a request, to send its body, and to take
    its answer."""
    captures: Path | None = None
    """The SQLite file of captured predictions; empty: a file in `tracking.folder`."""
    keep: Length = written("365D")
    """How long captured and refused requests and labels are kept."""
    max_capture_bytes: int = Field(default=10_000_000_000, ge=1_000_000)
    """Largest size of the file of captures, of which refused requests take at most a fiftieth; when
    it is full, the oldest requests are deleted before their time."""
    capture: Literal["required", "best_effort"] = "required"
    """Whether a server that cannot write its captures still counts as ready."""


class Retention(Section):
    """How long files are kept that no decision needs; `holdfast prune --apply` deletes them.

    Captures have their own `serving.keep`.
    """

    batches: Length = written("365D")
    """Reports, sampled rows and stored predictions of batches; decisions, metrics, tags and what
    decisions were made from are kept for good."""
    quarantine: Length = written("365D")
    """Files of refused rows."""
    pages: Length = written("365D")
    """Pages that were delivered or given up, beyond the week for which a page is tried."""


def fitting_an_address(folder: Path) -> Path:
    """Check that an address may hold a folder, as that of MLflow's store does."""
    if odd := sorted(set("?#%") & set(str(folder.absolute()))):
        rule = f"must not hold {' or '.join(odd)}, which mean something in MLflow's address"
        raise ValueError(f"{rule}. Got {folder.absolute()}")
    return folder


class Tracking(Section):
    """Where runs, artifacts and captures are kept."""

    # Where this module is imported says nothing about where a model is kept.
    folder: Path = Field(default=Path(".holdfast"), validate_default=False)
    """The one folder of all state on disk."""
    uri: str | None = None
    """MLflow's address; empty: MLFLOW_TRACKING_URI, else SQLite in `folder`."""
    locks: SecretStr | None = None
    """PostgreSQL database whose locks keep several hosts apart; empty: `uri` if that is one, else
    files in `folder`, which only keep the processes of one host apart."""

    @field_validator("folder")
    @classmethod
    def _fits_an_address(cls, folder: Path) -> Path:
        return fitting_an_address(folder)

    @field_validator("locks")
    @classmethod
    def _is_postgresql(cls, locks: SecretStr | None) -> SecretStr | None:
        if locks is not None and not locks.get_secret_value().startswith("postgresql"):
            message = "must be the address of a PostgreSQL database: postgresql+pg8000://..."
            raise ValueError(message)
        return locks
