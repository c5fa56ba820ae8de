import ast
import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "redaction": set(),
    "tracing": set(),
    "logs": {"tracing"},
    "errors": {"redaction"},
    "config": {"errors", "logs", "redaction"},
    "columns": {"config", "errors"},
    "derivation": {"columns", "config", "errors"},
    "reference": {"columns", "config", "errors"},
    "data": {"derivation", "columns", "config", "errors"},
    # It drafts what `data` reads, and tries the draft on the rows themselves.
    "drafting": {"data", "columns", "config", "errors"},
    "training": {"reference", "derivation", "columns", "config", "errors"},
    "monitoring": {"reference", "columns", "config", "errors"},
    # It tries policies on the past: `flows` makes the monitor's decisions and hands them over.
    "backtest": {"training", "data", "columns", "config", "errors"},
    "reporting": {
        *("backtest", "monitoring", "training", "reference"),
        *("columns", "config", "errors", "redaction"),
    },
    "registry": {
        *("reporting", "monitoring", "training", "reference"),
        *("columns", "config", "errors"),
    },
    "serving": {
        "registry",
        "training",
        "data",
        "derivation",
        "columns",
        "config",
        "errors",
        "logs",
        "redaction",
        "tracing",
    },
}
"""What each room of `pipeline` may import."""
SHIMS = {"pipeline.model": {"training"}}
"""Modules that versions registered in an older layout point to."""
ONLY_IN = {
    "mlflow": "pipeline.registry",
    "starlette": "pipeline.serving",
    "uvicorn": "pipeline.serving",
    "prefect": "flows",
    "apprise": "pipeline.reporting",
}
LARGEST = 400
"""Lines of a module, less one."""
DIAGNOSES = "pipeline.monitoring.diagnoses."
"""Their functions may be longer."""
MOST_PATHS = 15
"""Largest cyclomatic complexity of a function, its nested functions included."""


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_of(path): path
    for folder in ("pipeline", "flows", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


@cache
def imports(path):
    """Modules that a file imports anywhere, inside of functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room(module):
    return module.split(".")[1]


def rooms_imported(module):
    ours = {name for name in imports(MODULES[module]) if name.startswith("pipeline.")}
    return {room(name) for name in ours} - {room(module)}


PIPELINE = [name for name in MODULES if name.startswith("pipeline.") and name not in SHIMS]


def test_the_package_names_every_room():
    assert importlib.import_module("pipeline").__all__ == sorted(BELOW)


def test_each_room_imports_only_rooms_listed_before_it():
    rooms = list(BELOW)

    for name, below in BELOW.items():
        assert below <= set(rooms[: rooms.index(name)])


def test_the_rooms_of_the_pipeline_are_those_of_the_map():
    assert {room(name) for name in PIPELINE} == set(BELOW)


def test_a_module_imports_only_rooms_below_its_own():
    upward = {name: rooms_imported(name) - BELOW[room(name)] for name in PIPELINE}

    assert {name: rooms for name, rooms in upward.items() if rooms} == {}


def exported(name):
    """What a room lets other rooms and flows import."""
    for node in ast.parse(MODULES[f"pipeline.{name}"].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


ROOMS = [name for name in BELOW if (ROOT / "pipeline" / name).is_dir()]


@pytest.mark.parametrize("name", ROOMS)
def test_other_rooms_and_flows_import_only_what_a_room_exports(name):
    outside = [one for one in MODULES if not f"{one}.".startswith(f"pipeline.{name}.")]
    used = {
        imported.split(".")[2]
        for module in outside
        for imported in imports(MODULES[module])
        if imported.startswith(f"pipeline.{name}.")
    }

    assert used <= exported(name)


@pytest.mark.parametrize("name", ROOMS)
def test_what_a_room_exports_exists(name):
    loaded = importlib.import_module(f"pipeline.{name}")

    assert exported(name)
    for one in exported(name):
        assert hasattr(loaded, one) or f"pipeline.{name}.{one}" in MODULES


def test_a_shim_imports_only_what_it_stands_for():
    assert {name: rooms_imported(name) for name in SHIMS} == SHIMS


def test_modules_form_no_circle():
    graph = {module: imports(MODULES[module]) & set(PIPELINE) - {module} for module in PIPELINE}
    for name in BELOW:
        graph.pop(f"pipeline.{name}", None)  # a room gathers its modules

    while leaves := [module for module, uses in graph.items() if not uses & set(graph)]:
        for module in leaves:
            del graph[module]

    assert graph == {}


def test_a_library_is_imported_in_one_place_only():
    for library, place in ONLY_IN.items():
        users = {
            name
            for name, path in MODULES.items()
            if library in {imported.split(".")[0] for imported in imports(path)}
        }
        elsewhere = {name for name in users if not f"{name}.".startswith(f"{place}.")}

        assert users, library
        assert elsewhere == set(), library


def test_the_pipeline_imports_neither_flows_nor_examples():
    for name in PIPELINE:
        assert not {one.split(".")[0] for one in imports(MODULES[name])} & {"flows", "examples"}


def test_no_module_has_outgrown_one_idea():
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}

    assert {name: lines for name, lines in lengths.items() if lines >= LARGEST} == {}


def lines_of(function):
    """Lines of a function, its signature included and its docstring not."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    docstring = first.end_lineno - first.lineno + 1 if documented else 0
    return function.end_lineno - function.lineno + 1 - docstring


def test_functions_are_short():
    lengths = {}
    for name, path in MODULES.items():
        if name.startswith(DIAGNOSES):
            continue
        lengths |= {
            f"{name}:{node.lineno} {node.name}": lines_of(node)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        }

    longest = sorted(lengths.items(), key=lambda one: -one[1])[:15]
    assert np.median(list(lengths.values())) <= 8, longest
    assert np.quantile(list(lengths.values()), 0.9) <= 25, longest


BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert)


def complexity_of(function):
    """Cyclomatic complexity, counting each `and`, `or` and condition of a comprehension."""
    paths = 1
    for node in ast.walk(function):
        if isinstance(node, BRANCHES):
            paths += 1
        elif isinstance(node, ast.BoolOp):
            paths += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            paths += 1 + len(node.ifs)
        elif isinstance(node, ast.match_case):
            paths += 1
    return paths


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("return a", 1),
        ("if a and b or c:\n        return a", 4),
        ("return [x for x in a if x]", 3),
        ("for x in a:\n        while x:\n            x = b if c else d", 4),
        ("try:\n        a()\n    except b:\n        assert c", 3),
        ("match a:\n        case 1:\n            pass\n        case _:\n            pass", 3),
    ],
)
def test_complexity_counts_branches_and_boolean_operators(source, expected):
    function = ast.parse(f"def f():\n    {source}").body[0]

    assert complexity_of(function) == expected


def test_no_function_has_too_many_paths():
    paths = {
        f"{name}:{node.lineno} {node.name}": complexity_of(node)
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }

    assert {name: count for name, count in paths.items() if count > MOST_PATHS} == {}


@pytest.mark.slow
def test_the_pipeline_loads_without_mlflow_and_prefect():
    names = [name for name in PIPELINE if room(name) != "registry"]
    script = f"""
import importlib, sys
for name in {names!r}:
    if not name.endswith("__main__"):
        importlib.import_module(name)
    loaded = sorted({{"mlflow", "prefect"}} & set(sys.modules))
    assert not loaded, (name, loaded)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-2000:]
