import sys
from importlib import import_module
from pathlib import Path

import pytest

import benchmarks

FOLDER = Path(benchmarks.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


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
