"""What can go wrong, by who has to act.

PipelineError
├── ConfigError        the author of conf/<model>.yaml
├── DataError          the owner of the data: a whole batch or source is unusable
├── RegistryError      the operator of MLflow, or whoever promotes versions
└── UnavailableError   nobody yet: a server or disk is away, the same call may work later

A refused row is no exception; `validation.validate` returns it with its reason.
"""


class PipelineError(Exception):
    """Anything Holdfast refuses to do, in one sentence: subject, rule, what came, cure."""


class ConfigError(PipelineError):
    """A model's YAML file, or an environment variable over it, cannot be used."""


class DataError(PipelineError):
    """A source or a whole batch cannot be used."""


class RegistryError(PipelineError):
    """A version, alias or stored artifact is not what it should be."""


class UnavailableError(PipelineError):
    """A service does not answer; the only error that flows retry."""
