"""What people are paged about flows that fail, crash or succeed again."""

import shlex
import time
from collections.abc import Mapping
from typing import Any, Final

from pipeline.reporting.pages import Event
from pipeline.reporting.rendering import moment_of, plain


def failed_flow(
    model: str,
    flow: str,
    parameters: Mapping[str, Any],
    *,
    run: str,
    error: str,
    at: str,
    crashed: bool = False,
    attempt: int = 0,
    attempts: int = 0,
) -> Event:
    """Page about a flow that failed, or crashed with its process.

    Parameters
    ----------
    model : str
        Name of the model.
    flow : str
        Name of the flow, which is the name of its command too.
    parameters : mapping of str to Any
        What it was called with; ``conf`` is the path of the model's file.
    run : str
        Id of its run.
    error : str
        What went wrong.
    at : str
        When it ended.
    crashed : bool
        Whether its process ended before it did.
    attempt, attempts : int
        Number of the run among the attempts at a retrain, and how many there are; 0: it is none.
    """
    conf = parameters["conf"]
    body = plain(
        "failed_flow.txt.j2",
        flow=flow,
        conf=conf,
        harm=_LATE if parameters.get("episode") else _HARM.get(flow, _NO_HARM),
        error=reason_of(error),
        at=at,
        crashed=crashed,
        attempt=attempt,
        attempts=attempts,
        again=_command(flow, parameters),
    )
    subject = f"{model}: {flow} {'crashed' if crashed else 'failed'}"
    again = 0 < attempt < attempts
    about = f"{flow}-{run}"
    return Event("failure", about, subject, body, fails(flow), recurs=True, under_way=again)


def stuck_retrain(model: str, asked: Mapping[str, Any], error: str) -> Event:
    """Page about a retrain that no run will make; `asked` are the parameters of `train`."""
    body = plain(
        "stuck_retrain.txt.j2",
        episode=asked["episode"],
        harm=_LATE,
        error=error,
        at=moment_of(time.time()),
        by_hand=_command("train", asked),
    )
    about = f"train-given-up-{asked['episode']}"
    return Event("failure", about, f"{model}: a retrain is stuck", body, fails("train"))


def reason_of(message: str) -> str:
    """Why a run failed, without the words of Prefect before it."""
    return message.removeprefix(_RAISED)


def fails(flow: str) -> str:
    """The episode of a flow that fails until it succeeds."""
    return f"{flow} fails"


_RAISED: Final = "Flow run encountered an exception: "
"""How Prefect begins to say why a run failed."""
_HARM: Final = {
    "monitor": "no batch is judged until it succeeds. What serves is not changed by it.",
    "train": "no new version comes until it succeeds. What serves is not changed by it.",
    "replay": "later batches are not judged until it succeeds.",
    "register": "the version is not promoted. What serves is not changed by it.",
    "rollback": "the champion that was to be replaced serves on, unless MLflow shows another.",
    "release": "no version is promoted until it succeeds. What serves is not changed by it.",
    "review": "the answer may not be recorded, and its batches stay set aside.",
}
_LATE: Final = "the champion serves on, with the drift or loss that a retrain was asked for."
_NO_HARM: Final = "nothing else waits for it. What serves is not changed by it."


def succeeded_flow(model: str, flow: str, conf: str, run: str, *, failed: float) -> Event:
    """Page about a flow that succeeds after runs that failed, the first in a row at a moment."""
    moments = {"failed": moment_of(failed), "at": moment_of(time.time())}
    body = plain("succeeded_flow.txt.j2", flow=flow, conf=conf, **moments)
    subject = f"{model}: resolved, {flow} succeeds again"
    return Event("resolved", f"{flow}-{run}", subject, body, fails(flow))


def _command(flow: str, parameters: Mapping[str, Any]) -> str:
    """Write the call of a flow as it is typed."""
    words = ["holdfast", flow]
    for name, value in parameters.items():
        if value not in {None, ""}:
            option = [] if name in {"conf", "version"} else [f"--{name.replace('_', '-')}"]
            words += [*option, str(value)]
    return shlex.join(words)
