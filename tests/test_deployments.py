import ast
from importlib import import_module
from pathlib import Path

import pytest

from flows.deploy import FLOWS
from flows.notes import run_name
from flows.paging import ended

ROOT = Path(__file__).parents[1]


def is_flow(decorator):
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(name) in {"flow", "prefect.flow"}


def test_every_flow_is_deployed():
    written = {
        node.name.replace("_", "-"): f"flows.{path.stem}"
        for path in (ROOT / "flows").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and any(map(is_flow, node.decorator_list))
    }

    assert written == FLOWS


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_has_the_name_of_its_function_and_begins_with_the_model_file_and_pages(name):
    flow = getattr(import_module(FLOWS[name]), name.replace("-", "_"))

    assert flow.name == name
    first = next(iter(flow.fn.__annotations__.items()))
    assert first == ("conf", str)
    hooks = [flow.on_completion_hooks, flow.on_failure_hooks, flow.on_crashed_hooks]
    assert (flow.flow_run_name, hooks) == (run_name, [[ended]] * 3)
