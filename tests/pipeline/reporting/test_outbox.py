import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pydantic import ValidationError

from pipeline.config import SEVERITIES, Alerts
from pipeline.errors import UnavailableError
from pipeline.reporting import outbox, outbox_file, written_pages
from pipeline.reporting.pages import Event

CONF = "conf/shop.yaml"
HOUR = 3_600.0
DAY = 24 * HOUR


@pytest.fixture
def file(tmp_path):
    return tmp_path / "pages.db"


def event(kind="drift", about="b1", **more):
    return Event(kind, about, f"shop: {kind} {about}", f"What: {about}.", **more)


def put(file, *events, now=0.0, routes=None):
    for one in events:
        outbox.write(file, "shop", one, routes or {"a": "info"}, now=now)


def take(file, now=0.0, name="a", **options):
    options = {"least": "info", "configured": ["a"], "quiet": False, "per_hour": 10} | options
    return outbox.claim(file, "shop", name, conf=CONF, since=now + 1, now=now, **options)


def sent(file, now=0.0, outcome="accepted", **options):
    """The subjects of all messages that an address gets now."""
    subjects = []
    while message := take(file, now, **options):
        subjects.append(message.subject)
        outbox.settle(file, options.get("name", "a"), message, outcome, "", now=now)
        if outcome != "accepted":
            break
    return subjects


@pytest.mark.parametrize(
    ("least", "kinds"),
    [
        ("info", ["champion", "drift", "broken"]),
        ("warning", ["drift", "broken"]),
        ("failure", ["broken"]),
    ],
)
def test_an_address_gets_pages_from_its_severity_on(file, least, kinds):
    routes = {"a": least}

    put(file, event("champion"), event("drift"), event("broken"), routes=routes)

    assert sent(file, least=least) == [f"shop: {kind} b1" for kind in kinds]


def test_in_quiet_hours_warnings_wait_and_failures_do_not(file):
    put(file, event("drift"), event("broken"), event("champion"))

    assert sent(file, quiet=True) == ["shop: broken b1"]
    assert sent(file) == ["shop: drift b1", "shop: champion b1"]


@pytest.mark.parametrize(
    ("quiet", "moment", "expected"),
    [
        (None, "03:00", False),
        ("22:00-07:00", "21:59", False),
        ("22:00-07:00", "22:00", True),
        ("22:00-07:00", "06:59", True),
        ("22:00-07:00", "07:00", False),
        ("12:00-13:00", "12:30", True),
        ("12:00-13:00", "13:00", False),
        ("22:00-07:00 Asia/Tokyo", "13:00", True),
        ("22:00-07:00 Asia/Tokyo", "22:30", False),
    ],
)
def test_quiet_hours_are_those_of_a_time_zone(quiet, moment, expected):
    hours, minutes = map(int, moment.split(":"))

    assert Alerts(quiet=quiet).is_quiet(hours * HOUR + minutes * 60) == expected


@pytest.mark.parametrize("summer", [True, False])
def test_quiet_hours_follow_the_clocks_on_the_wall(summer):
    seven = pd.Timestamp("2026-07-01 07:00" if summer else "2026-01-01 07:00", tz="Europe/Vienna")

    quiet = Alerts(quiet="22:00-07:00 Europe/Vienna").is_quiet

    assert [quiet(seven.timestamp() + minutes * 60) for minutes in (-1, 0)] == [True, False]


@pytest.mark.parametrize(
    "quiet", ["22:00+01:00-07:00", "22-7", "22:00-24:00", "22:00-07:00 Atlantis"]
)
def test_quiet_hours_that_are_no_times_of_a_day_are_refused(quiet):
    with pytest.raises(ValidationError, match="must be hours such as 22:00-07:00 Europe/Vienna"):
        Alerts(quiet=quiet)


def test_more_pages_than_an_hour_has_room_for_are_one_message(file):
    put(file, *(event(about=f"b{n}") for n in range(4)))

    message = take(file, per_hour=3)

    lines = message.body.split("\n")
    assert (message.subject, len(message.pages)) == ("shop: 4 pages in one message", 4)
    assert lines[0] == "4 pages of shop waited and come in one message."
    assert lines[1] == "- 1970-01-01 00:00 UTC warning: shop: drift b0 [shop/drift/b0]"
    assert lines[-1] == f"holdfast page {CONF} --since shop/drift/b0"


