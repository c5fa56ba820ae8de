"""Replay past batches through the monitor one by one, as if they came in live."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from flows.judge import judge
from flows.monitor import judge_shadows, next_batch, page_about
from flows.retrains import outstanding
from flows.settle import live_source, rows_name, settle
from flows.steps import check, opened, page_failure, patient, read
from flows.train import train
from pipeline.config import Settings
from pipeline.data.labels import labelled
from pipeline.errors import DataError, PipelineError
from pipeline.registry import records
from pipeline.registry.history import Batch, History, batch_name
from pipeline.registry.versions import CHAMPION, Registry
from pipeline.reporting.pages import Event, page
from pipeline.training.metrics import LOSS, evaluate
from pipeline.training.model import Model

Say = Callable[[str], None]
WIDTH = 110
"""Of the table where the output is no terminal."""


@flow(name="replay", on_failure=[page_failure])
def replay(conf: str, batches: int | None = None) -> list[dict[str, Any]]:
    """Train the first version if there is none, then judge all batches, or the next `batches`."""
    settings, registry = opened(conf)
    with _progress() as progress:
        bar = progress.add_task("training the first version", total=None)

        def say(doing: str) -> None:
            progress.update(bar, description=doing)

        if registry.alias(CHAMPION) is None:
            train(conf)
            registry.champion()  # raises if the gate refused the version
        history = catch_up(settings, registry)
        end = _last_end(settings)
        starts = _starts(settings, next_batch(registry, history), end)[:batches]
        done = len(history.batches)
        progress.update(bar, total=done + len(starts), completed=done)
        for start in starts:
            try:
                step(settings, registry, start, say)
            except DataError as error:  # the history goes on after an unusable batch
                progress.console.print(f"Not judged: {error}")
                subject = f"{settings.name}, batch {start:%Y-%m-%d}: not judged"
                page(Event("quarantine", subject, str(error)), settings.alerts.urls)
            progress.advance(bar)
        history = patient(records.read_history)(registry)
        history = patient(settle)(settings, registry, history, end + settings.data.label_delay)
        say("comparing with the first version left alone")
        return _story(settings, registry, history)


def _progress() -> Progress:
    """A bar on standard error that counts batches."""
    return Progress(
        TextColumn("{task.description}", table_column=None),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _starts(settings: Settings, first: pd.Timestamp, end: pd.Timestamp) -> list[pd.Timestamp]:
    """Starts of the batches that are over by a moment."""
    length = settings.monitoring.batch
    return [first + k * length for k in range(max(int((end - first) // length), 0))]


def step(settings: Settings, registry: Registry, start: pd.Timestamp, say: Say) -> None:
    """Judge one batch, and train in this process if a retrain is asked for."""
    say(f"batch {start:%Y-%m-%d}")
    with registry.exclusive("monitor"):
        history = patient(records.read_history)(registry)
        history = judge(settings, registry, history, start)
        history = page_about(settings, registry, history, batch_name(start))
    if history.batch(batch_name(start)).verdict.decision.action == "retrain":
        say(f"batch {start:%Y-%m-%d}: retrain")
    catch_up(settings, registry)


def catch_up(settings: Settings, registry: Registry) -> History:
    """Page and train for the last batch, if a replay was stopped before it could.

    Returns
    -------
    History
        All recorded batches.
    """
    with registry.exclusive("monitor"):
        history = patient(records.read_history)(registry)
        if history.last is not None:
            history = page_about(settings, registry, history, history.last.name)
        judge_shadows(settings, registry, history)
    asked = outstanding(registry, history)
    if asked is not None:
        train(**asked)
    return history


@patient
def _last_end(settings: Settings) -> pd.Timestamp:
    """End of the newest row's day."""
    rows = read(settings, live_source(settings), None, None)
    newest: pd.Timestamp = rows[settings.data.time].max()
    return newest.normalize() + pd.Timedelta("1D")


