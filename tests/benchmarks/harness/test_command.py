import json
import os
import sys

import numpy as np
import pytest

from benchmarks.harness.command import at_least, at_most, options, run, run_parts
from benchmarks.harness.processes import ChildError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """A copy of the environment, as benchmarks change theirs."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.fixture
def asked(monkeypatch):
    def ask(*words):
        monkeypatch.setattr(sys, "argv", ["benchmark", *words])
        return options("name", "What it measures.", quick="less of it")

    return ask


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def small(seed, *, quick):
    figures = {"seed": seed, "quick": quick, "undefined": float("nan"), "count": np.int64(3)}
    return figures, [at_most("little", 1, 2), at_least("much", float("nan"), 2)]


def failing(seed, *, quick):
    what = "`child` failed."
    raise ChildError(what, f"its last words, {seed} {quick}")


def test_the_last_line_is_one_object_with_figures_and_goals(asked, capsys):
    assert run(asked("--json", "--quick", "--seed", "4"), small) == 0

    printed = last_line(capsys)
    assert printed["figures"] == {"seed": 4, "quick": True, "undefined": None, "count": 3}
    assert printed["goals"] == [
        {"goal": "little", "value": 1, "limit": 2, "met": True},
        {"goal": "much", "value": None, "limit": 2, "met": False},
    ]


def test_without_json_goals_are_printed_as_text(asked, capsys):
    assert run(asked(), small) == 0

    printed = capsys.readouterr().out
    assert "met    little: 1, limit 2" in printed
    assert "MISSED much: nan, limit 2" in printed


def test_parts_are_chosen_by_name(asked, capsys):
    assert run_parts(asked("small", "--json"), (small, failing)) == 0

    assert last_line(capsys)["figures"].keys() == {"small"}


def test_unknown_parts_are_refused(asked, capsys):
    with pytest.raises(SystemExit):
        run_parts(asked("large"), (small, failing))

    assert "some of small, failing. Got large." in capsys.readouterr().err


def test_a_part_whose_child_fails_shows_why_and_lets_the_others_run(asked, capsys):
    assert run_parts(asked("--json"), (failing, small)) == 1

    shown = capsys.readouterr()
    figures = json.loads(shown.out.splitlines()[-1])["figures"]
    assert "its last words, 0 False" in shown.err
    assert "its last words" in figures["failing"]["error"]
    assert figures["small"]["count"] == 3


def test_benchmarks_use_no_server_and_no_setting_of_the_shell(asked):
    os.environ |= {
        "HOLDFAST__TRACKING__URI": "http://somewhere",
        "MLFLOW_TRACKING_URI": "http://somewhere",
        "PREFECT_API_URL": "http://somewhere",
        "HOLDFAST_BENCH_DATA": "data",
    }

    run(asked(), small)

    assert not {"HOLDFAST__TRACKING__URI", "MLFLOW_TRACKING_URI"} & set(os.environ)
    assert "PREFECT_API_URL" not in os.environ
    assert os.environ["HOLDFAST_BENCH_DATA"] == "data"
