"""The section `data`: where rows come from, and what each column holds."""

import codecs
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    ImportString,
    SecretStr,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from pipeline.config.derivations import MOMENTS, Derivation
from pipeline.config.fields import Duration, Length, Moment, Section, written

RESERVED = "holdfast-"
"""How names of Holdfast's own columns begin; no column of a table may have such a name."""
REASON = "quarantine_reason"
"""Column of refused rows that says why; no column of a table may have its name."""
LONGEST_TABLE = 63
"""Characters of the name of a table in PostgreSQL."""
OWN_KEY = f"{RESERVED}key"
OWN_TIME = f"{RESERVED}time"
"""Key and time of the rows of a table that has none."""


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


Label = Annotated[str, Field(coerce_numbers_to_str=True)]
Column = Annotated[Numeric | Categorical, Field(discriminator="type")]
Columns = dict[str, Column]


UNITS = ("s", "ms", "us", "ns")
"""Units of times that are numbers."""
_CSV_ONLY = ("sep", "decimal", "quotechar", "encoding", "na_values")
"""Options of a file source that Parquet files do not have."""


def _sign(text: str) -> str:
    if len(text) != 1 or not text.isascii() or text.isalnum() or text in "\r\n":
        rule = f"must be one ASCII sign: no letter, digit or line break. Got {text!r}"
        raise ValueError(rule)
    return text


def _point(text: str) -> str:
    if len(text) != 1 or text.isalnum() or text.isspace() or text in "+-":
        rule = f"must be one sign: no letter, digit, blank, plus or minus. Got {text!r}"
        raise ValueError(rule)
    return text


Sign = Annotated[str, AfterValidator(_sign)]
"""What separates or encloses values of a CSV file."""
Point = Annotated[str, AfterValidator(_point)]
"""What stands before the decimals of a number."""


class FileSource(Section):
    """Rows from CSV or Parquet files. Options other than `path` are named as in pandas."""

    kind: Literal["file"]
    path: str
    """A path, a glob, a folder, or an fsspec URL of these. Parts of it such as `month=2013-02`
    below a folder or a wildcard are columns."""
    format: Literal["csv", "parquet"] | None = None
    """Format of the files; empty: as their endings tell."""
    compression: Literal["infer", "gzip", "bz2", "xz", "zip"] | None = "infer"
    """Compression of the files; `infer`: as their endings tell."""
    sep: Sign = ","
    """CSV: what separates two values."""
    decimal: Point = "."
    """CSV: the decimal point."""
    quotechar: Sign = '"'
    """CSV: what encloses a value that holds a separator."""
    encoding: str = "utf-8"
    """CSV: the encoding of the text."""
    na_values: tuple[Annotated[str, Field(coerce_numbers_to_str=True)], ...] = ()
    """CSV: spellings of null besides the empty text, in all columns and in the names of folders. In
    columns of numbers and times the usual ones, such as NA and null, count as well; in other
    columns these are labels. In columns of numbers a number counts however it is written: -999
    makes -999.00 null."""
    date_format: str | None = None
    """How times are written that are not ISO 8601: as in `%d/%m/%Y %H:%M`, or `s`, `ms`, `us` or
    `ns` for numbers, which count from 1970 on. Times without a zone are in UTC."""

    @field_validator("path")
    @classmethod
    def _names_files(cls, path: str) -> str:
        if not path.rpartition("://")[2].strip("/ "):
            rule = f"must name files, a folder or a pattern. Got {path!r}"
            raise ValueError(rule)
        return path

    @field_validator("date_format")
    @classmethod
    def _written_back(cls, written: str | None) -> str | None:
        if written is None or written in UNITS:
            return written
        moment = datetime(2001, 2, 3, tzinfo=UTC)
        try:
            day = datetime.strptime(moment.strftime(written), written).date()  # noqa: DTZ007
        except ValueError:
            day = None
        if day != moment.date():
            rule = (
                "must name year, month and day, as in %d/%m/%Y, or be one of "
                f"{', '.join(UNITS)}. Got {written!r}"
            )
            raise ValueError(rule)
        return written

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str) -> str:
        try:
            text = codecs.lookup(encoding)._is_text_encoding  # noqa: SLF001 -- as `open` asks
        except (LookupError, ValueError):
            text = False
        if not text:
            rule = f"must be an encoding that Python knows, such as utf-8. Got {encoding!r}"
            raise ValueError(rule)
        return encoding

    @model_validator(mode="after")
    def _csv(self) -> Self:
        signs = {"sep": self.sep, "decimal": self.decimal, "quotechar": self.quotechar}
        if len(set(signs.values())) < len(signs):
            rule = f"sep, decimal and quotechar must differ. Got {signs}"
            raise ValueError(rule)
        defaults = {name: type(self).model_fields[name].default for name in _CSV_ONLY}
        given = [name for name in _CSV_ONLY if getattr(self, name) != defaults[name]]
        parquet = self.path.endswith((".parquet", ".pq")) and self.format is None
        if given and (parquet or self.format == "parquet"):
            rule = f"{', '.join(given)} must only be set for CSV files. Got Parquet files"
            raise ValueError(rule)
        return self


