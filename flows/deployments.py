"""The deployments that `prefect.yaml` lists, and what is wrong with the list."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml

from pipeline.config import Settings
from pipeline.errors import ConfigError

PROJECT: Final = Path("prefect.yaml")
KEYS: Final = {
    "": """build concurrency_limit description enforce_parameter_schema entrypoint flow_name name
        parameters paused pull push schedule schedules sla tags triggers version version_type
        work_pool""",
    "work_pool": "job_variables name work_queue_name",
    "concurrency_limit": "collision_strategy grace_period_seconds limit",
}
"""Keys of a deployment, and of two of its parts, that Prefect reads; it ignores all others."""


def listed() -> list[dict[str, Any]]:
    """The deployments of the current folder.

    Raises
    ------
    ConfigError
        If `prefect.yaml` does not exist, or lists none.
    """
    try:
        found: list[dict[str, Any]] = yaml.safe_load(PROJECT.read_text("utf-8"))["deployments"]
        for deployment in found:
            deployment["parameters"]["conf"], deployment["name"]
    except FileNotFoundError as error:
        message = (
            f"There is no {PROJECT} in {Path.cwd()}. Run `holdfast up` in the folder that has it."
        )
        raise ConfigError(message) from error
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError) as error:
        message = f"{PROJECT} must list deployments, each with its name and parameters.conf."
        raise ConfigError(f"{message} Got {error!r}. Correct it.") from error
    return found


def missing(models: Sequence[Settings], deployments: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence about each model that has no deployment."""
    names = {deployment["name"] for deployment in deployments}
    return [
        f"{PROJECT} has no deployment of {model.conf}. Copy those of another model there, "
        f"with name: {model.name} and parameters: {{conf: {model.conf}}}."
        for model in models
        if model.name not in names
    ]


def ignored_keys(deployments: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence about each key that Prefect would ignore without a word."""
    return [sentence for deployment in deployments for sentence in _ignored_keys_of(deployment)]


def _ignored_keys_of(deployment: Mapping[str, Any]) -> Iterator[str]:
    flow = deployment.get("entrypoint") or deployment["name"]
    for part, keys in KEYS.items():
        known, given = keys.split(), deployment.get(part) if part else deployment
        for key in sorted(set(given) - set(known), key=str) if isinstance(given, Mapping) else ():
            meant = get_close_matches(str(key), known, n=1)
            cure = f"Did you mean {meant[0]!r}?" if meant else "Remove it."
            place = f"{part}.{key}" if part else key
            yield f"{PROJECT}, {flow}: Prefect ignores the key {place!r}. {cure}"
