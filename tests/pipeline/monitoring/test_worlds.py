"""Worlds that change by themselves, which are no faults, and faults in them, which are."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from pipeline.columns import infer_columns
from pipeline.monitoring.diagnoses.wandering import wanders
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference

WEEKS, ROWS = 12, 700


def fit(make):
    """A reference of weeks 0 to 11 of a world `make(random, week)`."""
    random = np.random.default_rng(0)
    weeks = [make(random, week) for week in range(WEEKS)]
    times = pd.Series(
        np.repeat(pd.date_range("2026-01-05", periods=WEEKS, freq="7D"), [len(x) for x in weeks])
    )
    rows = pd.concat(weeks, ignore_index=True)
    return Reference.fit(rows, infer_columns(rows), time=times, block="7D")


def said(reference, batches):
    """Causes of each batch, judged with the sound ones before it."""
    recent, found = [], []
    for batch in batches:
        report = compare(reference=reference, current=batch, recent=recent[-8:])
        found.append([cause.name for cause in report.causes])
        recent += [] if report.causes else [report.summary]
    return found


def following(make, seed, weeks=4):
    random = np.random.default_rng(seed)
    return [make(random, WEEKS + week) for week in range(weeks)]


def taxi(random, week, cash=0.25):
    """Tips and terminals are missing where people pay in cash."""
    share = cash if week > WEEKS else 0.25 + random.normal(0, 0.02)
    pay = random.choice(["cash", "card", "app"], ROWS, p=[share, (1 - share) / 2, (1 - share) / 2])
    fare = random.lognormal(2.7, 0.5, ROWS).round(1)
    tip = np.where(random.random(ROWS) < 0.4, 0, (fare * random.choice([0.05, 0.1], ROWS)).round(2))
    terminal = random.choice(["T1", "T2", "T3"], ROWS)
    return pd.DataFrame(
        {
            "pay": pay,
            "fare": fare,
            "tip": np.where(pay == "cash", np.nan, tip),
            "terminal": pd.Series(terminal).where(pay == "card"),
            "km": (fare / 2 * np.exp(random.normal(0, 0.1, ROWS))).round(1),
        }
    )


@pytest.mark.parametrize("cash", [0.55, 0.7])
def test_more_missing_values_by_another_mix_of_rows_are_no_fault(cash):
    found = said(fit(taxi), following(partial(taxi, cash=cash), 1))

    assert not any(found)


def test_values_that_are_missing_by_themselves_are_a_fault_in_any_mix():
    batch = taxi(np.random.default_rng(2), WEEKS + 1, 0.4)
    lost = np.random.default_rng(3).random(ROWS) < 0.5

    assert said(fit(taxi), [batch.assign(tip=batch["tip"].mask(lost))]) == [["nulls (tip)"]]


def test_a_label_by_default_is_stuck_although_other_rows_could_have_grown():
    batch = taxi(np.random.default_rng(2), WEEKS)
    lost = np.random.default_rng(3).random(ROWS) < 0.5
    wrong = batch.assign(pay=batch["pay"].mask(lost, "cash"))

    assert said(fit(taxi), [wrong]) == [["stuck (pay)"]]


def devices(random, week):
    """The battery of each of six devices falls week by week."""
    level = np.random.default_rng(7).uniform(60, 100, 6)
    device = np.tile(np.arange(6), ROWS // 6)
    return pd.DataFrame(
        {
            "device": [f"S{k}" for k in device],
            "battery": (level[device] - 1.2 * week + random.normal(0, 0.5, len(device))).round(1),
            "temp": random.normal(20, 2, len(device)).round(2),
            "errors": random.poisson(0.05, len(device)),
        }
    )


def test_levels_that_fall_across_those_of_other_labels_are_no_fault():
    assert not any(said(fit(devices), following(devices, 4, weeks=6)))


def test_rows_of_a_week_that_has_few_rows_are_of_no_block():
    def make(random, week):
        return devices(random, week)[: ROWS // 10 if week == WEEKS - 1 else None]

    reference = fit(make)

    assert len(reference.blocks) == WEEKS - 1
    assert wanders(reference, "battery", "device")
    assert not wanders(reference, "temp", "device")


def orders(random, week, country=None, times=1.0, price=None):
    """From week 13 on, some rows are those of a new country, currency or price."""
    new = (random.random(ROWS) < 0.15) & (week > WEEKS)
    place = random.integers(3, size=ROWS)
    amount = random.lognormal(3.5, 0.7, ROWS).round(2)
    amount[new] = price or (amount[new] * times).round(2)
    return pd.DataFrame(
        {
            "country": np.where(new & bool(country), country, np.take(["DE", "FR", "IT"], place)),
            "amount": amount,
            "items": 1 + random.poisson(1, ROWS),
            "channel": random.choice(["shop", "web"], ROWS),
        }
    )


@pytest.mark.parametrize("new", [{"times": 11.3}, {"times": 395}, {"price": 999.0}], ids=str)
def test_rows_of_a_new_label_have_their_own_amounts(new):
    assert not any(said(fit(orders), following(partial(orders, country="SE", **new), 5)))


def test_amounts_of_known_labels_are_not_excused_by_new_ones():
    random = np.random.default_rng(6)
    batch = orders(random, WEEKS + 1, "SE")
    touched = random.random(ROWS) < 0.4
    batch["amount"] = batch["amount"].mask(touched, batch["amount"] * 100)

    assert said(fit(orders), [batch]) == [["unit (amount)"]]


def prices(random, week):
    """A list of ten prices that is raised once, in week 6."""
    kind = random.integers(10, size=ROWS)
    price = np.asarray([5, 10, 15, 20, 25, 30, 40, 50, 80, 100])[kind] - 0.01 + (week >= 6)
    return pd.DataFrame(
        {
            "price": price.round(2),
            "weight": random.lognormal(0.1 * kind, 0.3).round(2),
            "country": random.choice(["DE", "FR", "IT"], ROWS),
        }
    )


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_a_price_list_that_was_raised_once_still_has_a_unit(share):
    random = np.random.default_rng(8)
    batch = prices(random, WEEKS)
    touched = random.random(ROWS) < share
    batch["price"] = batch["price"].mask(touched, batch["price"] * 100)

    assert said(fit(prices), [batch]) == [["unit (price)"]]


def bills(random, week):
    """Bills that are due some weeks after they were written."""
    ahead = random.integers(14, 35, ROWS)
    return pd.DataFrame(
        {
            "due": pd.Timestamp("2026-01-05") + pd.to_timedelta(7 * week + ahead, "D"),
            "amount": random.lognormal(3, 0.7, ROWS).round(2),
            "kind": random.choice(["a", "b"], ROWS),
        }
    )


def test_dates_that_go_on_are_no_fault_and_dates_of_1970_are():
    reference = fit(bills)
    batch = bills(np.random.default_rng(9), WEEKS)
    touched = np.random.default_rng(10).random(ROWS) < 0.4

    assert not any(said(reference, following(bills, 11)))
    wrong = batch.assign(due=batch["due"].mask(touched, pd.Timestamp(0)))
    assert said(reference, [wrong]) == [["sentinel (due)"]]


def flights(random, week):
    """Bookings up to four weeks ahead, by the month of the flight."""
    day = pd.Timestamp("2026-01-05") + pd.to_timedelta(
        7 * week + random.integers(30, size=ROWS), "D"
    )
    return pd.DataFrame(
        {
            "month": pd.DatetimeIndex(day).month,
            "fare": random.lognormal(5, 0.4, ROWS).round(2),
            "seats": 1 + random.poisson(0.5, ROWS),
        }
    )


def test_months_that_go_on_with_the_calendar_were_not_moved():
    assert not any(said(fit(flights), following(flights, 12)))


def shipments(random, _week):
    """Shipping costs one of three prices."""
    return pd.DataFrame(
        {
            "shipping": random.choice([0, 4.9, 9.9], ROWS, p=[0.5, 0.4, 0.1]),
            "price": random.lognormal(3, 0.7, ROWS).round(2),
            "country": random.choice(["DE", "AT", "CH"], ROWS),
        }
    )


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_a_few_prices_in_cents_are_another_unit_and_no_codes(share):
    random = np.random.default_rng(13)
    batch = shipments(random, WEEKS)
    touched = random.random(ROWS) < share
    batch["shipping"] = batch["shipping"].mask(touched, (batch["shipping"] * 100).round())

    assert said(fit(shipments), [batch]) == [["unit (shipping)"]]


def test_codes_that_stand_for_any_value_are_no_unit_of_a_known_one():
    random = np.random.default_rng(14)
    batch = shipments(random, WEEKS)
    batch["shipping"] = batch["shipping"].mask(random.random(ROWS) < 0.2, 990)

    assert said(fit(shipments), [batch]) == [["sentinel (shipping)"]]


def test_labels_of_two_columns_that_were_exchanged_are_new_to_both():
    batch = orders(np.random.default_rng(15), WEEKS)
    some = slice(200, 450)
    batch.loc[some, ["country", "channel"]] = batch.loc[some, ["channel", "country"]].to_numpy()

    assert said(fit(orders), [batch]) == [["swapped (channel, country)"]]


def visits(random, _week):
    """A visit of one page is a bounce, as a number."""
    bounce = random.random(ROWS) < 0.42
    pages = np.where(bounce, 1, 2 + random.negative_binomial(1, 0.25, ROWS))
    return pd.DataFrame(
        {
            "bounce": bounce.astype(int),
            "pages": pages,
            "seconds": np.where(bounce, 0, pages * random.gamma(1.2, 28, ROWS)).round(),
            "source": random.choice(["search", "direct", "mail"], ROWS),
        }
    )


def test_a_flag_of_numbers_that_is_inverted_is_named_as_one_of_labels_is():
    batch = visits(np.random.default_rng(16), WEEKS)
    numbers = said(fit(visits), [batch.assign(bounce=1 - batch["bounce"])])
    words = {0: "no", 1: "yes"}

    def named(random, week):
        rows = visits(random, week)
        return rows.assign(bounce=rows["bounce"].map(words))

    labels = said(fit(named), [batch.assign(bounce=(1 - batch["bounce"]).map(words))])
    assert numbers == labels == [["permuted (bounce)"]]


def test_flags_that_become_frequent_were_not_inverted():
    def more(random, week):
        rows = visits(random, week)
        keep = rows["bounce"].eq(0) | (random.random(ROWS) < (0.4 if week > WEEKS else 1))
        return rows[keep].reset_index(drop=True)

    assert not any(said(fit(more), following(more, 17)))


def loans(random, week, rates=(3.99, 4.49, 4.29, 4.79)):
    """A rate is the key rate, the margin of the grade and something for long terms."""
    grade = np.digitize(random.normal(0, 1, ROWS), [-1.4, -0.6, 0.3, 1.1])
    key_rate = rates[np.searchsorted([4, 9, WEEKS + 2], week, side="right")]
    term = random.choice([12, 24, 36, 60], ROWS)
    return pd.DataFrame(
        {
            "grade": np.array(list("ABCDE"))[grade],
            "rate": (key_rate + np.array([0, 1, 2.5, 5, 8])[grade] + 0.5 * (term > 48)).round(2),
            "term": term,
            "score": (600 - 60 * grade + random.normal(0, 40, ROWS)).round(),
            "amount": (random.lognormal(9, 0.7, ROWS) / 500).round() * 500,
        }
    )


def test_a_key_rate_that_is_changed_again_says_nothing_of_grades():
    assert not any(said(fit(loans), following(loans, 5, weeks=5)))


@pytest.mark.parametrize("week", [WEEKS, WEEKS + 3])
def test_grades_in_reverse_are_found_also_after_a_change_of_the_key_rate(week):
    batch = loans(np.random.default_rng(6), week)
    wrong = batch.assign(grade=batch["grade"].map(dict(zip("ABCDE", "EDCBA", strict=True))))

    assert said(fit(loans), [wrong]) == [["permuted (grade)"]]


def parcels(random, week, strike=WEEKS + 1):
    """In a week of strikes parcels come some days later, and most are late."""
    express = random.random(ROWS) < 0.2
    km = (60 + random.gamma(3, 100, ROWS)).round()
    days = np.where(express, 1, 2 + random.poisson(0.004 * km))
    days += random.poisson(3, ROWS) * (week == strike)
    return pd.DataFrame(
        {
            "service": np.where(express, "express", "standard"),
            "km": km,
            "days": days,
            "late": np.where(days > np.where(express, 1, 4), "yes", "no"),
            "cost": (4 + 0.004 * km + 4 * express + random.gamma(2, 1, ROWS)).round(2),
        }
    )


def test_a_week_of_strikes_is_no_fault():
    assert not any(said(fit(parcels), following(parcels, 8)))


def test_days_in_other_rows_than_their_own_are_found():
    batch = parcels(np.random.default_rng(9), WEEKS)
    wrong = batch.assign(days=np.random.default_rng(1).permutation(batch["days"]))

    (causes,) = said(fit(parcels), [wrong])
    assert any("days" in cause for cause in causes)


def salaries(random, week):
    """Base pay by grade and working hours, which rose once and rises again."""
    staff = np.random.default_rng(11)
    grade, hours = staff.integers(1, 9, ROWS), staff.choice([1, 0.8, 0.5], ROWS, p=[0.7, 0.2, 0.1])
    raised = 1.031 ** ((week >= 5) + (week > WEEKS))
    base = ((2100 + 430 * grade) * raised * hours).round(2)
    bonus = np.where(random.random(ROWS) < 0.2, (base * random.choice([0.05, 0.1], ROWS)), 0)
    return pd.DataFrame(
        {
            "grade": grade,
            "hours": hours,
            "base": base,
            "bonus": bonus.round(2),
            "gross": (base + bonus).round(2),
            "tax": ((base + bonus) * (0.12 + 0.02 * grade)).round(2),
            "sick": random.negative_binomial(0.3, 0.25, ROWS),
        }
    )


def test_base_pay_that_rises_again_is_no_fault():
    assert not any(said(fit(salaries), following(salaries, 12)))


def opening_hours(random, week):
    """From week 13 on, a shop is open at night as well."""
    hour = random.normal(13, 3, ROWS).round().clip(7, 20)
    night = (random.random(ROWS) < 0.25) & (week > WEEKS)
    return pd.DataFrame(
        {
            "hour": np.where(night, random.integers(0, 7, ROWS), hour),
            "amount": random.lognormal(3.5, 0.6, ROWS).round(2),
            "channel": random.choice(["web", "shop", "phone"], ROWS, p=[0.5, 0.4, 0.1]),
        }
    )


def test_hours_of_a_night_are_in_no_other_unit_than_those_of_a_day():
    assert not any(said(fit(opening_hours), following(opening_hours, 13)))


def economy(random, week):
    """Rates that hold for weeks, or nearly, fall further in a crisis than they ever moved."""
    crisis = week > WEEKS
    euribor = random.choice([4.86, 4.96, 4.97] if not crisis else [4.12, 4.15, 4.19], ROWS)
    return pd.DataFrame(
        {
            "rate": np.full(ROWS, -0.1 if crisis else 1.1 if week < 4 else 1.4),
            "euribor": (euribor + 0.02 * week).round(3),
            "age": random.integers(18, 80, ROWS),
            "job": random.choice(["admin", "technician", "services"], ROWS),
        }
    )


def test_rates_that_fall_in_a_crisis_are_no_codes():
    assert not any(said(fit(economy), following(economy, 14)))


def hours(random, _week):
    wind = np.round(random.gamma(3, 2.2, ROWS))
    gust = np.round(wind * 1.4 + random.gamma(2, 2, ROWS))
    return pd.DataFrame({"wind": wind, "gust": gust, "cold": random.normal(8, 4, ROWS)})


def test_whole_numbers_that_were_converted_and_rounded_are_in_another_unit():
    (now,) = following(hours, 50, weeks=1)
    now["wind"] = np.round(now["wind"] * 1.852)  # knots, in kilometres an hour

    (cause,) = compare(reference=fit(hours), current=now).causes

    assert (cause.cause, cause.columns) == ("unit", ("wind",))
    assert cause.evidence["factor"] == 1.852


def patients(random, _week):
    blood = np.round(random.normal(13.2, 1.5, ROWS), 1)
    return pd.DataFrame({"blood": blood, "age": np.round(random.normal(60, 15, ROWS))})


@pytest.mark.parametrize(("factor", "broken"), [(0.6214, True), (1.0, False), (1.2, False)])
def test_a_narrow_column_that_moved_further_than_ever_by_a_known_unit_is_in_it(factor, broken):
    """Haemoglobin in other units is three deviations lower, as no batch before was."""
    (now,) = following(patients, 50, weeks=1)
    now["blood"] = np.round(now["blood"] * factor, 1)

    causes = compare(reference=fit(patients), current=now).causes

    assert [(x.cause, x.columns) for x in causes] == [("unit", ("blood",))] * broken
