"""Answer for broken batches: accept their rows, drop them, or read them again."""

import argparse
import sys
from typing import Any, get_args

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.judge import judge
from flows.monitor import page_about
from flows.replay import WIDTH
from flows.retrains import send
from flows.steps import opened, page_failure
from pipeline.config import Settings
from pipeline.errors import PipelineError, RegistryError
from pipeline.registry import records
from pipeline.registry.history import Batch, History
from pipeline.registry.records import Answer
from pipeline.registry.versions import Registry


@flow(name="review", on_failure=[page_failure])
def review(
    conf: str, batch: str | None = None, answer: Answer | None = None, reason: str = ""
) -> list[dict[str, Any]]:
    """Record an answer for a batch and act on it, if one is given; the batches still open."""
    settings, registry = opened(conf)
    if (batch is None) != (answer is None):
        message = (
            "An answer must name a batch and say accept, drop or reload. Got only one of the two."
        )
        raise RegistryError(message)
    history = records.read_history(registry)
    if batch is not None and answer is not None:
        answered = records.record_answer(registry, history, batch, answer, reason)
        history = history.with_batch(answered)
        if answer == "reload":
            history = _read_again(settings, registry, answered)
    questions = _questions(registry, history)
    _show(settings, questions)
    return questions


def _read_again(settings: Settings, registry: Registry, answered: Batch) -> History:
    """Read a batch from its mended source again, judge it, and act on the decision."""
    with registry.exclusive("monitor"):
        history = records.read_history(registry)
        reading = answered.reading + 1
        history = judge(settings, registry, history, answered.start, reading=reading)
        history = page_about(settings, registry, history, answered.name)
    reason = history.batch(answered.name).verdict.decision.reason
    get_run_logger().info("Batch %s was read again. %s", answered.name, reason)
    send(settings, registry, history)
    return history


def _questions(registry: Registry, history: History) -> list[dict[str, Any]]:
    """Each broken batch that waits for an answer, with its faults and what to do."""
    found = []
    for batch in history.batches:
        if batch.is_open:
            causes = records.causes(registry, batch)
            found.append(
                {
                    "batch": batch.name,
                    "causes": [cause.name for cause in causes],
                    "sentences": [cause.sentence for cause in causes],
                    "cures": [cause.cure for cause in causes],
                }
            )
    return found


def _show(settings: Settings, questions: list[dict[str, Any]]) -> None:
    """Show the broken batches that wait for an answer as a table in Prefect's UI."""
    create_table_artifact(
        key=f"{settings.name}-review",
        table=[
            {
                name: value if isinstance(value, str) else "\n".join(value)
                for name, value in row.items()
            }
            for row in questions
        ],
        description=f"{len(questions)} broken batches of {settings.name} wait for an answer.",
    )


def table(questions: list[dict[str, Any]]) -> Table:
    """Open questions as a person reads them."""
    drawn = Table(title="Broken batches that wait for an answer", show_lines=True)
    drawn.add_column("batch", no_wrap=True)
    for heading in ("cause", "what was seen", "what to do"):
        drawn.add_column(heading)
    for row in questions:
        cells = ["\n".join(row[name]) for name in ("causes", "sentences", "cures")]
        drawn.add_row(row["batch"], *map(escape, cells))
    return drawn


def main() -> int:
    """Review on the command line; 0 when done, 2 with a sentence when it cannot."""
    parser = argparse.ArgumentParser(prog="python -m flows.review", description=__doc__)
    parser.add_argument("conf", help="a model's YAML file")
    parser.add_argument("--batch", help="start of the batch to answer for")
    parser.add_argument("--answer", choices=get_args(Answer), help="what to do with its rows")
    parser.add_argument("--reason", default="", help="why")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        questions = review(**vars(arguments))
    except PipelineError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if arguments.answer:
        console.print(f"Recorded: {arguments.answer} for {arguments.batch}.", markup=False)
    if not questions:
        console.print("No broken batch waits for an answer.")
        return 0
    console.print(table(questions))
    console.print(
        f"Answer with: python -m flows.review {arguments.conf} --batch {questions[0]['batch']} "
        '--answer reload (or accept, or drop) --reason "..."',
        markup=False,
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
