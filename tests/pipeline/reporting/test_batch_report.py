import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Categorical, Numeric
from pipeline.monitoring.drift import compare
from pipeline.monitoring.episode import Decision, Evidence, Verdict
from pipeline.monitoring.estimate import Estimate
from pipeline.monitoring.findings import Cause, ColumnDrift, DriftReport
from pipeline.monitoring.performance import Performance
from pipeline.monitoring.shapes import Shape
from pipeline.monitoring.slice_drift import SliceDrift
from pipeline.monitoring.stored import to_record
from pipeline.reference import Reference
from pipeline.reference.summaries import Summary
from pipeline.reporting.advice import Answered
from pipeline.reporting.batch_report import About, Past, batch_report

ODD = "<img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}\n\u202e"
START = pd.Timestamp("2026-03-02")
WEEK = pd.Timedelta("7D")
WIDE = 200


def about(action="none", reason="Quiet.", *, performance=None, past=(), estimates=(), **evidence):
    found = Evidence(f"{START:%Y-%m-%dT%H:%M}", 3, **evidence)
    return About(
        model="shop",
        conf="conf/my shop.yaml",
        verdict=Verdict(found, Decision(action, reason)),
        start=START,
        end=START + WEEK,
        quarantined=7,
        loss="log_loss",
        usual_loss=0.5,
        allowed=0.05,
        labels_due=START + 2 * WEEK,
        made="2026-03-09 08:00 UTC",
        past=past,
        performance=performance,
        estimates=estimates,
        metrics={"log_loss": 0.5},
        where={"MLflow": "http://127.0.0.1:5000/#/x", "Open questions": "holdfast review"},
    )


def performance(change=0.31, at_least=0.2, *, worse=True):
    return Performance(
        batch="2026-03-02T00:00",
        rows=900,
        metrics={"log_loss": 0.655, "roc_auc": float("nan")},
        parts=(0.6,),
        change=change,
        at_least=at_least,
        worse=worse,
        of=1_000,
    )


def frame(n=600, seed=0):
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "amount": random.gamma(4, 10, n),
            "count": random.integers(0, 9, n).astype(float),
            ODD: pd.Series(random.choice(["a", ODD, "c"], n)),
            "empty": np.full(n, np.nan),
        }
    )


COLUMNS = {
    "amount": Numeric(),
    "count": Numeric(),
    ODD: Categorical(),
    "empty": Numeric(nullable=True),
}


@pytest.fixture(scope="module")
def reference():
    return Reference.fit(frame(2_400), COLUMNS, block=600)


@pytest.fixture(scope="module")
def moved(reference):
    """A batch in which one number grew, values went missing, and a label is new."""
    now = frame(seed=1)
    now["amount"] += 25
    now.loc[:100, ODD] = f"new {ODD}"
    now.loc[:200, "count"] = np.nan
    importance = {"amount": 0.01, "count": 0.2, ODD: 0.0}
    return compare(reference=reference, current=now, importance=importance)


@pytest.fixture(scope="module")
def record(moved):
    return json.loads(json.dumps(to_record(moved)))


@pytest.fixture(scope="module")
def sound(record):
    """The batch that moved, if no fault were recognised in it."""
    return record | {"causes": []}


NOTHING = to_record(DriftReport(0, 0.05, (), (), (), Summary(), 1, 400.0, 0.01, ()))
UNIT = Cause("unit", ("amount",), "Amount is about x100.", {"factor": 100.0}, "Ask for the unit.")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (about(), "Quiet. Nothing has to be done."),
        (
            about(reason="This batch alarms; not persistent yet.", alarm=True),
            "Moved. It is recorded, and nothing has to be done yet.",
        ),
        (
            about("retrain", "Drift of a persists.", alarm=True, persisted=("a",)),
            "Moved. A retrain is asked for.",
        ),
        (
            about("retrain", "Performance was lost.", worse="2026-02-23T00:00"),
            "Performance lost. A retrain is asked for.",
        ),
        (
            about("page", "Broken: unit (amount).", alarm=True, broken=("unit (amount)",)),
            "Broken. People are paged, and the batch is set aside until someone answers.",
        ),
        (
            about("none", "Broken: unit (amount).", worse="x", broken=("unit (amount)",)),
            "Broken. It is set aside, as people were paged before.",
        ),
        (
            about("halt", "Drift of a persists, but: look.", alarm=True),
            "Moved. Retraining is halted, and people are paged.",
        ),
        (
            about(performance=performance()),
            "Performance lost. It is recorded, and nothing is done yet.",
        ),
    ],
)
def test_the_first_line_says_the_verdict_and_the_action_in_words(given, expected, read_page):
    page = read_page(batch_report(NOTHING, given))

    assert page.heading() == expected


