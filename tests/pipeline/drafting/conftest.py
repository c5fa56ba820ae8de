import numpy as np
import pandas as pd
import pytest

from pipeline.config import FileSource
from pipeline.drafting.drafts import draft

N = 1500
TODAY = pd.Timestamp("2026-06-01")


def shop_orders():
    """Orders, one every four hours; the chance to be returned rises with the amount."""
    random = np.random.default_rng(5)
    amount = random.gamma(2, 20, N).round(2)
    plan = random.choice(["free", "pro", "team"], N, p=[0.5, 0.3, 0.2])
    chance = 1 / (1 + np.exp(2 - amount / 30 - (plan == "team")))
    at = pd.Timestamp("2025-06-01") + pd.to_timedelta(4 * np.arange(N), unit="h")
    return pd.DataFrame(
        {
            "ordered_at": at,
            "amount": amount,
            "plan": plan,
            "visits": random.poisson(3, N),
            "returned": (random.random(N) < chance).astype(int),
        }
    )


@pytest.fixture
def orders():
    return shop_orders()


@pytest.fixture
def drafted(tmp_path):
    """Drafts the configuration of rows that are written to a Parquet file, or to a CSV file."""

    def made(rows, target="returned", *, csv=False, **named):
        path = tmp_path / ("rows.csv" if csv else "rows.parquet")
        if csv:
            rows.to_csv(path, index=False)
            rows = pd.read_csv(path, dtype="str", keep_default_na=False, na_values=[""])
        else:
            rows.to_parquet(path)
        source = FileSource(kind="file", path=str(path))
        return draft(rows, source, target, today=TODAY, **named)

    return made
