import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import signal

from pipeline.columns import infer_columns
from pipeline.config import Categorical, Numeric
from pipeline.errors import DataError
from pipeline.monitoring.drift import compare
from pipeline.monitoring.findings import FLOORS
from pipeline.reference import Reference
from pipeline.reference.serialised import reference_from_dict, reference_to_dict
from pipeline.reference.variation import FEWEST_BLOCKS

BLOCK, BLOCKS, ALPHA = 500, 8, 0.05
LEAST = 0.3
"""Part of alpha that false alarms reach at least; floors and discrete tests take the rest."""
COLUMNS = {
    **{f"x{i}": Numeric(nullable=True) for i in range(4)},
    "few": Categorical(nullable=True),
    "many": Categorical(),
    "rare": Categorical(),
}
LABELS = {
    "few": (["a", "b", "c"], [0.6, 0.3, 0.1]),
    "many": ([f"m{i}" for i in range(40)], np.full(40, 1 / 40)),
    "rare": (["yes", "no", "odd"], [0.7, 0.299, 0.001]),
}


def draw(random, n, shock=0.0):
    """Mixed columns; with a shock, all rows of the batch share a displacement of each column."""
    frame = {}
    for name, (labels, chances) in LABELS.items():
        weights = np.asarray(chances) * np.exp(shock * random.normal(size=len(labels)))
        frame[name] = random.choice(labels, n, p=weights / weights.sum())
    for i in range(4):
        values = random.normal(shock * random.normal(), 1, n)
        values = np.exp(values) if i == 1 else np.round(values) if i == 2 else values
        frame[f"x{i}"] = np.where(random.random(n) < 0.01, np.nan, values)
    frame["few"] = pd.Series(frame["few"]).where(random.random(n) >= 0.01)
    return pd.DataFrame(frame)


def history(random, shock=0.0, blocks=BLOCKS):
    frame = pd.concat([draw(random, BLOCK, shock) for _ in range(blocks)], ignore_index=True)
    return Reference.fit(frame, COLUMNS, block=BLOCK)


@pytest.fixture(scope="module")
def reference():
    return history(np.random.default_rng(0))


@pytest.fixture
def batch():
    return draw(np.random.default_rng(1), 1000)


def own(report, column):
    return [found for found in report.findings if found.columns == (column,)]


def judge(reference, current, recent=()):
    return compare(
        reference=reference, current=current, recent=recent, alpha=ALPHA, diagnosis=False
    )


def test_the_reference_itself_is_quiet():
    frame = draw(np.random.default_rng(3), 4000)
    report = judge(Reference.fit(frame, COLUMNS, block=BLOCK), frame)

    assert report.outcome == "quiet"
    assert [column.distance for column in report.columns] == pytest.approx([0] * 7, abs=1e-9)
    assert [column.psi for column in report.columns] == pytest.approx([0] * 7, abs=1e-9)


def test_neither_the_order_of_rows_nor_of_columns_changes_a_bit_of_the_report():
    random = np.random.default_rng(3)
    before, now = draw(random, 4000), draw(random, 12_000)
    mixed = now.sample(frac=1, random_state=1)[now.columns[::-1]]
    turned = before.sample(frac=1, random_state=2)[before.columns[::-1]]

    report = judge(Reference.fit(before, infer_columns(before), seed=4), now)
    other = judge(Reference.fit(turned, infer_columns(turned), seed=4), mixed)
    assert replace(report, summary={}) == replace(other, summary={})
    differ = {trait for trait in report.summary if report.summary[trait] != other.summary[trait]}
    assert {trait.kind for trait in differ} <= {"strays", "step", "even", "stretch", "gap"}


def oddly_named(random, n):
    """Columns and labels that hold the signs with which facts were once written as text."""
    z = random.normal(size=(n, 3)) @ np.array([[1.0, 0.8, 0.0], [0.0, 0.6, 0.5], [0.0, 0.0, 0.9]])
    frame = pd.DataFrame(z, columns=["a ~ b", "x|y", "|rows"])
    labels = random.choice(["free|location", "share of |", "~"], n, p=[0.5, 0.3, 0.2])
    return frame.assign(**{"plan|share of free": labels})


