"""Estimates of a batch's metrics as they are shown: beside what labels showed, or with a doubt."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.monitoring.estimate import Estimate


def expected_change(estimates: Sequence[Estimate], loss: str, usual_loss: float) -> float | None:
    """Estimated change of the loss against that of training; None where nothing can be said."""
    own = next((one for one in estimates if one.metric == loss and not one.reason), None)
    if own is None or not usual_loss > 0:
        return None
    return own.value / usual_loss - 1


def estimated(
    estimates: Sequence[Estimate],
    *,
    loss: str,
    usual_loss: float,
    allowed: float,
    realised: Mapping[str, float],
) -> dict[str, Any] | None:
    """Gather what the page of a batch says of its estimates; None: there are none.

    Parameters
    ----------
    estimates : sequence of Estimate
        Of the batch, before its labels came.
    loss : str
        Name of the loss.
    usual_loss : float
        Mean loss on rows of training that the model had not seen; NaN: unknown.
    allowed : float
        Relative increase of the loss that is still accepted.
    realised : mapping of str to float
        Metrics by the labels that have come since; empty: none has.

    Returns
    -------
    dict of str to Any
        ``rows``, one for each metric with an estimate: the estimate and what was realised;
        ``reasons`` for metrics without one; ``at``, places of both ends, the estimate and the limit
        on an axis of the change of the loss, from 0 to 400, where the loss is estimated.
    """
    if not estimates:
        return None
    change = expected_change(estimates, loss, usual_loss)
    found: dict[str, Any] = {
        "rows": [(one, realised.get(one.metric)) for one in estimates if not one.reason],
        "reasons": sorted({one.reason for one in estimates if one.reason}),
        "change": change,
        "at": [],
    }
    if change is not None:
        own = next(one for one in estimates if one.metric == loss)
        ends = [own.low / usual_loss - 1, change, own.high / usual_loss - 1, allowed]
        reach = max(2 * allowed, abs(change) * 1.3, 0.1)
        found |= {
            "low": ends[0],
            "high": ends[2],
            "at": [round(200 + 200 * min(max(end / reach, -1), 1)) for end in ends],
        }
    return found
