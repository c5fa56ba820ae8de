"""Promotion from one environment to another, such as from staging to production."""

from typing import Any

from prefect import flow

from flows.notes import OF_A_MODEL
from flows.register import judged
from flows.steps import opened
from pipeline.config import name_in
from pipeline.errors import ConfigError
from pipeline.registry.copying import copied
from pipeline.registry.versions import CHAMPION, Registry


@flow(name="promote", **OF_A_MODEL)
def promote(conf: str, source: str, approved_by: str = "") -> dict[str, Any]:
    """Copy another environment's champion, and promote the copy if it passes the gate here.

    Raises
    ------
    ConfigError
        If the other environment is this one.
    RegistryError
        If it has no champion that passed its gate.
    """
    settings, registry = opened(conf)
    if source == settings.environment:
        message = f"--from must name another environment than {source}, which is this one."
        raise ConfigError(message)
    model = settings.name.partition("--")[0]
    other = Registry(name_in(source, model), settings.tracking, settings.conf)
    champion = other.champion()
    number = copied(registry, other, champion)
    now = registry.alias(CHAMPION)
    origin = {"copied": {"model": other.name, "version": champion.number}}
    if now is not None and now.number == number:
        found = {"version": number, "promoted": True, "waits": "", "reason": now.reason}
        return origin | found
    return origin | judged(settings, registry, number, approved_by)
