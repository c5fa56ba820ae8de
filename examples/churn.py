"""A made-up table of customers, for docs/quick-start.md: `python -m examples.churn` writes it.

Forty weeks of customers whose contract ends. In the 34th week `monthly_spend` comes in cents, as
of a source that somebody changed; `--mended` writes that week in dollars, like all others. From
the 35th week on prices rise, and customers who log in little leave more often than before.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

WEEKS, A_WEEK = 40, 300
UNKNOWN = 0.03
"""Share of customers whose logins nobody counted."""
CENTS, DEARER = 33, 34
"""Weeks, counted from 0, in which cents come, and from which on prices rise."""
FILE = Path("data/churn.csv")


def rows(*, mended: bool = False) -> pd.DataFrame:
    """All customers, one row each, in the order of their time.

    Parameters
    ----------
    mended : bool
        Whether the week of cents is in dollars.

    Returns
    -------
    DataFrame
        `churned` is 1 for a customer who left, and 0 for one who stayed.
    """
    random = np.random.default_rng(1)
    count = WEEKS * A_WEEK
    week = np.arange(count) // A_WEEK
    steps = np.clip(week - DEARER + 1, 0, 3)
    plan = random.choice(["free", "pro", "team"], count, p=[0.5, 0.35, 0.15])
    logins = random.poisson(12, count)
    tenure = random.gamma(2, 9, count).round()
    spend = random.gamma(9, 5, count) * (1 + 0.1 * steps)
    calls = random.poisson(0.8, count)
    unused = np.where(steps > 0, 0.4 * (12 - logins), 0)
    score = 0.7 * calls - 0.05 * tenure + unused - 0.6
    paid = spend.round(2) * np.where((week == CENTS) & (not mended), 100, 1)
    start = pd.Timestamp("2026-01-05")
    return pd.DataFrame(
        {
            "customer_id": [f"c{place:05}" for place in range(count)],
            "observed_at": start + pd.to_timedelta(np.arange(count) * 7 * 1440 // A_WEEK, "min"),
            "plan": plan,
            "tenure_months": tenure.astype(int),
            "monthly_spend": paid.round(2),
            "logins": np.where(random.random(count) < UNKNOWN, np.nan, logins),
            "support_calls": calls,
            "churned": (score + random.logistic(size=count) > 0).astype(int),
        }
    ).astype({"logins": "Int64"})


def main() -> None:
    """Write the table to data/churn.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mended", action="store_true", help="all weeks are in dollars")
    frame = rows(mended=parser.parse_args().mended)
    FILE.parent.mkdir(exist_ok=True)
    frame.to_csv(FILE, index=False)
    print(f"{len(frame):,} customers of {WEEKS} weeks are in {FILE}.")  # noqa: T201 -- a script


if __name__ == "__main__":
    main()