def test_a_reason_does_not_repeat_the_word_before_it(read_page):
    quiet = batch_report(NOTHING, about())
    broken = batch_report(
        NOTHING, about("page", "Broken: unit (amount).", broken=("unit (amount)",))
    )

    assert "Quiet. Quiet." not in read_page(quiet).words
    assert "answers. Recognised: unit (amount)." in read_page(broken).words


UNKNOWN = "no label has come yet, so it is not known how much predictions suffer."
SMALL = performance(0.02, -0.01, worse=False)


@pytest.mark.parametrize(
    ("shown", "known", "said"),
    [
        ({"alarm": True}, None, f"N{UNKNOWN[1:]}"),
        (
            {"alarm": True},
            SMALL,
            "The loss is 2.0% larger than after training, which may be chance",
        ),
        ({"broken": ("unit (amount)",)}, None, f"may be wrong; {UNKNOWN}"),
        ({"broken": ("unit (amount)",)}, SMALL, "may be wrong; the loss is 2.0% larger than"),
        (
            {"broken": ("unit (amount)",), "measured": "b", "change": -0.03},
            None,
            "may be wrong; the loss is 3.0% smaller than after training (batch b).",
        ),
    ],
)
def test_a_batch_that_is_not_quiet_says_how_bad_it_is(shown, known, said, read_page):
    page = read_page(batch_report(NOTHING, about("page", "Seen.", performance=known, **shown)))

    assert said in page.words.split("Batch 2026-03-02")[0]


def test_every_word_of_the_data_is_escaped(record, read_page):
    odd = replace(UNIT, sentence=ODD, segment=ODD, cure=ODD, evidence={ODD: ODD}, columns=(ODD,))
    given = about("page", ODD, broken=(ODD,))
    given = replace(given, model=ODD, conf=ODD, answered=None, where={ODD: ODD})
    record = record | {"causes": [vars(odd)], "notes": [ODD]}

    text = batch_report(record, given)
    page = read_page(text)

    assert "<img" not in text
    assert "\u202e" not in text
    assert ODD.splitlines()[0] in page.words


def test_a_page_of_200_columns_is_small(read_page):
    bell = tuple(np.random.default_rng(0).dirichlet(np.full(20, 2.0)).tolist())
    known = {"ends": (-1.234, 3.125), "quarters": (0.1, 0.2512, 0.5, 0.125, 0.2534, 0.75)}
    drawn = [Shape(f"column {i}", bell, bell, (0.0, 0.1), **known) for i in range(WIDE)]
    columns = [
        ColumnDrift(
            *(one.column, (one.column,), -0.12345678, 0.123456, 1.2345678, False, 1, 0.0123456),
            *(0.0123456, 0.0123456, 0.0123456, 0.0123456, 0.0123456, 3),
        )
        for one in drawn
    ]
    report = DriftReport(5_000, 0.05, tuple(columns), (), (), Summary(), 1, 400.0, 0.01, ())
    record = to_record(replace(report, shapes=tuple(drawn)))

    page = read_page(text := batch_report(record, about()))

    assert len(text) < 300_000
    assert len(json.dumps(record, separators=(",", ":"))) < 60_000
    assert "180 more columns" in page.words


