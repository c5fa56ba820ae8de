"""A model's YAML file as a mapping: duplicate keys are refused, secrets never show in errors."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.errors import ConfigError

_DEEPEST = 100
"""Brackets within one another; PyYAML's time grows with the square of their number."""
_LONGEST = 1_000
"""Digits of a whole number; Python refuses to write some thousands."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys; a second `plan:` must not vanish."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803 -- PyYAML's signature
        if self.flow_level > _DEEPEST:
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        text = super().construct_scalar(node)
        try:
            str(text).encode()
        except UnicodeEncodeError as error:
            problem = f"\\u{ord(text[error.start]):x} is half of a character"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None
        return text

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > _LONGEST:
            problem = f"a whole number has {len(node.value)} digits"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return int(super().construct_yaml_int(node))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 -- PyYAML's signature
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        doubled = sorted({key for key in keys if keys.count(key) > 1})
        if doubled:
            line = node.start_mark.line + 1
            problem = f"the key {doubled[0]!r} appears twice in the mapping at line {line}"
            raise yaml.MarkedYAMLError(problem=problem)
        return super().construct_mapping(node, deep=deep)


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:int", _UniqueKeyLoader.construct_yaml_int)


class Document(NamedTuple):
    """What a YAML file says, and where.

    Attributes
    ----------
    values : dict
        The settings that it names.
    root : Node
        The file as PyYAML composed it, with its marks.
    """

    values: dict[str, Any]
    root: yaml.Node

    def line(self, location: Sequence[Any]) -> int | None:
        """Line of a setting, or of the section that lacks it; None: the file has neither."""
        node, line = self.root, None
        for part in location:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return line


def _child(node: yaml.Node, part: Any) -> tuple[int, yaml.Node] | None:
    """Line and value of a key of a mapping, or of an item of a list."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None


def read_document(path: Path) -> Document:
    """Read the settings that a YAML file names, before they are checked.

    Raises
    ------
    ConfigError
        If the file does not exist, is no readable YAML, or holds no mapping.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        message = (  # it is read more than once, and a pipe would be waited for
            f"{path} must be a file, which can be read again. Got a pipe or a device. Write it to "
            "a file, and name that."
        )
        raise ConfigError(message)
    try:
        loader = _UniqueKeyLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        values = None if root is None else loader.construct_document(root)
    except FileNotFoundError as error:
        message = f"{path} does not exist. Name a model's YAML file, such as conf/flights.yaml."
        raise ConfigError(message) from error
    except yaml.MarkedYAMLError as error:
        # PyYAML's own sentence quotes the line, and a line may hold a secret.
        line = "" if error.problem_mark is None else f" at line {error.problem_mark.line + 1}"
        message = f"{path} must be readable YAML. Got: {error.problem}{line}. Correct the file."
        raise ConfigError(message) from None
    except RecursionError:
        message = f"{path} must be readable YAML. Got: it is nested too deeply. Correct the file."
        raise ConfigError(message) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        message = f"{path} must be readable YAML. Got: {error}. Correct the file."
        raise ConfigError(message) from error
    if root is None or not isinstance(values, dict):
        message = (
            f"{path} must hold a mapping of settings. Got {type(values).__name__}. Name a model's "
            "YAML file; `holdfast init` drafts one from a table."
        )
        raise ConfigError(message)
    return Document(values, root)
