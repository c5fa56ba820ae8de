import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {"pipeline.errors": 0, "pipeline.config": 1, "pipeline.columns": 2, "pipeline.sources": 2}
STAGE, FLOW = 3, 4


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_of(path): path
    for folder in ("pipeline", "flows", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
MLFLOW = "pipeline.tracking", "pipeline.registry"
IMPORTABLE = [
    name
    for name in MODULES
    if name.startswith("pipeline")
    and not name.endswith((*MLFLOW, "records", "champions", "__main__"))
]


def imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def top_level_imports(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    found = set()
    for node in tree.body:
        names = {alias.name for alias in node.names}
        module = getattr(node, "module", None)
        found |= {module, *(f"{module}.{name}" for name in names)} if module else names
    return found


def layer(module):
    if module.startswith("flows"):
        return FLOW
    return LAYERS.get(module, STAGE)


@pytest.mark.parametrize("module", MODULES)
def test_imports_at_the_top_point_down_the_layers(module):
    ours = {name for name in top_level_imports(MODULES[module]) if name in MODULES}
    upward = {name for name in ours - {"pipeline"} if layer(name) > layer(module)}

    assert not upward


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("pipeline")])
def test_the_pipeline_knows_neither_flows_nor_examples(module):
    roots = {name.split(".")[0] for name in imports(MODULES[module])}

    assert not roots & {"flows", "examples", "prefect"}


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith(MLFLOW)])
def test_mlflow_is_imported_by_two_modules_alone(module):
    assert not {name for name in imports(MODULES[module]) if name.split(".")[0] == "mlflow"}


@pytest.mark.parametrize("module", MODULES)
def test_fastapi_is_imported_by_serving_alone(module):
    web = {"fastapi", "starlette", "uvicorn"}
    roots = {name.split(".")[0] for name in imports(MODULES[module])}

    assert module.startswith("pipeline.serving") or not roots & web


def test_the_pipeline_loads_without_mlflow_and_prefect():
    script = f"""
import importlib, sys
for name in {IMPORTABLE!r}:
    importlib.import_module(name)
    loaded = sorted({{"mlflow", "prefect"}} & set(sys.modules))
    assert not loaded, (name, loaded)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-2000:]
