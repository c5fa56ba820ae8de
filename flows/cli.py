"""The command line `holdfast`: one command for each flow, and those that serve and set up.

Nothing heavy is imported before a command runs, so that `holdfast --help` answers at once.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from importlib import import_module, metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.validators import Number

from flows.options import HELP, PLAIN, Moment, Output
from flows.session import (
    FAILED,
    INTERRUPTED,
    REFUSED,
    UnexpectedError,
    exit_code,
    open_standard_streams,
    output_failed,
    session,
    stdout_to_stderr,
)
from pipeline.errors import ConfigError, PipelineError, UnavailableError

MODULES = {
    "export": "pipeline.serving.server",
    "release": "flows.register",
    "rollback": "flows.register",
}
"""Modules of functions that are not named like their module."""

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


@app.command(group=VERSIONS)
def train(conf: str, /, *, until: Moment = None, episode: str = "", output: Output = PLAIN) -> None:
    """Train a version and make it the champion if it passes the gate.

    The gate compares it with the champion and with a trivial model on rows that neither was
    trained on. A version of the same rows and settings that is not decided yet is taken up
    instead of trained again.

    Parameters
    ----------
    conf
        The model's YAML file.
    until
        Train on rows before this time; by default up to the end of the last judged batch.
    episode
        Episode of drift that this training answers, as the monitor named it.
    """
    _run("train", conf, output, until=until, episode=episode)


@app.command(group=VERSIONS)
def validate(
    conf: str,
    /,
    *,
    source: Literal["train", "live"] = "train",
    start: Moment = None,
    end: Moment = None,
    output: Output = PLAIN,
) -> None:
    """Check rows of a source against the declared columns, without training or judging.

    Rows that break a rule are written to the quarantine folder, each with its reasons.

    Parameters
    ----------
    conf
        The model's YAML file.
    source
        Which source of the file to read: train or live.
    start
        First time to read; by default the oldest row.
    end
        Time to read up to, not included; by default the newest row.
    """
    _run("validate", conf, output, source=source, start=start, end=end)


@app.command(group=VERSIONS)
def register(conf: str, version: int, /, *, approved_by: str = "", output: Output = PLAIN) -> None:
    """Put a trained version before the gate and make it the champion if it passes.

    Parameters
    ----------
    conf
        The model's YAML file.
    version
        Number of the version, as MLflow and `holdfast train` show it.
    approved_by
        Who approves it, where the file asks for approval (promotion.approval: manual).
    """
    _run("register", conf, output, version=version, approved_by=approved_by)


@app.command(group=LIVE)
def monitor(conf: str, /, *, batch: Moment = None, output: Output = PLAIN) -> None:
    """Judge the next batch of live rows, and act on it: nothing, page people, or retrain.

    The batch is compared with the rows the champion was trained on. A batch that was judged
    already is not judged again, so this command can be repeated at any time.

    Parameters
    ----------
    conf
        The model's YAML file.
    batch
        Start of the batch to judge; by default the one after the last judged batch.
    """
    _run("monitor", conf, output, batch=batch)


@app.command(group=LIVE)
def replay(
    conf: str,
    /,
    *,
    batches: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    output: Output = PLAIN,
) -> None:
    """Judge all past batches one by one as if they came in live, and retrain where asked.

    Trains the first version if there is none. A replay that was stopped continues where it
    stopped.

    Parameters
    ----------
    conf
        The model's YAML file.
    batches
        How many batches to judge; by default all.
    """
    _run("replay", conf, output, batches=batches)


@app.command(group=LIVE)
def review(
    conf: str,
    /,
    *,
    batch: Moment = None,
    answer: Literal["accept", "drop", "reload"] | None = None,
    reason: str = "",
    output: Output = PLAIN,
) -> None:
    """List broken batches that wait for an answer, or answer for one of them.

    Parameters
    ----------
    conf
        The model's YAML file.
    batch
        Start of the batch to answer for.
    answer
        reload: read and judge the batch again, because its source was mended. accept: the
        world is like that now, use the rows. drop: never train on these rows.
    reason
        Why, for the record.
    """
    if (batch is None) != (answer is None):
        message = "--batch and --answer must come together. Got only one of them."
        raise ConfigError(message)
    done = f"Recorded: {answer} for batch {batch}.\n" if answer else ""
    _run("review", conf, output, done, batch=batch, answer=answer, reason=reason)


@app.command(group=VERSIONS)
def rollback(conf: str, /, *, reason: str = "asked for by hand", output: Output = PLAIN) -> None:
    """Make the previous champion the champion again.

    No version is promoted afterwards until `holdfast release`.

    Parameters
    ----------
    conf
        The model's YAML file.
    reason
        Why, for the record.
    """
    _run("rollback", conf, output, reason=reason)


@app.command(group=VERSIONS)
def release(conf: str, /, *, output: Output = PLAIN) -> None:
    """Let versions be promoted again after a rollback.

    The newest version that has waited is put before the gate at once.

    Parameters
    ----------
    conf
        The model's YAML file.
    """
    _run("release", conf, output)


@app.command(group=LIVE)
def digest(conf: str, /, *, until: Moment = None, output: Output = PLAIN) -> None:
    """Summarise the requests that the served model refused in one week.

    Parameters
    ----------
    conf
        The model's YAML file.
    until
        End of the week; by default today.
    """
    _run("digest", conf, output, until=until)


@app.command(group=LIVE)
def page(conf: str, /, *, test: bool = False, output: Output = PLAIN) -> None:
    """Send the pages that wait, and list those that an address has not taken.

    Parameters
    ----------
    conf
        The model's YAML file.
    test
        Send a test page to every address instead, and say which of them took it.
    """
    result = _run("page", conf, output, test=test)
    if not all(one["took"] for one in result.get("addresses", ())):
        message = "An address did not take the test page. Correct it in alerts, and test it again."
        raise UnavailableError(message)


@app.command(group=SERVING)
def serve(conf: str | None = None, /) -> None:
    """Serve the champion over HTTP, and follow it when it changes.

    The address is serving.host and serving.port of the file, by default
    http://127.0.0.1:8000, where /openapi.json describes the API. Ctrl-C stops the server.

    Parameters
    ----------
    conf
        The model's YAML file; without it, the exported model in the folder that MODEL_DIR
        names is served.
    """
    from pipeline.serving import server  # noqa: PLC0415 -- slow to import, as all below

    server.serve(conf)


@app.command(group=SERVING)
def export(conf: str, folder: str, /, *, output: Output = PLAIN) -> None:
    """Write the champion to a folder that `holdfast serve` serves without MLflow.

    Parameters
    ----------
    conf
        The model's YAML file.
    folder
        Where to write it; set MODEL_DIR to it when serving.
    """
    _run("export", conf, output, folder=folder)


@app.command(group=SETUP)
def up(*conf: str) -> None:
    """Start Prefect, MLflow and a worker for a team; Ctrl-C stops them all.

    Deploys the flows that prefect.yaml of the current folder lists. HOLDFAST_PREFECT_PORT
    (4200) and HOLDFAST_MLFLOW_PORT (5000) set the ports.

    Parameters
    ----------
    conf
        The models' YAML files; by default all that prefect.yaml names.
    """
    from flows import up  # noqa: PLC0415

    up.up(conf)


@app.command(group=SETUP)
def doctor(conf: str, /, *, output: Output = PLAIN) -> None:
    """List what is missing or odd in a model's state, each with its cure; nothing is changed.

    Parameters
    ----------
    conf
        The model's YAML file.
    """
    _run("doctor", conf, output)


@app.command(group=SETUP)
def watch(conf: str, /, *more: str, once: bool = False) -> None:
    """Watch models from outside of their runs; `holdfast up` does it for its models.

    Pages about runs that died and about silence (no monitor, no batch, no labels for two
    batches), sends a lost retrain again, and sends the pages that wait. Ctrl-C ends it.

    Parameters
    ----------
    conf
        A model's YAML file.
    more
        The files of further models.
    once
        Look once and end, for cron.
    """
    with session(conf, live=False):
        from flows import watch  # noqa: PLC0415

        watch.watch([conf, *more], once=once)


@app.command(group=SETUP)
def schema(*, write: bool = False) -> None:
    """Print the JSON schema of the models' YAML files, for editors to complete and check them.

    Parameters
    ----------
    write
        Write it to conf/schema.json instead.
    """
    from flows import schema  # noqa: PLC0415

    schema.schema(write=write)


def _run(command: str, conf: str, output: Output, done: str = "", **given: Any) -> Any:
    """Run the function behind a command on a model's file, print what it returned, return it."""
    from flows import terminal  # noqa: PLC0415

    with (
        stdout_to_stderr() if output.json else nullcontext(),
        # A replay draws a progress bar of its own.
        session(conf, verbose=output.verbose, live=command != "replay") as settings,
    ):
        run = getattr(import_module(MODULES.get(command, f"flows.{command}")), command)
        result = run(conf, **given)
    if output.json:
        terminal.print_json(command, result)
    else:
        sys.stdout.write(done)
        terminal.SHOW[command](result, settings)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line; those of this process by default.

    Returns
    -------
    int
        0 when it is done, 1 when it failed, 2 when its input was refused, 130 after Ctrl-C.
    """
    open_standard_streams()
    sys.path.append(str(Path.cwd()))  # a YAML file may name functions of the folder it is used in
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except CycloptsError as error:
        return _say(error, REFUSED)
    except (PipelineError, UnexpectedError) as error:
        return _say(error, exit_code(error))
    except OSError as error:  # of stdout: all others were turned into one of the errors above
        if lost := output_failed(error):
            return _say(lost, FAILED)
    return 0


def _say(error: Exception, code: int) -> int:
    with suppress(OSError):
        sys.stderr.write(f"{error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
