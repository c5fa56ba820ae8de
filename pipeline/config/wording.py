"""Mistakes in the settings in words: line and key, what is wrong, what came, and the cure."""

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from pipeline.config.reading import Document

ENV_PREFIX: Final = "HOLDFAST__"
_SPELLING: Final = "Check the spelling against conf/schema.json"
_KINDS: Final = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "a section of names and values",
    "model": "a section of names and values",
    "path": "a path",
    "callable": "a function",
    "decimal": "a number",
}
"""What a setting must be, by the first word of pydantic's type of error."""
_CAME: Final = {
    str: "text",
    bool: "a truth value, which YAML reads from yes, no, on and off as well",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a section",
    type(None): "nothing",
}
_PATTERNS: Final = {
    r"^[a-z](-?[a-z0-9])*$": "must begin with a small letter and hold small letters, digits and "
    "single dashes between them only",
}
_LIMITS: Final = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def explained(
    error: Mapping[str, Any], settings: type[BaseModel], document: Document, *, own: bool
) -> str:
    """One mistake that pydantic found, as `line 12: data.target: is missing. Add it.`.

    Parameters
    ----------
    error : mapping
        One of `ValidationError.errors()`.
    settings : type of BaseModel
        The whole tree of settings.
    document : Document
        The file that they were read from.
    own : bool
        Whether the file has the mistake without the environment as well.
    """
    location, kinds = _declared(error["loc"], settings)
    text = _sentence(error, kinds)
    key = ".".join(map(str, location))
    if not key:  # a rule about several sections begins with the key that is at fault
        location = tuple(re.match(r"[\w.]+", text)[0].split(".")) if text else ()  # type: ignore[index]
    if error["type"].startswith("union_tag"):
        location = (*location, error["ctx"]["discriminator"].strip("'"))
    said = f"{key}: {_ended(text)}" if key else _ended(text)
    if own:
        return _in_file(document, location, said)
    found = placed(document, location, said)
    if not found.startswith(ENV_PREFIX) and (names := _variables(location)):
        return f"{', '.join(names)}: {said}"
    return found


def _variables(location: Sequence[Any]) -> list[str]:
    """The variables of the section of a setting; else all, as a rule may join sections."""
    names = [name for name in sorted(os.environ) if name.upper().startswith(ENV_PREFIX)]
    section = ENV_PREFIX + str(location[0]).upper() if location else ENV_PREFIX
    return [name for name in names if name.upper().startswith(section)] or names


def _ended(text: str) -> str:
    return text if text.endswith("?") else f"{text}."


def placed(document: Document, location: Sequence[Any], text: str) -> str:
    """A sentence after the line of the file, or the variable, where a setting stands."""
    name = ENV_PREFIX + "__".join(map(str, location)).upper()
    for variable in sorted(os.environ):
        upper = variable.upper()
        if upper.startswith(ENV_PREFIX) and (name == upper or name.startswith(f"{upper}__")):
            return f"{variable}: {text}"
    return _in_file(document, location, text)


def _in_file(document: Document, location: Sequence[Any], text: str) -> str:
    line = document.line(location)
    return f"line {line}: {text}" if line else text


def _sentence(error: Mapping[str, Any], kinds: Sequence[Any]) -> str:
    """What is wrong, what came, and the cure, without the last full stop."""
    kind, came = error["type"], error["input"]
    for special in (_special, _about_size):
        if text := special(kind, error.get("ctx", {}), came):
            return text
    if kind.startswith("union_tag"):
        return _about_tag(error["ctx"], kinds)
    if kind == "extra_forbidden":
        known = [name for model in kinds for name in model.model_fields]
        if meant := _meant(str(error["loc"][-1]), known):
            return f"no such setting. {meant}"
        where = [f"{key} is {tag}" for key in ("kind", "type") for tag in _tags(kinds, key)]
        return f"no such setting{f' where {where[0]}' if len(where) == 1 else ''}. {_SPELLING}"
    wanted = _KINDS.get(kind.partition("_")[0])
    if wanted and kind != "value_error":
        cure = "Write it in quotes" if wanted == "text" else "Correct it"
        return f"must be {wanted}. Got {_came(came)}. {cure}"
    return str(error["msg"]).removeprefix("Value error, ").rstrip(".")


