"""Commands that serve a model, and those that set up and look after what it runs on."""

from contextlib import nullcontext
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from flows.app import SERVING, SETUP, app, run, show
from flows.options import PLAIN, Output
from flows.session import session, stdout_to_stderr
from pipeline.errors import RegistryError
from pipeline.logs import LogFormat


@app.command(group=SERVING)
def serve(
    conf: str | None = None,
    /,
    *,
    workers: Annotated[int | None, Parameter(validator=Number(gte=1, lte=64))] = None,
    log_format: LogFormat | None = None,
) -> None:
    """Serve the champion over HTTP, and follow it when it changes.

    The address is serving.host and serving.port of the file, by default
    http://127.0.0.1:8000, where /openapi.json describes the API. Ctrl-C stops the server.

    Parameters
    ----------
    conf
        The model's YAML file; without it, the exported model in the folder that MODEL_DIR
        names is served.
    workers
        Processes that answer, in place of serving.workers.
    log_format
        How records are logged, in place of serving.log_format: text, or json, an object on a line.
    """
    from pipeline.serving import server  # noqa: PLC0415 -- slow to import, as all below

    server.serve(conf, workers, log_format)


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
    run("export", conf, output, folder=folder)


@app.command(group=SETUP)
def init(
    source: str,
    /,
    *,
    target: str,
    time: str | None = None,
    key: str | None = None,
    name: str | None = None,
    query: str | None = None,
    output: Output = PLAIN,
) -> None:
    """Write conf/NAME.yaml for a table, with a reason for every choice as a comment.

    The file can be trained and monitored as it is. No file is overwritten.

    Parameters
    ----------
    source
        A CSV or Parquet file, a folder or glob of them, `package.module:function`, or an
        SQLAlchemy URL together with --query.
    target
        The column to predict: up to 50 labels, or numbers.
    time
        The column that says when a row came; by default the best that is found.
    key
        The column that identifies a row; by default the best that is found.
    name
        Name of the model; by default the name of the source.
    query
        A SELECT statement, for a database.
    """
    from flows import init, terminal  # noqa: PLC0415

    with stdout_to_stderr() if output.json else nullcontext():
        result = init.init(source, target, query=query, time=time, key=key, name=name)
    if output.json:
        terminal.print_json("init", result)
    else:
        terminal.show_init(result)


@app.command(group=SETUP)
def up(*conf: str) -> None:
    """Start Prefect, MLflow and a worker on this machine; Ctrl-C stops them all.

    Deploys all flows of the models, as `holdfast deploy` does. HOLDFAST_PREFECT_PORT (4200)
    and HOLDFAST_MLFLOW_PORT (5000) set the ports.

    Parameters
    ----------
    conf
        The models' YAML files; by default all of the folder conf.
    """
    from flows import up  # noqa: PLC0415

    up.up(conf)


@app.command(group=SETUP)
def deploy(*conf: str, output: Output = PLAIN) -> None:
    """Deploy the flows of models to the server that PREFECT_API_URL names.

    The monitor is scheduled after the end of each batch, and the digest weekly. Repeat it when
    a file was added or changed: schedules that people paused or changed in Prefect stay as they
    are, and so do pools, tags and limits. Runs start in the current folder, so deploy from a
    folder that workers have as well; `prefect worker start --pool holdfast` starts a worker.

    Parameters
    ----------
    conf
        The models' YAML files; by default all of the folder conf.
    """
    with stdout_to_stderr() if output.json else nullcontext():
        from flows.models import load  # noqa: PLC0415

        models = load(conf)
        with session(models[0].conf, output):
            from flows import deploy  # noqa: PLC0415

            deployed = deploy.deploy(models)
    show("deploy", deployed, output)


@app.command(group=SETUP)
def check(conf: str, /, *, output: Output = PLAIN) -> None:
    """Check a model's file and its rows, and print what training and monitoring will do.

    Takes seconds, needs no server and keeps nothing but its log. Lists every mistake of the
    file with its line; then the rows that would be refused, the false alarms to expect in a
    year, the smallest change that a batch shows, and how long a training takes.

    Parameters
    ----------
    conf
        The model's YAML file.
    """
    with stdout_to_stderr() if output.json else nullcontext():
        from flows import check  # noqa: PLC0415

        check.usable(conf)
        with session(conf, output):
            checked = check.check(conf)
    show("check", checked, output)