@pytest.mark.slow
def test_columns_and_labels_may_hold_any_sign():
    random = np.random.default_rng(31)
    rows = oddly_named(random, 8 * BLOCK)
    reference = Reference.fit(rows, infer_columns(rows), block=BLOCK)
    stored = reference_from_dict(
        json.loads(json.dumps(reference_to_dict(reference), allow_nan=False))
    )
    recent = [reference.summarise(oddly_named(random, BLOCK)) for _ in range(2)]
    current = oddly_named(random, BLOCK)
    current["a ~ b"] = current["a ~ b"].sample(frac=1, random_state=1).to_numpy()

    report = compare(reference=stored, current=current, recent=recent)

    assert stored == reference
    assert report == compare(reference=reference, current=current, recent=recent)
    assert {column.name for column in report.columns} == set(rows)
    assert {pair.columns for pair in report.pairs} == set(combinations(sorted(rows), 2))
    assert ("a ~ b", "x|y") in {pair.columns for pair in report.pairs if pair.drifted}
    assert [(cause.cause, cause.columns) for cause in report.causes] == [
        ("shuffled", ("a ~ b", "x|y"))
    ]
    shares = [found for found in report.findings if found.columns == ("plan|share of free",)]
    assert {found.kind for found in shares if found.level == "batches"} == {
        "missing",
        *(f"share of {label}" for label in set(rows["plan|share of free"])),
    }
    merged = compare(reference=stored.merge(reference), current=current, recent=recent)
    assert {pair.columns for pair in merged.pairs} == {pair.columns for pair in report.pairs}


def test_a_monotone_map_of_both_sides_leaves_the_distance_alone():
    random = np.random.default_rng(4)
    before, now = draw(random, 4000)[["x0"]], draw(random, 500)[["x0"]]
    columns = {"x0": Numeric()}

    plain = judge(Reference.fit(before, columns), now).columns[0]
    mapped = judge(Reference.fit(np.exp(before), columns), np.exp(now)).columns[0]
    assert (plain.distance, plain.psi) == (mapped.distance, mapped.psi)


def test_columns_that_the_reference_does_not_know_are_noted_and_change_nothing(reference, batch):
    report = judge(reference, batch.assign(extra="x", x9=1.0))

    assert "does not know: extra, x9." in report.notes[-1]
    assert report.to_frame().equals(judge(reference, batch).to_frame())


def test_columns_that_the_batch_lacks_are_drift(reference, batch):
    report = judge(reference, batch.drop(columns=["x0", "few"]))

    assert {"x0", "few"} <= set(report.drifted)
    assert "lacks: few, x0." in report.notes[-1]


def test_a_column_name_that_occurs_twice_is_refused_with_a_sentence(reference, batch):
    with pytest.raises(DataError, match=r"hold x1 more than once.*Fix the source"):
        judge(reference, pd.concat([batch, batch[["x1"]]], axis=1))


@pytest.mark.parametrize("column", ["x0", "x2", "few", "many"])
def test_an_empty_column_alarms_by_its_missing_share(reference, batch, column):
    report = judge(reference, batch.assign(**{column: None}))

    assert column in report.drifted
    assert ("missing", True) in {(test.kind, test.drifted) for test in own(report, column)}
    assert next(drift for drift in report.columns if drift.name == column).missing == 1


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("x0", np.inf),
        ("x0", 7.0),
        ("x0", 1e308),
        ("x0", "text"),
        ("x0", pd.Timestamp("2026-01-01")),
        ("x0", [1, "a", None, True] * 250),
        ("few", 0.5),
        ("few", True),
        ("few", [1, "a", None, b"a"] * 250),
        ("few", "never seen"),
        ("x0", pd.Series([1, None] * 500, dtype="Int64")),
        ("few", pd.Series([True, None] * 500, dtype="boolean")),
    ],
)
def test_awkward_values_never_raise_and_never_hide(reference, batch, column, values):
    report = judge(reference, batch.assign(**{column: values}))

    assert column in report.drifted
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["alarm"]


@pytest.mark.parametrize("n", [0, 1])
def test_a_batch_of_one_row_or_none_is_quiet(reference, batch, n):
    report = judge(reference, batch[:n])

    assert (report.alarm, report.rows) == (False, n)
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("dtype", ["Float64", "float32", "double[pyarrow]", "object"])
def test_the_type_that_holds_numbers_does_not_matter(reference, batch, dtype):
    report = judge(reference, batch.astype({"x2": dtype}))

    assert report == judge(reference, batch)


