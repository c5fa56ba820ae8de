"""Faults that other labels, missing values, a calm week or the range of a column could hide."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from pipeline.columns import infer_columns
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference

WEEKS, ROWS = 12, 700
SHARE = 0.3


def fit(make):
    """A reference of weeks 0 to 11 of a world `make(random, week)`."""
    random = np.random.default_rng(0)
    weeks = [make(random, week) for week in range(WEEKS)]
    times = pd.Series(np.repeat(pd.date_range("2026-01-05", periods=WEEKS, freq="7D"), ROWS))
    rows = pd.concat(weeks, ignore_index=True)
    return Reference.fit(rows, infer_columns(rows), time=times, block="7D")


def said(make, fault, sound=2, share=SHARE):
    """What is said of a week after some sound ones, with a fault in a part of its rows."""
    random, reference, recent = np.random.default_rng(5), fit(make), []
    for week in range(sound):
        report = compare(reference=reference, current=make(random, WEEKS + week), recent=recent)
        assert report.causes == ()
        recent.append(report.summary)
    batch = make(random, WEEKS + sound)
    faulty = fault(batch[random.random(ROWS) < share])
    batch = batch.astype(faulty.dtypes.to_dict())
    batch.update(faulty)
    return [one.name for one in compare(reference=reference, current=batch, recent=recent).causes]


def unchanged(rows):
    return rows


def cinema(random, week, renewed=3):
    """Each week a few of fourteen films are new; an amount follows from three counts."""
    film = renewed * week + random.integers(0, 14, ROWS)
    runtime = np.random.default_rng(1).normal(112, 16, 200).round()
    adults, children, reduced = (random.poisson(mean, ROWS) for mean in (30, 8, 6))
    return pd.DataFrame(
        {
            "film": [f"film {x:03d}" for x in film],
            "runtime": runtime[film],
            "hour": random.choice([14, 17, 20, 22], ROWS),
            "sold": adults + children + reduced,
            "adults": adults,
            "children": children,
            "reduced": reduced,
            "revenue": (11.5 * adults + 7.5 * children + 9.5 * reduced).round(2),
        }
    )


@pytest.mark.parametrize("sound", [1, 3])
@pytest.mark.parametrize("share", [SHARE, 1.0])
def test_a_total_that_lacks_a_part_is_found_whatever_films_are_new(sound, share):
    found = said(cinema, lambda x: x.assign(sold=x["sold"] - x["reduced"]), sound, share)

    assert [one.partition(" ")[0] for one in found] == ["inconsistent"]
    assert "sold" in found[0]


def test_minutes_that_come_as_hours_are_in_another_unit_whatever_films_are_new():
    found = said(cinema, lambda x: x.assign(runtime=(x["runtime"] / 60).round(2)))

    assert found == ["unit (runtime)"]


def test_new_films_are_no_fault():
    assert said(cinema, unchanged, sound=6) == []


def donors(random, _):
    age = random.normal(43, 13, ROWS).clip(18, 72).round()
    blood = random.choice(["O+", "A+", "B+", "O-", "A-"], ROWS, p=[0.38, 0.38, 0.1, 0.08, 0.06])
    return pd.DataFrame(
        {
            "age": age,
            "blood": blood,
            "pressure": (108 + 0.4 * age + random.normal(0, 11, ROWS)).round(),
            "weight": random.normal(77, 13, ROWS).round(),
        }
    )


def test_years_of_birth_among_ages_are_another_quantity():
    assert said(donors, lambda x: x.assign(age=2024 - x["age"])) == ["unit (age)"]


def test_a_digit_that_looks_like_a_letter_is_another_spelling():
    zero = said(donors, lambda x: x.assign(blood=x["blood"].str.replace("O", "0")))

    assert zero == ["recode (blood)"]


def abroad(random, week, *, sold_abroad=False):
    """From the first week after training on, a new market pays in another currency."""
    price = random.lognormal(3, 0.4, ROWS).round(2)
    far = (random.random(ROWS) < SHARE) & (sold_abroad and week >= WEEKS)
    return pd.DataFrame(
        {
            "market": np.where(far, "JP", random.choice(["DE", "FR"], ROWS)),
            "price": np.where(far, (price * 160).round(), price),
            "items": random.poisson(3, ROWS),
        }
    )


def test_amounts_of_a_new_market_may_be_far_from_all_others():
    reference, batch = fit(abroad), abroad(np.random.default_rng(2), WEEKS, sold_abroad=True)

    assert compare(reference=reference, current=batch).causes == ()


def test_amounts_far_from_all_others_in_known_markets_are_a_fault():
    assert said(abroad, lambda x: x.assign(price=x["price"] * 160)) == ["unit (price)"]


def charges(random, _):
    """A charge of direct current has a state at its start and at its end; others have neither."""
    direct = random.random(ROWS) < 0.35
    start = random.normal(32, 12, ROWS).clip(2, 80).round()
    end = (start + random.gamma(5, 8, ROWS)).clip(0, 100).round()
    return pd.DataFrame(
        {
            "kind": np.where(direct, "DC", "AC"),
            "start": np.where(direct, start, np.nan),
            "end": np.where(direct, end, np.nan),
            "energy": (random.gamma(4, 5, ROWS) + 8 * direct).round(2),
        }
    )


def test_an_end_that_is_missing_beside_its_start_was_lost():
    random, reference = np.random.default_rng(5), fit(charges)
    batch = charges(random, WEEKS)
    lost = batch.assign(end=batch["end"].mask(random.random(ROWS) < SHARE))

    (cause,) = compare(reference=reference, current=lost).causes

    assert cause.name == "nulls (end)"
    assert "'start' is there, which was always missing with it" in cause.sentence
    assert compare(reference=reference, current=batch).causes == ()


def desk(random, week, share=1 / 24):
    """One of many agents left after training, and a successor has the desk."""
    others = (1 - share) / 23
    agent = random.choice(24, ROWS, p=[share, *[others] * 23])
    names = np.array([f"agent {x:02d}" for x in range(24)])
    if week >= WEEKS:
        names[0] = "agent 99"
    return pd.DataFrame(
        {
            "queue": np.array(list("ABCDEF"))[agent // 4],
            "agent": names[agent],
            "minutes": random.lognormal(2, 0.7, ROWS).round(1),
        }
    )


def test_a_successor_is_no_other_spelling():
    random = np.random.default_rng(5)
    batches = [desk(random, WEEKS + week) for week in range(4)]
    reference, recent = fit(desk), []
    for batch in batches:
        report = compare(reference=reference, current=batch, recent=recent)
        assert report.causes == ()
        recent.append(report.summary)


def test_a_frequent_label_that_became_another_one_was_renamed():
    batch = desk(np.random.default_rng(5), WEEKS, share=0.3)

    (cause,) = compare(reference=fit(partial(desk, share=0.3)), current=batch).causes

    assert cause.name == "recode (agent)"


def turbines(random, _, wind=11.0):
    """A turbine waits when the wind is low, runs otherwise, and is seldom stopped."""
    speed = random.gamma(8, wind / 8, ROWS).round(1)
    stopped = random.random(ROWS) < 0.01
    return pd.DataFrame(
        {
            "status": np.where(speed < 4, "WAIT", np.where(stopped, "STOP", "RUN")),
            "wind": speed,
            "power": (np.clip(speed - 4, 0, 9) * 200 * ~stopped).round(),
            "outside": random.normal(9, 4, ROWS).round(1),
        }
    )


CODES = {"RUN": "1", "WAIT": "2", "STOP": "3"}


def test_labels_that_are_all_new_are_another_code_book_also_in_a_calm_week():
    calm = turbines(np.random.default_rng(5), WEEKS, wind=4.5)
    coded = calm.assign(status=calm["status"].map(CODES))
    reference = fit(turbines)

    (cause,) = compare(reference=reference, current=coded).causes

    assert cause.name == "recode (status)"
    assert compare(reference=reference, current=calm).causes == ()


def versions(random, week):
    """Two versions of an app; from the first week after training on, all clients have a new one."""
    old = random.choice(["4.1", "4.2"], ROWS, p=[0.3, 0.7])
    return pd.DataFrame(
        {
            "version": np.where(week >= WEEKS, "5.0", old),
            "clicks": random.poisson(6, ROWS),
            "minutes": random.lognormal(2, 0.5, ROWS).round(1),
        }
    )


def test_one_label_that_takes_over_is_a_new_version():
    batch = versions(np.random.default_rng(5), WEEKS)

    assert compare(reference=fit(versions), current=batch).causes == ()


def chargers(random, week, members=0.0):
    """Guests are never members, unless a share of them may be from a week on."""
    guest = random.random(ROWS) < 0.12
    known = random.choice(["card", "app"], ROWS)
    share = np.where(guest, members if week >= WEEKS else 0.0, 0.45)
    return pd.DataFrame(
        {
            "access": np.where(guest, "guest", known),
            "member": (random.random(ROWS) < share).astype(int),
            "energy": random.gamma(4, 5, ROWS).round(2),
            "hour": random.integers(6, 22, ROWS),
        }
    )


def test_a_flag_that_makes_labels_meet_that_never_met_is_inverted():
    found = said(chargers, lambda x: x.assign(member=1 - x["member"]), share=1.0)

    assert found == ["permuted (member)"]


def test_labels_that_meet_for_the_first_time_in_a_new_offer_are_no_fault():
    batch = chargers(np.random.default_rng(5), WEEKS, members=0.9)

    assert compare(reference=fit(chargers), current=batch).causes == ()
