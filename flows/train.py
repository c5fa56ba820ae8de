"""Train a challenger, log it with all that travels with it, and let the gate decide."""

import hashlib
from typing import Any

import pandas as pd
from prefect import flow

from flows.fit import fit
from flows.gate import gate
from flows.notes import OF_A_MODEL, note
from flows.register import ask_people
from flows.sentences import of_version
from flows.steps import opened, patient
from pipeline.config import Moment, Settings
from pipeline.registry import champions
from pipeline.registry.cards import CARD
from pipeline.registry.recent import read_last
from pipeline.registry.training_runs import close_cut_off
from pipeline.registry.versions import CHAMPION, Registry, Version


@flow(name="train", **OF_A_MODEL)
def train(conf: str, until: Moment | None = None, episode: str = "") -> dict[str, Any]:
    """Train a version on the rows before `until` and put it before the gate.

    A version of the same rows and settings that is not decided yet, or one of the same episode, is
    taken up instead of trained again.
    """
    settings, registry = opened(conf)
    with registry.exclusive("train"):
        number = challenger(settings, registry, until, episode)
        judged(settings, registry, number)
    ask_people(settings, registry, number)
    version = patient(registry.version)(number)
    result = {
        "version": number,
        "promoted": version.promoted,
        "waits": version.waits_for,
        "reason": version.reason or f"In shadow for {version.shadow} batches.",
    }
    _note(settings, registry, version, result)
    return result


@patient
def _note(settings: Settings, registry: Registry, version: Version, result: dict[str, Any]) -> None:
    """Say in Prefect what became of the version."""
    promised = version.promised
    figures = {
        "version": version.number,
        "rows": f"{int(version.tags.get('rows', 0)):,}",
        "from": version.tags.get("since", ""),
        "until": version.tags.get("until", ""),
        "episode": version.episode or "none: asked for by hand",
        "promised gain": "" if promised is None else f"{promised:+.1%}",
    }
    sentence = of_version(result, registry.name, settings.conf)
    name = f"train {registry.name} v{version.number}"
    note(registry, version.run_id, sentence, name=name, figures=figures, page=CARD)


@patient
def challenger(
    settings: Settings, registry: Registry, until: pd.Timestamp | None, episode: str
) -> int:
    """Number of the version to judge, trained if it does not exist yet.

    It is the version of the episode, else an undecided version of the same rows and settings.
    """
    close_cut_off(registry)
    moment = until or until_of(settings, registry)
    champions.reconcile(registry, moment)
    recipe = _recipe(settings)
    for version in reversed(registry.versions()):
        undecided = version.until == moment and version.recipe == recipe and not version.closed
        if version.episode == episode if episode else undecided:
            return version.number
    shadow = settings.promotion.shadow if registry.alias(CHAMPION) is not None else 0
    tags = {"episode": episode, "recipe": recipe, "shadow": str(shadow or "")}
    return fit(settings, registry, moment, tags)


@patient
def judged(settings: Settings, registry: Registry, number: int) -> None:
    """Put a version before the gate, unless it was judged or has to wait."""
    champions.reconcile(registry, registry.version(number).until)
    if registry.version(number).awaits_gate:
        gate(settings, registry, number)


def _recipe(settings: Settings) -> str:
    """Hash of everything that a fit depends on, except its rows."""
    parts = settings.model_dump_json(include={"task", "data", "training"})
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def until_of(settings: Settings, registry: Registry) -> pd.Timestamp:
    """End of the last judged batch; before there is one, the configured start, else this minute."""
    last = read_last(registry)
    if last is not None:
        return last.end
    return settings.training.until or pd.Timestamp.now("UTC").tz_localize(None).floor("min")
