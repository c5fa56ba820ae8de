"""Write the pages of `docs/` that follow from the code: `python docs/generate.py`.

`configuration.md` comes from the settings, `commands.md` from the command line, and `python-api.md`
from docstrings; nothing in them is edited by hand. The last line of `ml-test-score.md` adds up its
tables. After `make demo`, `history.svg` is drawn as well: the picture of its history.

`python docs/generate.py quick-start` also types the commands of `quick-start.md`, which takes some
minutes, and writes what they print.
"""

import inspect
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from docs.documented import replayed, run  # noqa: E402 -- found from the line above
from flows.cli import app  # noqa: E402 -- found from the line above
from pipeline.config import ENV_PREFIX, Settings  # noqa: E402 -- found from the line above

NOTE: Final = "<!-- Written by docs/generate.py; change the code, and run it again. -->"
HISTORY: Final = ROOT / ".holdfast/history-flights.html"
PUBLIC: Final = (
    "pipeline.config.Settings.load",
    "pipeline.columns.infer_columns",
    "pipeline.data.validation.validate",
    "pipeline.reference.Reference.fit",
    "pipeline.reference.Reference.merge",
    "pipeline.monitoring.drift.compare",
    "pipeline.monitoring.findings.DriftReport",
    "pipeline.monitoring.findings.Cause",
    "pipeline.monitoring.plan.plan",
    "pipeline.training.fitting.fit",
    "flows.check.check",
    "flows.train.train",
    "flows.monitor.monitor",
    "flows.replay.replay",
    "flows.score.score",
)
"""What notebooks and scripts may use; all else may change in any release."""


def pages() -> dict[str, str]:
    """Text of each generated page, by the name of its file."""
    return {
        "configuration.md": _configuration(),
        "commands.md": _commands(),
        "python-api.md": _api(),
        "ml-test-score.md": _scored((ROOT / "docs/ml-test-score.md").read_text(encoding="utf-8")),
    }


def _configuration() -> str:
    schema = Settings.model_json_schema()
    named = schema["$defs"]
    lines = [
        "# Configuration",
        "",
        NOTE,
        "",
        "One YAML file describes a model. `holdfast check` lists all mistakes of a file with their",
        "lines, and `conf/schema.json` completes it in an editor. A variable of the environment",
        f"overrides a setting: `{ENV_PREFIX}MONITORING__ALPHA=0.01` stands for `monitoring.alpha`.",
        "",
    ]
    lines += _section("", schema["properties"], schema.get("required", ()))
    sections = [
        one["$ref"].split("/")[-1] for one in schema["properties"].values() if "$ref" in one
    ]
    for name in [*sections, *sorted({*named} - {*sections})]:
        shape = named[name]
        lines += [f"## {_title(name, sections)}", "", _line(shape.get("description", "")), ""]
        place = f"{name.lower()}." if name in sections else ""
        lines += _section(place, shape["properties"], shape.get("required", ()))
    return "\n".join(lines).rstrip() + "\n"


def _title(name: str, sections: list[str]) -> str:
    return f"`{name.lower()}`" if name in sections else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def _section(place: str, properties: Mapping[str, Any], required: Any) -> Iterator[str]:
    yield "| setting | values | default | meaning |"
    yield "|---|---|---|---|"
    for name, one in properties.items():
        default = "required" if name in required else _spelled(one.get("default"))
        if isinstance(one.get("default"), dict) and one["default"] and "$ref" in one:
            default = "below"
        meaning = _line(one.get("description", "")) or _link(one)
        yield f"| `{place}{name}` | {_values(one)} | {default} | {meaning} |"
    yield ""


def _link(one: Mapping[str, Any]) -> str:
    name = str(one.get("$ref", "")).split("/")[-1]
    return f"see [{name.lower()}](#{name.lower()})" if name else ""


def _values(one: Mapping[str, Any]) -> str:
    """Type and limits of a setting, as a person would write them."""
    if "$ref" in one:
        name = one["$ref"].split("/")[-1]
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    if "const" in one:
        return f"`{one['const']}`"
    if "enum" in one:
        return ", ".join(f"`{value}`" for value in one["enum"])
    options = one.get("anyOf") or one.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(_values(option) for option in options))
    kind = {"string": "text", "object": "mapping", "array": "list", "boolean": "true or false"}.get(
        one.get("type", ""), one.get("type", "any")
    )
    if kind == "list" and one.get("items"):
        kind = f"list of {_values(one['items'])}"
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    limits = [f"{word} {one[key]:,g}" for key, word in words.items() if key in one]
    return ", ".join([kind, *limits])


