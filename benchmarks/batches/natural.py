"""Simulated orders of a shop, and how they change while nothing is broken."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import Floats

Random = np.random.Generator

LATENT = ("price", "weight", "celsius", "humidity", "quantity", "age", "distance", "load")
LINKS = {
    ("price", "weight"): 0.65,
    ("celsius", "humidity"): -0.55,
    ("price", "age"): 0.35,
    ("weight", "distance"): 0.4,
    ("quantity", "load"): 0.5,
}
COUNTRIES = {"Germany": 0.38, "France": 0.24, "Italy": 0.16, "Spain": 0.14, "Poland": 0.08}
CHANNELS = {"Web": 0.5, "App": 0.3, "Store": 0.15, "Phone": 0.05}
CITIES = 4
HOURS = np.asarray([1, 1, 1, 1, 1, 2, 4, 7, 9, 10, 9, 8, 8, 8, 7, 7, 8, 9, 10, 9, 7, 5, 3, 2])
DAYS = np.asarray([0.13, 0.12, 0.13, 0.14, 0.18, 0.19, 0.11])


@dataclass(frozen=True)
class Change:
    """How orders differ from those of the reference.

    Attributes
    ----------
    shift, scale : mapping of str to float
        Changes of mean and spread of the latent normal columns, in standard deviations.
    tails : float
        Degrees of freedom of the latent columns; infinite: normal.
    countries, channels : mapping of str to float
        Shares of labels.
    missing : float
        Share of rows without an age.
    growth : float
        Factor of the prices.
    """

    shift: Mapping[str, float] = field(default_factory=dict)
    scale: Mapping[str, float] = field(default_factory=dict)
    tails: float = np.inf
    countries: Mapping[str, float] = field(default_factory=lambda: COUNTRIES)
    channels: Mapping[str, float] = field(default_factory=lambda: CHANNELS)
    missing: float = 0.02
    growth: float = 1.0


def orders(random: Random, n: int, change: Change | None = None) -> pd.DataFrame:
    """Numbers of many kinds, linked labels, hours, weekdays and a date."""
    change = change or Change()
    z = _latent(random, n, change)
    hour = random.choice(24, n, p=HOURS / HOURS.sum())
    country = _labels(random, n, change.countries)
    channel = np.where(
        (hour < 7) & (random.random(n) < 0.8), "App", _labels(random, n, change.channels)
    )
    city = np.asarray([f"{c[:2].upper()}{k}" for c, k in zip(country, _city(random, n))])  # noqa: B905
    celsius = 12 + 7 * z["celsius"] + 5 * np.cos((hour - 15) * np.pi / 12)
    age = np.round(np.clip(42 + 13 * z["age"] - 9 * (channel == "App"), 18, 95))
    opened = pd.Timestamp("2016-01-01") + pd.to_timedelta(random.gamma(2, 400, n), unit="D")
    frame = pd.DataFrame(
        {
            "price": np.round(change.growth * np.exp(3.6 + 0.7 * z["price"]), 2),
            "weight": np.round(0.1 + np.exp(0.8 + 0.6 * z["weight"]), 1),
            "celsius": np.round(celsius, 1),
            "humidity": np.round(np.clip(65 + 14 * z["humidity"], 5, 100)),
            "quantity": 1 + np.floor(np.exp(0.4 + 0.7 * z["quantity"])),
            "age": np.where(random.random(n) < change.missing, np.nan, age),
            "distance": np.round(np.exp(5 + 0.8 * z["distance"] - 0.6 * (country == "Italy")), 1),
            "load": 0.5 + 0.11 * z["load"],
            "hour": hour,
            "weekday": random.choice(7, n, p=DAYS),
            "opened": (opened.floor("h") - pd.Timestamp(0)) // pd.Timedelta("1s"),
            "country": pd.Series(country, dtype="str"),
            "city": pd.Series(city, dtype="str"),
            "channel": pd.Series(channel, dtype="str"),
        }
    )
    return frame.astype({"humidity": "int64", "quantity": "int64"})


def _latent(random: Random, n: int, change: Change) -> dict[str, Floats]:
    covariance = np.eye(len(LATENT))
    for (one, other), rho in LINKS.items():
        i, j = LATENT.index(one), LATENT.index(other)
        covariance[i, j] = covariance[j, i] = rho
    z = random.multivariate_normal(np.zeros(len(LATENT)), covariance, size=n)
    if np.isfinite(change.tails):  # the variance stays 1
        z /= np.sqrt(random.chisquare(change.tails, (n, 1)) / (change.tails - 2))
    return {
        name: change.shift.get(name, 0.0) + change.scale.get(name, 1.0) * z[:, i]
        for i, name in enumerate(LATENT)
    }


def _labels(random: Random, n: int, shares: Mapping[str, float]) -> NDArray[np.str_]:
    weights = np.asarray(list(shares.values()), dtype=float)
    return random.choice(np.asarray(list(shares)), n, p=weights / weights.sum())


def _city(random: Random, n: int) -> NDArray[np.int64]:
    return random.choice(CITIES, n, p=[0.5, 0.25, 0.15, 0.1])


def some(random: Random, low: float, high: float) -> dict[str, float]:
    """A random value between two bounds for each of one to four columns."""
    names = random.choice(LATENT, int(random.integers(1, 5)), replace=False)
    return {str(name): float(random.uniform(low, high)) for name in names}


def _moved(random: Random, shares: Mapping[str, float], t: float) -> dict[str, float]:
    """Shares that went a part `t` of the way towards random other ones."""
    other = random.dirichlet(np.full(len(shares), 3.0))
    return {
        label: (1 - 0.6 * t) * share + 0.6 * t * to
        for (label, share), to in zip(shares.items(), other, strict=True)
    }


def _season(t: float) -> float:
    return float(np.sin(2 * np.pi * t))


Natural = Callable[[Random, float], Change]
NATURAL: dict[str, Natural] = {
    "nothing": lambda _, _t: Change(),
    "means by up to 1 sd": lambda r, t: Change(shift=_times(some(r, -1, 1), t)),
    "means at once": lambda r, _: Change(shift=some(r, -1, 1)),
    "sd x0.7 to 1.5": lambda r, t: Change(scale=_power(some(r, np.log(0.7), np.log(1.5)), t)),
    "season": lambda _, t: Change(shift={"celsius": 1.2 * _season(t), "load": 0.5 * _season(t)}),
    "shares of labels": lambda r, t: Change(
        countries=_moved(r, COUNTRIES, t), channels=_moved(r, CHANNELS, t)
    ),
    "a new label": lambda _, t: Change(
        countries=COUNTRIES | {"Austria": 0.08 * t}, channels=CHANNELS | {"Kiosk": 0.05 * t}
    ),
    "heavy tails": lambda _, t: Change(tails=30.0 - 27.0 * t),
    "growth by up to 60%": lambda _, t: Change(growth=1 + 0.6 * t),
    "missing 2 to 6%": lambda _, t: Change(missing=0.02 + 0.04 * t),
    "much at once": lambda r, t: Change(
        shift=_times(some(r, -1, 1), t),
        scale=_power(some(r, np.log(0.7), np.log(1.5)), t),
        countries=_moved(r, COUNTRIES, t),
        growth=1 + 0.3 * t,
        missing=0.02 + 0.04 * t,
    ),
}
"""Changes by name: a function of a generator, seeded alike for each step, and of the part done.

The part done goes from 0 to 1.
"""


def _times(values: dict[str, float], t: float) -> dict[str, float]:
    return {name: value * t for name, value in values.items()}


def _power(values: dict[str, float], t: float) -> dict[str, float]:
    return {name: float(np.exp(value * t)) for name, value in values.items()}


def alike(random: Random, n: int, strength: float) -> pd.DataFrame:
    """Columns a and b with the same distribution; a rises with x0 and x1, b with x2 and -x3."""
    z = random.normal(size=(n, 6))
    rest = np.sqrt(1 - strength**2)
    a = strength * (z[:, 0] + z[:, 1]) / np.sqrt(2) + rest * z[:, 4]
    b = strength * (z[:, 2] - z[:, 3]) / np.sqrt(2) + rest * z[:, 5]
    frame = pd.DataFrame(z[:, :4], columns=["x0", "x1", "x2", "x3"])
    frame = frame.assign(a=np.round(np.exp(3 + a), 2), b=np.round(np.exp(3 + b), 2))
    frame["kind"] = pd.Series(random.choice(list("pqr"), n, p=[0.5, 0.3, 0.2]), dtype="str")
    return frame
