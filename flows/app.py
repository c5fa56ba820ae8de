"""The application behind the command line: its groups of commands, and how one is run.

Nothing heavy is imported before a command runs, so that `holdfast --help` answers at once.
"""

import atexit
import gc
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module, metadata
from typing import Any

from cyclopts import App, Group, Parameter

from flows.options import HELP, Output
from flows.session import session, stdout_to_stderr

MODULES = {
    "export": "pipeline.serving.server",
    "release": "flows.register",
    "restore": "flows.backup",
    "rollback": "flows.register",
}
"""Modules of functions that are not named like their module."""

OWN_BAR = {"backtest", "replay"}
"""Commands that draw a progress bar of their own."""

app = App(
    name="holdfast",
    help=HELP,
    help_format="markdown",
    version=lambda: metadata.version("holdfast"),
    default_parameter=Parameter(negative="", show_default=False),
)
VERSIONS, LIVE, SERVING, SETUP, OPTIONS = map(
    Group.create_ordered, ("Versions", "Live batches", "Serving", "Set up", "Options")
)
app["--help"].group = app["--version"].group = OPTIONS
# Python's last collections would look through all that was imported, for nearly a second.
atexit.register(gc.freeze)


def run(command: str, conf: str, output: Output, done: str = "", **given: Any) -> Any:
    """Run the function behind a command on a model's file, print what it returned, return it."""
    with (
        stdout_to_stderr() if output.json else nullcontext(),
        session(conf, output, live=command not in OWN_BAR) as settings,
    ):
        result = _function(command)(conf, **given)
    if not output.json:
        sys.stdout.write(done)
    show(command, result, output, settings)
    return result


def _function(command: str) -> Callable[..., Any]:
    """The function behind a command, from its module.

    Garbage collections take a fifth of such an import and find nothing: what is imported stays.
    """
    name = command.replace("-", "_")
    gc.disable()
    try:
        module = import_module(MODULES.get(command, f"flows.{name}"))
    finally:
        gc.enable()
    function: Callable[..., Any] = getattr(module, name)
    return function


def show(command: str, result: Any, output: Output, *about: Any) -> None:
    """Print what a command returned, as JSON or for people."""
    from flows import terminal  # noqa: PLC0415

    if output.json:
        terminal.print_json(command, result)
    else:
        terminal.SHOW[command](result, *about)
