"""Log records as JSON objects."""

import json
import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from pipeline.logs import JsonFormatter
from pipeline.redaction import RedactedRecord


def written(message, *arguments, error=None, **more):
    trace = None
    if error is not None:
        with suppress(ValueError):
            try:
                raise error
            finally:
                trace = sys.exc_info()
    record = RedactedRecord("pipeline.x", logging.WARNING, "x.py", 1, message, arguments, trace)
    record.__dict__.update(more)
    return JsonFormatter().format(record)


def test_a_record_is_one_object_on_a_line_with_its_time_in_utc():
    before = datetime.now(UTC)

    line = written("%d rows of \N{SNOWMAN}\n%s", 7, 'a "quoted" word')

    found = json.loads(line)
    assert line.splitlines() == [line]
    assert found.pop("time").endswith("+00:00")
    message = '7 rows of \N{SNOWMAN}\na "quoted" word'
    assert found == {"level": "WARNING", "logger": "pipeline.x", "message": message}
    time = datetime.fromisoformat(json.loads(line)["time"])
    assert abs((time - before).total_seconds()) < 5


def test_a_record_of_a_run_names_its_run_and_task():
    found = json.loads(written("quiet", flow_run_id="f1", task_run_name="judge-0"))

    assert (found["flow_run_id"], found["task_run_name"]) == ("f1", "judge-0")
    assert "task_run_id" not in found


def test_an_error_comes_with_its_traceback_and_without_secrets():
    error = ValueError("no answer from https://me:s3cret@host/rows?token=hidden")

    line = written("It failed: %s", error, error=error)

    found = json.loads(line)
    assert found["exception"].startswith("Traceback (most recent call last)")
    assert "https://***@host" in found["exception"]
    assert "s3cret" not in line
    assert "hidden" not in line


@pytest.mark.parametrize("odd", ["\ud800", "\u2028", "\x00"])
def test_any_text_can_be_written_to_a_stream_and_read_back(odd):
    line = written(f"a {odd} b")

    assert line.splitlines() == [line]
    assert json.loads(line.encode().decode())["message"] == f"a {odd} b"
