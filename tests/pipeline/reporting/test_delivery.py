import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import RegistryError
from pipeline.reporting import outbox, written_pages
from pipeline.reporting.delivery import deliver, post, send_test
from pipeline.reporting.pages import Event, name_of

ROOT = Path(__file__).parents[3]
KILLS = Path(__file__).with_name("kills.py")
DRIFT = Event("drift", "b1", "shop: drift persists", "What: temp moved.")
TITLE, PAGE = "[warning] shop: drift persists", "Page: shop/drift/b1"
NOBODY_LISTENS = "json://user:hunter2@127.0.0.1:9/x"


def numbered(n):
    return [Event("drift", f"b{i}", f"shop: drift {i}", "What: temp.") for i in range(n)]


def titles(receiver):
    return [page["title"] for page in receiver.got]


def undelivered(pager):
    return [page["id"] for page in written_pages.undelivered(pager.file, pager.model)]


def test_a_page_arrives_once_with_its_id(receive, pager):
    receiver = receive()
    to = pager(receiver.url)

    post(to, DRIFT)
    deliver(to)
    post(to, DRIFT)
    deliver(to)

    (got,) = receiver.got
    assert (got["title"], got["message"].split("\n")) == (TITLE, [DRIFT.body, PAGE])
    assert undelivered(to) == []


@pytest.mark.parametrize(
    ("how", "repeated"), [("answers 500", False), ("slow", True), ("drops", True), ("down", False)]
)
def test_a_page_arrives_once_its_receiver_can_take_it(receive, pager, how, repeated):
    receiver = receive(how)
    if how == "down":
        receiver.stop()
    to = pager(receiver.url)

    post(to, DRIFT)
    deliver(to)
    assert undelivered(to) == ["shop/drift/b1"]
    if how == "down":
        receiver = receive(port=receiver.server_port)
    receiver.how = "takes"
    deliver(to)
    deliver(to)

    (page,) = receiver.taken
    assert page["title"] == TITLE + (" (repeat)" if repeated else "")
    (last,) = [line for line in page["message"].split("\n") if line.startswith(PAGE)]
    assert ("repeat: sent before" in last) == repeated
    assert undelivered(to) == []


def test_the_address_that_took_a_page_is_not_asked_again_while_two_others_are_down(receive, pager):
    sound, first, second = receive(), receive("answers 500"), receive("answers 500")
    to = pager(sound.url, first.url, second.url)

    post(to, DRIFT)
    for _ in range(3):
        deliver(to)
    first.how = "takes"
    deliver(to)
    deliver(to)

    assert [len(one.taken) for one in (sound, first, second)] == [1, 1, 0]
    assert len(sound.got) == 1
    assert undelivered(to) == ["shop/drift/b1"]


def test_nobody_waits_until_slow_receivers_answer(receive, pager):
    slow = [receive("trickles") for _ in range(3)]
    to = pager(*(one.url for one in slow))

    for event in numbered(6):
        post(to, event)
    deliver(to)

    assert all(one.got for one in slow)
    assert not any(one.answered for one in slow)


def test_a_refused_page_does_not_keep_back_the_next_one(receive, pager):
    receiver = receive("answers 500")
    to = pager(receiver.url)
    post(to, numbered(2)[0])
    deliver(to)

    receiver.how = "takes"
    post(to, numbered(2)[1])
    deliver(to)

    assert sorted(page["title"] for page in receiver.taken) == [
        f"[warning] {event.subject}" for event in numbered(2)
    ]


def test_an_address_that_was_corrected_gets_what_the_wrong_one_did_not_take(receive, pager):
    wrong, right = pager(NOBODY_LISTENS), receive()
    post(wrong, DRIFT)
    deliver(wrong)

    deliver(pager(right.url))

    assert titles(right) == [TITLE]


def test_an_address_that_is_added_gets_no_page_of_before(receive, pager):
    first, added = receive(), receive()
    post(pager(first.url), DRIFT)
    deliver(pager(first.url))
    post(pager(), numbered(1)[0])

    deliver(pager(first.url, added.url))

    assert (len(first.got), added.got) == (1, [])


