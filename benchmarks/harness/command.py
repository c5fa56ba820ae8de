"""The command line of a benchmark, its goals, and what it prints."""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from pydantic_core import to_json

from benchmarks.harness.processes import ChildError, shut_down

Figures = dict[str, Any]
Goal = dict[str, Any]
"""What is wanted of a figure: `goal` in words, its `value` and `limit`, and whether it is `met`."""
Result = tuple[Figures, list[Goal]]
Measure = Callable[..., Result]

SETTINGS: Final = ("HOLDFAST__", "MLFLOW_", "PREFECT_")
"""How environment variables begin that point flows to servers or change their settings."""
ERROR: Final = "error"
"""Key of the figures of a measurement whose child process failed."""
PRIVATE: Final = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


def options(name: str, doc: str | None, *, quick: str) -> argparse.ArgumentParser:
    """Parser of the options that every benchmark has; `quick` says what a quick run leaves out."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--quick", action="store_true", help=f"at most 60 s of CPU: {quick}")
    parser.add_argument("--seed", type=int, default=0, help="of everything random; 0 by default")
    return parser


def name_some(parser: argparse.ArgumentParser, what: str, known: Collection[str]) -> None:
    """Let the command line name some of what can be measured, which is all by default."""
    names = ", ".join(known)

    def one(given: str) -> str:
        if given not in known:
            message = f"{what} must be some of {names}. Got {given}."
            raise argparse.ArgumentTypeError(message)
        return given

    parser.add_argument(what, nargs="*", type=one, help=f"some of {names}; by default all")


def run(parser: argparse.ArgumentParser, measure: Measure) -> int:
    """Measure with the options of the command line and print the result; 1 if it failed."""
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    _forget_servers()
    figures, goals = _measured(measure, given)
    _tell(figures, goals, as_json=as_json)
    return int(ERROR in figures)


def run_parts(parser: argparse.ArgumentParser, measures: Sequence[Measure]) -> int:
    """Run the parts that the command line names, by default all; 1 if one of them failed.

    A part that fails does not keep the others from running. Libraries of all processes that are
    started are held to one thread, as CPU time is compared and trials run side by side.
    """
    parts = {measure.__name__: measure for measure in measures}
    name_some(parser, "parts", parts)
    given = parser.parse_args()
    _forget_servers()
    os.environ["OMP_NUM_THREADS"] = "1"
    figures: Figures = {}
    goals: list[Goal] = []
    for part in given.parts or parts:
        figures[part], wanted = _measured(parts[part], {"seed": given.seed, "quick": given.quick})
        goals += wanted
        print(f"{part}:", to_json(figures[part], indent=1, fallback=_number).decode(), flush=True)
    _tell(figures, goals, as_json=given.json)
    return int(any(ERROR in part for part in figures.values()))


def at_most(goal: str, value: float, limit: float) -> Goal:
    """A goal that is met up to the limit; nan never meets it."""
    return {"goal": goal, "value": value, "limit": limit, "met": bool(value <= limit)}


def at_least(goal: str, value: float, limit: float) -> Goal:
    """A goal that is met from the limit on; nan never meets it."""
    return {"goal": goal, "value": value, "limit": limit, "met": bool(value >= limit)}


def _forget_servers() -> None:
    """Let flows use no server and no setting that the user's shell names."""
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        del os.environ[name]
    os.environ.update(PRIVATE)


def _measured(measure: Measure, given: dict[str, Any]) -> Result:
    try:
        return measure(**given)
    except ChildError as error:
        print(error, file=sys.stderr, flush=True)
        return {ERROR: str(error)}, []


def _tell(figures: Figures, goals: list[Goal], *, as_json: bool) -> None:
    for goal in goals:
        outcome = "met   " if goal["met"] else "MISSED"
        print(outcome, f"{goal['goal']}: {goal['value']}, limit {goal['limit']}")
    shut_down()  # only then does the CPU time of the workers count
    print(f"{_cpu():.0f} s of CPU")
    if as_json:
        whole = {"figures": figures, "goals": goals}
        print(to_json(whole, inf_nan_mode="null", fallback=_number).decode())


def _cpu() -> float:
    """CPU seconds of this process and of all that it started and that ended."""
    return sum(os.times()[:4])


def _number(value: Any) -> Any:
    """A NumPy scalar as the number of Python that JSON knows."""
    return value.item()