def test_columns_are_ranked_by_what_is_at_stake(record, read_page):
    page = read_page(batch_report(record, about(alarm=True)))

    rows = [text for text in page.of("th") if text in {"amount", "count", "empty"}]
    # The amount moved farther, but the model relies twenty times as much on the count.
    assert rows[:2] == ["count", "amount"]


def test_pictures_say_the_numbers_of_the_comparison(record, reference, read_page):
    page = read_page(batch_report(record, about(alarm=True)))

    profile = reference.columns["amount"]
    before = np.interp([0.25, 0.5, 0.75], profile.upto, profile.grid)
    spoken = next(label for label in page.labels() if label.startswith("amount: "))
    said, now = spoken.split("; ")
    median, middle = (
        float(said.split(word)[1].split(",")[0].split(" to ")[0]) for word in ("median ", "half ")
    )
    assert median == pytest.approx(before[1], rel=0.02)
    assert middle == pytest.approx(before[0], rel=0.02)
    expected = np.median(frame(seed=1)["amount"] + 25)
    assert float(now.split("median ")[1].split(",")[0]) == pytest.approx(expected, rel=0.02)


def test_missing_and_new_values_are_named(record, read_page):
    words = read_page(batch_report(record, about(alarm=True))).words

    assert "count 0% 34%" in words
    assert "(101)" in words


def test_what_moved_is_said_in_sentences(record, read_page):
    words = read_page(batch_report(record, about(alarm=True))).words

    assert "What moved" in words
    assert "percentage points more rows lack count, in this batch." in words
    assert "amount is higher, in this batch: median " in words
    assert "standard deviations" not in words


def test_a_fault_is_shown_with_its_sentence_picture_evidence_and_command(record, read_page):
    given = about("page", "Broken: unit (amount).", broken=("unit (amount)",))

    page = read_page(batch_report(record | {"causes": [vars(UNIT)]}, given))

    assert "Amount is about x100. Ask for the unit." in page.words
    assert sum(label.startswith("amount: ") for label in page.labels()) == 2
    assert "factor 100" in page.words
    assert (
        "holdfast review 'conf/my shop.yaml' --batch 2026-03-02T00:00 --answer reload" in page.words
    )


def test_the_strip_shows_each_batch_in_a_word_and_each_new_champion(read_page):
    past = [
        Past(f"2026-0{1 + k // 28}-{1 + k % 28:02}T00:00", state, "none", 1 + (k > 5), change)
        for k, (state, change) in enumerate(
            [("quiet", 0.02), ("moved", None), ("worse", 0.3), ("broken", float("nan"))] * 9
        )
    ]

    page = read_page(batch_report(NOTHING, about(past=past)))

    (strip,) = [label for label in page.labels() if label.startswith("The last 30 batches")]
    assert strip.count("performance lost") == 7
    assert strip.endswith("2026-03-02 quiet")
    assert "Performance lost: 7" in page.words


def test_performance_is_stated_with_its_interval(read_page):
    words = read_page(batch_report(NOTHING, about(performance=performance()))).words

    assert "log_loss is 31.0% higher than on rows of training" in words
    assert "95% interval +20.0% to +42.0%" in words
    assert "Performance is lost." in words


def test_a_change_that_may_be_chance_is_called_that(read_page):
    given = about(performance=performance(0.15, -0.03, worse=False))

    assert "no loss of performance is certain" in read_page(batch_report(NOTHING, given)).words


def test_labels_that_have_not_come_are_announced(read_page):
    words = read_page(batch_report(NOTHING, about())).words

    assert "They are due on 2026-03-16 00:00" in words


def test_labels_at_fault_make_a_batch_broken(read_page):
    found = replace(performance(), faults={"nulls (churned)": "Every label is null."})

    page = read_page(batch_report(NOTHING, about(performance=found)))

    assert page.heading().startswith("Broken.")
    assert "Every label is null." in page.words


def test_addresses_are_text_and_links(record, read_page):
    page = read_page(batch_report(record, about()))

    assert "http://127.0.0.1:5000/#/x" in page.of("a")