@app.command(group=SETUP)
def backtest(
    conf: str, /, *, cost: float = 0.0, apply: bool = False, output: Output = PLAIN
) -> None:
    """Compare policies of retraining on the past rows, and recommend one.

    Takes minutes: a fit before each batch since training.until, and the monitor as it would
    have judged them. Stores nothing but one run in MLflow. A comparison that was ended goes on
    when it is started again.

    Parameters
    ----------
    conf
        The model's YAML file.
    cost
        Cost of a retrain, as a share of the loss of the first model on one batch.
    apply
        Write the recommended settings into the file, and leave all else in it as it is.
    """
    run("backtest", conf, output, cost=cost, apply=apply)


@app.command(group=SETUP)
def tune(
    conf: str,
    /,
    *,
    trials: Annotated[int, Parameter(validator=Number(gte=1))] = 30,
    minutes: Annotated[float, Parameter(validator=Number(gt=0))] = 30,
    apply: bool = False,
    output: Output = PLAIN,
) -> None:
    """Try parameters of the estimator on past rows, and list the best beside those of the file.

    Each trial is judged on newer rows than it was fitted on, all of them before the rows that
    judge a version. A trial is chosen only if it is better on every stretch of them, and must then
    be better on one that it was not chosen on; else the parameters of the file stay. No version is
    trained or promoted. A search that was ended goes on when it is started again; each trial is a
    run in MLflow.

    Parameters
    ----------
    conf
        The model's YAML file; training.search may list values of each parameter to try.
    trials
        Trials in all, the first of which is of the parameters of the file.
    minutes
        No trial begins after so many minutes.
    apply
        Write the best parameters into the file, and leave all else in it as it is.
    """
    run("tune", conf, output, trials=trials, minutes=minutes, apply=apply)


@app.command(group=SETUP)
def doctor(conf: str, /, *, output: Output = PLAIN) -> None:
    """List what is missing or odd in a model's state, each with its cure; nothing is changed.

    Parameters
    ----------
    conf
        The model's YAML file.
    """
    run("doctor", conf, output)


@app.command(group=SETUP)
def upgrade_check(conf: str, /, *, bisect: bool = False, output: Output = PLAIN) -> None:
    """Judge the newest allowed packages by predictions, before anything is upgraded.

    uv puts the newest versions that the ranges of the project allow into an environment that is
    thrown away. There the golden rows of the champion and of the previous champion are replayed,
    and a small training is repeated. Ends with 1 where predictions are different. Nothing is
    changed or recorded.

    Parameters
    ----------
    conf
        The model's YAML file.
    bisect
        Find the package that changed predictions.
    """
    result = run("upgrade-check", conf, output, bisect=bisect)
    if result["verdict"] == "different":
        raise RegistryError(f"Verdict: different. {result['sentence']}")


@app.command(group=SETUP)
def backup(conf: str, file: str, /, *, output: Output = PLAIN) -> None:
    """Copy the folder of all state into one archive, while it is in use.

    Parameters
    ----------
    conf
        The model's YAML file; other models of its folder are copied too.
    file
        The archive to write, a new .tar.gz file.
    """
    run("backup", conf, output, file=file)


@app.command(group=SETUP)
def restore(conf: str, file: str, /, *, output: Output = PLAIN) -> None:
    """Put the state of an archive into the empty folder that a model's file names.

    Parameters
    ----------
    conf
        The model's YAML file; tracking.folder must hold no state.
    file
        An archive of `holdfast backup`.
    """
    run("restore", conf, output, file=file)


@app.command(group=SETUP)
def prune(conf: str, /, *, apply: bool = False, output: Output = PLAIN) -> None:
    """Say how much space is taken by what is old and no decision needs, or delete it.

    Reports, sampled rows and stored predictions of batches, files of refused rows, and delivered
    pages go after the times of the section retention, and captures after serving.keep. Versions,
    decisions, metrics and tags stay, and so do open questions.

    Parameters
    ----------
    conf
        The model's YAML file.
    apply
        Delete it.
    """
    run("prune", conf, output, apply=apply)


@app.command(group=SETUP)
def forget(conf: str, /, *, key: str, reason: str, output: Output = PLAIN) -> None:
    """Remove the rows of a person from all that is kept of a model, and list what stays.

    Captures, refused requests, quarantine, stored predictions, and held-out, golden and sampled
    rows of every version lose them; versions stay servable. The request is recorded with its
    reason, without the key. A run that was cut off is finished by the next.

    Parameters
    ----------
    conf
        The model's YAML file.
    key
        The person's key, a value of data.key.
    reason
        Why, for the record; do not name the person.
    """
    run("forget", conf, output, key=key, reason=reason)


@app.command(group=SETUP)
def watch(conf: str, /, *more: str, once: bool = False, log_format: LogFormat = "text") -> None:
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
    log_format
        json: Log each record as one JSON object, to standard error and to the log file.
    """
    with session(conf, Output(log_format=log_format), live=False):
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
