"""OpenTelemetry traces of requests and flows, as a real receiver of OTLP over HTTP gets them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prefect.settings import PREFECT_API_URL

from flows.steps import opened
from pipeline.registry import records

pytestmark = pytest.mark.integration

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
"""A trace that a caller has begun."""


@pytest.fixture
def spans(listen, monkeypatch):
    """What processes that are started from now on send: spans, each as a dict."""
    got = []

    def take(body):
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                got.extend(map(as_dict, scope.spans))

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{listen(take)}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    return got


def as_dict(span):
    values = {one.key: one.value for one in span.attributes}
    return {
        "name": span.name,
        "trace": span.trace_id.hex(),
        "parent": span.parent_span_id.hex(),
        **{key: value.string_value or value.int_value for key, value in values.items()},
    }


def test_a_request_continues_the_trace_of_its_caller_and_names_what_answered(trained, serve, spans):
    with serve(trained) as (_, address):
        row = httpx.get(f"{address}/contract").json()["example"]
        parent = "00f067aa0ba902b7"
        answer = httpx.post(
            f"{address}/predict",
            json={"rows": [row]},
            headers={"traceparent": f"00-{CALLER}-{parent}-01"},
        ).json()
        end = time.monotonic() + 60
        while not (found := [span for span in spans if span["trace"] == CALLER]):
            assert time.monotonic() < end
            time.sleep(0.05)

    (span,) = found
    assert (span["name"], span["parent"]) == ("POST /predict", parent)
    assert span["http.response.status_code"] == 200
    assert (span["holdfast.model"], span["holdfast.version"]) == ("shop", answer["version"])
    assert span["holdfast.request_id"] == answer["request_id"]


def test_spans_logs_and_the_run_in_mlflow_share_the_ids_of_a_flow_run(trained, spans):
    command = [sys.executable, "-m", "flows.cli", "monitor", trained, "--log-format", "json"]
    environment = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value()}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, env=environment, cwd=root, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-3000:]
    logged = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    _, registry = opened(trained)
    (run,) = registry.search(records.BATCHES)
    (flow,) = [span for span in spans if span.get("prefect.run.type") == "flow"]
    noted = [span for span in spans if "mlflow.run_id" in span]
    assert {span["trace"] for span in noted} == {flow["trace"]} == {run.data.tags["trace_id"]}
    assert {span["mlflow.run_id"] for span in noted} == {run.info.run_id}
    of_run = [one for one in logged if one.get("flow_run_id") == flow["prefect.run.id"]]
    assert flow["trace"] in {one.get("trace_id") for one in of_run}
