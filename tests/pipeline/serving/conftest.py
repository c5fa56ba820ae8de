import json
import threading
import time
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest

from pipeline.columns import encode, known_categories
from pipeline.config import Categorical, Numeric, Serving
from pipeline.serving.app import create_app
from pipeline.serving.connections import Server
from pipeline.serving.follower import ServingState, load_exported
from pipeline.training import parity
from pipeline.training.estimators import build_estimator
from pipeline.training.model import Model
from pipeline.training.seals import seal


@pytest.fixture(scope="session")
def columns():
    return {
        "hours-per-week": Numeric(min=0, max=100),
        "temp": Numeric(nullable=True),
        "plan": Categorical(values=("free", "pro", "team")),
        "dest": Categorical(nullable=True),
    }


@pytest.fixture(scope="session")
def frame():
    random = np.random.default_rng(0)
    n = 300
    return pd.DataFrame(
        {
            "hours-per-week": random.uniform(0, 100, n),
            "temp": np.where(random.random(n) < 0.2, np.nan, random.normal(50, 20, n)),
            "plan": random.choice(["free", "pro", "team"], n),
            "dest": pd.Series(random.choice(["BOS", "ORD", "SFO"], n)).where(
                random.random(n) > 0.1
            ),
        }
    )


@pytest.fixture(scope="session")
def model(columns, frame):
    late = (frame["hours-per-week"] > 50) ^ (frame["dest"] == "BOS")
    categories = known_categories(frame, columns)
    estimator = build_estimator("xgboost.XGBClassifier", {"n_estimators": 10}, columns, seed=0)
    estimator.fit(encode(frame, columns, categories), late.astype(int))
    return Model("classification", columns, categories, estimator)


@pytest.fixture
def bundle(model, frame, tmp_path):
    folder = tmp_path / "bundle"
    model.save(folder / "model")
    parity.make(model, frame).save(folder / "golden")
    ranges = {"hours-per-week": [0, 100], "temp": [-20, 120]}
    means = {"mean_prediction": [0.25, 0.01], "mean_confidence": [0.8, 0.02]}
    manifest = {"name": "flights", "version": "3", "until": "2026-01-01", "ranges": ranges}
    manifest["indicators"] = means
    (folder / "manifest.json").write_text(json.dumps(manifest))
    seal(folder)
    return folder


@pytest.fixture
def state(bundle):
    state = ServingState()
    load_exported(bundle, state)
    return state


@contextmanager
def serving(state, captures=None, **options):
    """A real server in a thread; its port."""
    given = Serving(port=0, **options)
    app = create_app(state=state, captures=captures, options=given)
    server = Server(app, given)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def serve(state):
    """Starts a server of the model; its port."""

    def start(**options):
        return serving(state, **options)

    return start


@pytest.fixture
def row():
    return {"hours-per-week": 40, "temp": 31.5, "plan": "pro", "dest": "BOS"}
