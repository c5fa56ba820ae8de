import ast
from pathlib import Path

import pytest
import yaml

from flows import deployments, up
from pipeline.config import Settings

ROOT = Path(__file__).parents[1]
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def is_flow(decorator):
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(name) in {"flow", "prefect.flow"}


FLOWS = {
    node.name
    for path in (ROOT / "flows").glob("*.py")
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef) and any(map(is_flow, node.decorator_list))
}
each_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["entrypoint"])


def function_of(entrypoint):
    path, _, name = entrypoint.partition(":")
    tree = ast.parse((ROOT / path).read_text())
    return next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)


def keyword(decorator, name):
    keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
    return next((k.value for k in keywords if k.arg == name), None)


@each_deployment
def test_the_entrypoint_is_a_flow_of_its_own_name(deployment):
    function = function_of(deployment["entrypoint"])
    flow = next(d for d in function.decorator_list if is_flow(d))
    name = keyword(flow, "name")

    assert name is None or ast.literal_eval(name) == function.name


@each_deployment
def test_the_first_parameter_is_the_model_file(deployment):
    first = function_of(deployment["entrypoint"]).args.args[0]

    assert first.arg == "conf"
    assert ast.unparse(first.annotation) == "str"


@each_deployment
def test_every_parameter_given_exists(deployment):
    args = function_of(deployment["entrypoint"]).args
    known = {argument.arg for argument in args.args + args.kwonlyargs}

    assert deployment["parameters"].keys() <= known


@each_deployment
def test_the_deployment_is_named_after_its_model(deployment):
    assert deployment["name"] == Settings.load(ROOT / deployment["parameters"]["conf"]).name


@each_deployment
def test_the_work_pool_is_the_one_that_up_starts_a_worker_for(deployment):
    assert deployment["work_pool"]["name"] == up.POOL


def test_every_flow_is_deployed_once():
    names = [deployment["entrypoint"].partition(":")[2] for deployment in DEPLOYMENTS]

    assert sorted(names) == sorted(FLOWS)


@pytest.mark.parametrize("name", ["train", "monitor", "review"])
def test_two_runs_of_what_changes_a_model_do_not_overlap(name):
    limits = [d["concurrency_limit"] for d in DEPLOYMENTS if d["entrypoint"].endswith(f":{name}")]

    assert limits == [{"limit": 1, "collision_strategy": "ENQUEUE"}]


def test_nothing_is_scheduled_until_somebody_says_so():
    schedules = [s for deployment in DEPLOYMENTS for s in deployment.get("schedules", [])]

    assert [schedule["active"] for schedule in schedules] == [False, False]


def test_keys_that_prefect_reads_are_known_and_others_are_named():
    from prefect.cli.deploy import _models  # noqa: PLC0415 -- private: only this test reads it

    read = {
        "": _models.DeploymentConfig,
        "work_pool": _models.WorkPoolConfig,
        "concurrency_limit": _models.ConcurrencyLimitSpec,
    }
    assert {part: set(keys.split()) for part, keys in deployments.KEYS.items()} == {
        part: set(model.model_fields) for part, model in read.items()
    }
    assert not deployments.ignored_keys(DEPLOYMENTS)
    mistyped = {**DEPLOYMENTS[0], "schedules_": [], "work_pool": {"name": "x", "queue": "y"}}
    ignored = "prefect.yaml, flows/validate.py:validate: Prefect ignores the key"
    assert deployments.ignored_keys([mistyped]) == [
        f"{ignored} 'schedules_'. Did you mean 'schedules'?",
        f"{ignored} 'work_pool.queue'. Remove it.",
    ]
