"""One YAML file per model, one tree of settings, with environment variables over the file.

`Settings.load` reports every mistake at once, each with its dotted key. Environment variables are
named `HOLDFAST__<SECTION>__<KEY>`; they suit machines (addresses, folders, pages), not columns.
"""

from pipeline.config.data import (
    OWN_KEY,
    OWN_TIME,
    REASON,
    RESERVED,
    UNITS,
    Arrival,
    CaptureSource,
    Categorical,
    Column,
    Columns,
    Data,
    FileSource,
    FunctionSource,
    Numeric,
    Source,
    SqlSource,
    SqlTable,
)
from pipeline.config.derivations import MOMENTS, Derivation, Derived
from pipeline.config.editing import edited
from pipeline.config.fields import Duration, Length, Moment, spelled
from pipeline.config.reading import read_document
from pipeline.config.sections import (
    SEVERITIES,
    Alerts,
    Costs,
    Monitoring,
    Promotion,
    Route,
    Serving,
    Severity,
    Tracking,
    Training,
)
from pipeline.config.settings import NAME, PRODUCTION, Settings, name_in, refused, secrets_of
from pipeline.config.wording import ENV_PREFIX, placed

__all__ = [
    "ENV_PREFIX",
    "MOMENTS",
    "NAME",
    "OWN_KEY",
    "OWN_TIME",
    "PRODUCTION",
    "REASON",
    "RESERVED",
    "SEVERITIES",
    "UNITS",
    "Alerts",
    "Arrival",
    "CaptureSource",
    "Categorical",
    "Column",
    "Columns",
    "Costs",
    "Data",
    "Derivation",
    "Derived",
    "Duration",
    "FileSource",
    "FunctionSource",
    "Length",
    "Moment",
    "Monitoring",
    "Numeric",
    "Promotion",
    "Route",
    "Serving",
    "Settings",
    "Severity",
    "Source",
    "SqlSource",
    "SqlTable",
    "Tracking",
    "Training",
    "edited",
    "name_in",
    "placed",
    "read_document",
    "refused",
    "secrets_of",
    "spelled",
]
