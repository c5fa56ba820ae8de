"""Simulated batches: nothing wrong, one thing changed, or slowly changing for a year."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import signal, stats

from pipeline.columns import Floats

Random = np.random.Generator
Rows = Callable[[Random, int], Floats]


def independent(random: Random, n: int) -> Floats:
    """Standard normal rows."""
    return random.normal(size=n)


def shocks(size: float) -> Rows:
    """Rows of a batch share a displacement of `size` standard deviations."""
    return lambda random, n: random.normal(size * random.normal(), 1, n)


def autoregressive(phi: float) -> Rows:
    """AR(1) within the batch, with variance 1."""

    def draw(random: Random, n: int) -> Floats:
        noise = random.normal(size=n + 200) * np.sqrt(1 - phi**2)
        values: Floats = signal.lfilter([1], [1, -phi], noise)[200:]
        return values

    return draw


def weekdays(size: float) -> Rows:
    """Each seventh of a batch has a displacement of its own."""

    def draw(random: Random, n: int) -> Floats:
        day = np.arange(n) * 7 // n
        return random.normal(size=n) + (size * random.normal(size=7))[day]

    return draw


DEPENDENCE = {
    "independent rows": independent,
    "whole-batch shocks of 0.1 sd": shocks(0.1),
    "whole-batch shocks of 0.3 sd": shocks(0.3),
    "AR(1) 0.5": autoregressive(0.5),
    "AR(1) 0.9": autoregressive(0.9),
    "day-of-week effects of 0.3 sd": weekdays(0.3),
}


def sensors(random: Random, columns: int) -> Callable[[int, float], pd.DataFrame]:
    """Sensors that see the same six sources, and whose gain and offset wander as they age.

    The result draws as many rows as it is asked for, at an age from 0 for new sensors.
    """
    load = random.normal(size=(6, columns))
    load /= np.sqrt((load**2).sum(axis=0))
    gain, offset = random.normal(0, 0.25, columns), random.normal(0, 0.8, columns)
    scale, base = np.exp(random.normal(0, 2, columns)), random.normal(0, 3, columns)

    def draw(n: int, age: float) -> pd.DataFrame:
        seen = random.normal(size=(n, 6)) @ load * 0.95 + random.normal(0, 0.3, (n, columns))
        values = (seen * (1 + gain * age) + offset * age + base) * scale
        return pd.DataFrame(values, columns=[f"x{i:04d}" for i in range(columns)])

    return draw


def plain(random: Random, n: int, columns: int, rows: Rows) -> pd.DataFrame:
    """Normal columns only."""
    return pd.DataFrame({f"x{i:03d}": rows(random, n) for i in range(columns)})


Kind = Callable[[Random, Floats], Floats | pd.Series]
_ZIPF = np.cumsum(1 / np.arange(1, 501)) / (1 / np.arange(1, 501)).sum()
_MANY = np.asarray([f"label {i}" for i in range(500)], dtype=object)
MESSY: list[Kind] = [
    lambda _, z: z,
    lambda _, z: np.round(z),
    lambda _, z: stats.cauchy.ppf(stats.norm.cdf(z)),
    lambda _, z: np.exp(2 * z),
    lambda _, z: np.where(z > 1.5, z, 0.0),
    lambda _, z: np.full(len(z), 3.0),
    lambda random, z: np.where(random.random(len(z)) < 0.3, np.nan, z),
    lambda _, z: pd.Series(np.where(z > 1, "high", np.where(z > -1, "middle", "low"))),
    lambda _, z: pd.Series(_MANY[np.searchsorted(_ZIPF, stats.norm.cdf(z)).clip(max=499)]),
    lambda _, z: (z > 2.3).astype(float),
]
"""Normal, ties, no mean, skewed, mostly 0, constant, 30% missing, 3 labels, 500 labels, rare."""


def messy(random: Random, n: int, columns: int, rows: Rows) -> pd.DataFrame:
    """Columns of every kind in `MESSY`, in turn."""
    return pd.DataFrame(
        {f"x{i:03d}": MESSY[i % len(MESSY)](random, rows(random, n)) for i in range(columns)}
    )


def table(
    random: Random, n: int, *, rho: float = 0.0, sign: float = 0.6, shift: float = 0.0
) -> pd.DataFrame:
    """Ten numbers and two label columns: x0 and x1 correlate by `rho`, x2 and x3 by `sign`."""
    z = random.normal(size=(n, 10))
    z[:, 1] = rho * z[:, 0] + np.sqrt(1 - rho**2) * z[:, 1]
    z[:, 3] = sign * z[:, 2] + np.sqrt(1 - sign**2) * z[:, 3]
    z[:, 5:8] += shift
    frame = pd.DataFrame(z, columns=[f"x{i}" for i in range(10)])
    frame.loc[random.random(n) < 0.01, "x8"] = np.nan
    frame["c0"] = pd.Series(random.choice(list("abcd"), n, p=[0.4, 0.3, 0.2, 0.1]), dtype="str")
    frame["c1"] = pd.Series(random.choice(list("pqr"), n, p=[0.5, 0.3, 0.2]), dtype="str")
    return frame


def interaction(random: Random, n: int) -> pd.DataFrame:
    """x6 mostly has the sign of x4 times x5, which no column and no pair shows."""
    frame = table(random, n)
    sign = np.sign(frame["x4"] * frame["x5"]) * np.where(random.random(n) < 0.9, 1, -1)
    return frame.assign(x6=frame["x6"].abs() * sign)


def missing(random: Random, n: int) -> pd.DataFrame:
    frame = table(random, n)
    return frame.assign(x8=frame["x8"].where(random.random(n) >= 0.04))


def unseen(random: Random, n: int) -> pd.DataFrame:
    frame = table(random, n)
    return frame.assign(c0=frame["c0"].where(random.random(n) >= 0.02, "new"))


def shares(random: Random, n: int) -> pd.DataFrame:
    labels = random.choice(list("abcd"), n, p=[0.3, 0.4, 0.2, 0.1])
    return table(random, n).assign(c0=pd.Series(labels, dtype="str"))


def everywhere(random: Random, n: int) -> pd.DataFrame:
    frame = table(random, n)
    numbers = [name for name in frame if str(name).startswith("x")]
    return frame.assign(**{str(name): frame[name] + 0.05 for name in numbers})


CHANGES: dict[str, tuple[Callable[[Random, int], pd.DataFrame], float]] = {
    "mean +0.10 sd in one column": (lambda r, n: _with(table(r, n), 1, 0.1), 45),
    "mean +0.25 sd in one column": (lambda r, n: _with(table(r, n), 1, 0.25), 100),
    "sd x1.3 in one column": (lambda r, n: _with(table(r, n), 1.3, 0), 98),
    "correlation 0 to 0.2": (lambda r, n: table(r, n, rho=0.2), 97),
    "correlation 0 to 0.3": (lambda r, n: table(r, n, rho=0.3), 100),
    "correlation 0 to 0.5": (lambda r, n: table(r, n, rho=0.5), 100),
    "correlation 0.6 to -0.6": (lambda r, n: table(r, n, sign=-0.6), 100),
    "category shares by 10 points": (shares, 100),
    "missing 1% to 5%": (missing, 100),
    "unit x100": (lambda r, n: _with(table(r, n), 100, 0), 100),
    "unseen category 2%": (unseen, 100),
    "all columns +0.05 sd": (everywhere, 80),
    "three-way interaction": (interaction, 0),
}
"""Changes, each with the percentage of batches in which it should be found; 0 asks for none."""


def _with(frame: pd.DataFrame, factor: float, shift: float) -> pd.DataFrame:
    return frame.assign(x5=frame["x5"] * factor + shift)


YEARS: dict[str, Callable[[Random, int, int], pd.DataFrame]] = {
    "stationary": lambda random, n, _week: table(random, n),
    "covariate": lambda random, n, week: table(random, n, shift=0.03 * week),
    "correlation": lambda random, n, week: table(random, n, sign=0.6 - 1.2 * week / 52),
}
"""Week 1 to 52 after the reference: three means rise by 0.03 sd a week; 0.6 turns into -0.6."""
