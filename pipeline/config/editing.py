"""Edits of a model's YAML file that leave everything else in it as it is, comments included."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.reading import read_document
from pipeline.errors import ConfigError


def edited(path: Path, changes: Mapping[tuple[str, str], Any]) -> str:
    """Change some settings in the text of a model's file.

    Parameters
    ----------
    path : Path
        The file.
    changes : mapping of tuple of str to Any
        New value of each setting, by its section and its name.

    Returns
    -------
    str
        The whole text; what is not changed is as it was, to the letter.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a section holds no setting beside which to write.
    """
    read_document(path)
    text = path.read_text(encoding="utf-8")
    for (section, name), value in changes.items():
        written = yaml.safe_dump(value).removesuffix("...\n").strip()
        text = _changed(path, text, section, f"{name}: {written}")
    return text


def _changed(path: Path, text: str, section: str, setting: str) -> str:
    sections = _children(yaml.compose(text, Loader=yaml.SafeLoader))
    if section not in sections:
        end = "" if text.endswith("\n") else "\n"
        return f"{text}{end}\n{section}:\n  {setting}\n"
    node = sections[section][1]
    children = _children(node)
    if not children:
        message = (
            f"{section} of {path} must hold a setting beside which to write. Got none. Write "
            f"{section}: {{{setting}}} there."
        )
        raise ConfigError(message)
    name = setting.partition(":")[0]
    if name in children:
        key, value = children[name]
        return text[: key.start_mark.index] + setting + text[value.end_mark.index :]
    begin = next(iter(children.values()))[0].start_mark
    inline = text[node.start_mark.index] == "{"
    between = ", " if inline else f"\n{' ' * begin.column}"
    return f"{text[: begin.index]}{setting}{between}{text[begin.index :]}"


def _children(node: Any) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """Keys of a mapping, each with the nodes of key and value; of anything else none."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {key.value: (key, value) for key, value in pairs}
