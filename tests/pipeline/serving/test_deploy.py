"""The dashboard and the alert rules use metrics of a server, in valid PromQL."""

import asyncio
import json
import re
from pathlib import Path

import httpx
import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config import Serving
from pipeline.serving.app import create_app
from pipeline.serving.capturing import Captures
from pipeline.serving.follower import ServingState, load_exported

DEPLOY = Path(__file__).parents[3] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {"$__rate_interval": "5m", "$__interval": "5m", "$job": ".*"}
SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds."""
QUERIES = {rule["alert"]: rule["expr"] for rule in RULES} | {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
}
QUERIES |= {note["name"]: note["expr"] for note in DASHBOARD["annotations"]["list"]}


async def scraped(app, rows):
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for row in rows:
            await client.post("/predict", json={"rows": [row]})
        return (await client.get("/metrics")).text


@pytest.fixture
def known(bundle, tmp_path):
    """Labels of each metric that a server exports after a few requests."""
    state = ServingState(reachable=True, monitored=0.0)
    load_exported(bundle, state)
    example = dict(state.served.example)
    rows = [example, example | {"dest": "unseen"}, example | {"temp": "warm"}]
    with Captures(tmp_path / "captures.db") as captures:
        app = create_app(state=state, captures=captures, options=Serving())
        page = asyncio.run(scraped(app, rows))
    labels = {"up": set(SCRAPED)}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels.setdefault(sample.name, set(SCRAPED)).update(sample.labels)
    return labels


def selectors(query):
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    found, grouped = [], set()

    def visit(node):
        if isinstance(node, promql.VectorSelector):
            found.append((node.name, {matcher.name for matcher in node.matchers.matchers}))
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            grouped.update(node.modifier.labels)

    promql.walk(promql.parse(query), visit)
    return found, grouped


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_uses_metrics_and_labels_of_a_server(known, name):
    found, grouped = selectors(QUERIES[name])

    assert found
    for metric, labels in found:
        assert metric in known
        assert labels <= known[metric]
    assert grouped <= set.union(*[known[metric] for metric, _ in found])


def test_every_metric_of_the_server_is_on_the_dashboard_or_in_a_rule(known):
    asked = {metric for query in QUERIES.values() for metric, _ in selectors(query)[0]}
    ours = {
        re.sub("_(sum|count|created)$", "", name)
        for name in known
        if name.startswith("holdfast_") and not name.endswith("_created")
    }
    histograms = {name.removesuffix("_bucket") for name in ours if name.endswith("_bucket")}

    assert ours - histograms <= asked


def test_every_rule_says_what_is_wrong_and_what_to_do():
    for rule in RULES:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "cure"}


def test_panels_do_not_overlap():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])
        }
        assert not taken & cells
        assert all(x < 24 for x, _ in cells)
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["description"] for panel in PANELS)