def test_pages_beyond_those_of_an_hour_wait_and_are_sent_together(file):
    put(file, *(event(about=f"b{n}") for n in range(2)))
    assert len(sent(file, per_hour=2)) == 2
    put(file, *(event(about=f"c{n}") for n in range(3)))

    assert sent(file, 0.9 * HOUR, per_hour=2) == []
    assert sent(file, 1.1 * HOUR, per_hour=2) == ["shop: 3 pages in one message"]


def test_a_summary_marks_the_pages_that_may_have_arrived_before(file):
    put(file, event(about="b0"))
    assert take(file) is not None
    outbox.interrupted(file, "a")
    put(file, event(about="b1"), event("broken"))

    message = take(file, 2 * HOUR, per_hour=1)

    assert "- 1970-01-01 00:00 UTC warning: shop: drift b0 (repeat) [" in message.body
    assert message.body.count("(repeat)") == 1
    assert message.severity == "failure"


def test_a_failure_that_recurs_while_it_is_tried_again_needs_nobody(file):
    for n in (1, 2):
        put(file, event("failure", f"r{n}", episode="fails", recurs=True, under_way=True), now=n)

    assert [message.severity for message in (take(file, 3), take(file, 3))] == ["warning"] * 2


def test_a_first_failure_after_warnings_is_sent_at_once(file):
    for n in range(1, 6):
        tried = {"under_way": n < 3}
        put(file, event("failure", f"r{n}", episode="fails", recurs=True, **tried), now=n)

    assert sent(file, 9) == [f"shop: failure r{n}" for n in (1, 2, 3, 4)]


def test_an_event_that_recurs_is_sent_at_doublings_and_as_a_failure(file):
    for n in range(1, 10):
        put(file, event("quarantine", f"r{n}", episode="fails", recurs=True), now=n)

    assert sent(file, 10) == [f"shop: quarantine r{n}" for n in (1, 2, 4, 8)]
    put(file, event("resolved", "r10", episode="fails"), now=11)
    assert not outbox.is_open(file, "shop", "fails")
    put(file, event("quarantine", "r11", episode="fails", recurs=True), now=12)
    assert sent(file, 13) == ["shop: resolved r10", "shop: quarantine r11"]


def test_what_is_resolved_is_said_to_whom_its_pages_went_whatever_they_take(file):
    routes = {"a": "failure", "b": "info", "c": "failure"}
    put(file, event("broken", episode="batches"), routes={"a": "failure"})

    put(file, event("resolved", episode="batches"), routes=routes)

    assert sent(file, least="failure") == ["shop: broken b1", "shop: resolved b1"]
    assert sent(file, name="b") == sent(file, name="c", least="failure") == []


@pytest.mark.parametrize(("outcome", "first"), [("waiting", [0, 0, 5, 10]), ("unknown", [5, 10])])
def test_tries_come_at_growing_intervals_of_an_hour_at_most(file, outcome, first):
    put(file, event())
    now, delays = 0.0, []

    for _ in range(20):
        assert sent(file, now, outcome)
        delays.append(due_at(file) - now)
        now = due_at(file)

    assert delays[: len(first)] == first
    assert delays[-1] == 3_600


def test_what_an_address_took_late_is_not_sent_again(file):
    put(file, event())
    message = take(file)
    outbox.settle(file, "a", message, "unknown", "no answer in time", now=1)
    outbox.settle(file, "a", message, "accepted", "", now=2)
    outbox.settle(file, "a", message, "unknown", "no answer in time", now=3)

    assert take(file, HOUR) is None
    assert written_pages.undelivered(file, "shop") == []


def test_a_summary_names_the_twenty_pages_that_matter_most_and_counts_the_others(file):
    put(file, *(event(about=f"b{n}") for n in range(500)), event("broken"))
    put(file, *(event(about=f"c{n}") for n in range(500)))

    message = take(file)

    lines = message.body.split("\n")
    assert (len(message.pages), message.severity) == (1_001, "failure")
    assert [line.split("[")[1] for line in lines[1:21]] == [
        *(f"shop/drift/b{n}]" for n in range(19)),
        "shop/broken/b1]",
    ]
    assert lines[21:] == [
        "- 981 more",
        "To do: read them in full:",
        f"holdfast page {CONF} --since shop/drift/b0",
    ]