@pytest.mark.parametrize("dtype", ["category", "string", "string[pyarrow]", "object"])
def test_the_type_that_holds_labels_does_not_matter(reference, batch, dtype):
    report = judge(reference, batch.astype({"few": dtype}))

    assert report == judge(reference, batch)


def test_every_test_is_in_the_frame_and_in_the_dict(reference, batch):
    report = judge(reference, batch)

    assert len(report.to_frame()) == len(report.findings) == len(report.to_dict()["findings"])
    assert {column.name for column in report.columns} == set(COLUMNS)
    assert len(report.pairs) == 7 * 6 / 2


def test_a_constant_fraction_stays_quiet_when_its_mean_is_rounded():
    reference = Reference.fit(
        pd.DataFrame({"c": np.full(4000, 0.1)}), {"c": Numeric()}, block=BLOCK
    )
    recent = [reference.summarise(pd.DataFrame({"c": np.full(n, 0.1)})) for n in (499, 611)]

    report = compare(
        reference=reference, current=pd.DataFrame({"c": np.full(503, 0.1)}), recent=recent
    )
    assert (report.alarm, report.notes) == (False, ())


def of_every_type(n=3000):
    random = np.random.default_rng(20)
    return pd.DataFrame(
        {
            "number": random.normal(size=n),
            "whole": pd.array(random.integers(0, 9, n), dtype="Int64"),
            "moment": pd.date_range("2026-01-01", periods=n, freq="min"),
            "zoned": pd.date_range("2026-01-01", periods=n, freq="min", tz="Europe/Berlin"),
            "length": pd.to_timedelta(random.integers(0, 1000, n), unit="s"),
            "day": [pd.Timestamp("2026-01-01").date()] * n,
            "flag": random.random(n) < 0.3,
            "many": [f"k{i}" for i in random.integers(0, 10_000, n)],
            "label": pd.Categorical(random.choice(list("xyz"), n)),
            "constant": 1.0,
            "empty": np.nan,
            "one": "q",
        }
    )


