"""What the documents say can be done, and where their links lead."""

import importlib.util
import re
import shlex
import subprocess
from urllib.parse import unquote
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest
import yaml
from cyclopts import CycloptsError
from prefect.events.schemas.automations import AutomationCore

from docs.documented import FENCE, PAGES, ROOT, commands, name_of, typed, without_variables
from flows.cli import app
from pipeline.columns import infer_columns
from pipeline.config import Settings
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference

FIRST_SCREEN = 45
LINES_OF_YAML = 12
LONGEST_TABLE = 8
MODEL = """
name: shop
task: regression
data:
  train: {kind: file, path: rows.parquet}
  key: id
  time: day
  target: amount
  features: {price: {type: numeric}}
training: {estimator: xgboost.XGBRegressor}
"""


def snippets(language):
    return [
        pytest.param(text, id=f"{name_of(path)}-{number}")
        for path in PAGES
        for number, (kind, text) in enumerate(FENCE.findall(path.read_text(encoding="utf-8")))
        if kind == language
    ]


COMMANDS = {without_variables(line): page for line, page in commands().items()}


def calls_of(*programs):
    return [
        pytest.param(line, id=f"{page}: {line}")
        for line, page in COMMANDS.items()
        if line.startswith(programs)
    ]


def test_the_pages_that_follow_from_the_code_are_those_of_this_code():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    stored = {name: (ROOT / "docs" / name).read_text("utf-8") for name in generate.pages()}

    assert generate.pages() == stored, "Run make docs."


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings_that_exist(page):
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        place, _, anchor = unquote(link).partition("#")
        if re.match(r"[a-z]+:", place):
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)

    assert lost == []


def anchors(page):
    """Names of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def test_the_first_screen_of_the_readme_shows_what_it_is_and_how_to_start():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    screen = text.partition("\n## ")[0]
    (conf,) = (block for language, block in FENCE.findall(screen) if language == "yaml")

    assert screen.count("\n") <= FIRST_SCREEN
    assert conf.count("\n") == LINES_OF_YAML
    assert "](docs/history.svg)" in screen
    assert "make demo" in typed(screen)
    assert any(line.startswith("git clone ") for line in typed(screen))


def test_a_command_is_found_in_a_block_and_in_backticks_that_go_on_in_the_next_line():
    text = "Type `docker\ncompose up` or:\n\n```\n$ make demo     # first\n```\n\n`A=b make up`."

    assert typed(text) == ["make demo", "docker compose up", "A=b make up"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_backtick_of_a_paragraph_has_its_other_one(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))

    assert [one for one in text.split("\n\n") if one.count("`") % 2] == []


def test_the_readme_leaves_long_tables_to_other_pages():
    tables = re.findall(r"(?:^\|.*\n)+", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    rows = [len(re.findall(r"^\|(?!---)", table, re.MULTILINE)) - 1 for table in tables]

    assert rows
    assert max(rows) <= LONGEST_TABLE


@pytest.mark.parametrize("line", calls_of("holdfast ", ".venv/bin/holdfast "))
def test_a_command_in_a_document_is_one_that_the_program_takes(line):
    line = line.partition(" && ")[0].replace("<time>", "2026-01-01")
    words = shlex.split(re.sub(r"<(\w+)>", r"\1.yaml", line))[1:]
    if complete(words):
        try:
            app.parse_args(words, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            pytest.fail(f"{line}: {error}")
    else:
        assert words[0] in app


def complete(words):
    """Whether a command is written with all that it needs, and not only named."""
    return len(words) > 1 and "..." not in words


@pytest.mark.parametrize("line", calls_of("make "))
def test_a_target_in_a_document_does_what_the_program_takes(line):
    command = ["make", "-n", *shlex.split(line.rstrip("."))[1:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    for call in re.findall(r"\.venv/bin/holdfast (.*)", done.stdout):
        app.parse_args(shlex.split(call), exit_on_error=False, print_error=False)


YAML = snippets("yaml")
AUTOMATIONS = [one for one in YAML if "trigger:" in one.values[0]]


@pytest.mark.parametrize("text", AUTOMATIONS)
def test_an_automation_in_a_document_is_one_that_prefect_takes(text):
    written = yaml.safe_load(re.sub(r"<id of .*>", str(uuid4()), text))

    taken = AutomationCore.model_validate(written).model_dump(mode="json")

    assert merged(taken, {**written, "actions": taken["actions"]}) == taken
    for given, action in zip(written["actions"], taken["actions"], strict=True):
        assert given.items() <= action.items()


@pytest.mark.parametrize("text", [one for one in YAML if one not in AUTOMATIONS])
def test_a_setting_in_a_document_is_one_that_can_be_set(text, tmp_path):
    path, model = tmp_path / "shop.yaml", yaml.safe_load(MODEL)
    if "arrival" in text:
        del model["data"]["time"]
    path.write_text(yaml.safe_dump(merged(model, yaml.safe_load(text))))

    Settings.load(path)


def merged(before, after):
    both = isinstance(before, dict) and isinstance(after, dict) and "kind" not in after
    return (
        before | {name: merged(before.get(name), one) for name, one in after.items()}
        if both
        else after
    )


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text("utf-8")])
def test_python_in_a_document_runs(page):
    days = pd.date_range("2026-01-01", periods=2_400, freq="h")
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"price": random.normal(size=2_400), "scheduled": days})
    names = {"frame": rows.rename(columns={"scheduled": "observed_at"})}
    names |= {"rows": rows.iloc[:-336], "last_week": rows.iloc[-336:-168]}
    names |= dict.fromkeys(("this_week", "valid_rows", "all_rows"), rows.iloc[-168:])
    reference = Reference.fit(names["rows"], infer_columns(rows[["price"]]))
    names |= {"compare": compare, "reference": reference}

    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            exec(text, names)  # noqa: S102 -- the project's own documents


def test_every_test_that_the_score_rests_on_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/ml-test-score.md").read_text("utf-8")))
    written = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }

    assert named
    assert named <= written
