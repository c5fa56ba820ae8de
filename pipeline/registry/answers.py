"""What people answer for batches, as tags of these."""

import getpass
import json
from dataclasses import replace
from typing import Literal

import pandas as pd

from pipeline.errors import RegistryError
from pipeline.registry.history import Batch, History, batch_name
from pipeline.registry.tracking import Tracking, translated
from pipeline.reporting.advice import Answered

Answer = Literal["accept", "drop", "reload"]


def record_answer(
    tracking: Tracking, history: History, name: str, answer: Answer, reason: str
) -> Batch:
    """Record what people answer for a batch; repeating an answer changes nothing.

    Parameters
    ----------
    tracking : Tracking
        Where to record it.
    history : History
        All recorded batches.
    name : str
        Name of the batch, or any spelling of its start.
    answer : str
        ``accept``: the world is like that now. ``drop``: never learn from these rows. ``reload``:
        the source was mended, and the batch is to be read and judged again.
    reason : str
        Why, in the words of whoever answers; the first 300 characters are kept.

    Returns
    -------
    Batch
        The batch with its answer.

    Raises
    ------
    RegistryError
        If the batch is not recorded, or it is not broken and not to be read again.
    """
    start = pd.to_datetime(name, errors="coerce")
    batch = history.find(name if pd.isna(start) else batch_name(start))
    if batch is None or not (batch.broken or answer == "reload"):
        raise RegistryError(_unanswerable(tracking, batch, name, answer))
    if batch.answer != answer:
        with translated():
            _set_answer(tracking, batch, answer, reason)
    return replace(batch, answer=answer)


def _unanswerable(tracking: Tracking, batch: Batch | None, name: str, answer: Answer) -> str:
    if batch is None:
        fact = f"Batch {name} of {tracking.name!r} is not recorded."
    else:
        fact = (
            f"Batch {name} of {tracking.name!r} must be broken to {answer} it. Got {batch.outcome}."
        )
    return f"{fact} See the broken batches: `holdfast review {tracking.conf}`."


def _set_answer(tracking: Tracking, batch: Batch, answer: Answer, reason: str) -> None:
    """Tag a batch with an answer, and keep the answer before it."""
    moment = f"{pd.Timestamp.now('UTC'):%Y-%m-%dT%H:%MZ}"
    now = {"answer_reason": reason[:300], "answered": moment, "answered_by": _account()}
    if batch.answer:
        tags = tracking.client.get_run(batch.run_id).data.tags
        before = {key: tags.get(key, "") for key in ("answer", *now)}
        answers = [*json.loads(tags.get("answers", "[]")), before]
        tracking.client.set_tag(batch.run_id, "answers", json.dumps(answers))
    for key, value in (now | {"answer": answer}).items():
        tracking.client.set_tag(batch.run_id, key, value)


def _account() -> str:
    """The account that this process runs as; empty where it has no name, as in some containers."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # by system and version of Python, no name is known
        return ""


def answered(tracking: Tracking, batch: Batch) -> Answered | None:
    """What people answered for a batch, with account, moment and reason; None: nothing yet."""
    if not batch.answer:
        return None
    with translated():
        tags = tracking.client.get_run(batch.run_id).data.tags
    at = tags.get("answered", "").replace("T", " ").replace("Z", " UTC")
    by, reason = tags.get("answered_by", ""), tags.get("answer_reason", "")
    return Answered(batch.answer, by=by, at=at, reason=reason)
