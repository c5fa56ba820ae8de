import numpy as np
import pandas as pd
import pytest

from pipeline.config import Categorical, Numeric
from pipeline.monitoring.drift import compare
from pipeline.monitoring.plan import POWER, plan
from pipeline.reference import Reference

COLUMNS = {"a": Numeric(), "b": Numeric(), "c": Categorical(), "d": Numeric(nullable=True)}
ROWS = 400
TRIALS = 150


def rows(random, n, *, shock=0.0):
    levels = random.normal(0, shock, 2) if shock else np.zeros(2)
    return pd.DataFrame(
        {
            "a": random.normal(levels[0], 1, n),
            "b": random.normal(levels[1], 1, n),
            "c": random.choice(["x", "y", "z"], n, p=[0.5, 0.3, 0.2]),
            "d": np.where(random.random(n) < 0.1, np.nan, random.normal(size=n)),
        }
    )


def shifted(frame, random, shift):
    if shift.kind == "location":
        return frame.assign(**{shift.column: frame[shift.column] + shift.batch})
    if shift.kind == "spread":
        return frame.assign(**{shift.column: frame[shift.column] * shift.batch})
    hit = random.random(len(frame))
    if shift.kind == "missing":
        gone = hit < shift.batch / 0.9
        return frame.assign(**{shift.column: frame[shift.column].mask(gone)})
    moved = (frame[shift.column] == "x") & (hit < shift.batch / 0.5)
    return frame.assign(**{shift.column: frame[shift.column].mask(moved, "y")})


def reference_of(random, blocks, **given):
    before = pd.concat([rows(random, ROWS, **given) for _ in range(blocks)], ignore_index=True)
    return Reference.fit(before, COLUMNS, block=ROWS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "place", [0, *(pytest.param(n, marks=pytest.mark.statistics) for n in range(1, 8))]
)
def test_a_change_of_the_stated_size_is_found_as_often_as_stated(place):
    random = np.random.default_rng(place)
    reference = reference_of(random, 20)
    shifts = plan(reference, rows(random, ROWS), alpha=0.05, persistence=3).shifts
    shift = shifts[place]

    found = 0
    for _ in range(TRIALS):
        batch = shifted(rows(random, ROWS), random, shift)
        report = compare(reference=reference, current=batch, diagnosis=False)
        found += any(
            one.drifted and one.columns == (shift.column,) and one.kind == shift.kind
            for one in report.findings
        )

    # Of labels the stated share is an upper bound, whichever labels change.
    most = 1 if shift.kind == "labels" else POWER + 0.15
    assert POWER - 0.15 <= found / TRIALS <= most, shift


def test_batches_that_differ_hide_more():
    random = np.random.default_rng(1)
    even, uneven = (
        plan(reference_of(random, 20, shock=shock), rows(random, ROWS), alpha=0.05, persistence=3)
        for shock in (0, 0.5)
    )

    sizes = [
        {one.column: one.batch for one in found.shifts if one.kind == "location"}
        for found in (even, uneven)
    ]
    assert sizes[1]["a"] > 3 * sizes[0]["a"]
    assert {one.column for one in uneven.variations if one.depends} >= {"a", "b"}
    assert next(one for one in uneven.variations if one.column == "a").differs == pytest.approx(
        0.5, rel=0.4
    )


def test_large_batches_cannot_alarm_as_often_as_alpha_allows():
    random = np.random.default_rng(2)
    reference = Reference.fit(rows(random, 200_000), COLUMNS)

    found = plan(reference, rows(random, 100_000), alpha=0.05, persistence=3)

    assert found.alarm < 0.001
    assert (found.persisted, found.variations) == (0.0, ())


def test_a_column_that_is_constant_has_no_smallest_change():
    frame = pd.DataFrame({"a": np.ones(100), "b": np.arange(100.0)})
    reference = Reference.fit(frame, {"a": Numeric(), "b": Numeric()}, block=20)

    found = plan(reference, frame.iloc[:20], alpha=0.05, persistence=3)

    assert {one.column for one in found.shifts} == {"b"}
