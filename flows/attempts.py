"""Attempts at a retrain: how many there are, and the key that Prefect knows each by."""

from collections.abc import Mapping
from typing import Any, Final

ATTEMPTS: Final = 3
"""Runs of one request that may crash or fail before people have to look."""


def key_of(model: str, episode: str, batch_run: str, attempt: int) -> str:
    """Key of an attempt, by which it is started once.

    Two stores may share a server and the model's name, but each has its own run of the batch.
    """
    return f"{model}-{episode}-{batch_run}-{attempt}"


def attempt_of(key: str | None, model: str, parameters: Mapping[str, Any]) -> int:
    """Number of a run among the attempts at its retrain; 0 if no request started it."""
    episode = parameters.get("episode")
    if not (key and episode and key.startswith(f"{model}-{episode}-")):
        return 0
    number = key.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0
