from functools import partial

import numpy as np
import pandas as pd
import pytest

from pipeline.monitoring.targets import describe_target, target_faults

WEEK, WEEKS = 500, 8


def numbers(random, n):
    predictions = random.normal(100, 20, n)
    return pd.Series(predictions + random.normal(0, 8, n), name="price"), predictions


def classes(random, n):
    predictions = random.beta(1, 2, n)
    return pd.Series((random.random(n) < predictions).astype(float), name="late"), predictions


def in_weeks(target, predictions, **options):
    """Describes labels that came in weeks of as many rows."""
    weeks = pd.to_timedelta(np.arange(len(target)) // WEEK, "W")
    return describe_target(
        target,
        predictions,
        time=pd.Series(pd.Timestamp("2026-01-05") + weeks),
        block=pd.Timedelta("7D"),
        seed=0,
        **options,
    )


def describe(draw):
    drawn = draw(np.random.default_rng(0), WEEK * WEEKS)
    return in_weeks(*drawn, labels=draw is classes)


@pytest.fixture(scope="module")
def references():
    return {draw: describe(draw) for draw in (numbers, classes)}


@pytest.mark.parametrize(
    ("draw", "spoil", "found"),
    [
        (numbers, lambda target: target / 1_000, "unit (price)"),
        (
            numbers,
            lambda target: target.where(np.arange(WEEK) % 3 > 0, target * 100),
            "unit (price)",
        ),
        (numbers, lambda target: -target, "sign (price)"),
        (numbers, lambda target: target * 0 + 101.5, "stuck (price)"),
        (classes, lambda target: 1 - target, "permuted (late)"),
        (classes, lambda target: target * 0, "stuck (late)"),
        (classes, lambda target: target * 5 + 5, "recode (late)"),
        (classes, lambda target: target + 1, "recode (late)"),
        (classes, lambda target: target.where(np.arange(WEEK) % 30 > 0, 7.0), "recode (late)"),
        (numbers, lambda target: (target / 10).round() * 10, "rounded (price)"),
        (
            numbers,
            lambda target: target.where(np.arange(WEEK) % 3 > 0, 101.5),
            "stuck (price)",
        ),
    ],
)
def test_a_fault_of_the_labels_is_named(references, draw, spoil, found):
    target, predictions = draw(np.random.default_rng(1), WEEK)
    spoilt = pd.Series(spoil(target).to_numpy(), name=target.name)

    (cause,) = target_faults(references[draw], spoilt, predictions, broken_alpha=0.01)

    assert cause.name.startswith(found)


@pytest.mark.parametrize("draw", [numbers, classes])
def test_sound_labels_and_labels_that_moved_have_no_fault(references, draw):
    random = np.random.default_rng(2)
    target, predictions = draw(random, WEEK)
    moved = target + 5 if draw is numbers else target.where(random.random(WEEK) > 0.2, 1.0)

    for labels in (target, moved):
        assert target_faults(references[draw], labels, predictions, broken_alpha=0.01) == ()


@pytest.mark.parametrize("draw", [numbers, classes])
def test_labels_that_the_predictions_no_longer_tell_have_no_fault(references, draw):
    target, predictions = draw(np.random.default_rng(3), WEEK)
    shuffled = target.sample(frac=1, random_state=0).reset_index(drop=True)
    turned = pd.Series(target.to_numpy()[np.argsort(np.argsort(-predictions))], name=target.name)

    for labels in (shuffled, turned):
        assert target_faults(references[draw], labels, predictions, broken_alpha=0.01) == ()


def of_weeks(shares, *, tells, seed=0):
    """Classes whose share changes from week to week, beside predictions that tell them or not."""
    random = np.random.default_rng(seed)
    share = np.repeat(np.asarray(shares), WEEK)
    target = pd.Series((random.random(len(share)) < share).astype(float), name="late")
    return target, random.normal(target if tells else 0.0, 1.0, len(target))


SHARES = (0.2, 0.26, 0.17, 0.3, 0.22, 0.28, 0.19, 0.24)


@pytest.fixture(scope="module", params=[True, False], ids=["related", "unrelated"])
def weekly(request):
    return in_weeks(*of_weeks(SHARES, tells=request.param), labels=True), request.param


@pytest.mark.parametrize("share", [0.2, 0.34])
def test_classes_that_were_exchanged_are_named_where_their_shares_vary(weekly, share):
    """A share of 0.66 comes near as well by itself, so that the predictions have to tell."""
    reference, tells = weekly
    target, predictions = of_weeks([share], tells=tells, seed=1)

    found = target_faults(reference, 1 - target, predictions, broken_alpha=0.01)

    assert [cause.name for cause in found] == ["permuted (late)"] * (tells or share == 0.2)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.5, 0.65])
def test_shares_of_classes_that_move_are_no_exchange(weekly, share):
    reference, tells = weekly
    target, predictions = of_weeks([share], tells=tells, seed=1)

    assert target_faults(reference, target, predictions, broken_alpha=0.01) == ()


def test_weeks_like_those_before_are_hardly_ever_an_exchange(weekly):
    """At 0.01 a week, three of 40 come with a chance of 0.7% (binomial)."""
    reference, tells = weekly
    drawn = np.random.default_rng(2).choice(SHARES, 40)
    named = [
        target_faults(reference, *of_weeks([share], tells=tells, seed=10 + k), broken_alpha=0.01)
        for k, share in enumerate(drawn)
    ]

    assert sum(map(bool, named)) < 3


def test_a_few_values_that_are_no_class_are_counted_elsewhere_and_no_fault(references):
    target, predictions = classes(np.random.default_rng(4), WEEK)
    odd = target.where(np.arange(WEEK) >= 5, 7.0)

    assert target_faults(references[classes], odd, predictions, broken_alpha=0.01) == ()


@pytest.mark.parametrize(("rare", "named"), [(0.3, True), (0.02, False)])
def test_one_class_is_a_fault_where_every_block_would_have_brought_the_other(rare, named):
    """At 2% a week of 500 rows awaits ten rows of the rare class, and none is no wonder."""
    random = np.random.default_rng(5)
    target = pd.Series((random.random(WEEK * WEEKS) < rare).astype(float), name="late")
    predictions = np.full(len(target), rare) + random.normal(0, 0.01, len(target))
    reference = in_weeks(target, predictions, labels=True)

    found = target_faults(reference, target[:WEEK] * 0, predictions[:WEEK], broken_alpha=0.01)

    assert [cause.cause for cause in found] == ["stuck"] * named


def test_a_class_that_was_declared_since_is_no_fault_and_any_other_is():
    random = np.random.default_rng(6)
    classes, longer = ("lent", "lost", "sold"), ("lent", "lost", "sold", "torn")
    n = WEEK * WEEKS
    target = pd.Series(random.integers(0, 3, n).astype(float), name="fate")
    predictions = np.where(random.random(n) < 0.7, target, random.integers(0, 3, n))
    predictions = np.asarray(classes, dtype=object)[predictions.astype(int)]
    reference = in_weeks(target, predictions, labels=True, classes=classes)
    torn = target[:WEEK].where(np.arange(WEEK) % 10 > 0, 3.0)
    judged = partial(target_faults, reference, torn, predictions[:WEEK], broken_alpha=0.01)

    assert judged(classes=longer) == ()
    assert [cause.cause for cause in judged(classes=classes)] == ["recode"]
