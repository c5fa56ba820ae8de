"""One YAML file per model, one tree of settings, environment over file.

`Settings.load` reports every mistake at once with dotted keys. Environment variables are
`HOLDFAST__<SECTION>__<KEY>`; they are for machines (addresses, folders, pages), not columns.
"""

import json
import os
import sys
from collections.abc import Callable, Hashable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pandas import Timedelta, Timestamp, isna
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ImportString,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from pipeline.errors import ConfigError

ENV_PREFIX = "HOLDFAST__"


def _duration(text: str) -> str:
    try:
        length = Timedelta(text)
    except (TypeError, ValueError) as error:
        rule = f"must be a length of time such as 7D or 12h. Got {text!r}"
        raise ValueError(rule) from error
    if length < Timedelta(0):
        rule = f"must not be negative. Got {text!r}"
        raise ValueError(rule)
    return text


def _length(text: str) -> str:
    if Timedelta(_duration(text)) == Timedelta(0):
        rule = f"must be longer than nothing. Got {text!r}"
        raise ValueError(rule)
    return text


def _iso(value: Any) -> Any:
    """YAML reads an unquoted 2013-02-26 as a date."""
    return value.isoformat() if isinstance(value, date) else value


def _moment(text: str) -> str:
    rule = f"must be a date or time such as 2013-02-26. Got {text!r}"
    try:
        moment = Timestamp(text)
    except ValueError as error:
        raise ValueError(rule) from error
    if isna(moment):
        raise ValueError(rule)
    return text if moment.tz is None else moment.tz_convert("UTC").tz_localize(None).isoformat()


Duration = Annotated[str, AfterValidator(_duration)]
Length = Annotated[str, AfterValidator(_length)]
Moment = Annotated[str, BeforeValidator(_iso), AfterValidator(_moment)]


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
    )


