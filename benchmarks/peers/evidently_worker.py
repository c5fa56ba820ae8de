"""Evidently's data drift preset, with its defaults."""

from typing import Any

import pandas as pd
from evidently import DataDefinition, Dataset, Report  # type: ignore[import-not-found]
from evidently.metrics import DriftedColumnsCount  # type: ignore[import-not-found]
from evidently.presets import DataDriftPreset  # type: ignore[import-not-found]
from protocol import serve  # type: ignore[import-not-found]


def fit(frame: pd.DataFrame, message: dict[str, Any]) -> tuple[DataDefinition, Dataset, Report]:
    numbers = list(frame.select_dtypes("number"))
    labels = [name for name in frame if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=labels)
    metric = DriftedColumnsCount() if message.get("count_only") else DataDriftPreset()
    return definition, Dataset.from_pandas(frame, data_definition=definition), Report([metric])


def check(fitted: tuple[DataDefinition, Dataset, Report], frame: pd.DataFrame) -> Any:
    definition, reference, report = fitted
    return report.run(Dataset.from_pandas(frame, data_definition=definition), reference)


def verdict(snapshot: Any) -> dict[str, Any]:
    drifted = snapshot.dict()["metrics"][0]
    count, share = int(drifted["value"]["count"]), drifted["value"]["share"]
    dataset = bool(share >= drifted["config"]["drift_share"])
    return {"alarm": count > 0, "columns": count, "dataset": dataset}


if __name__ == "__main__":
    serve(pd.read_parquet, fit, check, verdict)
