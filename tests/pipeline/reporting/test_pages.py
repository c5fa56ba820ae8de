import logging
from typing import get_args

import pytest

from pipeline.reporting import pages
from pipeline.reporting.pages import Event, Kind, name_of, send, service_of

NOBODY_LISTENS = "json://user:hunter2@127.0.0.1:9/x"


def test_a_message_carries_subject_body_and_severity(receive):
    receiver = receive()

    assert send(receiver.url, "drift", "temp", "warning") == ("accepted", "")

    (got,) = receiver.got
    assert (got["title"], got["message"], got["type"]) == ("drift", "temp", "warning")


@pytest.mark.parametrize(
    ("how", "outcome", "why"),
    [
        ("answers 500", "waiting", "refused"),
        ("drops", "unknown", "ConnectionError"),
        ("slow", "unknown", "ReadTimeout"),
    ],
)
def test_the_outcome_is_unknown_only_where_the_message_may_have_arrived(receive, how, outcome, why):
    assert send(receive(how).url, "drift", "temp", "warning") == (outcome, why)


@pytest.mark.parametrize("url", [NOBODY_LISTENS, "json://user:hunter2@nowhere.invalid/x"])
def test_what_reached_nobody_waits(url):
    outcome, _ = send(url, "drift", "temp", "warning")

    assert outcome == "waiting"


@pytest.mark.parametrize("url", ["slack://hunter2", "bogus://hunter2", "hunter2", ""])
def test_what_is_not_an_address_waits_to_be_corrected(url):
    assert send(url, "drift", "temp", "warning") == ("waiting", "not an address of Apprise")


def test_apprise_logs_no_address(receive, caplog):
    caplog.set_level(logging.DEBUG)

    send(NOBODY_LISTENS, "drift", "temp", "warning")
    send(receive("answers 500").url, "drift", "temp", "warning")

    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("kind", get_args(Kind))
def test_each_kind_of_event_has_a_severity(kind):
    assert Event(kind, "b", "subject", "body").severity in pages._TYPES


def test_an_address_is_known_by_its_hash_and_its_service():
    assert name_of("json://a") != name_of("json://b")
    assert (service_of("slack://hunter2"), service_of("hunter2")) == ("slack://", "unreadable")


def test_an_event_is_immutable():
    with pytest.raises(AttributeError):
        Event("drift", "b", "subject", "body").subject = "nothing happened"
