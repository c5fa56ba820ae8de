"""The models that a command for several of them is about; imports nothing of Prefect."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.config import Settings
from pipeline.errors import ConfigError

POOL: Final = "holdfast"
"""The work pool that runs all flows."""


def load(confs: Sequence[str]) -> list[Settings]:
    """The settings of models, with all mistakes of all files at once.

    Parameters
    ----------
    confs : sequence of str
        The models' YAML files; without any, all of the folder ``conf``.

    Raises
    ------
    ConfigError
        If there is no file, one cannot be used, or two have the name of one model.
    """
    models, problems = [], []
    for path in confs or sorted(map(str, Path("conf").glob("*.yaml"))):
        try:
            models.append(Settings.load(path))
        except ConfigError as error:
            problems.append(str(error))
    for name, times in Counter(model.name for model in models).items():
        if times > 1:
            files = ", ".join(model.conf for model in models if model.name == name)
            problems.append(f"name must differ between models. Got {name!r} in {files}. Rename.")
    if not (models or problems):
        problems.append(
            f"There is no conf/*.yaml in {Path.cwd()}. Name the models' files, or go to the folder "
            "that has them."
        )
    if problems:
        raise ConfigError("\n".join(problems))
    return models