BROKEN = {
    "an absent column": (lambda f: f.drop(columns="number"), "number"),
    "null": (lambda f: f.assign(number=None), "number"),
    "a constant": (lambda f: f.assign(number=0.0), "number"),
    "infinity": (lambda f: f.assign(number=-np.inf), "number"),
    "1e308": (lambda f: f.assign(number=1e308), "number"),
    "complex numbers": (lambda f: f.assign(number=f["number"] + 1j), "number"),
    "mixed types": (lambda f: f.assign(label=[1, b"x", None, {}] * (len(f) // 4)), "label"),
    "lists": (lambda f: f.assign(label=[["x"]] * len(f)), "label"),
    "times as text": (lambda f: f.assign(moment=f["moment"].astype(str)), "moment"),
    "new labels": (lambda f: f.assign(many=[f"n{i}" for i in range(len(f))]), "many"),
    "a label where there was none": (lambda f: f.assign(empty=1.0), "empty"),
    "another constant": (lambda f: f.assign(constant=2.0), "constant"),
}
SAME = {
    "as it was": lambda f: f,
    "Arrow types": lambda f: f.astype({"number": "double[pyarrow]", "label": "string[pyarrow]"}),
    "text of numbers": lambda f: f.assign(number=f["number"].astype(str)),
    "another column": lambda f: f.assign(extra=1),
    "one row": lambda f: f[:1],
    "no row": lambda f: f[:0],
    "no row and no column": lambda _: pd.DataFrame(),
}


@pytest.fixture(scope="module")
def typed():
    frame = of_every_type()
    return Reference.fit(frame, infer_columns(frame)), frame.sample(1000, random_state=1)


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_column_of_any_type_is_found_and_never_raises(typed, how):
    reference, batch = typed
    change, column = BROKEN[how]
    report = judge(reference, change(batch))

    assert column in report.drifted
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("how", SAME)
def test_an_odd_batch_with_nothing_wrong_is_quiet_and_never_raises(typed, how):
    reference, batch = typed
    report = judge(reference, SAME[how](batch))

    assert report.drifted == ()
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_batch_without_rows_notes_that_it_has_no_verdict(typed):
    report = judge(typed[0], typed[1][:0])

    assert report.notes[0] == "No verdict on this batch: it holds no row."


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_reference_of_hardly_any_rows_raises_nothing(typed, n):
    frame = of_every_type()
    report = judge(Reference.fit(frame[:n], infer_columns(frame), block=1), typed[1])

    json.dumps(report.to_dict(), allow_nan=False)


def moved(frame, random, how):
    n = len(frame)
    changed = {
        "unit x100": lambda: {"x0": frame["x0"] * 100},
        "half a standard deviation": lambda: {"x0": frame["x0"] + 0.5},
        "missing 1% to 5%": lambda: {"x0": frame["x0"].where(random.random(n) >= 0.04)},
        "unseen 2%": lambda: {"few": frame["few"].where(random.random(n) >= 0.02, "new")},
        "a label twice as frequent": lambda: {
            "few": frame["few"].where(random.random(n) >= 0.1, "c")
        },
    }
    return frame.assign(**changed[how]())


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        "unit x100",
        "half a standard deviation",
        "missing 1% to 5%",
        "unseen 2%",
        "a label twice as frequent",
    ],
)
def test_a_thousand_rows_that_moved_are_found_nearly_always(reference, how):
    random = np.random.default_rng(5)
    found = [
        judge(reference, moved(draw(random, 1000), random, how)).drifted != () for _ in range(40)
    ]

    assert np.mean(found) >= 0.95


def test_a_significant_shift_below_its_floor_does_not_alarm():
    random = np.random.default_rng(6)
    columns = {"x": Numeric()}
    before = pd.DataFrame({"x": random.normal(size=100_000)})
    now = pd.DataFrame({"x": random.normal(0.02, 1, size=100_000)})
    near = pd.DataFrame({"x": random.normal(0.01, 1, size=100_000)})
    reference = Reference.fit(before, columns, block=10_000)

    report = judge(reference, now)
    found = next(test for test in report.findings if test.kind == "distribution")
    assert found.p_value < 0.005
    assert found.statistic < FLOORS["rows"]["distribution"]
    assert not report.alarm
    assert not judge(reference, near).alarm


def three(random, shock, shift):
    frames = [draw(random, BLOCK, shock) for _ in range(3)]
    return [frame.assign(x0=frame["x0"] + shift) for frame in frames]


def test_three_shifted_batches_persist_and_one_does_not():
    random = np.random.default_rng(7)
    reference = history(random, shock=0.2)
    good, shifted = three(random, 0.2, 0), three(random, 0.2, 1.5)

    def judged(*batches):
        *recent, current = batches
        seen = [reference.summarise(frame) for frame in recent]
        return compare(reference=reference, current=current, recent=seen, diagnosis=False)

    assert judged(*shifted).persisted
    assert "x0" in judged(*shifted).drifted
    assert not judged(good[0], good[1], shifted[0]).persisted
    assert not judged(*good).persisted


def test_too_few_blocks_give_a_note_and_no_verdict_on_persistence():
    random = np.random.default_rng(8)
    reference = history(random, blocks=FEWEST_BLOCKS - 1)
    recent = [reference.blocks[0]] * 2

    report = compare(reference=reference, current=draw(random, BLOCK), recent=recent)
    assert report.notes[0].startswith("No verdict on persistence: it needs 4 blocks")
    assert not report.persisted


def test_too_few_batches_give_a_note_and_no_verdict_on_persistence(reference, batch):
    shifted = batch.assign(x0=batch["x0"] + 5)
    report = compare(reference=reference, current=shifted, recent=[reference.summarise(shifted)])

    assert report.notes[0].startswith("No verdict on persistence: 2 of 3 batches of at least 250")
    assert (report.alarm, report.batches) == (True, 2)


def test_a_batch_under_half_a_block_is_not_judged_with_other_batches(reference, batch):
    recent = [reference.summarise(batch)] * 2
    report = compare(reference=reference, current=batch[:1], recent=recent)

    assert (report.alarm, report.batches) == (False, 2)


def false_alarms(shock, trials, seed):
    random = np.random.default_rng(seed)
    alarms, persisted = [], []
    for _ in range(trials):
        reference = history(random, shock)
        recent = [reference.summarise(draw(random, BLOCK, shock)) for _ in range(2)]
        current = draw(random, BLOCK, shock)
        report = judge(reference, current, recent)
        alarms.append(report.alarm)
        persisted.append(report.persisted)
    return np.mean(alarms), np.mean(persisted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shock", "trials"),
    [(0.2, 40), *(pytest.param(one, 2000, marks=pytest.mark.statistics) for one in (0.0, 0.2))],
)
def test_ordinary_batches_alarm_at_most_as_often_as_alpha_says(share_band, shock, trials):
    """40 trials see that three batches of ten alarm, in nine of ten runs."""
    alarms, persisted = false_alarms(shock, trials, seed=9)

    low, high = share_band(trials, LEAST * ALPHA, ALPHA)
    assert low <= alarms <= high
    assert persisted <= high


def correlated(random, n, rho):
    """Numbers and labels: x0 with x1, x2 with `few`, `few` with `other`, all by `rho`."""
    z = random.normal(size=(n, 5))
    for left, right in ((0, 1), (2, 3), (3, 4)):
        z[:, right] = rho * z[:, left] + np.sqrt(1 - rho**2) * z[:, right]
    frame = pd.DataFrame(z[:, :3], columns=["x0", "x1", "x2"])
    frame["few"] = pd.Series(np.where(z[:, 3] > 0.5, "yes", "no"), dtype="str")
    frame["other"] = pd.Series(np.where(z[:, 4] > 0, "up", "down"), dtype="str")
    return frame


def test_pairs_of_numbers_and_of_labels_that_changed_are_named():
    random = np.random.default_rng(11)
    before, now = correlated(random, 5000, rho=0.6), correlated(random, 2000, rho=-0.6)
    report = judge(Reference.fit(before, infer_columns(before)), now)

    drifted = {pair.columns for pair in report.pairs if pair.drifted}
    assert {("x0", "x1"), ("few", "x2"), ("few", "other")} <= drifted
    assert ("other", "x0") not in drifted
    assert not any(column.drifted for column in report.columns)
    assert "x0 ~ x1" in report.drifted


def test_the_change_of_a_pair_is_that_of_its_correlation():
    random = np.random.default_rng(12)
    before, now = correlated(random, 9000, rho=0.6), correlated(random, 9000, rho=0.2)
    report = judge(Reference.fit(before, infer_columns(before)), now)

    pair = next(pair for pair in report.pairs if pair.columns == ("x0", "x1"))
    assert pair.statistic == pytest.approx(-0.4, abs=0.05)
    assert pair.effect == pytest.approx(4, abs=0.5)


def test_a_shift_too_small_in_each_column_is_found_in_all_columns_together():
    random = np.random.default_rng(13)
    names = [f"x{i}" for i in range(20)]
    before = pd.DataFrame(random.normal(size=(10_000, 20)), columns=names)
    now = pd.DataFrame(random.normal(0.06, 1, size=(1000, 20)), columns=names)
    report = judge(Reference.fit(before, infer_columns(before)), now)

    joint = next(found for found in report.findings if found.kind == "joint")
    assert joint.drifted
    assert joint.statistic == pytest.approx(0.06, abs=0.02)
    assert "all columns together" in report.drifted


def test_what_no_column_and_no_pair_shows_is_left_to_the_classifier():
    random = np.random.default_rng(14)
    before, now = (pd.DataFrame(random.normal(size=(10_000, 4))).add_prefix("x") for _ in range(2))
    now["x2"] = now["x2"].abs() * np.sign(now["x0"] * now["x1"])
    report = judge(Reference.fit(before, infer_columns(before)), now)

    found = [finding for finding in report.findings if finding.drifted]
    assert [finding.kind for finding in found] == ["classifier"]
    assert set(found[0].columns) == {"x0", "x1", "x2"}


def test_a_prediction_is_tested_as_a_column_but_not_in_pairs_or_by_the_classifier():
    random = np.random.default_rng(15)
    before, now = draw(random, 4000)[["x0", "x3"]], draw(random, 1000)[["x0", "x3"]]
    before, now = (frame.assign(answer=random.random(len(frame))) for frame in (before, now))
    reference = Reference.fit(before, infer_columns(before), prediction=("answer",))

    report = judge(reference, now.assign(answer=now["answer"] ** 2))
    assert "answer" in report.drifted
    assert [pair.columns for pair in report.pairs] == [("x0", "x3")]
    whole = [found for found in report.findings if found.whole]
    assert not any("answer" in found.columns for found in whole)


def test_what_the_model_relies_on_is_listed_first(reference, batch):
    moved = batch.assign(x0=batch["x0"] + 1, x3=batch["x3"] + 5)
    report = compare(reference=reference, current=moved, importance={"x0": 0.2, "x3": 0.1})

    first, *_ = [found for found in report.findings if len(found.columns) == 1]
    assert (first.columns, first.importance) == (("x0",), 0.2)


def weeks(random, shifts):
    return [draw(random, BLOCK).assign(x0=lambda f, d=shift: f["x0"] + d) for shift in shifts]


def test_a_finding_says_how_many_batches_its_change_covers():
    random = np.random.default_rng(16)
    reference = history(random)
    *earlier, last = weeks(random, [0, 0, 0, 0, 1, 1])
    recent = [reference.summarise(frame) for frame in earlier]

    report = compare(reference=reference, current=last, recent=recent)
    assert {found.since for found in own(report, "x0") if found.drifted} == {2}


def test_slow_decay_persists_before_the_last_batches_alone_say_so():
    random = np.random.default_rng(17)
    reference = history(random)
    *earlier, last = weeks(random, 0.06 * np.arange(1, 6))
    recent = [reference.summarise(frame) for frame in earlier]

    report = compare(reference=reference, current=last, recent=recent)
    levels = {found.level for found in own(report, "x0") if found.drifted}
    assert "decay" in levels
    assert "batches" not in levels
    assert report.persistent == ("x0",)


def test_the_run_length_and_the_chance_of_false_persistence_follow_from_alpha(reference, batch):
    recent = [reference.summarise(batch)] * 2
    report = compare(reference=reference, current=batch, recent=recent, alpha=0.05)

    assert report.run_length == pytest.approx(500)
    assert 1 / 500 <= report.false_persisted <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("years", [1, pytest.param(100, marks=pytest.mark.statistics)])
def test_years_without_change_open_hardly_any_episode(share_band, years):
    random = np.random.default_rng(18)
    opened = []
    for _ in range(years):
        reference, recent = history(random), []
        for frame in weeks(random, [0] * 30):
            report = compare(reference=reference, current=frame, recent=recent)
            recent.append(report.summary)
            opened.append(report.persisted)

    # Of 30 weeks a year; a run length of 500 for decay, and as much for the last batches.
    assert np.mean(opened) <= share_band(30 * years, 0, 0.05)[1]


@pytest.mark.parametrize(
    ("n", "rows", "columns", "trials"),
    [
        (500, "ar", 6, 40),
        pytest.param(50, "normal", 10, 2000, marks=pytest.mark.statistics),
        pytest.param(2000, "normal", 10, 2000, marks=pytest.mark.statistics),
        pytest.param(500, "ar", 6, 2000, marks=pytest.mark.statistics),
    ],
)
@pytest.mark.slow
def test_the_share_of_false_alarms_holds_at_other_sizes_and_within_dependent_batches(
    share_band, n, rows, columns, trials
):
    """60 trials see that a batch of four alarms, in nine of ten runs."""
    random = np.random.default_rng([n, columns])

    def batch_of(size):
        noise = random.normal(size=(size + 100, columns))
        if rows == "ar":
            noise = signal.lfilter([0.6], [1, -0.8], noise, axis=0)
        return pd.DataFrame(noise[100:]).add_prefix("x")

    alarms = []
    for _ in range(trials // 4):
        before = pd.concat([batch_of(n) for _ in range(10)], ignore_index=True)
        reference = Reference.fit(before, infer_columns(before), block=n)
        alarms += [judge(reference, batch_of(n)).alarm for _ in range(4)]
    low, high = share_band(trials, LEAST * ALPHA, ALPHA)
    assert low <= np.mean(alarms) <= high
