"""The loop that everyone writes first: a test per column at 0.05, uncorrected."""

from typing import Any

import pandas as pd
from protocol import serve  # type: ignore[import-not-found]
from scipy.stats import chi2_contingency, ks_2samp


def fit(frame: pd.DataFrame, _: dict[str, Any]) -> pd.DataFrame:
    return frame


def check(reference: pd.DataFrame, current: pd.DataFrame) -> list[Any]:
    return [name for name in reference if p_value(reference[name], current[name]) < 0.05]


def p_value(before: pd.Series, now: pd.Series) -> float:
    if pd.api.types.is_numeric_dtype(before):
        return float(ks_2samp(before.dropna(), now.dropna()).pvalue)
    counts = pd.concat([before.value_counts(), now.value_counts()], axis=1).fillna(0)
    return float(chi2_contingency(counts).pvalue)


def verdict(flagged: list[Any]) -> dict[str, Any]:
    return {"alarm": bool(flagged), "columns": len(flagged)}


if __name__ == "__main__":
    serve(pd.read_parquet, fit, check, verdict)
