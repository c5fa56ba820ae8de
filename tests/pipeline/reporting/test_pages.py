import json
import logging
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import get_args

import pytest
from pydantic import SecretStr

from pipeline.reporting import pages
from pipeline.reporting.pages import Event, Kind, page

EVENT = Event(kind="drift", subject="flights: drift persists", body="temp, distance since week 15")
NOBODY_LISTENS = SecretStr("json://user:hunter2@127.0.0.1:9/x")


class Receiver(ThreadingHTTPServer):
    def __init__(self, status):
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = status
        self.received = []

    @property
    def url(self):
        return SecretStr(f"json://user:hunter2@127.0.0.1:{self.server_port}/x")


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.received.append(json.loads(self.rfile.read(length)))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def receiver(status=200):
    with Receiver(status) as server:
        thread = Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def never_warned():
    pages._warn_once.cache_clear()


def test_a_page_carries_subject_and_body():
    with receiver() as server:
        assert page(EVENT, [server.url])

    assert [(got["title"], got["message"]) for got in server.received] == [
        (EVENT.subject, EVENT.body)
    ]


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_of_event_is_sent_as_a_warning_or_a_failure(kind):
    with receiver() as server:
        assert page(Event(kind, "subject", "body"), [server.url])

    assert server.received[0]["type"] in {"warning", "failure"}


def test_a_broken_batch_is_sent_as_a_failure():
    with receiver() as server:
        assert page(Event("broken", "subject", "body"), [server.url])

    assert server.received[0]["type"] == "failure"


def test_every_address_gets_the_page():
    with receiver() as first, receiver() as second:
        assert page(EVENT, [first.url, second.url])

    assert len(first.received) == len(second.received) == 1


def test_a_dead_address_does_not_keep_the_page_from_the_next_one():
    with receiver() as server:
        assert page(EVENT, [NOBODY_LISTENS, server.url])

    assert len(server.received) == 1


def test_an_address_that_answers_with_an_error_did_not_accept_the_page():
    with receiver(status=500) as server:
        assert not page(EVENT, [server.url])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (NOBODY_LISTENS.get_secret_value(), "json://"),
        ("slack://hunter2", "slack://"),
        ("bogus://hunter2", "bogus://"),
        ("hunter2", "unreadable"),
        ("", "unreadable"),
    ],
)
def test_an_undelivered_page_is_logged_in_one_line_without_the_secret(url, shown, caplog):
    caplog.set_level(logging.DEBUG)

    assert not page(EVENT, [SecretStr(url)])

    (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert line.startswith(f"The {shown} address in alerts.urls did not accept the page")
    assert repr(EVENT.subject) in line
    assert "hunter2" not in caplog.text


def test_a_page_without_addresses_warns_once_and_is_always_logged(caplog):
    caplog.set_level(logging.INFO)

    assert not page(EVENT, [])
    assert not page(EVENT, [])

    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO", "INFO"]
    assert EVENT.subject in caplog.records[-1].getMessage()


def test_an_event_is_immutable():
    with pytest.raises(AttributeError):
        EVENT.subject = "nothing happened"
