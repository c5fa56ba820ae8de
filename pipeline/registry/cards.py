"""The card of a version on its training run, drawn from what that run holds."""

from collections.abc import Mapping
from functools import partial

from pipeline.registry.tracking import Tracking, translated
from pipeline.reporting.model_card import model_card
from pipeline.reporting.rendering import drawn

EVALUATION, CARD, GATE = "training.json", "card.html", "gate.json"
"""Artifacts of a training run: what was found, the card that people read, the gate's decision."""


def draw_card(tracking: Tracking, number: int, run_id: str, tags: Mapping[str, str]) -> None:
    """Draw the card of a version; a run of before says too little, and has no card.

    Parameters
    ----------
    tracking : Tracking
        Of the model.
    number : int
        The version.
    run_id : str
        Its training run.
    tags : mapping of str to str
        Everything known of it.
    """
    evaluation = tracking.read(run_id, EVALUATION)
    if evaluation is None:
        return
    card = partial(
        model_card,
        evaluation,
        model=tracking.name,
        conf=tracking.conf,
        number_of=number,
        tags=tags,
        parameters=tracking.run_of(run_id).data.params,
        tracking=tracking.address,
        gate=tracking.read(run_id, GATE),
    )
    with translated():
        tracking.client.log_text(run_id, drawn(card, f"version {number}"), CARD)
