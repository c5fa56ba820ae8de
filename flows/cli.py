"""The command line `holdfast`: one command for each flow, and those that serve and set up."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import CycloptsError, Parameter
from cyclopts.validators import Number

from flows import setting_up  # noqa: F401 -- adds its commands
from flows.app import LIVE, VERSIONS, app, run
from flows.options import PLAIN, Moment, NamedMoment, Output
from flows.session import (
    FAILED,
    INTERRUPTED,
    REFUSED,
    UnexpectedError,
    exit_code,
    open_standard_streams,
    output_failed,
)
from pipeline.errors import ConfigError, PipelineError, UnavailableError
from pipeline.redaction import redacted


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
        Train on rows before this time; by default up to the end of the last judged batch, and
        for a first version up to training.until, else up to now.
    episode
        Episode of drift that this training answers, as the monitor named it.
    """
    run("train", conf, output, until=until, episode=episode)


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
        Time to read up to, not included; by default all rows up to the newest one are read.
    """
    run("validate", conf, output, source=source, start=start, end=end)


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
    run("register", conf, output, version=version, approved_by=approved_by)


@app.command(group=VERSIONS)
def promote(
    conf: str,
    /,
    *,
    source: Annotated[str, Parameter(name="--from")],
    approved_by: str = "",
    output: Output = PLAIN,
) -> None:
    """Copy another environment's champion into this one, and put it before the gate.

    The copy has the files of the champion, with their hashes, and a training run of its own. The
    gate compares it with the champion here, as any challenger. The other environment is only read.

    Parameters
    ----------
    conf
        The model's YAML file.
    source
        The environment to copy from, such as staging.
    approved_by
        Who approves it, where the file asks for approval (promotion.approval: manual).
    """
    run("promote", conf, output, source=source, approved_by=approved_by)


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
    run("monitor", conf, output, batch=batch)


@app.command(group=LIVE)
def score(
    conf: str,
    file: str = "",
    /,
    *,
    rows: str = "",
    start: Moment = None,
    end: Moment = None,
    explain: bool = False,
    output: Output = PLAIN,
) -> None:
    """Predict many rows at once and write them, with their keys, to a file or a database.

    Rows that break a rule are not predicted; they are written to the quarantine folder, each with
    its reasons. The file, or the rows of the window in the table, are replaced as a whole, so that
    this command can be repeated.

    Parameters
    ----------
    conf
        The model's YAML file.
    file
        File to write, .parquet or .csv: key, time, prediction and version of each row, of three
        or more classes the probability of each; decisions, and the ends of intervals or the classes
        of sets, if the version has them. By default the table of data.scores, with these columns.
    rows
        A file, folder or glob to read instead of the live source.
    start
        First time to read; by default the oldest row.
    end
        Time to read up to, not included; by default all rows up to the newest one are read.
    explain
        Write what each feature contributed to each prediction as well (XGBoost only).
    """
    run("score", conf, output, file=file, rows=rows, start=start, end=end, explain=explain)


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
    run("replay", conf, output, batches=batches)


@app.command(group=LIVE)
def replay_captures(
    conf: str,
    /,
    *,
    source: Annotated[str, Parameter(name="--from")],
    start: NamedMoment,
    end: Moment = None,
    address: Annotated[str, Parameter(name="--to")] = "",
    output: Output = PLAIN,
) -> None:
    """Send what another environment's API answered to this one's, and compare the predictions.

    Requests go one after the other, with the keys of their rows and the labels that have come for
    these. The API here captures them as its own, as of now. A window that is sent again is captured
    again.

    Parameters
    ----------
    conf
        The model's YAML file.
    source
        The environment whose captures are sent, such as production.
    start
        Send requests from this time on.
    end
        Time to send up to, not included; by default now.
    address
        Address of the API; by default that of serving.host and serving.port.
    """
    given: dict[str, Any] = {"source": source, "start": start, "end": end, "address": address}
    run("replay-captures", conf, output, **given)


@app.command(group=LIVE)
def review(
    conf: str,
    /,
    *,
    batch: Moment = None,
    answer: Literal["accept", "drop", "reload"] | None = None,
    reason: str | None = None,
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
    run("review", conf, output, done, batch=batch, answer=answer, reason=reason)


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
    run("rollback", conf, output, reason=reason)


@app.command(group=VERSIONS)
def release(conf: str, /, *, output: Output = PLAIN) -> None:
    """Let versions be promoted again after a rollback.

    The newest version that has waited is put before the gate at once.

    Parameters
    ----------
    conf
        The model's YAML file.
    """
    run("release", conf, output)


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
    run("digest", conf, output, until=until)


@app.command(group=LIVE)
def page(conf: str, /, *, test: bool = False, since: str = "", output: Output = PLAIN) -> None:
    """Send the pages that wait, and list those that an address has not taken.

    Parameters
    ----------
    conf
        The model's YAML file.
    test
        Send a test page to every address instead, and say which of them took it.
    since
        List all pages from the page with this id on, delivered or not.
    """
    result = run("page", conf, output, test=test, since=since)
    if not all(one["took"] for one in result.get("addresses", ())):
        message = "An address did not take the test page. Correct it in alerts, and test it again."
        raise UnavailableError(message)


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
    encoding = sys.getfilesystemencoding()
    if encoding.lower() != "utf-8":  # files that MLflow and Prefect write would differ as well
        message = (
            f"Names and contents of files must be in UTF-8. Got {encoding} from the environment. "
            "Unset PYTHONUTF8, or set it to 1."
        )
        return _say(ConfigError(message), REFUSED)
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
        sys.stderr.write(f"{redacted(str(error))}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