def test_a_private_column_is_listed_and_not_drawn(moved, read_page):
    record = to_record(moved, private=["amount"])

    page = read_page(batch_report(record, about(alarm=True)))

    assert "private, not drawn" in page.words
    assert not [label for label in page.labels() if label.startswith("amount: ")]
    assert "amount" in page.of("th")


def test_what_happens_when_nothing_is_wrong_is_stated(read_page):
    words = read_page(batch_report(NOTHING, about())).words

    assert "Of a year's 52 batches at most 2.6 alarm by chance" in words


ESTIMATES = (Estimate("roc_auc", 0.71, 0.68, 0.74), Estimate("log_loss", 0.6, 0.55, 0.65))


def test_an_estimate_is_stated_with_its_interval_and_what_it_assumes(read_page):
    page = read_page(batch_report(NOTHING, about(estimates=ESTIMATES)))

    assert "log_loss was estimated to be +20.0% against held-out rows" in page.words
    assert "90% interval +10.0% to +30.0%" in page.words
    assert "as in the newest batches with labels" in page.words
    assert any(label.startswith("Estimated change of log_loss: +20.0%") for label in page.labels())
    assert any("2026-03-02 estimated +20.0%" in label for label in page.labels())


def test_an_estimate_stands_beside_what_labels_showed(read_page):
    given = about(performance=performance(), estimates=ESTIMATES)

    words = read_page(batch_report(NOTHING, given)).words

    assert "log_loss 0.6 0.55 to 0.65 0.655" in words


def test_where_nothing_can_be_said_the_reason_stands(read_page):
    lost = [Estimate(one.metric, *([float("nan")] * 3), "Too few.") for one in ESTIMATES]

    words = read_page(batch_report(NOTHING, about(estimates=lost))).words

    assert "cannot tell. Too few." in words
    assert "was estimated" not in words


OPEN = ("2026-02-16T00:00", "2026-02-23T00:00")


def test_lost_performance_beside_open_questions_asks_for_the_answers_before_a_training(read_page):
    lost = about("page", "Performance was lost.", worse="2026-03-02T00:00")

    words, alone = (
        read_page(batch_report(NOTHING, replace(lost, waiting=waiting))).words
        for waiting in (OPEN, ())
    )

    first, then = words.split("Only then")
    assert "First answer for what is still set aside, 2026-02-16T00:00, 2026-02-23T00:00" in first
    assert first.rstrip().count("holdfast review 'conf/my shop.yaml'") == 1
    assert "holdfast train" not in first
    assert "holdfast train 'conf/my shop.yaml'" in then
    assert "First answer" not in alone
    assert "holdfast train 'conf/my shop.yaml'" in alone


@pytest.mark.parametrize("action", ["halt", "retrain"])
def test_open_questions_are_named_whatever_is_done_about_lost_performance(action, read_page):
    lost = replace(about(action, "Performance was lost.", worse="x"), waiting=OPEN)

    words = read_page(batch_report(NOTHING, lost)).words

    assert "2026-02-16T00:00, 2026-02-23T00:00" in words
    assert "holdfast review 'conf/my shop.yaml'" in words


def test_a_batch_that_moved_without_a_fault_says_what_is_known_of_the_cause(sound, read_page):
    words = read_page(batch_report(sound, about(alarm=True))).words

    why = words.split(" Why ")[1].split(" What moved ")[0]
    assert why.startswith("Not known: no fault was recognised in its rows. Look first at count (")
    assert "then at amount" in why


@pytest.mark.parametrize(
    ("moves", "said"),
    [(True, "together with that, which may be the cause or not"), (False, "Look first at the lab")],
)
def test_lost_performance_says_what_moved_together_with_it(moves, said, sound, read_page):
    lost = about("retrain", "Performance was lost.", worse="2026-02-23T00:00")

    words = read_page(batch_report(sound if moves else NOTHING, lost)).words

    assert "Not known: no fault was recognised in its rows." in words
    assert "Performance was lost in batch 2026-02-23T00:00" in words
    assert said in words


