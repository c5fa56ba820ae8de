import json

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Categorical, Numeric
from pipeline.monitoring.drift import compare
from pipeline.monitoring.findings import Cause, DriftReport, Finding
from pipeline.reference import Reference

WARM = {"warm": 1.0}
SALES = {"amount": 1.0, "count": 1.0}
MOVED = {
    "weather by half a deviation": {"shift": {"warm": 0.5}},
    "weather by a deviation": {"shift": WARM},
    "weather by two, so that it is colder": {"shift": {"warm": -2.0}},
    "weather by two, so that it is warmer": {"shift": {"warm": 2.0}},
    "sales by half a deviation": {"shift": {name: x / 2 for name, x in SALES.items()}},
    "sales by a deviation": {"shift": SALES},
    "weather more varied": {"scale": {"warm": 1.5, "dry": 1.5}},
    "sales more varied": {"scale": {"amount": 1.5, "count": 1.5}},
    "dearer": {"growth": 1.6},
    "other regions": {"regions": {"North": 0.25, "East": 0.5, "South": 0.17, "West": 0.08}},
    "a new region": {
        "regions": {"North": 0.42, "East": 0.28, "South": 0.17, "West": 0.08, "Abroad": 0.05}
    },
    "a looser link": {"link": 0.3},
    "more missing": {"missing": 0.06},
    "a third of the rows": {"n": 700},
}
"""What happens to sound rows."""


def named(report):
    return sorted((cause.cause, *sorted(cause.columns)) for cause in report.causes)


@pytest.mark.parametrize("seed", range(100, 120))
def test_a_sound_batch_has_no_cause(shop, seed):
    # None in 20 leaves a rate of at most 14%, at 95%.
    assert named(shop.judge(shop.draw(seed))) == []


@pytest.mark.slow
@pytest.mark.parametrize("change", MOVED.values(), ids=MOVED)
def test_sound_rows_that_differ_are_not_broken(shop, change):
    report = shop.judge(shop.draw(200, **change))

    assert named(report) == []
    assert report.outcome in {"moved", "quiet"}


def test_a_new_column_is_not_a_fault(shop, batch):
    assert named(shop.judge(batch.assign(batch="20", score=1.0))) == []


@pytest.fixture(scope="module")
def broken(shop):
    """Rows with several faults, found in each of the ways."""
    rows = shop.draw(1)
    some = np.random.default_rng(6).random(len(rows)) < 0.3
    return rows.assign(
        temp=-rows["temp"],
        count=rows["count"].mask(some),
        product=rows["product"].str.upper(),
    ).drop(columns="humid")


@pytest.fixture(scope="module")
def before(broken):
    return broken.copy(deep=True)


@pytest.fixture(scope="module")
def report(shop, before, broken):
    assert len(before) == len(broken)
    return shop.judge(broken)


@pytest.mark.slow
def test_faults_of_several_columns_are_each_named(report):
    wanted = [("nulls", "count"), ("recode", "product"), ("schema", "humid"), ("sign", "temp")]

    assert named(report) == wanted


@pytest.mark.slow
def test_diagnosis_does_not_change_the_rows(report, broken, before):
    assert report.rows == len(broken)
    pd.testing.assert_frame_equal(broken, before)


@pytest.mark.slow
def test_neither_the_order_of_rows_or_columns_nor_the_index_changes_a_cause(shop, report, broken):
    mixed = broken.sample(frac=1, random_state=1)[broken.columns[::-1]]

    assert shop.judge(mixed.set_axis(np.zeros(len(mixed)))).causes == report.causes


@pytest.mark.slow
def test_the_record_of_a_broken_batch_survives_json(report):
    record = json.loads(json.dumps(report.to_dict(), allow_nan=False))

    assert record["outcome"] == "broken"
    for cause in record["causes"]:
        assert cause["sentence"]
        assert cause["cure"]
        assert cause["evidence"]
        assert 0 < cause["share"] <= 1


def test_without_diagnosis_there_is_no_cause(shop, broken):
    report = shop.judge(broken, diagnosis=False)

    assert report.causes == ()
    assert report.outcome == "moved"


@pytest.mark.slow
def test_faults_are_looked_for_in_the_rows_as_they_arrived(shop, batch):
    raw = batch.assign(temp=batch["temp"].mask(batch["region"] == "East", -999.0))
    valid = raw[raw["temp"] > -100]

    assert named(shop.judge(valid)) == []
    assert named(shop.judge(valid, arrived=raw)) == [("sentinel", "temp")]


@pytest.mark.slow
def test_a_missing_column_is_found_in_the_rows_as_they_arrived(shop, batch):
    raw = batch.drop(columns="temp")

    assert named(shop.judge(batch[:0], arrived=raw)) == [("schema", "temp")]


