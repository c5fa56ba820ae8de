"""Edits of a model's YAML file that leave everything else in it as it is, comments included."""

from math import inf
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.reading import read_document
from pipeline.errors import ConfigError


def edited(path: Path, changes: dict[tuple[str, ...], Any]) -> str:
    """Change some settings in the text of a model's file.

    Parameters
    ----------
    path : Path
        The file.
    changes : mapping of tuple of str to Any
        New value of each setting, by the names that lead to it: its section first.

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
    for names, value in changes.items():
        text = _changed(path, text, names, _inline(value))
    return text


def _changed(path: Path, text: str, names: tuple[str, ...], value: str) -> str:
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for depth, name in enumerate(names):
        children = _children(node)
        if name not in children:
            return _added(path, text, node, names[:depth], (names[depth:], value))
        key, node = children[name]
    return f"{text[: key.start_mark.index]}{names[-1]}: {value}{text[node.end_mark.index :]}"


def _added(
    path: Path, text: str, node: Any, within: tuple[str, ...], setting: tuple[Any, str]
) -> str:
    """Write a setting into the mapping that `within` leads to, before what it holds."""
    (first, *deeper), value = setting
    if not within:
        end = "" if text.endswith("\n") else "\n"
        return f"{text}{end}\n{first}:\n  {_nested(deeper, value)}\n"
    written = f"{first}: {{{_nested(deeper, value)}}}" if deeper else f"{first}: {value}"
    children = _children(node)
    if not children and text[node.start_mark.index : node.start_mark.index + 1] == "{":
        begin = node.start_mark.index + 1
        return f"{text[:begin]}{written}{text[begin:]}"
    if not children:
        section = ".".join(within)
        message = (
            f"{section} of {path} must hold a setting beside which to write. Got none. Write "
            f"{within[-1]}: {{{written}}} there."
        )
        raise ConfigError(message)
    begin = next(iter(children.values()))[0].start_mark
    inline = text[node.start_mark.index] == "{"
    between = ", " if inline else f"\n{' ' * begin.column}"
    return f"{text[: begin.index]}{written}{between}{text[begin.index :]}"


def _nested(names: list[str], value: str) -> str:
    *others, last = names
    opened = "".join(f"{name}: {{" for name in others)
    return f"{opened}{last}: {value}{'}' * len(others)}"


def _inline(value: Any) -> str:
    """A value as YAML within one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=inf).removesuffix("...\n").strip()


def _children(node: Any) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """Keys of a mapping, each with the nodes of key and value; of anything else none."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {key.value: (key, value) for key, value in pairs}