def test_where_faults_are_not_looked_for_the_report_does_not_clear_the_rows(sound, read_page):
    given = replace(about(alarm=True), diagnosed=False)

    words = read_page(batch_report(sound, given)).words

    assert "faults are not looked for (monitoring.diagnosis: false)" in words
    assert "no fault was recognised" not in words


def test_a_quiet_batch_has_no_cause(sound, read_page):
    assert "Why" not in read_page(batch_report(sound, about())).of("h2")


@pytest.mark.parametrize(
    ("answer", "effect"),
    [
        ("accept", "It was accepted: models learn from its rows"),
        ("drop", "It was dropped: no model ever learns from its rows."),
        ("reload", "Its source is read again, and only the new reading counts."),
    ],
)
def test_an_answer_comes_first_with_who_when_why_and_what_follows(answer, effect, read_page):
    given = about("page", "Broken: unit (amount). Set aside.", broken=("unit (amount)",))
    answered = Answered(answer, by="ann", at="2026-03-10 09:12 UTC", reason="in cents now")

    page = read_page(batch_report(NOTHING, replace(given, answered=answered)))

    assert page.heading().startswith(f"Broken. {effect}")
    said = page.words.split(page.of("h1")[-1])[1]
    first, judged = said.split("When it was judged: Recognised: unit (amount).")
    assert f"Answered {answer} on 2026-03-10 09:12 UTC from the account ann" in first
    assert "in cents now" in first
    assert ("batch 2026-03-02T00:00, reading 2" in first) == (answer == "reload")
    assert "What to do" not in judged


def test_a_batch_that_was_read_again_says_so(read_page):
    words = read_page(batch_report(NOTHING, replace(about(), reading=2))).words

    assert "This is reading 2: people had its source read again." in words


def test_the_loss_and_the_metrics_say_what_each_compares(read_page):
    before = [Past("2026-02-23T00:00", "quiet", "none", 3, 0.1)]

    alone, together = (
        read_page(batch_report(NOTHING, about(performance=performance(), past=past))).words
        for past in ((), before)
    )

    assert "In this batch alone, with labels of 900 of its 1,000 rows, log_loss is 31.0%" in alone
    assert "Over the last batches together, this one with labels of 900 of" in together
    assert "This batch alone, beside the rows at the end of training that were held" in together
    assert "another comparison: the last batches together, beside more rows" in together


def test_without_a_valid_row_nothing_is_called_sound(record, read_page):
    empty = to_record(DriftReport(0, 0.05, (), (), (), Summary(), 1, 400.0, 0.01, ()))

    words = read_page(batch_report(record | empty | {"columns": record["columns"]}, about())).words

    assert "Nothing could be judged: the batch has no valid row, 7 were refused." in words
    assert "no column misses" not in words
    assert "No correlation" not in words


def test_the_table_of_batches_says_why_each_action_was_taken(read_page):
    past = [Past("2026-02-23T00:00", "moved", "retrain", 3, 0.1, reason="Drift of a persists.")]

    words = read_page(batch_report(NOTHING, about(reason="Quiet so far.", past=past))).words

    assert "retrain Drift of a persists. 3 +10.0%" in words
    assert "none Quiet so far. 3 not known" in words


def test_lost_performance_says_at_once_how_much_and_since_when(read_page):
    past = [Past(f"2026-02-{day:02}T00:00", "worse", "page", 3) for day in (9, 16, 23)]
    past[0] = replace(past[0], state="quiet")
    figures = {"measured": "2026-03-02T00:00", "change": 0.31, "at_least": 0.2}
    lost = about("page", "Performance was lost.", past=past, worse="2026-03-02T00:00", **figures)

    for known in (None, performance()):
        words = read_page(batch_report(NOTHING, replace(lost, performance=known))).words
        first = words.split(" Why ")[0]
        assert "The loss is 31.0% larger than after training, at least +20.0%" in first
        assert "batch 3 in a row with this verdict, since 2026-02-16T00:00." in first
        assert "No label of this batch had come" not in words


