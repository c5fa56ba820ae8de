import json

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Categorical, Numeric
from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference

BLOCK, BLOCKS, ROWS = 2_000, 10, 2_500
NUMBERS = [
    *("hour", "weekday", "working", "temp", "dewp", "humid"),
    *("north", "east", "amount", "count"),
]
COLUMNS = {
    **{name: Numeric(nullable=name == "count") for name in NUMBERS},
    "region": Categorical(),
    "product": Categorical(),
}
HOURS = np.asarray(
    [8, 6, 6, 6, 8, 12, 30, 70, 90, 90, 80, 80, 90, 90, 80, 80, 80, 90, 90, 70, 50, 30, 15, 10]
)
DAYS = np.asarray([0.14, 0.15, 0.15, 0.16, 0.17, 0.13, 0.10])
REGIONS = {"North": 0.45, "East": 0.3, "South": 0.17, "West": 0.08}
SPENDING = {"North": 0.0, "East": 0.7, "South": -0.6, "West": 1.2, "Abroad": 0.3}
PRODUCTS = ["Desk", "Lamp", "Sofa", "Shelf", "Chair", "Table", "Bed", "Stool"]
TASTES = {
    "North": [0.50, 0.30, 0.08, 0.05, 0.03, 0.02, 0.01, 0.01],
    "East": [0.04, 0.05, 0.55, 0.20, 0.06, 0.05, 0.03, 0.02],
    "South": [0.02, 0.04, 0.03, 0.06, 0.60, 0.15, 0.06, 0.04],
    "West": [0.02, 0.03, 0.04, 0.03, 0.05, 0.08, 0.55, 0.20],
    "Abroad": [0.40, 0.10, 0.10, 0.10, 0.10, 0.10, 0.05, 0.05],
}


def make_orders(
    seed, n=ROWS, *, shift=None, scale=None, growth=1.0, regions=None, link=0.6, missing=0.02
):
    """Orders of a shop and the weather; `shift` and `scale` are of hidden normal columns."""
    random = np.random.default_rng(seed)
    hidden = ("warm", "dry", "amount", "count", "north", "east")
    z = dict(zip(hidden, random.normal(size=(6, n)), strict=True))
    z["north"] = 0.75 * z["north"] - 0.66 * z["warm"]
    z["dry"] = 0.6 * z["dry"] - 0.8 * z["east"]
    z["count"] = link * z["amount"] + np.sqrt(1 - link**2) * z["count"]
    z = {k: (scale or {}).get(k, 1.0) * x + (shift or {}).get(k, 0.0) for k, x in z.items()}
    weekday = random.choice(7, n, p=DAYS)
    working = (weekday < 5) & (random.random(n) > 0.03)
    hour = random.choice(24, n, p=HOURS / HOURS.sum())
    sun = np.cos((hour - 15) * np.pi / 12)
    temp = 55 + 15 * z["warm"] + 10 * sun
    dewp = temp - np.exp(2.3 + 0.45 * z["dry"] + 0.35 * sun)
    shares = regions or REGIONS
    region = random.choice(list(shares), n, p=list(shares.values()))
    product = np.empty(n, dtype=object)
    for name in shares:
        here = region == name
        product[here] = random.choice(PRODUCTS, here.sum(), p=TASTES[name])
    spending = np.asarray([SPENDING[name] for name in region])
    count = 1 + random.poisson(np.exp(1 + 0.6 * z["count"] + 0.5 * ~working))
    return pd.DataFrame(
        {
            "hour": hour,
            "weekday": weekday,
            "working": working.astype(int),
            "temp": np.round(temp, 1),
            "dewp": np.round(dewp, 1),
            "humid": np.round(humidity(temp, dewp)),
            "north": np.round(8 * z["north"], 1),
            "east": np.round(8 * z["east"], 1),
            "amount": np.round(growth * np.exp(3.3 + 0.6 * z["amount"] + spending), 2),
            "count": np.where(random.random(n) < missing, np.nan, count),
            "region": pd.Series(region, dtype="str"),
            "product": pd.Series(product, dtype="str"),
        }
    )


def humidity(temp, dewp):
    """Percent, by the formula of Magnus."""
    temp, dewp = (temp - 32) / 1.8, (dewp - 32) / 1.8
    return 100 * np.exp(17.625 * dewp / (243.04 + dewp) - 17.625 * temp / (243.04 + temp))


class Shop:
    """A shop whose training rows are 10 batches with nothing wrong, and what is done to others."""

    def __init__(self):
        self.trained = make_orders(0, BLOCK * BLOCKS)
        self.reference = self.fit(self.trained)

    draw = staticmethod(make_orders)

    @staticmethod
    def fit(rows, columns=COLUMNS):
        return Reference.fit(rows, columns, block=BLOCK)

    def judge(self, frame, **options):
        return compare(reference=self.reference, current=frame, **options)

    def case(self, frame, recent=()):
        """Rows prepared for a single diagnosis."""
        tally = self.reference.tally(frame)
        summary = self.reference.summarise(tally)
        return Case(self.reference, frame, tally, summary, recent, ())

    @staticmethod
    def touch(frame, part):
        """Which rows: `all`, `some` (30% at random), or those with a value: `region = East`."""
        if part in {"all", "some"}:
            share = 1.0 if part == "all" else 0.3
            return np.random.default_rng(2).random(len(frame)) < share
        name, value = part.split(" = ")
        return (frame[name].astype(str) == value).to_numpy()

    @staticmethod
    def put(frame, name, mask, values):
        """Other values in the touched rows of a column."""
        kind = "float64" if name in NUMBERS else "str"
        changed = frame[name].astype(object).where(~mask, values)
        return frame.assign(**{name: changed.astype(kind)})

    @staticmethod
    def assert_named(report, cause, *columns, figure="", mask=None, part="all"):
        """One fault is named and no other, completely and in words."""
        assert [(cause.cause, set(cause.columns)) for cause in report.causes] == [
            (cause, set(columns))
        ]
        (found,) = report.causes
        assert report.outcome == "broken"
        assert all(repr(name) in found.sentence for name in columns)
        assert figure in found.sentence
        assert found.cure.endswith(".")
        assert found.evidence
        assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["causes"]
        if mask is not None:
            assert found.share == pytest.approx(mask.mean(), rel=1 / 3)
            assert found.segment == ("" if part in {"all", "some"} else part)
            assert found.segment in found.sentence


@pytest.fixture(scope="session")
def shop():
    return Shop()


@pytest.fixture
def batch():
    return make_orders(1)
