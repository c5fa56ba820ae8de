"""What `Dockerfile` and `compose.yaml` say; tests do it without a container engine."""

import re
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[1]
BASE: Final = "${PYTHON}"
"""The stage that all others are made from, as `Dockerfile` names it."""

Stage = list[tuple[str, str]]
"""Instructions and what follows each, in their order."""


def stages() -> dict[str, Stage]:
    """Instructions of each stage, those of the stage it is made from first."""
    found: dict[str, Stage] = {BASE: []}
    name = BASE
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", "").splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            origin, _, name = rest.partition(" AS ")
            found[name] = list(found[origin])
        elif word and word != "#":
            found[name].append((word, rest.strip()))
    return found


def last(stage: Stage, word: str) -> str:
    """What follows an instruction where it stands last."""
    return [rest for found, rest in stage if found == word][-1]


def variables(stage: Stage) -> dict[str, str]:
    """The environment that a stage sets, but for the path of programs."""
    pairs = [pair.split("=", 1) for word, rest in stage if word == "ENV" for pair in rest.split()]
    return {name: value for name, value in pairs if name != "PATH"}


def composed(model: str, **given: str) -> dict[str, Any]:
    """`compose.yaml`, with the name of a model, other variables, and the defaults of the rest."""
    text = re.sub(r"\$\{MODEL:\?[^}]+\}", model, (ROOT / "compose.yaml").read_text())
    text = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: given.get(found[1], found[2]), text)
    found: dict[str, Any] = yaml.safe_load(text)
    return found
