"""The newest packages, which a constraint of uv makes older ones here, judged for real."""

import json
import shutil

import pytest

from flows import scratch
from flows.train import train
from flows.upgrade_check import first
from pipeline.errors import UnavailableError

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("count", range(1, 9))
def test_halving_finds_the_first_number_that_holds(count):
    for expected in range(1, count + 1):
        tried = []

        def holds(number, expected=expected, tried=tried):
            tried.append(number)
            return number >= expected

        assert first(holds, count) == expected
        assert 2 ** len(tried) < 2 * max(count, 1) + 1


def test_without_a_champion_nothing_is_resolved(shop, holdfast, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")

    code, out, err = holdfast("upgrade-check", shop)

    assert (code, out) == (1, "")
    assert "has no champion yet" in err


def test_without_uv_the_cure_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)

    with pytest.raises(UnavailableError, match=r"needs uv, .* Install it: `pip install uv`\."):
        scratch.newest(tmp_path)


def test_without_a_network_the_reason_of_uv_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_NO_CONFIG", "1")

    with pytest.raises(UnavailableError, match=r"(?s)uv cannot .*network.* retry\.") as raised:
        scratch.newest(tmp_path)

    assert "\n" not in str(raised.value)


def test_packages_have_one_spelling_and_what_tries_them_is_installed_here():
    here = scratch.here()

    assert set(scratch.DIRECT) <= set(here)
    assert "pydantic-core" in here


@pytest.fixture
def allow(tmp_path, monkeypatch):
    """Lets the ranges of the project allow older packages only, which are then the newest ones."""

    def only(*ranges):
        file = tmp_path / "pyproject.toml"
        file.write_text(f"[project]\ndependencies = {json.dumps([*scratch.DIRECT, *ranges])}\n")
        monkeypatch.setattr(scratch, "PROJECT", file)

    return only


def changes(found):
    return {one["package"]: one["now"].rpartition(".")[0] for one in found["changed"]}


@pytest.mark.night
def test_packages_that_predict_alike_are_equal(trained, holdfast, allow):
    allow("pandas==3.0.*")

    code, out, _ = holdfast("upgrade-check", trained, "--bisect", "--json")

    found = json.loads(out)
    assert (code, found["verdict"], found["culprit"]) == (0, "equal", None)
    assert changes(found)["pandas"] == "3.0"
    assert found["golden"]["champion"]["verdict"] == found["training"]["verdict"] == "equal"


@pytest.mark.night
def test_the_package_that_changed_predictions_is_found(
    make_conf, write_shop, tmp_path, holdfast, allow
):
    """Histogram boosting of scikit-learn 1.9 grows other trees than that of 1.8."""
    write_shop(tmp_path)
    estimator = "sklearn.ensemble.HistGradientBoostingClassifier"
    shop = make_conf(training={"estimator": estimator, "until": "2026-02-16", "holdout": "7D"})
    train(shop)
    allow("pandas==3.0.*", "scikit-learn==1.8.*", "scipy==1.16.*", "xgboost==3.1.*")

    code, out, err = holdfast("upgrade-check", shop, "--bisect", "--json")

    found = json.loads(out)
    assert changes(found).keys() >= {"pandas", "scikit-learn", "scipy", "xgboost"}
    assert (code, found["verdict"], found["training"]["verdict"]) == (1, "different", "different")
    assert found["culprit"]["package"] == "scikit-learn"
    assert found["golden"]["champion"]["verdict"] == "equal"
    assert "Verdict: different. Stored versions predict as before, but a training" in err