def test_a_batch_that_differs_from_the_one_before_is_the_first_in_a_row(read_page):
    words = read_page(batch_report(NOTHING, about(alarm=True))).words

    assert "It is the first batch in a row with this verdict." in words
    assert "in a row" not in read_page(batch_report(NOTHING, about())).words


SLICES = (
    SliceDrift(
        "plan = pro", 120, ("amount", "holdfast-prediction"), "location", 0, 1, 1.2, 1e-9, True
    ),
    SliceDrift("plan = team", 300, ("age",), "missing", 0.1, 0.11, 0.01, 0.8),
    SliceDrift("plan = <b>", 12, why="fewer than 50 rows of the batch are in it"),
)


def test_slices_are_listed_with_what_moved_in_them_and_those_not_compared_with_the_reason(
    read_page,
):
    report = DriftReport(432, 0.05, (), (), (), Summary(), 1, 400.0, 0.01, (), slices=SLICES)
    stored = json.loads(json.dumps(to_record(report)))

    page = read_page(batch_report(stored, about(moved_slice=SLICES[0].sentence)))

    lead = "Slice that moved apart: plan = pro, amount +1.20 sd beyond the other rows, 120 rows."
    assert page.words.count(lead) == 1
    assert "plan = pro moved 120 amount +1.20 sd also prediction 1e-09" in page.words
    assert (
        "plan = team 300 missing age +1 points 0.8 Where slices vary as they did in training, 5%"
        in page.words
    )
    few = "(12 rows; fewer than 50 rows of the batch are in it)"
    assert f"Not compared: plan = <b> {few}." in page.words


def test_a_page_names_the_slice_once_where_its_reason_names_it(read_page):
    moved = SLICES[0].sentence
    given = about("retrain", f"Drift persists. Slice that moved apart: {moved}.", moved_slice=moved)

    page = read_page(batch_report(NOTHING, given))

    assert page.words.count(moved) == 2  # in the first lines, and in the table of batches


def test_a_page_says_why_rows_were_refused_and_whose_labels_are_overdue(record, read_page):
    late = replace(about(), overdue=["2026-02-02T00:00", "2026-02-09T00:00"])
    odd = record | {"refused": {"age must be at most 120": 1_200, ODD: 1}}

    text = batch_report(odd, late)
    plain = read_page(batch_report(record, about())).words

    words = read_page(text).words
    assert "Why rows were refused: age must be at most 120 (1,200), <img" in words
    assert "<img" not in text
    assert "none have come of batch 2026-02-02T00:00 and 1 after it" in words
    assert "overdue" not in plain
    assert "Why rows were refused" not in plain


def test_the_loss_that_a_decision_was_made_from_stands_in_the_table_as_well(record, read_page):
    page = read_page(batch_report(record, about(measured="2026-03-02T00:00", change=0.021)))
    other = read_page(batch_report(record, about(measured="2026-02-23T00:00", change=0.021)))

    assert "+2.1%" in page.of("td")
    assert "+2.1%" not in other.of("td")


@pytest.mark.parametrize(
    ("since", "level", "sudden"), [(1, "batches", True), (2, "batches", False), (1, "decay", False)]
)
def test_only_drift_that_one_batch_shows_is_called_large(since, level, sudden, read_page):
    shown = {"columns": ["amount"], "kind": "location", "statistic": 1.0, "name": "amount"}
    record = NOTHING | {"drifted": [{**shown, "since": since, "level": level}]}

    page = read_page(batch_report(record, about("retrain", alarm=True, persisted=("amount",))))

    assert ("so large that it counts as persistent" in page.words) == sudden


def test_a_record_of_before_is_drawn_without_what_it_lacks(record, read_page):
    whole = read_page(batch_report(record, about())).words
    older = {name: one for name, one in record.items() if name not in {"refused", "slices"}}

    assert read_page(batch_report(older, about())).words == whole


def test_of_a_store_of_before_a_lost_batch_says_that_its_loss_is_too_large(read_page):
    page = read_page(batch_report(NOTHING, about("page", worse="2026-02-23T00:00")))

    assert "The loss in batch 2026-02-23T00:00 is larger than is allowed." in page.words