AWKWARD = {
    "no row": lambda frame: frame[:0],
    "one row": lambda frame: frame[:1],
    "25 rows": lambda frame: frame[:25],
    "no column": lambda frame: frame[[]],
    "no known column": lambda frame: frame.add_prefix("new "),
    "nothing there": lambda frame: frame.assign(**dict.fromkeys(frame)),
    "nothing but NaN": lambda frame: frame.assign(**dict.fromkeys(frame, np.nan)),
    "nothing finite": lambda frame: frame.assign(temp=np.inf, amount=-np.inf),
    "huge": lambda frame: frame.assign(temp=1e308, amount=frame["amount"] * 1e300),
    "tiny": lambda frame: frame.assign(temp=5e-324, amount=frame["amount"] * 1e-300),
    "constant": lambda frame: frame.assign(**frame.iloc[0]),
    "mixed types": lambda frame: frame.assign(
        **{
            name: pd.Series([1, "a", None, True, 2.5, b"x", pd.NaT, "7"] * 400, dtype=object)
            for name in frame
        }
    ),
    "all as text": lambda frame: frame.astype(str),
    "all as objects": lambda frame: frame.astype(object),
    "times": lambda frame: frame.assign(temp=pd.Timestamp("2026-01-01"), region=pd.NaT),
}


@pytest.mark.slow
@pytest.mark.parametrize("spoil", AWKWARD.values(), ids=AWKWARD)
def test_awkward_rows_never_raise(shop, batch, spoil):
    report = shop.judge(spoil(batch))

    assert json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("block", [None, 500])
@pytest.mark.parametrize("rows", [1, 2, 60, 1_000])
def test_a_small_reference_never_raises(shop, batch, rows, block):
    columns = {"temp": Numeric(), "hour": Numeric(), "region": Categorical()}
    reference = Reference.fit(shop.draw(7, rows), columns, block=block)

    assert json.dumps(compare(reference=reference, current=batch).to_dict(), allow_nan=False)


def test_a_reference_without_values_never_raises(shop, batch):
    columns = {"temp": Numeric(nullable=True), "region": Categorical(nullable=True)}
    empty = shop.draw(7).assign(temp=np.nan, region=None)
    reference = Reference.fit(empty, columns, block=500)

    assert json.dumps(compare(reference=reference, current=batch).to_dict(), allow_nan=False)


def finding(*columns, level="rows", drifted=True):
    return Finding(columns, level, "location", 1.0, 0.0, 0.1, 0.0, drifted=drifted)


def cause(*columns):
    return Cause("unit", columns, "Looks multiplied.", {}, "Ask.")


@pytest.mark.parametrize(
    ("findings", "causes", "outcome"),
    [
        ([], [], "quiet"),
        ([finding("a", drifted=False)], [], "quiet"),
        ([finding("a")], [], "moved"),
        ([finding("a", level="batches")], [], "moved"),
        ([finding("a", level="decay")], [], "moved"),
        ([], [cause("a")], "broken"),
        ([finding("a")], [cause("a")], "broken"),
        ([finding("b")], [cause("a")], "broken"),
        ([finding("a", level="batches")], [cause("a")], "broken"),
        ([finding("a", "b", level="batches")], [cause("a")], "broken"),
        ([finding("b", level="batches", drifted=False)], [cause("a")], "broken"),
        ([finding("b", level="batches")], [cause("a"), cause("b")], "broken"),
        ([finding("b", level="batches")], [cause()], "broken"),
        ([finding("b", level="batches")], [cause("a"), cause()], "broken"),
        ([finding("b", level="batches")], [cause("a")], "mixed"),
        ([finding("b", level="decay")], [cause("a")], "mixed"),
        ([finding("b", "c", level="batches")], [cause("a")], "mixed"),
    ],
)
def test_the_outcome_follows_from_faults_and_lasting_drift_elsewhere(findings, causes, outcome):
    report = DriftReport(
        rows=100,
        alpha=0.05,
        columns=(),
        pairs=(),
        findings=tuple(findings),
        summary={},
        batches=3,
        run_length=200.0,
        false_persisted=0.01,
        notes=(),
        causes=tuple(causes),
    )

    assert report.outcome == outcome
    assert report.to_dict()["outcome"] == outcome


@pytest.mark.slow
def test_a_fault_on_top_of_lasting_drift_is_mixed(shop):
    older = {"shift": {"count": 1.0}}
    recent = [
        shop.judge(shop.draw(seed, **older), diagnosis=False).summary for seed in (30, 31, 32)
    ]
    rows = shop.draw(33, **older)
    report = shop.judge(rows.assign(temp=-rows["temp"]), recent=recent)

    assert named(report) == [("sign", "temp")]
    assert "count" in report.persistent
    assert report.outcome == "mixed"


@pytest.mark.slow
def test_a_lasting_fault_is_named_until_its_batches_count_as_sound(shop):
    rows = [shop.draw(seed) for seed in range(40, 49)]
    *older, last = [frame.assign(region=frame["region"].str.lower()) for frame in rows]
    first = shop.judge(older[0])
    accepted = [shop.judge(frame, diagnosis=False).summary for frame in older]

    assert named(first) == [("recode", "region")]
    assert named(shop.judge(last, standing=first.causes)) == [("recode", "region")]
    later = shop.judge(last, recent=accepted)
    assert "region" in later.persistent
    assert later.outcome == "moved"
