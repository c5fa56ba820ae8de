"""What runs came to, in one sentence each; imports nothing of Prefect or MLflow."""

import shlex
from collections.abc import Mapping
from typing import Any


def of_batch(result: Mapping[str, Any], model: str) -> str:
    """What was found in a batch and what follows from it."""
    drifted = f" Drifted: {', '.join(result['drifted'])}." if result["drifted"] else ""
    rows = "1 row" if result["rows"] == 1 else f"{result['rows']:,} rows"
    refused = f", {result['refused']:,} refused" if result.get("refused") else ""
    moved = result.get("moved_slice", "")
    sliced = f" Slice that moved apart: {moved}." if moved not in result["reason"] else ""
    return (
        f"Batch {result['batch']} of {model}, {rows}{refused}: "
        f"{result['reason']}{sliced}{drifted} Action: {result['action']}."
    )


def of_version(result: Mapping[str, Any], model: str, conf: str) -> str:
    """What became of a version at the gate."""
    named, number = shlex.quote(conf), result["version"]
    outcome = "is the champion" if result["promoted"] else "was not promoted"
    waits = {
        "approval": f"passed and waits for `holdfast register {named} {number} --approved-by NAME`",
        "release": f"passed and waits for `holdfast release {named}`",
    }.get(result["waits"])
    return f"Version {number} of {model} {waits or outcome}. {result['reason']}"
