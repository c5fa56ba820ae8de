"""The section `data`: where rows come from, and what each column holds."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    ImportString,
    SecretStr,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from pipeline.config.fields import Duration, Section, written


class Numeric(Section):
    """A column of numbers."""

    type: Literal["numeric"] = "numeric"
    min: float | None = None
    """Smallest value that a row may hold."""
    max: float | None = None
    """Largest value that a row may hold."""
    nullable: bool = False
    """Whether a row may come without this value."""
    private: bool = False
    """Whether values of single rows must never be stored with a version; summaries still are."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            rule = f"min must not exceed max. Got {self.min:g} and {self.max:g}"
            raise ValueError(rule)
        return self


class Categorical(Section):
    """A column of labels."""

    type: Literal["categorical"] = "categorical"
    values: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The only labels allowed; empty: any label, and a new one counts as drift."""
    nullable: bool = False
    """Whether a row may come without this value."""
    private: bool = False
    """Whether values of single rows must never be stored with a version; summaries still are."""

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


class FileSource(Section):
    """Rows from CSV or Parquet files."""

    kind: Literal["file"]
    path: str
    """A path, glob or fsspec URL; the file extension tells the format."""


class SqlSource(Section):
    """Rows from a database."""

    kind: Literal["sql"]
    url: SecretStr
    """An SQLAlchemy address."""
    query: str
    """A SELECT statement; `:start` and `:end` are bound where the statement names them."""


class FunctionSource(Section):
    """Rows from your own code."""

    kind: Literal["function"]
    function: ImportString[Callable[..., Any]]
    """`package.module:name` of a function `(start, end) -> DataFrame`; either end may be None."""

    @field_serializer("function")
    def _import_string(self, function: Any) -> str:
        return f"{function.__module__}:{function.__qualname__}"


class CaptureSource(Section):
    """Rows that the served API has answered."""

    kind: Literal["capture"]


Source = Annotated[
    FileSource | SqlSource | FunctionSource | CaptureSource, Field(discriminator="kind")
]


class Data(Section):
    """Where rows come from and what they hold."""

    train: Source
    """Rows to train on."""
    live: Source | None = None
    """Rows to monitor; empty: the source named by `train`."""
    labels: Source | None = None
    """Rows of key and target, joined when they have arrived; empty: the target of `live`."""
    key: str
    """Column that identifies a row; labels are joined by it."""
    time: str
    """Column that orders the rows."""
    target: str
    """Column to predict: 0 or 1 for classification, a number for regression."""
    label_delay: Duration = written("0D")
    """How long after its time the label of a row is known, where `label_time` does not say it."""
    label_time: str | None = None
    """Column beside the target that says when a label became known, or was corrected; training and
    monitoring then use what was known when. Empty: `label_delay` after the time of the row."""
    features: Columns = Field(min_length=1)
    """The columns that the model sees, each declared once."""

    @field_validator("features")
    @classmethod
    def _roles(cls, features: Columns, info: ValidationInfo) -> Columns:
        named = {role: info.data.get(role) for role in ("key", "time", "target", "label_time")}
        roles = {role: name for role, name in named.items() if name is not None}
        problems = [
            f"{role} column {name!r} must not be a feature as well"
            for role, name in roles.items()
            if name in features
        ]
        if len(set(roles.values())) < len(roles):
            problems.append(f"{', '.join(roles)} must be different columns. Got {roles}")
        if problems:
            raise ValueError("; ".join(problems))
        return features
