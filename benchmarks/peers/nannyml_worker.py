"""NannyML's univariate drift, Jensen-Shannon on every column, in 10 chunks by default."""

from typing import Any

import pandas as pd
from nannyml import UnivariateDriftCalculator  # type: ignore[import-not-found]
from protocol import serve  # type: ignore[import-not-found]


def fit(frame: pd.DataFrame, message: dict[str, Any]) -> UnivariateDriftCalculator:
    calculator = UnivariateDriftCalculator(
        column_names=list(frame), chunk_size=message.get("chunk")
    )
    return calculator.fit(frame)


def check(calculator: UnivariateDriftCalculator, frame: pd.DataFrame) -> Any:
    return calculator.calculate(frame)


def verdict(result: Any) -> dict[str, Any]:
    chunks = result.filter(period="analysis").to_df()
    flagged = chunks.xs("alert", axis=1, level=-1).any().sum()
    return {"alarm": bool(flagged), "columns": int(flagged)}


if __name__ == "__main__":
    serve(pd.read_parquet, fit, check, verdict)