def test_a_page_is_given_up_after_seven_days_and_stays_in_the_outbox(pager, caplog):
    to = pager(NOBODY_LISTENS)
    begun = time.time() - outbox.KEPT_UP - 1
    outbox.write(to.file, to.model, DRIFT, to.least, now=begun)

    deliver(to)
    deliver(to)

    (line,) = [r.getMessage() for r in caplog.records if "given up" in r.getMessage()]
    assert line == "The page shop/drift/b1 was not taken by every address in 7 days; given up."
    (page,) = written_pages.undelivered(to.file, to.model)
    assert [sent["state"] for sent in page["sends"]] == ["given up"]


def test_neither_the_outbox_nor_the_log_holds_an_address(receive, pager, caplog):
    caplog.set_level(logging.DEBUG)
    to = pager(NOBODY_LISTENS, receive("answers 500").url)

    post(to, DRIFT)
    deliver(to)

    for path in to.file.parent.iterdir():
        assert b"hunter2" not in path.read_bytes() + path.name.encode()
    assert "hunter2" not in caplog.text
    assert (
        "The json:// address did not accept the page 'shop: drift persists': refused (HTTP 500)."
        in (caplog.text)
    )


def test_without_addresses_a_page_is_kept_and_a_warning_comes_once(pager, caplog):
    caplog.set_level(logging.INFO)

    for event in numbered(2):
        post(pager(), event)

    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO", "INFO"]
    assert len(undelivered(pager())) == 2


def test_a_test_page_says_which_address_took_it(receive, pager):
    sound, refuses = receive(), receive("answers 500")

    found = send_test(pager(sound.url, refuses.url, NOBODY_LISTENS))

    assert [outcome for outcome, _ in found] == ["accepted", "waiting", "waiting"]
    assert titles(sound) == ["[info] shop: a test page"]


def run(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(KILLS), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_page_survives_a_kill_before_every_effect_from_writing_it_to_its_outcome(receive, pager):
    receiver = receive()
    to = pager(receiver.url)

    out, _ = run("kill", to.file, receiver.url).communicate(timeout=500)

    killed = json.loads(out)
    firsts, repeats = Counter(), Counter()
    for page in receiver.taken:
        (line,) = [s for s in page["message"].split("\n") if s.startswith("Page: ")]
        name, *repeat = line.removeprefix("Page: ").split(" (repeat", 1)
        assert bool(repeat) == page["title"].endswith("(repeat)")
        (repeats if repeat else firsts)[name] += 1
    assert killed > 50
    assert set(firsts | repeats) == {f"shop/drift/{n}" for n in range(killed)}
    assert {*firsts.values(), *repeats.values()} == {1}
    assert undelivered(to) == []


def test_processes_that_send_at_once_send_each_page_once(receive, pager):
    receiver = receive()
    to = pager(receiver.url)

    running = [run("race", to.file, receiver.url) for _ in range(5)]
    for one in running:
        assert one.communicate(timeout=200) is not None
        assert one.returncode == 0

    got = Counter(page["title"] for page in receiver.got)
    assert got == {f"[warning] shop: drift {n}": 1 for n in range(8)}


def test_a_page_that_finds_no_room_on_the_disk_harms_no_other_and_is_written_later(receive, pager):
    receiver = receive()
    to = pager(receiver.url)
    first, second = numbered(2)
    large = replace(second, body="temp " * 2_000)
    post(to, first)
    deliver(to)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (to.file.stat().st_size, before[1]))
    try:
        with pytest.raises(RegistryError, match=r"cannot be used .*\. Make room for it, or"):
            post(to, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    post(to, large)
    deliver(to)

    assert titles(receiver) == [f"[warning] {event.subject}" for event in (first, second)]
    assert undelivered(to) == []


def test_an_outbox_that_is_not_a_database_is_one_sentence(pager):
    to = pager()
    to.file.parent.mkdir()
    to.file.write_bytes(b"hello " * 1_000)

    with pytest.raises(RegistryError, match=r"^The outbox of pages, .*, cannot be used"):
        outbox.write(to.file, to.model, DRIFT, {name_of("json://a"): "info"}, now=0)
