"""Comparisons of policies in MLflow: each is one run of the model's experiment."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.registry.tracking import Tracking, metric_name, translated

NOTE, PICTURE, RESULT = "note.md", "losses.svg", "result.json"
"""Artifacts of a comparison."""


def record_backtest(
    tracking: Tracking, result: Mapping[str, Any], *, note: str, picture: str
) -> str:
    """Keep a comparison in a run of its own.

    Parameters
    ----------
    tracking : Tracking
        The model's.
    result : mapping of str to Any
        What was compared and found.
    note : str
        The same for people, in Markdown.
    picture : str
        Losses from batch to batch, as SVG.

    Returns
    -------
    str
        Id of the run.
    """
    now = pd.Timestamp.now("UTC").tz_localize(None)
    with translated():
        client = tracking.client
        tags = {
            "kind": "backtest",
            "recommended": result["recommended"],
            "mlflow.runName": f"backtest {result['since']} to {result['until']}",
            "mlflow.note.content": note,
        }
        run_id = str(client.create_run(tracking.experiment, tags=tags).info.run_id)
        metrics = {
            metric_name(f"{figure}/{one['policy']}"): float(one[figure])
            for one in result["policies"]
            for figure in ("loss", "kept", "retrains")
        }
        tracking.log(run_id, metrics, now, 0)
        client.log_text(run_id, note, NOTE)
        client.log_text(run_id, picture, PICTURE)
        client.log_dict(run_id, dict(result), RESULT)
        client.set_terminated(run_id)
    return run_id
