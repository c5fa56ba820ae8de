"""The errors that Holdfast raises on purpose: one class for each person who must act.

PipelineError
├── ConfigError        the author of conf/<model>.yaml
├── DataError          the owner of the data: a whole batch or source cannot be used
├── RegistryError      the operator of MLflow, or the person who promotes versions
└── UnavailableError   nobody yet: a server or disk does not answer, a retry may succeed

A refused row raises nothing; `validation.validate` returns it with its reason.
"""


class PipelineError(Exception):
    """Anything that Holdfast refuses to do; the message says what happened and how to cure it."""


class ConfigError(PipelineError):
    """A model's YAML file, or an environment variable that overrides it, cannot be used."""


class DataError(PipelineError):
    """A source, or a whole batch of rows, cannot be used."""


class RegistryError(PipelineError):
    """A version, an alias or a stored artifact is missing, damaged or not in the right state."""


class UnavailableError(PipelineError):
    """A service does not answer. Flows retry after this error and after no other."""