def _special(kind: str, context: Mapping[str, Any], came: Any) -> str:
    """A sentence about mistakes of one type; empty: it is another type."""
    if kind == "missing":
        return "is missing. Add it"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        return f"must be one of {_choice(known, came)}"
    if kind == "string_pattern_mismatch":
        rule = _PATTERNS.get(context["pattern"], f"must match {context['pattern']}")
        return f"{rule}. Got {came!r}. Rename it"
    if kind == "import_error":
        reason = str(context.get("error", "")).rstrip(".")
        return (
            f"must be importable, as package.module:name. Got: {reason}. Correct it, or run the "
            "command in the folder that has the module"
        )
    return "must be a finite number. Correct it" if kind == "finite_number" else ""


def _about_size(kind: str, context: Mapping[str, Any], came: Any) -> str:
    """A sentence about something too large or too small; empty: it is another mistake."""
    if kind in _LIMITS:
        bound, words = _LIMITS[kind]
        return f"must be {words} {context[bound]:g}. Got {came}. Correct it"
    if kind.endswith("too_short"):
        return f"must hold at least {context['min_length']}. Got {len(came)}. Add to it"
    if kind.endswith("too_long"):
        return f"must hold at most {context['max_length']}. Got {len(came)}. Shorten it"
    return ""


def _about_tag(context: Mapping[str, Any], kinds: Sequence[Any]) -> str:
    """A sentence about a section that does not say which kind it is, or a kind that is unknown."""
    key = context["discriminator"].strip("'")
    known = _tags(kinds, key)
    if "tag" in context:
        return f"{key} must be one of {_choice(known, context['tag'])}"
    return f"must say which kind it is. Add {key}: {', '.join(known[:-1])} or {known[-1]}"


def _choice(known: Sequence[str], came: Any) -> str:
    got = f"Got {came!r}" if isinstance(came, str | int | float) else f"Got {_came(came)}"
    meant = _meant(str(came), known)
    return f"{', '.join(known)}. {got}. {meant or 'Name one of them'}"


def _came(value: Any) -> str:
    return _CAME.get(type(value), "something else")


def _meant(given: str, known: Sequence[str]) -> str:
    close = get_close_matches(given, known, n=1)
    return f"Did you mean {close[0]}?" if close else ""


def _declared(location: Sequence[Any], root: type[BaseModel]) -> tuple[tuple[Any, ...], list[Any]]:
    """The location without what pydantic put in to say which kind it took, and its models."""
    kept: list[Any] = []
    models: list[Any] = [root]
    for part in location:
        tagged = [model for model in models if part in _tags([model], "kind", "type")]
        if tagged and len(models) > 1:
            models = tagged
            continue
        kept.append(part)
        models = [inner for model in models for inner in _inside(model, part)]
    found = [model for model in models if _is_model(model)]
    return tuple(kept), found or (_declared(location[:-1], root)[1] if location else [root])


def _inside(annotation: Any, part: Any) -> list[Any]:
    """What a setting of a section, or an item of a mapping or list, may be."""
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        return _options(field.annotation) if field else []
    arguments = get_args(annotation)
    return _options(arguments[-1]) if arguments else []


def _options(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _options(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        return [one for option in get_args(annotation) for one in _options(option)]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _tags(models: Sequence[Any], *keys: str) -> list[str]:
    """The values of a key that says which kind a section is."""
    fields = [
        model.model_fields[key]
        for model in models
        if _is_model(model)
        for key in keys
        if key in model.model_fields
    ]
    return [
        tag
        for field in fields
        if get_origin(field.annotation) is Literal
        for tag in get_args(field.annotation)
    ]