def test_moments_of_a_clock_that_was_years_ahead_keep_no_page_back(file):
    ahead = 10 * 365 * DAY
    put(file, event(about="b0"), event(about="b1"), now=ahead)
    for about in ("b0", "b1"):
        assert sent(file, ahead, "unknown", per_hour=2) == [f"shop: drift {about}"]

    assert sent(file, per_hour=2) == ["shop: drift b0 (repeat)", "shop: drift b1 (repeat)"]


@pytest.mark.parametrize("outcome", ["waiting", "unknown"])
@pytest.mark.parametrize("tries", [0, 1, 6])
@pytest.mark.parametrize("step", [-400 * DAY, -DAY, -HOUR, -60.0, 60.0, DAY])
def test_a_clock_that_steps_between_two_runs_loses_no_page_and_doubles_none(
    file, outcome, tries, step
):
    begun = now = 1_000 * DAY
    put(file, event(), now=now)
    for _ in range(tries):
        assert sent(file, now, outcome)
        now += HOUR

    now += step
    put(file, event(), event(about="b2"), now=now)

    assert outbox.give_up(file, "shop", ["a"], now=now) == []
    got = sent(file, now) + sent(file, now + HOUR)
    assert sorted(subject.removesuffix(" (repeat)") for subject in got) == [
        "shop: drift b1",
        "shop: drift b2",
    ]
    for later in (now, begun, begun + 2 * DAY):
        put(file, event(), event(about="b2"), now=later)
        assert sent(file, later) == []


def test_one_of_two_addresses_that_was_corrected_gets_what_it_missed_and_its_end(file):
    put(file, event("broken", episode="batches"), routes=dict.fromkeys("ab", "failure"))
    put(file, event("resolved", episode="batches"), routes=dict.fromkeys("ab", "failure"))
    assert len(sent(file, least="failure", configured="ab")) == 2

    for name in "cd":
        options = {"name": name, "least": "failure"}
        assert sent(file, configured="abcd", **options) == []
        assert sent(file, configured="acd", **options) == ["shop: broken b1", "shop: resolved b1"]


def test_a_page_is_tried_after_a_week_off_before_it_is_given_up(file):
    put(file, event())

    assert outbox.give_up(file, "shop", ["a"], now=8 * DAY) == []
    assert sent(file, 8 * DAY, "waiting")
    assert outbox.give_up(file, "shop", ["a"], now=8 * DAY) == ["shop/drift/b1"]


def test_a_page_that_only_waits_for_a_removed_address_is_given_up(file):
    put(file, event())

    assert outbox.give_up(file, "shop", ["b"], now=6 * DAY) == []
    assert outbox.give_up(file, "shop", ["b"], now=8 * DAY) == ["shop/drift/b1"]


def due_at(file):
    with closing(sqlite3.connect(file)) as database:
        return database.execute("SELECT due FROM sends").fetchone()[0]


def test_a_file_that_another_process_holds_is_asked_again_later(file, monkeypatch):
    put(file, event())
    monkeypatch.setattr(outbox_file, "_BUSY", 0.1)
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")

    with pytest.raises(UnavailableError, match=r"cannot be used \(database is locked\)"):
        take(file)

    holder.close()


KINDS = ("champion", "drift", "broken", "failure", "resolved")
EPISODES = ("batches", "monitor fails")
PER_HOUR = 3
SEVERITY = {"champion": 0, "drift": 1, "broken": 2, "failure": 2, "resolved": 0}


