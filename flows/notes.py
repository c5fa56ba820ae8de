"""What people see of a run in Prefect: its name, one sentence, and a note with its figures."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from prefect import get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client

from flows.paging import ended, links
from pipeline import tracing
from pipeline.config import Settings
from pipeline.errors import PipelineError
from pipeline.registry.versions import Registry

_SHOWN = ("version", "batch", "until", "start", "end")
"""Parameters that tell runs of a flow apart."""
_WIDTH = 88
"""Characters of a line of an artifact."""


def run_name() -> str:
    """Name of this run: its flow, its model and what it is about, such as `register flights 3`."""
    given: dict[str, Any] = runtime.flow_run.parameters
    conf = str(given.get("conf", ""))
    try:
        model = Settings.load(conf).name
    except PipelineError:  # which the flow reports
        model = Path(conf).stem
    about = [str(given[name]).removesuffix(" 00:00:00") for name in _SHOWN if given.get(name)]
    return " ".join([str(runtime.flow_run.flow_name), model, *about])


OF_A_MODEL: Final[dict[str, Any]] = {
    "flow_run_name": run_name,
    "on_completion": [ended],
    "on_failure": [ended],
    "on_crashed": [ended],
}
"""What every flow of a model has beside its name: how its runs are called, and who is paged."""


def is_scheduled() -> bool:
    """Whether a schedule started this run, and nobody asked for it: Prefect tags such runs."""
    return "auto-scheduled" in runtime.flow_run.tags


def _folded(said: str) -> Iterator[str]:
    """Lines that are no wider than Prefect shows; commands stay whole, to be copied."""
    for line in said.splitlines():
        yield from [line] if line.startswith("holdfast ") else wrap(line, _WIDTH)


def note(
    registry: Registry,
    run_id: str,
    sentence: str,
    *,
    name: str,
    figures: Mapping[str, object],
    page: str,
    said: str = "",
) -> None:
    """Say what a run did: in its log, as its name, and as an artifact with links to MLflow.

    Parameters
    ----------
    registry : Registry
        The model's.
    run_id : str
        The run in MLflow; it gets the address of this run.
    sentence : str
        What was found and done.
    name : str
        New name of the run, as it knows more now than when it started.
    figures : mapping of str to object
        Rows of the note's table.
    page : str
        The artifact of the run that people read first.
    said : str
        What people are paged about, in lines; it ends with what they have to do.
    """
    tracing.annotate({"mlflow.run_id": run_id})
    get_run_logger().info(sentence)
    flow_run = runtime.flow_run.id
    if not flow_run:
        return
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run, name=name)
    shown = dict(line.split(": ", 1) for line in links(registry, run_id, page) if line)
    rows = [f"| {what} | {figure} |" for what, figure in figures.items() if figure != ""]
    lines = ["```text", *_folded(said), "```"] if said else [f"**{sentence}**"]
    addresses = [f"[{where}]({address})" for where, address in shown.items()]
    create_markdown_artifact(
        "\n".join([*lines, "", "| | |", "|---|---|", *rows, "", *addresses]),
        key=f"{registry.name}-{runtime.flow_run.flow_name}",
    )
    if "Prefect" in shown:
        registry.tag_run(run_id, "prefect", shown["Prefect"])
    if trace_id := tracing.ids().get("trace_id"):
        registry.tag_run(run_id, "trace_id", trace_id)