@patient
def _story(settings: Settings, registry: Registry, history: History) -> list[dict[str, Any]]:
    """One row for each batch, with the first version's scores beside the maintained model's."""
    first = registry.bundle(registry.versions()[0].number).model
    return [
        {
            "batch": batch.name[:10],
            "rows": batch.rows,
            "refused": batch.quarantined,
            "drifted": list(batch.drifted),
            "outcome": batch.outcome,
            "causes": list(batch.verdict.evidence.broken),
            "action": batch.verdict.decision.action,
            "reason": batch.verdict.decision.reason,
            "version": batch.version,
            "maintained": batch.performance.scores if batch.performance else {},
            "alone": _alone(settings, first, batch),
        }
        for batch in history.batches
    ]


def _alone(settings: Settings, model: Model, batch: Batch) -> dict[str, float]:
    """Scores of a model on a batch; empty while the batch has no valid row with a label."""
    if not batch.rows:
        return {}
    rows = read(settings, live_source(settings), batch.start, batch.end)
    valid = check(settings, rows, rows_name(batch.name, reading=1)).valid
    known = labelled(valid, settings.data, as_of=batch.end + settings.data.label_delay)
    target = known[settings.data.target].to_numpy(dtype=np.float64)
    return evaluate(settings.task, target, model.predict(known)) if len(known) else {}


def table(story: list[dict[str, Any]], task: str) -> Table:
    """The story of a replay as a person reads it."""
    shown = SHOWN[task]
    drawn = Table(title="Batch by batch: the maintained model beside the first one left alone")
    drawn.add_column("batch", no_wrap=True)
    drawn.add_column("rows", justify="right")
    for heading in ("drifted", "decision", "champion"):
        drawn.add_column(heading)
    for heading in shown.values():
        drawn.add_column(f"{heading}\nmaintained", justify="right")
        drawn.add_column(f"{heading}\nleft alone", justify="right")
    for row in story:
        found = row["causes"] or row["drifted"]
        few = ", ".join(found[:4]) + (" ..." if len(found) > 4 else "")  # noqa: PLR2004 -- as fits
        few = escape(f"broken: {few}" if row["causes"] else few)
        cells = [row["batch"], f"{row['rows']:,}", few, _decision(row), f"v{row['version']}"]
        for name in shown:
            cells += [f"{row[side].get(name, np.nan):.3f}" for side in ("maintained", "alone")]
        drawn.add_row(*cells)
    return drawn


SHOWN = {
    "classification": {"roc_auc": "AUC", "log_loss": "log-loss"},
    "regression": {"r2": "R2", "rmse": "RMSE"},
}


def _decision(row: dict[str, Any]) -> str:
    colours = {"retrain": "bold yellow", "halt": "bold red"}
    colour = "bold red" if row["causes"] else colours.get(row["action"])
    return f"[{colour}]{row['action']}[/]" if colour else row["action"]


def closing(story: list[dict[str, Any]], settings: Settings) -> str:
    """What the replay found, in two sentences."""
    retrains = sum(row["action"] == "retrain" for row in story)
    broken = sum(bool(row["causes"]) for row in story)
    versions = len({row["version"] for row in story})
    means = {
        side: pd.Series([row[side].get(LOSS[settings.task], np.nan) for row in story]).mean()
        for side in ("maintained", "alone")
    }
    return (
        f"{_count(len(story), 'batch', 'batches')} judged, "
        f"{f'{broken} of them broken, ' if broken else ''}"
        f"{_count(retrains, 'retrain', 'retrains')} asked for, "
        f"{_count(versions, 'champion', 'champions')} served. "
        f"Mean {LOSS[settings.task]}: {means['maintained']:.4f} maintained, "
        f"{means['alone']:.4f} left alone."
    )


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def main() -> int:
    """Replay on the command line; 0 when done, 2 with a sentence when it cannot."""
    parser = argparse.ArgumentParser(prog="python -m flows.replay", description=__doc__)
    parser.add_argument("conf", help="a model's YAML file")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        settings = Settings.load(arguments.conf)
        story = replay(arguments.conf)
    except PipelineError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    console.print(table(story, settings.task))
    console.print(closing(story, settings), soft_wrap=True)
    console.print("Look at the runs, charts and versions: [bold]make ui[/]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
