"""History through the monitor, batch by batch, as if it were live: `make demo`."""

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

from flows.monitor import judge, judge_shadows, next_batch, settle, tell
from flows.retrains import outstanding
from flows.steps import check, opened, page_failure, patient, read
from flows.train import train
from pipeline.config import Settings
from pipeline.data.labels import labelled
from pipeline.errors import DataError, PipelineError
from pipeline.registry import records
from pipeline.registry.records import Batch
from pipeline.registry.versions import CHAMPION, Registry
from pipeline.reporting.pages import Event, page
from pipeline.training.metrics import LOSS, evaluate
from pipeline.training.model import Model

Tell = Callable[[str], None]
WIDTH = 110
"""Of the table where the output is no terminal."""


@flow(name="replay", on_failure=[page_failure])
def replay(conf: str, batches: int | None = None) -> list[dict[str, Any]]:
    """Train the first version if there is none, then judge every batch, or the next so many."""
    settings, registry = opened(conf)
    with Progress(
        TextColumn("{task.description}", table_column=None),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    ) as progress:
        bar = progress.add_task("reading", total=None)

        def say(what: str) -> None:
            progress.update(bar, description=what)

        say("training the first version")
        if registry.alias(CHAMPION) is None:
            train(conf)
            registry.champion()  # says so if the gate refused it
        last = _last_end(settings)
        length = settings.monitoring.batch
        start = next_batch(settings, registry)
        left = max(int((last - start) // length), 0)
        left = left if batches is None else min(left, batches)
        catch_up(conf, settings, registry)
        done = len(records.batches(registry))
        progress.update(bar, total=done + left, completed=done)
        for k in range(left):
            try:
                step(conf, settings, registry, start + k * length, say)
            except DataError as error:  # one unusable batch is no reason to stop the history
                progress.console.print(f"Not judged: {error}")
                subject = f"{settings.name}, batch {start + k * length:%Y-%m-%d}: not judged"
                page(Event("quarantine", subject, str(error)), settings.alerts.urls)
            progress.advance(bar)
        patient(settle)(settings, registry, last + settings.data.label_delay)
        say("comparing with the first version left alone")
        return _story(settings, registry)


def catch_up(conf: str, settings: Settings, registry: Registry) -> None:
    """Page and train for the last batch, where an earlier replay was stopped before it could."""
    with registry.exclusive("monitor"):
        for last in records.batches(registry)[-1:]:
            tell(settings, registry, last)
        judge_shadows(settings, registry)
    asked = outstanding(conf, settings, registry)
    if asked is not None:
        train(**asked)


def step(conf: str, settings: Settings, registry: Registry, start: pd.Timestamp, say: Tell) -> None:
    """Judge one batch, and train here and now where that is asked for."""
    say(f"batch {start:%Y-%m-%d}")
    with registry.exclusive("monitor"):
        judged = judge(settings, registry, start)
        tell(settings, registry, judged)
    if judged.verdict.decision.action == "retrain":
        say(f"batch {start:%Y-%m-%d}: retrain")
    catch_up(conf, settings, registry)


@patient
def _last_end(settings: Settings) -> pd.Timestamp:
    """End of the newest row's day."""
    rows = read(settings, settings.data.live or settings.data.train, None, None)
    newest: pd.Timestamp = rows[settings.data.time].max()
    return newest.normalize() + pd.Timedelta("1D")


@patient
def _story(settings: Settings, registry: Registry) -> list[dict[str, Any]]:
    """One row a batch, with the first version's scores beside the maintained model's."""
    first = registry.bundle(registry.versions()[0].number).model
    story = []
    for batch in records.batches(registry):
        scores = {} if batch.performance is None else batch.performance.scores
        alone = _alone(settings, first, batch)
        story.append(
            {
                "batch": batch.name[:10],
                "rows": batch.rows,
                "refused": batch.quarantined,
                "drifted": list(batch.drifted),
                "outcome": batch.outcome,
                "causes": list(batch.verdict.evidence.broken),
                "action": batch.verdict.decision.action,
                "reason": batch.verdict.decision.reason,
                "version": batch.verdict.evidence.version,
                "maintained": scores,
                "alone": alone,
            }
        )
    return story


def _alone(settings: Settings, model: Model, batch: Batch) -> dict[str, float]:
    if not batch.rows:
        return {}
    data, start = settings.data, pd.Timestamp(batch.name)
    end = start + settings.monitoring.batch
    rows = read(settings, data.live or data.train, start, end)
    valid = check(settings, rows, f"batch {start:%Y-%m-%dT%H%M}").valid
    known = labelled(valid, data, as_of=end + data.label_delay)
    target = known[data.target].to_numpy(dtype=np.float64)
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
