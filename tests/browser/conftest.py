import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks.harness.servers import Server, free_port

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / ".screenshots"
WEEK = 7 * 24 * 2
"""Rows of a week of the store."""
BROKEN, DRIFT = 7, 8
"""Weeks from the first row: one has a sentinel and new labels, from the other on all has moved."""
PATIENCE = 60_000
"""Milliseconds that a page may take."""
PLANS = ["free", "pro", "team"]
STORY = """
import sys
from flows.monitor import monitor
from flows.replay import replay
from flows.train import train
from pipeline.errors import DataError

shop, spend, plan, none = sys.argv[1:]
train(shop)
monitor(shop)
monitor(shop)
replay(shop)
for conf in (spend, plan):
    train(conf)
    monitor(conf)
try:
    train(none)
except DataError:
    print("There is no file.")
"""
"""Sound, broken, then lost performance until a retrain; other tasks; a source without a file."""


def rows():
    """Twelve weeks of a shop; its target is a label, a number or one of three classes."""
    random = np.random.default_rng(0)
    at = pd.date_range("2026-01-05", periods=12 * WEEK, freq="30min", unit="us")
    week = np.arange(len(at)) // WEEK
    moved = week >= DRIFT
    amount = random.normal(50, 10, len(at)) + np.where(moved, 25, 0)
    age = np.where(random.random(len(at)) < 0.1, np.nan, random.normal(40, 10, len(at)))
    plan = random.choice(PLANS, len(at))
    direction = np.where(moved, -1, 1)  # so that only a new model can follow
    score = direction * (amount - np.where(moved, 75, 50)) / 10 + (plan == "pro")
    score += random.normal(size=len(at))
    faulty = (week == BROKEN) & (random.random(len(at)) < 0.2)
    refused = (week == BROKEN) & (random.random(len(at)) < 0.05)
    return pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(len(at))],
            "at": at,
            "amount": amount,
            "age": np.where(faulty, -999, age),
            "plan": np.where(refused, "gold", plan),
            "churned": (score > 0.5).astype(float),
            "spend": 20 + 5 * score,
            "next_plan": pd.cut(score, [-np.inf, -0.5, 1, np.inf], labels=PLANS).astype(str),
        }
    )


def write_conf(folder, name, estimator="xgboost.XGBClassifier", file="rows.parquet", **target):
    conf = {
        "name": name,
        "task": "regression" if estimator.endswith("Regressor") else "classification",
        "data": {
            "train": {"kind": "file", "path": str(folder / file)},
            "key": "id",
            "time": "at",
            "label_delay": "1D",
            "features": {
                "amount": {"type": "numeric", "min": -100, "max": 200},
                "age": {"type": "numeric", "nullable": True},
                "plan": {"type": "categorical", "values": PLANS},
            },
            **target,
        },
        "training": {
            "estimator": estimator,
            "params": {"n_estimators": 20, "max_depth": 3, "n_jobs": 1},
            "until": "2026-02-16",
            "holdout": "7D",
        },
        "monitoring": {"cooldown": 2},
        "tracking": {"folder": str(folder / "state")},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(conf))
    return str(path)


def write_confs(folder):
    rows().to_parquet(folder / "rows.parquet")
    return [
        write_conf(folder, "shop", target="churned"),
        write_conf(folder, "spend", "xgboost.XGBRegressor", target="spend"),
        write_conf(folder, "next-plan", target="next_plan", classes=PLANS),
        write_conf(folder, "none", target="churned", file="none.parquet"),
    ]


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Servers of MLflow and Prefect with the runs of `STORY`."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "state").mkdir()
    confs = write_confs(folder)
    with ThreadPoolExecutor() as pool:
        starting = [pool.submit(start, folder) for start in (start_mlflow, start_prefect)]
        mlflow, prefect = (one.result() for one in starting)
    with mlflow, prefect:
        made = SimpleNamespace(
            folder=folder,
            mlflow=f"http://127.0.0.1:{mlflow.port}",
            prefect=f"http://127.0.0.1:{prefect.port}",
        )
        run(STORY, *confs, **addresses(made))
        yield made


def start_mlflow(folder):
    port, state = free_port(), folder / "state"
    stored = [f"--backend-store-uri=sqlite:///{state}/mlflow.db"]
    stored += [f"--default-artifact-root=file://{state}/artifacts", "--no-serve-artifacts"]
    command = ["-m", "mlflow", "server", "--port", str(port), "--workers=1", *stored]
    jobs = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return Server([sys.executable, *command], port, ready="/health", **jobs)


def start_prefect(folder):
    port = free_port()
    own = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_HOME": str(folder)}
    command = ["-m", "prefect", "server", "start", "--port", str(port)]
    return Server([sys.executable, *command], port, ready="/api/health", **own)


def addresses(store):
    return {
        "MLFLOW_TRACKING_URI": store.mlflow,
        "PREFECT_API_URL": f"{store.prefect}/api",
        "PREFECT_HOME": str(store.folder),
    }


def run(program, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="session")
def chromium():
    """The browser on the PATH, else Playwright's own; without any, tests fail."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 -- only these tests have it

    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=next(found, None))
        yield browser
        browser.close()


_ANOTHER_FRAME = "ResizeObserver loop completed with undelivered notifications"


class Tab:
    """A page of the browser, with what went wrong in it.

    Attributes
    ----------
    errors : list of str
        What the console said, and errors that no script caught.
    left : list of str
        Requests to other hosts than those allowed, which are cut off.
    """

    def __init__(self, chromium, hosts, **look):
        self.errors, self.left = [], []
        self.hosts = hosts
        self.context = chromium.new_context(**look)
        self.context.route("**/*", self._let_through)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _let_through(self, route):
        address = route.request.url
        if address.startswith((*self.hosts, "data:", "blob:", "about:")):
            route.continue_()
        else:
            self.left.append(address)
            route.abort()

    def _hear(self, message):
        if message.type == "error":
            where = message.location.get("url", "")
            # MLflow's own script lays its page out in two frames on a busy machine.
            if _ANOTHER_FRAME in message.text and "/static-files/static/js/" in where:
                return
            self.errors.append(f"{message.text} {where}")

    def faults(self, frame=None):
        """Serious faults that axe-core finds in a frame, each with an element that has it."""
        frame = frame or self.page
        frame.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
        found = frame.evaluate("axe.run(document)")
        assert found["passes"]
        return [
            (one["id"], one["nodes"][0]["html"])
            for one in found["violations"]
            if one["impact"] in {"serious", "critical"}
        ]

    def keep(self, name):
        """Take a screenshot of the whole page, for people to look at."""
        SCREENSHOTS.mkdir(exist_ok=True)
        return self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


@pytest.fixture
def open_tab(chromium):
    """Opens pages that may ask nothing but hosts that are named."""
    opened = []

    def new(*hosts, **look):
        opened.append(Tab(chromium, hosts, **look))
        return opened[-1]

    yield new
    for tab in opened:
        tab.context.close()