class SqlSource(Section):
    """Rows from a database."""

    kind: Literal["sql"]
    url: SecretStr
    """An SQLAlchemy address."""
    query: str
    """A SELECT statement; `:start` and `:end`, in UTC, are bound where the statement names them. In
    SQLite, whose times are text, they are written as its rows are; where rows spell their times in
    several ways or with zones, they lie days outside of the window, and rows are left out later."""


class SqlTable(Section):
    """A table of a database that results are written into."""

    kind: Literal["sql"]
    url: SecretStr
    """An SQLAlchemy address of SQLite or PostgreSQL; a password is better set in the environment,
    as HOLDFAST__DATA__SCORES__URL."""
    table: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=LONGEST_TABLE)
    """Name of the table, which is made if it does not exist. Each model needs its own."""

    @field_validator("url")
    @classmethod
    def _has_transactions(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(("sqlite", "postgresql")):
            rule = "must be an address of SQLite or PostgreSQL, such as sqlite:///scores.db"
            raise ValueError(rule)
        return url


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


class Arrival(Section):
    """When the rows of a table without a time count as having come: one by one, evenly.

    Rows of captures are the exception, as they carry the time of their request.
    """

    start: Moment
    """The time of the first row of `train`."""
    live_start: Moment | None = None
    """The time of the first row of `live`, where that is another table."""
    every: Length
    """How much later the next row comes."""
    shuffled: int = Field(default=0, ge=0)
    """How many rows from the first on are in no order that means anything, such as a table sorted
    by one of its columns: they come in a random order."""


class Data(Section):
    """Where rows come from and what they hold."""

    train: Source
    """Rows to train on."""
    live: Source | None = None
    """Rows to monitor; empty: the source named by `train`."""
    labels: Source | None = None
    """Rows of key and target, joined when they have arrived; empty: the target of `live`."""
    scores: SqlTable | None = None
    """Table that `holdfast score` writes into where it is given no file; empty: it needs one."""
    key: str = OWN_KEY
    """Column that identifies a row; labels are joined by it. Empty: rows are identified by what
    they hold, or by their number where they have no time either."""
    key_unique: bool = True
    """Whether a key may come once only. If not, as with repeated sales of one thing, key and time
    together identify a row, and every row of a key gets the key's label from `labels`."""
    time: str = OWN_TIME
    """Column that orders the rows; a table without one needs `arrival`."""
    arrival: Arrival | None = None
    """When the rows of a table without a time count as having come."""
    target: str
    """Column to predict: 0 or 1 or one of `classes` for classification, a number for regression."""
    classes: tuple[Label, ...] | None = Field(default=None, min_length=2)
    """The labels of the target where these are not 0 and 1; numbers are written as text. Of two,
    such as `["no", "yes"]`, the first counts as 0, and the chance of the second is predicted. Of
    three or more, the chance of each is predicted."""
    label_delay: Duration = written("0D")
    """How long after its time the label of a row is known, where `label_time` does not say it."""
    label_time: str | None = None
    """Column beside the target that says when a label became known, or was corrected; training and
    monitoring then use what was known when. Empty: `label_delay` after the time of the row."""
    features: Columns = Field(min_length=1)
    """The columns that the model sees, each declared once."""
    derive: dict[str, Derivation] = Field(default={})
    """Features that are functions of other columns, such as `hour: hour(scheduled)`: `hour`,
    `weekday` (0 is Monday), `day`, `month` and `year` of a time in UTC, `log(a)`, `ratio(a, b)`,
    and `bins(a, 10, 20)`, whose labels are `below 10`, `10 to 20` and `20 and more`. Requests
    hold the other columns, or the feature itself."""

    @property
    def identity(self) -> list[str]:
        """Columns that together identify a row."""
        return [self.key] if self.key_unique else [self.key, self.time]

    @property
    def moments(self) -> set[str]:
        """Columns that hold times."""
        derived = (one.columns for one in self.derive.values() if one.function in MOMENTS)
        named = {self.time} if self.label_time is None else {self.time, self.label_time}
        return named.union(*derived)

    @property
    def class_count(self) -> int:
        """How many classes the target of a classification has."""
        return 2 if self.classes is None else len(self.classes)

    @property
    def several(self) -> tuple[str, ...]:
        """The classes of a target that has three or more; empty for every other target."""
        return self.classes if self.classes and self.class_count > 2 else ()  # noqa: PLR2004 -- two are 0 and 1

    @field_validator("classes")
    @classmethod
    def _different(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        twice = [repr(label) for label, n in Counter(classes or ()).items() if n > 1]
        if twice:
            rule = f"must be different labels. Got {', '.join(twice)} more than once"
            raise ValueError(rule)
        return classes

    @field_validator("features")
    @classmethod
    def _roles(cls, features: Columns, info: ValidationInfo) -> Columns:
        named = {role: info.data.get(role) for role in ("key", "time", "target", "label_time")}
        own = (None, OWN_KEY, OWN_TIME)
        roles = {role: name for role, name in named.items() if name not in own}
        problems = [
            f"{role} column {name!r} must not be a feature as well"
            for role, name in roles.items()
            if name in features
        ]
        names = [*features, *roles.values()]
        if "" in names:
            problems.append("each column must have a name. Got ''; name it in the source")
        taken = sorted({name for name in names if name.startswith(RESERVED)})
        if taken:
            problems.append(f"no column may begin with {RESERVED!r}. Got {', '.join(taken)}")
        if REASON in names:
            problems.append(f"no column may be {REASON!r}, which refused rows have. Rename it")
        if len(set(roles.values())) < len(roles):
            problems.append(
                f"{', '.join(roles)} must be different columns, as rows that share a time would "
                f"share a key, and a target that is known beforehand tells nothing. Got {roles}"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return features

    @model_validator(mode="after")
    def _own(self) -> Self:
        problems = []
        if self.time == OWN_TIME and self.arrival is None:
            problems.append("time must name a column, or arrival must say when rows come")
        if self.time != OWN_TIME and self.arrival is not None:
            problems.append(f"arrival must be empty where rows have a time. Got {self.time!r}")
        other = self.live not in (None, self.train) and not isinstance(self.live, CaptureSource)
        if self.arrival is not None and other and self.arrival.live_start is None:
            problems.append("arrival.live_start must say when the first row of live comes")
        problems += self._derive_problems()
        if self.key == OWN_KEY and self.labels is not None:
            problems.append("labels are joined by a key. Name it in key, or remove labels")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _derive_problems(self) -> Iterator[str]:
        strange = [name for name in self.derive if name not in self.features]
        if strange:
            yield f"derive must name features. Got {', '.join(strange)}. Declare them"
        for name, derived in self.derive.items():
            column = self.features.get(name)
            if derived.function == "bins" and isinstance(column, Numeric):
                yield f"derive.{name} makes labels, so that its type must be categorical"
            if self.target in derived.columns or self.derive.keys() & set(derived.columns):
                yield f"derive.{name} must be a function of other columns than {derived.columns}"
