import os
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest

import benchmarks
from benchmarks.harness import command
from docs.documented import commands, without_variables

FOLDER = Path(benchmarks.__file__).parent
CALL = re.compile(r"(?:\.venv/bin/)?python -m benchmarks\.(\w+.*)")
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
DOCUMENTED = sorted(
    {found[1] for line in commands() if (found := CALL.fullmatch(without_variables(line)))}
)
"""What documents write after `python -m benchmarks.`: a benchmark, its parts and options."""


@pytest.mark.parametrize("name", [*NAMES, "peers.__main__"])
def test_every_benchmark_has_the_common_options(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])

    with pytest.raises(SystemExit, match="0"):
        import_module(f"benchmarks.{name}").main()

    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--quick", "--json", "--seed"))


@pytest.mark.parametrize("name", [*NAMES, "peers"])
def test_the_readme_has_a_row_for_every_benchmark(name):
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")

    assert f"`python -m benchmarks.{name}`" in readme


@pytest.mark.parametrize("written", DOCUMENTED)
def test_a_documented_benchmark_takes_the_words_that_it_is_written_with(
    written, monkeypatch, capsys
):
    name, *words = shlex.split(written)
    monkeypatch.setattr(sys, "argv", [name, *words])
    monkeypatch.setattr(os, "environ", os.environ.copy())  # benchmarks change theirs
    monkeypatch.setattr(command, "_measured", lambda *_: ({}, []))  # words alone are tried

    assert started(name) == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_lists_the_benchmarks_that_take_names(name, monkeypatch, capsys):
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    (listed,) = re.findall(
        r"^`causes`, .*? take names of tables\.", readme, re.MULTILINE | re.DOTALL
    )
    monkeypatch.setattr(sys, "argv", [name, "--help"])

    with pytest.raises(SystemExit, match="0"):
        started(name)

    assert ("positional arguments:" in capsys.readouterr().out) == (f"`{name}`" in listed)


def started(name):
    whole = "peers.__main__" if name == "peers" else name
    return import_module(f"benchmarks.{whole}").main()