class Numeric(_Section):
    """A column of numbers."""

    type: Literal["numeric"] = "numeric"
    min: float | None = None
    """Smallest value a row may hold."""
    max: float | None = None
    """Largest value a row may hold."""
    nullable: bool = False
    """Whether a row may come without this value."""
    private: bool = False
    """Whether single values must never leave as stored rows."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            rule = f"min must not exceed max. Got {self.min:g} and {self.max:g}"
            raise ValueError(rule)
        return self


class Categorical(_Section):
    """A column of labels."""

    type: Literal["categorical"] = "categorical"
    values: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The only labels allowed; empty: any label, and a new one counts as drift."""
    nullable: bool = False
    """Whether a row may come without this value."""
    private: bool = False
    """Whether single values must never leave as stored rows."""

    @field_validator("values")
    @classmethod
    def _distinct(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        doubled = sorted({label for label in values or () if (values or ()).count(label) > 1})
        if doubled:
            rule = f"must name each label once. Got {', '.join(doubled)} more than once"
            raise ValueError(rule)
        return values


Column = Annotated[Numeric | Categorical, Field(discriminator="type")]
Columns = dict[str, Column]


class FileSource(_Section):
    """Rows from CSV or Parquet."""

    kind: Literal["file"]
    path: str
    """A path, glob or fsspec URL; the ending tells the format."""


class SqlSource(_Section):
    """Rows from a database."""

    kind: Literal["sql"]
    url: SecretStr
    """An SQLAlchemy address."""
    query: str
    """A SELECT; `:start` and `:end` are bound where it names them."""


class FunctionSource(_Section):
    """Rows from your own code."""

    kind: Literal["function"]
    function: ImportString[Callable[..., Any]]
    """`package.module:name` of a function `(start, end) -> DataFrame`; either end may be None."""

    @field_serializer("function")
    def _import_string(self, function: Any) -> str:
        return f"{function.__module__}:{function.__qualname__}"


class CaptureSource(_Section):
    """Rows that the served API answered."""

    kind: Literal["capture"]


Source = Annotated[
    FileSource | SqlSource | FunctionSource | CaptureSource, Field(discriminator="kind")
]


class Data(_Section):
    """Where rows come from and what they hold."""

    train: Source
    """Rows to train on."""
    live: Source | None = None
    """Rows to monitor; empty: the same source as `train`."""
    labels: Source | None = None
    """Rows of key and target, joined when they have arrived; empty: the target of `live`."""
    key: str
    """Column that identifies a row; labels join by it."""
    time: str
    """Column that orders the rows."""
    target: str
    """Column to predict: 0/1 for classification, a number for regression."""
    label_delay: Duration = "0D"
    """How long after its time a row's label is known."""
    features: Columns = Field(min_length=1)
    """The columns the model sees, each declared once."""

    @field_validator("features")
    @classmethod
    def _roles(cls, features: Columns, info: ValidationInfo) -> Columns:
        roles = {role: info.data[role] for role in ("key", "time", "target") if role in info.data}
        problems = [
            f"{role} column {name!r} must not be a feature as well"
            for role, name in roles.items()
            if name in features
        ]
        if len(set(roles.values())) < len(roles):
            problems.append(f"key, time and target must be three columns. Got {roles}")
        if problems:
            raise ValueError("; ".join(problems))
        return features


class Training(_Section):
    """How a version is made."""

    estimator: str = "xgboost.XGBClassifier"
    """Import path of any estimator with scikit-learn's interface."""
    params: dict[str, Any] = {}
    """Arguments of the estimator."""
    until: Moment | None = None
    """The first version is trained on rows before this; empty: all rows there are."""
    window: Length | None = None
    """Length of history to train on; empty: all of it."""
    holdout: Length = "14D"
    """Newest part of the window that judges a version before it is refitted with it."""
    seed: int = 0
    """Seed of everything random."""


class Promotion(_Section):
    """What a challenger has to show."""

    min_gain: float = Field(default=-0.02, gt=-1, lt=1)
    """Smallest relative gain in the loss over the champion. What is judged lacks the newest rows
    that the served fit has, so that a small loss may be accepted; a larger one is none."""
    confidence: float = Field(default=0.8, gt=0.5, lt=1)
    """How sure the gain has to be, by paired bootstrap over parts of a batch."""
    min_rows: int = Field(default=200, ge=20)
    """Fewest labelled rows to judge on."""
    max_loss: float | None = Field(default=None, gt=0)
    """Largest mean loss of a challenger, whatever the champion's; empty: none."""
    slices: tuple[str, ...] = ()
    """Features whose values are judged one by one, such as a carrier."""
    slice_rows: int = Field(default=200, ge=20)
    """Fewest rows of a slice that is judged."""
    slice_loss: float = Field(default=0.1, gt=0)
    """Largest relative worsening against the champion on a slice."""
    approval: Literal["automatic", "manual"] = "automatic"
    """Whether a person has to approve a version that passed."""
    shadow: int = Field(default=0, ge=0)
    """Live batches that a challenger scores beside the champion, and is judged on as well."""


class Monitoring(_Section):
    """When a batch alarms and what follows."""

    batch: Length = "7D"
    """Length of a live batch, and of the reference's blocks."""
    alpha: float = Field(default=0.05, gt=0, le=0.5)
    """Chance that a batch with nothing wrong alarms, over all tests together."""
    persistence: int = Field(default=3, ge=2)
    """Batches that are judged together before drift counts as persistent."""
    cooldown: int = Field(default=4, ge=0)
    """Batches after a request for a retrain before the next one."""
    performance_loss: float = Field(default=0.05, ge=0)
    """Relative worsening of the loss below the held-out baseline that opens an episode."""
    harmless: Literal["retrain", "record"] = "retrain"
    """Drift under which the champion's last batches are surely no worse than allowed: retrain all
    the same, or only record it."""
    diagnosis: bool = True
    """Whether batches with a recognised fault are set aside; without it they count as moved."""


class Alerts(_Section):
    """Whom to page."""

    urls: tuple[SecretStr, ...] = ()
    """Apprise addresses; better set as HOLDFAST__ALERTS__URLS than in a file."""


class Serving(_Section):
    """The served API."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on."""
    token: SecretStr | None = None
    """What requests must bear, `Authorization: Bearer ...`; empty: nothing. Better set as
    HOLDFAST__SERVING__TOKEN than in a file."""
    poll: Length = "10s"
    """How often the registry is asked for its champion."""
    bad_rows: Literal["request", "row"] = "request"
    """What a bad row fails: its whole request, or only itself."""
    max_bytes: int = Field(default=8_000_000, ge=1_000)
    """Longest body of a request."""
    max_requests: int = Field(default=64, ge=1)
    """Requests answered at once; others are asked to come again."""
    timeout: Length = "10s"
    """How long the body of a request may take to arrive."""
    captures: Path | None = None
    """The SQLite file of what was answered; empty: one in `tracking.folder`."""
    capture: Literal["required", "best_effort"] = "required"
    """Whether a server that cannot write its captures is ready for requests."""


class Tracking(_Section):
    """Where runs, artifacts and captures are kept."""

    folder: Path = Path(".holdfast")
    """The one folder of all state on disk."""
    uri: str | None = None
    """MLflow's address; empty: MLFLOW_TRACKING_URI, else SQLite in `folder`."""
    locks: SecretStr | None = None
    """PostgreSQL database whose locks keep several hosts apart; empty: `uri` if it is one, else
    files in `folder`, which keep the processes of one host apart."""

    @field_validator("locks")
    @classmethod
    def _is_postgresql(cls, locks: SecretStr | None) -> SecretStr | None:
        if locks is not None and not locks.get_secret_value().startswith("postgresql"):
            message = "must be the address of a PostgreSQL database: postgresql+pg8000://..."
            raise ValueError(message)
        return locks


class Settings(BaseSettings):
    """One model, from its source to its pages."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    """Name of the experiment, the registered model and the deployments."""
    task: Literal["classification", "regression"]
    """What is predicted: the chance of 1, or a number."""
    data: Data
    training: Training = Training()
    promotion: Promotion = Promotion()
    monitoring: Monitoring = Monitoring()
    alerts: Alerts = Alerts()
    serving: Serving = Serving()
    tracking: Tracking = Tracking()
    _conf: str = ""

    @model_validator(mode="after")
    def _slices(self) -> Self:
        unknown = [name for name in self.promotion.slices if name not in self.data.features]
        if unknown:
            message = f"promotion.slices must name features. Got {', '.join(unknown)}"
            raise ValueError(message)
        return self

    @property
    def captures(self) -> Path:
        """The store of what the served API answered."""
        given = self.serving.captures
        return given or self.tracking.folder / "captures" / f"{self.name}.db"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment over the file."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model's YAML file, with the environment over it.

        Parameters
        ----------
        path : str or Path
            The file, such as ``conf/flights.yaml``.

        Returns
        -------
        Settings
            The whole tree, checked.

        Raises
        ------
        ConfigError
            With one line for each mistake in the file or the environment.
        """
        values = _read(Path(path))
        problems = _unknown_sections(cls)
        try:
            settings = cls(**values)
        except ValidationError as error:
            problems += [_problem(e) for e in error.errors(include_url=False)]
        except SettingsError as error:
            problems.append(f"{error}. An environment variable for a list or section holds JSON.")
        except Exception as error:  # noqa: BLE001 -- importing data.*.function runs the user's code
            problems.append(f"data: importing its function raised {error!r}. Fix that module.")
        if problems:
            lines = "\n".join(f"  {problem}" for problem in problems)
            message = f"{path} cannot be used:\n{lines}"
            raise ConfigError(message)
        settings._conf = str(path)
        return settings

    @property
    def conf(self) -> str:
        """The file that it was read from, as it was named."""
        return self._conf


def _problem(error: Any) -> str:
    parts = [str(part) for part in error["loc"]]
    kept = [part for i, part in enumerate(parts) if not _is_kind(parts, i)]
    key = ".".join(kept) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{key}: no such setting. Check the spelling against conf/schema.json."
    return f"{key}: {error['msg'].removeprefix('Value error, ')}."


def _is_kind(parts: list[str], i: int) -> bool:
    """Whether pydantic put this part there to say which kind of source or column it took."""
    source = parts[:1] == ["data"] and i == 2 and parts[1] in {"train", "live", "labels"}  # noqa: PLR2004 -- data.train.<kind>
    column = parts[:2] == ["data", "features"] and i == 3  # noqa: PLR2004 -- data.features.x.<type>
    return (source or column) and i < len(parts)


def _unknown_sections(settings: type[Settings]) -> list[str]:
    known = {field.upper() for field in settings.model_fields}
    return [
        f"{name}: no such section. Use one of {', '.join(sorted(known))}."
        for name in sorted(os.environ)
        if name.upper().startswith(ENV_PREFIX)
        and name.upper().removeprefix(ENV_PREFIX).split("__")[0] not in known
    ]


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys; a second `plan:` must not vanish."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 -- PyYAML's signature
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        doubled = sorted({key for key in keys if keys.count(key) > 1})
        if doubled:
            line = node.start_mark.line + 1
            problem = f"the key {doubled[0]!r} stands twice in the mapping at line {line}"
            raise yaml.MarkedYAMLError(problem=problem)
        return super().construct_mapping(node, deep=deep)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 -- a SafeLoader
    except FileNotFoundError as error:
        message = f"{path} must be a model's YAML file. There is no such file. Name one of conf/."
        raise ConfigError(message) from error
    except yaml.MarkedYAMLError as error:
        # PyYAML's own sentence quotes the line, and a line may hold a secret.
        line = "" if error.problem_mark is None else f" at line {error.problem_mark.line + 1}"
        message = f"{path} must be readable YAML. Got: {error.problem}{line}. Correct it."
        raise ConfigError(message) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        message = f"{path} must be readable YAML. Got: {error}. Correct it."
        raise ConfigError(message) from error
    if not isinstance(values, dict):
        message = f"{path} must hold a mapping of settings. Got {type(values).__name__}."
        raise ConfigError(message)
    return values


if __name__ == "__main__":
    sys.stdout.write(json.dumps(Settings.model_json_schema(), indent=1) + "\n")
