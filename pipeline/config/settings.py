"""The whole tree of settings of one model, read from its file and the environment."""

import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from pipeline.config.data import LONGEST_TABLE, Data
from pipeline.config.reading import read_document
from pipeline.config.sections import (
    Alerts,
    Monitoring,
    Promotion,
    Retention,
    Serving,
    Tracking,
    Training,
    fitting_an_address,
)
from pipeline.config.wording import ENV_PREFIX, explained, placed
from pipeline.errors import ConfigError
from pipeline.redaction import remember

NAME = r"^[a-z](-?[a-z0-9])*$"
"""What the name of a model or an environment looks like; `--` stands between the two."""
PRODUCTION = "production"
"""The environment whose names are those of the file."""


class _Environment(EnvSettingsSource):
    """The environment, where arguments of the estimator have no declared type and are JSON."""

    def __call__(self) -> dict[str, Any]:
        values = super().__call__()
        training = values.get("training")
        if isinstance(training, dict) and isinstance(training.get("params"), dict):
            params = {name: _as_json(value) for name, value in training["params"].items()}
            values["training"] = training | {"params": params}
        return values


def _as_json(value: Any) -> Any:
    """A number, a truth value, a list, or else the text itself."""
    if isinstance(value, dict):
        return {name: _as_json(inner) for name, inner in value.items()}
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


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

    environment: str = Field(default=PRODUCTION, pattern=NAME, max_length=30)
    """Where the model runs. Any other than `production`, such as `staging`, has its own experiment,
    registered model, deployments, captures, table of scores and state, under names that end in it;
    better set as HOLDFAST__ENVIRONMENT than in the file."""
    name: str = Field(pattern=NAME, max_length=100)
    """Name of the experiment, the registered model and the deployments. In another environment than
    production they are called `<name>--<environment>`."""
    task: Literal["classification", "regression"]
    """What is predicted: the probability of 1 or of each of `data.classes`, or a number."""
    data: Data
    monitoring: Monitoring = Monitoring()
    training: Training = Training()
    promotion: Promotion = Promotion()
    alerts: Alerts = Alerts()
    serving: Serving = Serving()
    retention: Retention = Retention()
    tracking: Tracking = Tracking()
    _conf: str = ""

    @field_validator("tracking")
    @classmethod
    def _folder(cls, tracking: Tracking) -> Tracking:
        fitting_an_address(tracking.folder)
        return tracking

    @field_validator("name")
    @classmethod
    def _own_name(cls, name: str, info: ValidationInfo) -> str:
        return name_in(info.data.get("environment", PRODUCTION), name)

    @field_validator("data")
    @classmethod
    def _own_scores(cls, data: Data, info: ValidationInfo) -> Data:
        environment = info.data.get("environment", PRODUCTION)
        if data.scores is None or environment == PRODUCTION:
            return data
        table = f"{data.scores.table}_{environment.replace('-', '_')}"
        if len(table) > LONGEST_TABLE:
            message = f"data.scores.table must be shorter for {environment}: {table} is too long"
            raise ValueError(message)
        own = data.scores.model_copy(update={"table": table})
        return data.model_copy(update={"scores": own})

    @field_validator("serving")
    @classmethod
    def _own_captures(cls, serving: Serving, info: ValidationInfo) -> Serving:
        given = serving.captures
        if given is None:
            return serving
        stem = name_in(info.data.get("environment", PRODUCTION), given.stem)
        return serving.model_copy(update={"captures": given.with_stem(stem)})

    @model_validator(mode="after")
    def _slices(self) -> Self:
        unknown = [name for name in self.promotion.slices if name not in self.data.features]
        if unknown:
            message = f"promotion.slices must name features. Got {', '.join(unknown)}"
            raise ValueError(message)
        return self

    @field_validator("training")
    @classmethod
    def _holdout(cls, training: Training, info: ValidationInfo) -> Training:
        monitoring = info.data.get("monitoring")
        if monitoring is None or "holdout" in training.model_fields_set:
            return training
        return training.model_copy(update={"holdout": max(2 * monitoring.batch, training.holdout)})

    @model_validator(mode="after")
    def _classes(self) -> Self:
        if self.task == "regression" and self.data.classes is not None:
            message = "data.classes must be empty where task is regression. Remove it"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _calibration(self) -> Self:
        if self.task == "regression" and self.training.calibration is not None:
            got = self.training.calibration
            message = f"training.calibration must be empty where task is regression. Got {got}"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _costs(self) -> Self:
        if self.training.costs and (self.task == "regression" or self.data.several):
            got = f"{len(self.data.several)} classes" if self.data.several else self.task
            message = f"training.costs must be empty unless there are two classes. Got {got}"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _loss(self) -> Self:
        if self.task == "classification" and self.training.loss is not None:
            message = (
                f"training.loss must be empty unless task is regression. Got {self.training.loss}"
            )
            raise ValueError(message)
        return self

    @property
    def loss(self) -> str:
        """The metric by which models are compared; smaller is better."""
        return self.training.metric(self.task)

    @property
    def captures(self) -> Path:
        """The SQLite file of captured predictions."""
        given = self.serving.captures
        return given or self.tracking.folder / "captures" / f"{self.name}.db"

    def captures_in(self, environment: str) -> Path:
        """The SQLite file of captured predictions of another environment."""
        own = self.captures
        base = own.stem.removesuffix(f"--{self.environment}")
        return own.with_stem(name_in(environment, base))

    @property
    def conf(self) -> str:
        """The file that the settings were read from, as it was named."""
        return self._conf

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment override the file."""
        del env_settings, dotenv_settings, file_secret_settings
        return _Environment(settings_cls), init_settings

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model's YAML file, with environment variables over it.

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
        document = read_document(Path(path))
        values = document.values
        problems = _unknown_sections(cls)
        # pydantic-settings would take keys such as _env_file for options of its own.
        odd = [key for key in values if not isinstance(key, str) or key.startswith("_")]
        rule = "no such setting. Check the spelling against conf/schema.json."
        problems += [placed(document, [key], f"{key}: {rule}") for key in odd]
        try:
            settings = cls(**{key: values[key] for key in values if key not in odd})
        except ValidationError as error:
            found = error.errors(include_url=False)
            own = _mistakes(values)
            problems += [
                explained(one, cls, document, own=_same(one) in own)
                for one in found
                if not _follows(one)
            ]
        except (SettingsError, RecursionError) as error:
            section = re.search(r'field "(\w+)"', str(error))
            variable = f"{ENV_PREFIX}{section[1].upper() if section else ''}"
            problems.append(
                f"Environment variables that begin with {variable} must hold JSON where the "
                """setting is a list or a section, such as '["a", "b"]'."""
            )
        except Exception as error:  # noqa: BLE001 -- importing data.*.function runs the user's code
            rule = f"data: importing its function raised {error!r}. Fix that module."
            problems.append(placed(document, ["data"], rule))
        if problems:
            raise refused(path, problems)
        settings._conf = str(path)
        remember(secrets_of(settings), os.environ)
        return settings


def name_in(environment: str, name: str) -> str:
    """What something is called in an environment."""
    return name if environment == PRODUCTION else f"{name}--{environment}"


def secrets_of(section: BaseModel) -> set[str]:
    """All values of settings that are secret."""
    found: set[str] = set()
    values: list[Any] = [section.model_dump()]
    while values:
        value = values.pop()
        if isinstance(value, SecretStr):
            found.add(value.get_secret_value())
        elif isinstance(value, dict):
            values += value.values()
        elif isinstance(value, list | tuple):
            values += value
        elif isinstance(value, str) and "@" in value.partition("://")[2]:
            found.add(value.partition("://")[2].rpartition("@")[0])
    return found


class _FileAlone(Settings):
    """What a file says without the environment, of which no name holds `=`."""

    model_config = SettingsConfigDict(env_prefix="=")


def _mistakes(values: dict[str, Any]) -> set[tuple[Any, ...]]:
    """The mistakes that a file has by itself."""
    try:
        _FileAlone(**{k: v for k, v in values.items() if k in _FileAlone.model_fields})
    except ValidationError as error:
        return {_same(one) for one in error.errors(include_url=False)}
    return set()


def _same(error: Any) -> tuple[Any, ...]:
    """What tells one mistake from another."""
    return error["loc"], error["type"], error["msg"], repr(error["input"])


def refused(path: str | Path, problems: Collection[str]) -> ConfigError:
    """The error about all mistakes of a file, in the order of its lines."""
    lines = "\n".join(f"  {problem}" for problem in sorted(problems, key=_line))
    return ConfigError(f"{path} cannot be used:\n{lines}", problems)


def _line(problem: str) -> int:
    found = re.match(r"line (\d+):", problem)
    return int(found[1]) if found else 0


def _follows(error: Any) -> bool:
    """Whether a list only counts as too short because its items have mistakes of their own."""
    return bool(error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"])


def _unknown_sections(settings: type[Settings]) -> list[str]:
    known = {field.upper() for field in settings.model_fields}
    return [
        f"{name}: no such section. Use one of {', '.join(sorted(known))}."
        for name in sorted(os.environ)
        if name.upper().startswith(ENV_PREFIX)
        and name.upper().removeprefix(ENV_PREFIX).split("__")[0] not in known
    ]
