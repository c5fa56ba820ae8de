"""This project's check of one batch, asked as the others are."""

from typing import Any

import pandas as pd
from protocol import serve  # type: ignore[import-not-found]

from pipeline.columns import infer_columns
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference


def fit(frame: pd.DataFrame, message: dict[str, Any]) -> Reference:
    return Reference.fit(frame, infer_columns(frame), block=message.get("block"))


def check(reference: Reference, frame: pd.DataFrame) -> Any:
    return compare(reference=reference, current=frame)


def verdict(report: Any) -> dict[str, Any]:
    drifted = sum(column.drifted for column in report.columns)
    return {"alarm": report.alarm, "columns": drifted}


if __name__ == "__main__":
    serve(pd.read_parquet, fit, check, verdict)
