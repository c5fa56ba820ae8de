"""Answer for broken batches: accept their rows, drop them, or read them again."""

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from flows.judge import judge
from flows.notes import OF_A_MODEL
from flows.paging import page_owed
from flows.reports import redraw
from flows.retrains import send
from flows.settle import recent_history
from flows.steps import opened
from pipeline.config import Settings
from pipeline.errors import ConfigError, RegistryError
from pipeline.registry import records
from pipeline.registry.answers import Answer, record_answer
from pipeline.registry.history import Batch, History
from pipeline.registry.versions import Registry

_LABELS = "Mend the source of the labels; they are read again by themselves."


@flow(name="review", **OF_A_MODEL)
def review(
    conf: str, batch: str | None = None, answer: Answer | None = None, reason: str | None = None
) -> list[dict[str, Any]]:
    """Record an answer for a batch and act on it, if one is given; the batches still open."""
    settings, registry = opened(conf)
    if (batch is None) != (answer is None):
        message = (
            "An answer must name a batch and say accept, drop or reload. Got only one of the two."
        )
        raise RegistryError(message)
    if reason is not None and not reason.strip():
        message = "A reason must say why. Got a blank one. Say why, or leave the reason out."
        raise ConfigError(message)
    history = records.read_history(registry)
    if batch is not None and answer is not None:
        answered = record_answer(registry, history, batch, answer, reason or "")
        history = history.with_batch(answered)
        redraw(settings, registry, history, answered)
        if answer == "reload":
            history = _read_again(settings, registry, answered)
    questions = _questions(registry, history)
    _show(settings, questions)
    return questions


def _read_again(settings: Settings, registry: Registry, answered: Batch) -> History:
    """Read a batch from its mended source again, judge it, and act on the decision."""
    with registry.exclusive("monitor"):
        history = recent_history(settings, registry, answered.start)
        reading = answered.reading + 1
        history = judge(settings, registry, history, answered.start, reading=reading)
        history = page_owed(settings, registry, history)
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
            labels = {} if batch.performance is None else batch.performance.faults
            found.append(
                {
                    "batch": batch.name,
                    "causes": [*(cause.name for cause in causes), *labels],
                    "sentences": [*(cause.sentence for cause in causes), *labels.values()],
                    "cures": [*(cause.cure for cause in causes), *[_LABELS] * len(labels)],
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
