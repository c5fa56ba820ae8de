"""What benchmarks of several parts share: their command line, goals, and trials side by side."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

WORKERS = 2
Goal = dict[str, Any]
Told = tuple[dict[str, Any], list[Goal]]
Part = Callable[..., Told]


def command(name: str, doc: str | None, every: Sequence[Part], quick: str) -> int:
    """Run the parts that the command line names, and print what they tell."""
    parts = {part.__name__: part for part in every}
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc)
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(parts)}; all by default")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    unknown = sorted(set(given.parts) - set(parts))
    if unknown:
        parser.error(f"unknown parts {', '.join(unknown)}; there are {', '.join(parts)}")
    os.environ["OMP_NUM_THREADS"] = "1"  # CPU time is compared, and trials run side by side
    figures: dict[str, Any] = {}
    goals: list[Goal] = []
    for part in given.parts or parts:
        told, met = parts[part](given.seed, quick=given.quick)
        figures[part] = told
        goals += met
        print(f"{part}:", json.dumps(told, indent=1), flush=True)
    for goal in goals:
        print("met " if goal["met"] else "MISSED", goal["goal"], goal["value"], goal["limit"])
    if given.json:
        print(json.dumps({"figures": figures, "goals": goals}))
    return 0


def python(*arguments: str, folder: Path, **settings: str) -> str:
    """What a Python prints whose flows keep to a folder, whatever servers there are.

    Raises
    ------
    RuntimeError
        If it fails, with its last words.
    """
    others = ("HOLDFAST__", "MLFLOW_TRACKING_URI", "PREFECT_API_URL")
    own = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    done = subprocess.run(  # noqa: S603 -- our own commands
        [sys.executable, *arguments],
        env=kept | own | settings,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        message = f"{arguments} with {settings} failed.\n{done.stderr[-2000:]}"
        raise RuntimeError(message)
    return done.stdout


def at_most(goal: str, value: float, limit: float) -> Goal:
    return {"goal": goal, "value": value, "limit": limit, "met": bool(value <= limit)}


def at_least(goal: str, value: float, limit: float) -> Goal:
    return {"goal": goal, "value": value, "limit": limit, "met": bool(value >= limit)}


def side_by_side(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    with ProcessPoolExecutor(WORKERS) as pool:
        return list(pool.map(work, items))
