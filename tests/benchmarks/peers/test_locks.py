import re
import tomllib

import pytest

from benchmarks.peers import ENVIRONMENTS, HERE


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(name):
    return tomllib.loads((HERE / name / "uv.lock").read_text(encoding="utf-8"))


def project(name):
    return tomllib.loads((HERE / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_peer_environment_has_a_lock_file():
    projects = sorted(path.parent.name for path in HERE.glob("*/pyproject.toml"))

    assert projects == ENVIRONMENTS
    assert {"evidently", "nannyml", "servers"} <= set(ENVIRONMENTS)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_lock_file_holds_every_requirement_in_the_wanted_version(name):
    versions = {package["name"]: package["version"] for package in locked(name)["package"]}

    for requirement in project(name)["dependencies"]:
        wanted, version = re.match(r"([\w.-]+)==([^;\s]+)", requirement).groups()
        assert versions[canonical(wanted)] == version


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("evidently", "Evidently"),
        ("nannyml", "NannyML"),
        ("servers", "MLflow"),
        ("servers", "FastAPI"),
    ],
)
def test_the_comparison_names_the_versions_that_are_locked(name, tool):
    comparison = (HERE.parents[1] / "docs/comparison.md").read_text(encoding="utf-8")
    versions = {package["name"]: package["version"] for package in locked(name)["package"]}

    assert f"{tool} {versions[canonical(tool)]}" in comparison


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_locked_file_has_a_hash(name):
    never_installed = {project(name)["name"], "nvidia-nccl-cu12"}

    for package in locked(name)["package"]:
        files = [*package.get("wheels", ()), *filter(None, [package.get("sdist")])]
        assert files or package["name"] in never_installed
        assert all(file["hash"].startswith("sha256:") for file in files)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_lock_file_is_for_every_python_of_the_project(name):
    root = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))

    assert project(name)["requires-python"] == root["project"]["requires-python"]
