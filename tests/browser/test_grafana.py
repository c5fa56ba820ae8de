"""The dashboard and the alerts, asked of a Prometheus that scrapes a served model under load."""

import json
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from benchmarks.harness.servers import Load, Server, free_port

pytestmark = pytest.mark.browser

DEPLOY = Path(__file__).parents[2] / "deploy"
BOARD = json.loads((DEPLOY / "grafana.json").read_text())
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in BOARD["panels"]
    for target in panel.get("targets", ())
} | {note["name"]: note["expr"] for note in BOARD["annotations"]["list"]}
WINDOWS = {"$__rate_interval": "20s", "$__interval": "20s", "$job": ".*"}
"""What Grafana replaces in a query; a window holds many of the scrapes, one a second."""
GOOD = {"amount": 50.0, "age": 40.0, "plan": "pro"}
ODD = [GOOD | {"plan": "gold"}, GOOD | {"amount": "much"}, GOOD | {"amount": 199.0}]
"""A label that is refused, a type that is refused, and a number outside of training."""
SWAP = "Swaps"
"""The annotation of a new champion."""
STAGING = "holdfast-shop--staging"
"""A job whose server is down."""
PATIENCE = 90
"""Seconds after which a query must have data."""


def asked(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 -- http
    with urllib.request.urlopen(request) as answer:  # noqa: S310 -- http, local
        return json.load(answer)


@pytest.fixture(scope="module")
def prometheus(store, tmp_path_factory):
    """Address of a Prometheus that scrapes a served model under load, whose champion changes."""
    with served(store) as server, scraping(server.port, tmp_path_factory) as scraper:
        url, names = f"http://127.0.0.1:{scraper.port}", [*QUERIES]
        with Load(server.port, [GOOD, *ODD]):
            until = time.monotonic() + PATIENCE
            while names and time.monotonic() < until:
                names = [name for name in names if not samples(url, name)]
                if names == [SWAP]:  # all others have been scraped
                    move_champion(store, 1)
                time.sleep(1)
            move_champion(store, 3)
            yield url


def served(store):
    port = free_port()
    own = {
        "HOLDFAST__SERVING__PORT": str(port),
        "HOLDFAST__SERVING__POLL": "200ms",
        "MLFLOW_TRACKING_URI": store.mlflow,
    }
    command = [sys.executable, "-m", "flows.cli", "serve", str(store.folder / "shop.yaml")]
    return Server(command, port, ready="/ready", **own)


def scraping(target, tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    targets = {"holdfast": target, STAGING: free_port()}
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        for name, port in targets.items()
    ]
    conf = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(DEPLOY / "alerts.yaml")],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(conf))
    places = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    listen = f"--web.listen-address=127.0.0.1:{port}"
    return Server(["prometheus", *places, listen], port, ready="/-/ready")


def move_champion(store, version):
    body = {"name": "shop", "alias": "champion", "version": str(version)}
    asked(f"{store.mlflow}/api/2.0/mlflow/registered-models/alias", body)


def samples(url, name):
    """What a query of the dashboard finds in the last minute."""
    query = QUERIES[name]
    for variable, value in WINDOWS.items():
        query = query.replace(variable, value)
    now = time.time()
    given = {"query": query, "start": now - 60, "end": now, "step": 5}
    found = asked(f"{url}/api/v1/query_range?{urllib.parse.urlencode(given)}")
    series = found["data"]["result"]
    return [value for one in series for _, value in one["values"] if value != "NaN"]


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_of_the_dashboard_finds_data(prometheus, name):
    assert samples(prometheus, name)


def test_the_dashboard_lists_the_jobs_that_are_scraped(prometheus):
    (variable,) = [one for one in BOARD["templating"]["list"] if one["type"] == "query"]
    metric = variable["query"].removeprefix("label_values(").partition(",")[0]

    found = asked(f"{prometheus}/api/v1/label/job/values?match[]={metric}")

    assert found["data"] == ["holdfast"]


def test_a_job_of_staging_whose_server_is_down_alerts_under_its_own_name(prometheus):
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"][0]["rules"]
    (down,) = [one["expr"] for one in rules if one["alert"] == "HoldfastDown"]

    found = asked(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': down})}")

    assert [one["metric"]["job"] for one in found["data"]["result"]] == [STAGING]


def test_prometheus_accepts_and_evaluates_every_alert(prometheus):
    checked = subprocess.run(
        ["promtool", "check", "rules", str(DEPLOY / "alerts.yaml")],  # noqa: S607 -- on the PATH
        capture_output=True,
        text=True,
        check=False,
    )
    groups = asked(f"{prometheus}/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert checked.returncode == 0, checked.stderr
    written = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    assert len(rules) == sum(len(group["rules"]) for group in written)
    assert {rule["health"] for rule in rules} == {"ok"}