class Outboxes(RuleBasedStateMachine):
    """An outbox beside a model of what each address must have got, with ends at any moment.

    A message that was being sent when the process ended may have arrived or not.
    """

    @initialize(
        least=st.fixed_dictionaries({name: st.sampled_from(SEVERITIES) for name in ("a", "b")})
    )
    def begin(self, least):
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "pages.db"
        self.least, self.now, self.count = least, 1e6, 0
        self.pages = {}  # id -> written, rank and the addresses that it goes to
        self.episodes = {episode: [] for episode in EPISODES}
        self.arrived = {name: {} for name in least}  # id -> marks of each arrival
        self.taken = {name: set() for name in least}  # what the address said that it took
        self.maybe = {name: set() for name in least}  # what may have arrived
        self.times = {name: [] for name in least}  # of messages that arrived or may have
        self.tried = {name: {} for name in least}  # id -> last try

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule(kind=st.sampled_from(KINDS), episode=st.sampled_from(EPISODES), twice=st.booleans())
    def happens(self, kind, episode, twice):
        if kind == "resolved" and not self.episodes[episode]:
            return
        self.count += 1
        recurs = kind == "failure"
        one = event(kind, f"n{self.count}", episode=episode, recurs=recurs)
        for _ in range(1 + twice):  # a run that is repeated finds the event again
            outbox.write(self.file, "shop", one, self.least, now=self.now)
        before, page_id = self.episodes[episode], f"shop/{kind}/n{self.count}"
        rank = SEVERITY[kind]
        first = all(self.pages[known][1] < rank for known in before)
        due = not recurs or (len(before) + 1).bit_count() == 1 or first
        names = {n for n, least in self.least.items() if SEVERITIES.index(least) <= rank}
        if kind == "resolved":
            names = set().union(*(self.pages[known][2] for known in before))
        self.pages[page_id] = (self.now, rank, names if due else set())
        self.episodes[episode] = [] if kind == "resolved" else [*before, page_id]

    @rule(seconds=st.sampled_from([1.0, 60.0, HOUR, 5 * HOUR, DAY]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(
        name=st.sampled_from(["a", "b"]),
        quiet=st.booleans(),
        outcome=st.sampled_from(["accepted", "waiting", "unknown", "dies", "dies after it"]),
    )
    def somebody_sends(self, name, quiet, outcome):
        outbox.interrupted(self.file, name)
        outbox.give_up(self.file, "shop", self.least, now=self.now)
        self.now += 0.001
        message = outbox.claim(
            *(self.file, "shop", name),
            least=self.least[name],
            configured=self.least,
            quiet=quiet,
            per_hour=PER_HOUR,
            conf=CONF,
            since=self.now,
            now=self.now,
        )
        due = self.owed(name, quiet)
        if message is None:
            return
        ids = [list(self.pages)[number - 1] for number in message.pages]
        named = [one for one in self.pages if self.line_of(one, message)]
        assert named
        assert len(named) == len(ids) or (set(named) <= set(ids) and len(named) == 20)
        assert set(ids) <= set(due)
        self.tried[name] |= dict.fromkeys(ids, self.now)
        recent = [at for at in self.times[name] if at > self.now - HOUR]
        assert len(recent) < PER_HOUR
        if len(ids) > 1:
            assert len(ids) > PER_HOUR - len(recent)
            assert not quiet or all(self.pages[one][1] == 2 for one in ids)
        for one in named:
            assert ("(repeat" in self.line_of(one, message)) == (one in self.maybe[name])
        if outcome != "waiting":
            self.times[name].append(self.now)
            self.maybe[name] |= set(ids)
        if outcome in {"accepted", "waiting", "unknown"}:
            outbox.settle(self.file, name, message, outcome, "", now=self.now)
        if outcome == "accepted":
            assert not self.taken[name] & set(ids)
            self.taken[name] |= set(ids)

    def line_of(self, page_id, message):
        """The line of a message that names a page; empty: none does."""
        lines = message.body.split("\n")
        named = [f"{line} " for line in lines if line.endswith(f"[{page_id}]")]
        named += [line for line in lines if f"{line} ".startswith(f"Page: {page_id} ")]
        return "".join(named)

    def owed(self, name, quiet):
        return [
            one
            for one, (written, rank, names) in self.pages.items()
            if name in names
            and one not in self.taken[name]
            and self.tried[name].get(one, written) < written + outbox.KEPT_UP
            and (not quiet or rank == 2)
        ]

    @precondition(lambda self: hasattr(self, "file"))
    @rule(name=st.sampled_from(["a", "b"]))
    def the_address_is_sound_for_some_hours(self, name):
        for _ in range(6):
            self.now += HOUR
            self.somebody_sends(name, quiet=False, outcome="accepted")
        assert self.owed(name, quiet=False) == []

    @invariant()
    def open_episodes_are_those_of_the_model(self):
        if hasattr(self, "file"):
            for episode, pages in self.episodes.items():
                assert outbox.is_open(self.file, "shop", episode) == bool(pages)


TestOutboxes = pytest.mark.slow(Outboxes.TestCase)
TestOutboxes.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