def _spelled(default: Any) -> str:
    if default is None or default in ([], {}):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _line(text: str) -> str:
    """A description in one line of a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _commands() -> str:
    started, sys.argv = sys.argv, ["holdfast"]  # which usage lines are made of
    try:
        text = app.generate_docs(output_format="markdown")
    finally:
        sys.argv = started
    heading, _, rest = text.partition("\n")
    return "\n".join([heading.replace("# holdfast", "# Commands"), "", NOTE, rest]).rstrip() + "\n"


def _api() -> str:
    lines = [
        "# Python API",
        "",
        NOTE,
        "",
        "Drift is judged without MLflow and Prefect, in a notebook or in another pipeline. What is",
        "listed here may be imported; all else may change in any release.",
        "",
    ]
    for path in PUBLIC:
        found = _named(path)
        name = path.split(".")[-1] if inspect.isclass(found) else ".".join(path.split(".")[-2:])
        lines += [f"## `{path}`", "", "```text", f"{name}{_signature(found)}", "```", ""]
        lines += [*_sections(inspect.getdoc(found) or ""), ""]
    return "\n".join(lines).rstrip() + "\n"


def _named(path: str) -> Any:
    """What a dotted name stands for: a module's function or class, or a method."""
    words = path.split(".")
    for cut in range(len(words) - 1, 0, -1):
        try:
            found: Any = import_module(".".join(words[:cut]))
        except ModuleNotFoundError:  # the last words name a class and its method
            continue
        for word in words[cut:]:
            found = getattr(found, word)
        return inspect.unwrap(getattr(found, "fn", found))
    message = f"{path} must name something that can be imported."
    raise ImportError(message)


def _signature(found: Any) -> str:
    if inspect.isclass(found):
        return ""
    names = [str(one).split(":")[0] for one in inspect.signature(found).parameters.values()]
    values = inspect.signature(found).parameters.values()
    shown = [
        name if one.default is one.empty else f"{name}={one.default!r}"
        for name, one in zip(names, values, strict=True)
        if name not in {"self", "cls"}
    ]
    return f"({', '.join(shown)})"


def _sections(text: str) -> Iterator[str]:
    """A docstring in the style of numpy, its underlined titles in bold."""
    lines = text.splitlines()
    fenced = False
    for place, line in enumerate(lines):
        if set(line) == {"-"}:
            continue
        title = place + 1 < len(lines) and set(lines[place + 1]) == {"-"}
        if title and fenced:
            yield "```"
        if title:
            yield from (f"**{line}**", "", "```text")
            fenced = True
        else:
            yield line
    if fenced:
        yield "```"


def _scored(text: str) -> str:
    """The page with the points of its sections, and the least of them, in its last line."""
    text = text.partition("**Points.**")[0].rstrip()
    points = {}
    for section in text.split("\n## ")[1:]:
        rows = re.findall(r"^\| \w+\d \|[^|]+\| ([\d.]+) \|", section, re.MULTILINE)
        points[section.partition("\n")[0]] = sum(map(float, rows))
    each = ", ".join(f"{name} {value:g}" for name, value in points.items())
    return f"{text}\n\n**Points.** {each}. Score: {min(points.values()):g}.\n"


def _picture(page: str) -> str:
    """The figure of a history page, as a file of its own."""
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    shown = re.search(
        r'<svg class="tall" viewBox="0 0 (\d+) (\d+)".*?>(.*?)</svg>', page, re.DOTALL
    )
    title = re.search(r"<figcaption>(.*?)</figcaption>", page)
    marks = re.search(r"</figure>\s*<svg viewBox[^>]*>(.*?)</svg>", page, re.DOTALL)
    if not (style and shown and title and marks):
        message = f"{HISTORY} must hold a figure. Draw it again with make demo."
        raise ValueError(message)
    width, height = int(shown[1]), int(shown[2])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-6 -26 {width + 12} {height + 66}">\n'
        f"<style>{style[1]}</style>\n"
        f'<rect x="-6" y="-26" width="{width + 12}" height="{height + 66}" fill="var(--paper)"/>\n'
        f'<text y="-10" font-size="13" font-family="sans-serif" fill="var(--text)">{title[1]}'
        f"</text>\n{shown[3]}\n"
        f'<g transform="translate(0 {height + 4})" font-family="sans-serif">{marks[1]}</g>\n'
        "</svg>\n"
    )


def quick_start() -> str:
    """`quick-start.md` with what its commands print, each in a process of its own."""
    text = (ROOT / "docs/quick-start.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        return replayed(text, partial(run, folder=Path(folder)))


if __name__ == "__main__":
    played = {"quick-start.md": quick_start()} if sys.argv[1:] == ["quick-start"] else {}
    for file, text in (pages() | played).items():
        (ROOT / "docs" / file).write_text(text, encoding="utf-8")
    if HISTORY.is_file():
        drawn = _picture(HISTORY.read_text(encoding="utf-8"))
        (ROOT / "docs/history.svg").write_text(drawn, encoding="utf-8")
