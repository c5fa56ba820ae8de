import numpy as np
import pandas as pd
import pytest

from pipeline.columns import as_time
from pipeline.config import Categorical, Numeric
from pipeline.data import tables
from pipeline.data.validation import validate
from pipeline.errors import DataError

RANDOM = np.random.default_rng(0)
SEEDED = RANDOM.bit_generator.state
N = 1500


@pytest.fixture(autouse=True)
def _seeded():
    RANDOM.bit_generator.state = SEEDED


def kept(draft):
    return {one.name: one.column for one in draft.kept}


def comment(draft, name):
    return next(one.comment for one in draft.kept if one.name == name)


def reasons(draft):
    return {one.name: one.why for one in draft.left_out}


@pytest.mark.parametrize("csv", [False, True])
def test_a_plain_table_is_declared_and_accepts_its_own_rows(orders, drafted, csv):
    draft = drafted(orders, csv=csv)

    assert kept(draft) == {"amount": Numeric(), "plan": Categorical(), "visits": Numeric()}
    assert (draft.target.task, draft.target.classes) == ("classification", None)
    assert (draft.roles.time, draft.roles.key, draft.left_out) == ("ordered_at", None, [])
    checked = validate(tables.read(draft.source, draft.data), draft.data)
    assert len(checked.valid) == N


LEFT_OUT = [
    ("order_id", lambda _: np.arange(N) + 70_000, None),
    ("reference", lambda _: [f"r-{i * 7919 % 10007}" for i in range(N)], None),
    ("shop", lambda _: "Vienna", "one value in all rows"),
    ("tags", lambda _: [[i % 3] for i in range(N)], "lists or maps"),
    ("basket", lambda _: [{"item": i} for i in range(N)], "lists or maps"),
    ("empty", lambda _: pd.Series([None] * N, dtype="str"), "no value in any row"),
    ("shipped", lambda o: o["ordered_at"] + pd.Timedelta("1D"), "moments, which never return"),
    ("year", lambda o: o["ordered_at"].dt.year, "its values never return"),
    ("day", lambda o: o["ordered_at"].dt.strftime("d%j-%y"), "its values never return"),
    ("ticks", lambda _: np.arange(N) * 0.37, "its values never return"),
    (
        "remark",
        lambda _: [f"customer {i % (N - 100)} says" for i in range(N)],
        "names or free text",
    ),
    ("cents", lambda o: o["amount"] * 100, "amount holds what it holds"),
    ("plan_no", lambda o: o["plan"].map({"free": 0, "pro": 1, "team": 2}), None),
    ("fold", lambda _: RANDOM.integers(0, 5, N), "named like a part of the table"),
    ("y_pred", lambda _: RANDOM.random(N), "named like a prediction"),
    ("returned_reason", lambda _: RANDOM.choice(["a", "b"], N), "what follows from returned"),
    ("refund", lambda o: o["returned"] * RANDOM.random(N), "predicts the target nearly alone (AUC"),
    (
        "box",
        lambda o: np.where(o["returned"] == 1, "x", "y"),
        "predicts the target nearly alone (AUC",
    ),
    (
        "complaint",
        lambda o: pd.Series(np.where(o["returned"] & (RANDOM.random(N) < 0.6), "late", None)),
        "of the rows of class 0 only",
    ),
]


@pytest.mark.parametrize(("name", "values", "why"), LEFT_OUT, ids=[one[0] for one in LEFT_OUT])
def test_a_column_that_is_no_feature_is_left_out_with_its_reason(
    orders, drafted, name, values, why
):
    draft = drafted(orders.assign(**{name: values(orders)}))

    if why is None:
        assert name not in kept(draft) or name == "plan_no"
        assert draft.roles.key == (None if name == "plan_no" else name)
    else:
        assert why in reasons(draft)[name]
    assert "amount" in kept(draft)


@pytest.mark.parametrize("option", ["target", "time", "key"])
def test_a_role_is_refused_to_a_column_of_collections(orders, drafted, option):
    rows = orders.assign(tags=[[i] for i in range(N)])

    with pytest.raises(DataError, match=f"--{option} must name a column of one value in each row"):
        drafted(rows, **{option: "tags"})


KEPT = [
    ("hour", lambda o: o["ordered_at"].dt.hour, Numeric(min=0, max=23)),
    ("weekday", lambda o: o["ordered_at"].dt.day_of_week, Numeric()),
    ("last_returned", lambda o: o["returned"].shift(1), Numeric(nullable=True)),
    ("returned_last_year", lambda _: RANDOM.integers(0, 9, N), Numeric()),
    ("gift", lambda _: RANDOM.choice(["yes", "no"], N), Categorical(values=("no", "yes"))),
    ("colour", lambda _: RANDOM.choice(["red", "blue"], N), Categorical()),
    ("zip_code", lambda _: RANDOM.integers(1000, 1200, N), Categorical()),
    ("age", lambda _: RANDOM.integers(18, 80, N), Numeric(min=0)),
    ("share", lambda _: RANDOM.random(N), Numeric(min=0, max=1)),
    ("share", lambda _: RANDOM.random(N) * 100, Numeric()),
    ("hour", lambda _: RANDOM.integers(0, 90, N), Numeric()),
    ("gift", lambda _: RANDOM.choice(["yes", None], N), Categorical(nullable=True)),
    ("level", lambda o: o["amount"] * 2 + RANDOM.random(N), Numeric()),
    ("rate", lambda _: np.repeat(RANDOM.random(10), N // 10)[(np.arange(N) * 7) % N], Numeric()),
]


@pytest.mark.parametrize(("name", "values", "column"), KEPT, ids=[one[0] for one in KEPT])
def test_a_feature_gets_the_limits_that_its_meaning_sets(orders, drafted, name, values, column):
    assert kept(drafted(orders.assign(**{name: values(orders)})))[name] == column


HINTS = [
    (
        lambda _: np.where(RANDOM.random(N) < 0.05, -999, RANDOM.random(N)),
        "of rows lies far from all others",
    ),
    (lambda _: np.where(RANDOM.random(N) < 0.4, np.nan, RANDOM.random(N)), "null: check why"),
    (lambda _: RANDOM.choice(["a", "A ", "b"], N), "spelled in several ways: 'A ' and 'a'"),
    (lambda _: RANDOM.integers(1, 5, N), "declare it categorical if they are codes"),
    (lambda o: o["ordered_at"].dt.hour, "follows from the hour of its row"),
]


@pytest.mark.parametrize(("values", "hint"), HINTS)
def test_what_is_odd_about_a_feature_stands_beside_it(orders, drafted, values, hint):
    said = comment(drafted(orders.assign(x=values(orders))), "x")

    parts = hint.split("'A ' and 'a'")
    assert parts[0] in said


def test_the_largest_number_is_no_sign_if_others_are_near(orders, drafted):
    draft = drafted(orders.assign(x=RANDOM.integers(0, 1000, N)))

    assert "far from all" not in comment(draft, "x")


def test_the_parts_of_a_target_that_is_a_sum_are_left_out(orders, drafted):
    rows = orders.assign(adults=RANDOM.poisson(9, N), children=RANDOM.poisson(4, N))
    draft = drafted(rows.assign(guests=rows["adults"] + rows["children"]), "guests")

    assert set(reasons(draft)) == {"adults", "children"}
    assert "a sum of adults and children" in reasons(draft)["adults"]


def test_a_column_that_gives_the_target_away_beside_another_is_left_out(orders, drafted):
    paid = RANDOM.random(N) * 100
    rows = orders.assign(paid=paid, price=RANDOM.random(N) * 100)
    rows = rows.assign(cheap=(rows["paid"] > rows["price"]).astype(int))

    found = reasons(drafted(rows, "cheap"))

    assert len(found) == 1
    assert "nearly alone beside other columns" in next(iter(found.values()))


def test_an_easy_problem_is_no_leak(orders, drafted):
    score = RANDOM.normal(0, 1, N)
    several = {f"x{i}": score + RANDOM.normal(0, 0.3, N) for i in range(6)}
    rows = orders.assign(**several, positive=(score > 0).astype(int))

    assert reasons(drafted(rows, "positive")) == {}


TARGETS = [
    (["no", "yes"], ("no", "yes")),
    (["True", "False"], None),
    (["bad", "good"], ("bad", "good")),
    ([-1, 1], ("-1", "1")),
    (["kept", "left"], ("kept", "left")),
]


@pytest.mark.parametrize(("labels", "classes"), TARGETS)
def test_two_labels_are_two_classes(orders, drafted, labels, classes):
    target = np.where(RANDOM.random(N) < 0.3, labels[1], labels[0])
    draft = drafted(orders.assign(returned=target), csv=True)

    assert draft.target.task == "classification"
    assert draft.target.classes == classes


def kinds(orders):
    return np.where(RANDOM.random(N) < 0.3, "swap", np.where(orders["amount"] > 40, "keep", "0"))


@pytest.mark.parametrize("csv", [False, True])
def test_several_labels_are_classes_whose_chances_are_predicted(orders, drafted, csv):
    draft = drafted(orders.assign(kind=kinds(orders)).drop(columns="returned"), "kind", csv=csv)

    assert (draft.target.task, draft.target.classes) == ("classification", ("0", "keep", "swap"))
    assert "3 classes, of which" in draft.target.comment
    assert set(kept(draft)) == {"amount", "plan", "visits"}
    rows = tables.read(draft.source, draft.data)
    assert set(rows["kind"]) == {0, 1, 2}
    assert len(validate(rows, draft.data).valid) == N


CODED = [
    ("kind", True, "kind names classes"),
    ("cover_type", True, "cover_type names classes"),
    ("rating", False, "if its 4 values are names of classes"),
]


@pytest.mark.parametrize(("name", "classes", "comment"), CODED)
def test_numbers_are_classes_where_the_target_is_named_so(orders, drafted, name, classes, comment):
    values = pd.cut(orders["amount"] + RANDOM.normal(0, 20, N), 4, labels=False) + 1
    draft = drafted(orders.assign(**{name: values}), name)

    assert draft.target.classes == (("1", "2", "3", "4") if classes else None)
    assert draft.target.task == ("classification" if classes else "regression")
    assert comment in draft.target.comment


LEAKING = [
    ("box", lambda k: "box " + pd.Series(k), "nearly alone (AUC"),
    ("swapped_at", lambda k: pd.Series(np.where(k == "swap", None, "x")), "of class swap only"),
    (
        "weight",
        lambda k: pd.Series(k).map({"0": 1, "keep": 5, "swap": 9}) + RANDOM.random(N),
        "AUC",
    ),
]


@pytest.mark.parametrize(("name", "values", "why"), LEAKING, ids=[one[0] for one in LEAKING])
def test_a_column_that_gives_classes_away_is_left_out(orders, drafted, name, values, why):
    found = kinds(orders)
    rows = orders.assign(kind=found, **{name: values(found)})

    assert why in reasons(drafted(rows, "kind"))[name]


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        (lambda _: RANDOM.choice([f"c{i}" for i in range(60)], N), "Got 60 labels ("),
        (lambda _: 1, "Got 1 in all rows"),
        (lambda o: o["ordered_at"], "Got moments"),
        (lambda _: pd.Series([1, 0, *[None] * (N - 2)]), "at least 100 labels"),
    ],
)
def test_a_target_that_cannot_be_predicted_is_refused(orders, drafted, values, rule):
    with pytest.raises(DataError, match="Target 'x' must hold") as caught:
        drafted(orders.assign(x=values(orders)), "x")

    assert rule in str(caught.value)


def test_a_misspelled_target_is_named_beside_the_nearest_columns(orders, drafted):
    with pytest.raises(DataError, match="Got 'Returned'; there are returned"):
        drafted(orders, "Returned")


def test_a_column_that_never_comes_before_its_row_and_is_named_so_dates_the_label(orders, drafted):
    known = orders["ordered_at"] + pd.to_timedelta(RANDOM.integers(1, 20, N), unit="D")
    draft = drafted(orders.assign(resolved_at=known))

    assert draft.roles.label_time == "resolved_at"
    assert draft.data.label_time == "resolved_at"
    assert "resolved_at" not in reasons(draft)


def test_of_two_times_the_one_that_orders_the_rows_counts(orders, drafted):
    other = orders["ordered_at"] - pd.to_timedelta(RANDOM.integers(1, 900, N), unit="D")
    draft = drafted(orders.assign(at=other)[["at", *orders.columns]])

    assert draft.roles.time == "ordered_at"
    assert "at holds moments too" in draft.comments["time"]


def test_a_column_that_cannot_be_the_time_is_refused(orders, drafted):
    with pytest.raises(DataError, match=r"--time must name a column of dates .* Got 'plan'"):
        drafted(orders, time="plan")


def test_a_key_that_repeats_without_a_time_is_refused(orders, drafted):
    with pytest.raises(DataError, match="Key column 'plan' must be unique"):
        drafted(orders.drop(columns="ordered_at"), key="plan")


def test_a_key_that_repeats_at_other_times_is_taken(orders, drafted):
    draft = drafted(orders.assign(house=np.arange(N) % 50), key="house")

    assert (draft.roles.key, draft.data.key_unique) == ("house", False)


def test_dates_whose_days_and_months_cannot_be_told_apart_are_left_out(orders, drafted):
    days = pd.to_datetime("2026-01-01") + pd.to_timedelta(RANDOM.integers(0, 12, N), unit="D")
    sent = days.strftime("%d.01.%Y")
    draft = drafted(orders.drop(columns="ordered_at").assign(sent=sent))

    assert draft.roles.time is None
    assert "dates whose form is not certain" in reasons(draft)["sent"]


def test_rows_without_a_time_end_last_midnight(orders, drafted):
    draft = drafted(orders.drop(columns="ordered_at"))

    rows = tables.read(draft.source, draft.data)
    assert draft.data.arrival.shuffled == 0
    assert rows["holdfast-time"].max() + draft.data.arrival.every == pd.Timestamp("2026-06-01")
    assert draft.plan.batches >= 12


@pytest.mark.parametrize("name", ["returned", "amount"])
def test_a_sorted_table_comes_in_a_random_order(orders, drafted, name):
    draft = drafted(orders.drop(columns="ordered_at").sort_values(name))

    assert draft.sorted_by == name
    assert draft.data.arrival.shuffled == N


def test_a_table_that_changes_slowly_is_not_sorted(orders, drafted):
    season = np.sin(np.arange(N) / 300) + RANDOM.normal(0, 0.1, N)
    year = 2000 + np.arange(N) // 200
    draft = drafted(orders.drop(columns="ordered_at").assign(season=season, year=year))

    assert draft.sorted_by == ""


def test_a_rule_that_the_rows_break_is_dropped(orders, drafted, monkeypatch):
    monkeypatch.setattr("pipeline.drafting.judging._limits", lambda *given: (0.0, given[-1] / 2))

    draft = drafted(orders)

    assert kept(draft)["visits"] == Numeric(nullable=True)


def test_a_table_without_a_feature_is_refused(orders, drafted):
    with pytest.raises(DataError, match="a column that a model can learn from"):
        drafted(orders[["ordered_at", "returned"]].assign(shop="Vienna"))


FORMS = [
    ("%d/%m/%Y %H:%M", lambda at: at.dt.strftime("%d/%m/%Y %H:%M")),
    ("s", lambda at: at.astype("datetime64[s]").astype("int64")),
]


@pytest.mark.parametrize(("written", "spell"), FORMS, ids=[one[0] for one in FORMS])
@pytest.mark.parametrize("csv", [False, True])
def test_times_in_another_form_are_found_and_the_form_is_written(
    orders, drafted, written, spell, csv
):
    draft = drafted(orders.assign(ordered_at=spell(orders["ordered_at"])), csv=csv)

    assert draft.roles.time == "ordered_at"
    assert draft.source.date_format == written
    read = tables.read(draft.source, draft.data)["ordered_at"]
    assert (as_time(read) == orders["ordered_at"]).all()


def test_a_few_rows_without_a_time_are_refused_and_counted(orders, drafted):
    orders.loc[::20, "ordered_at"] = pd.NaT

    draft = drafted(orders)

    assert draft.roles.time == "ordered_at"
    assert "75 rows without a time are refused" in draft.comments["time"]


def test_times_far_from_all_others_do_not_set_the_length_of_a_batch(orders, drafted):
    usual = drafted(orders).plan
    orders.loc[[3, 7], "ordered_at"] = [pd.Timestamp("1900-01-01"), pd.Timestamp("2260-01-01")]

    draft = drafted(orders)

    assert (draft.plan.batch, draft.plan.until) == (usual.batch, usual.until)
    assert "2 lie far from all others: check them" in draft.comments["time"]


def test_times_of_less_than_half_a_day_cut_no_batches(orders, drafted):
    orders["ordered_at"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(N), unit="s")

    assert drafted(orders).roles.time is None
    with pytest.raises(DataError, match="--time must name a column of 12 hours or more"):
        drafted(orders, time="ordered_at")


def test_one_column_has_one_role(orders, drafted):
    with pytest.raises(DataError, match="must name different columns"):
        drafted(orders, time="ordered_at", key="ordered_at")


def test_a_column_with_many_infinite_numbers_is_left_out(orders, drafted):
    few = orders["amount"].where(orders.index % 100 != 0, np.inf)
    many = orders["amount"].where(orders.index % 10 != 0, np.inf)

    draft = drafted(orders.drop(columns="amount").assign(few=few, many=many))

    assert "infinite in 1.0% of rows" in comment(draft, "few")
    assert "infinite in 10% of rows" in reasons(draft)["many"]


def test_names_of_our_own_columns_are_refused(orders, drafted):
    with pytest.raises(DataError, match="No column may begin with 'holdfast-'"):
        drafted(orders.assign(**{"holdfast-key": 1}))


def test_labels_that_are_numbers_with_signs_are_pointed_out(orders, drafted):
    prices = "$" + (RANDOM.integers(0, 40, N) * 25.5).astype(str).astype(object)

    draft = drafted(orders.assign(price=prices))

    assert "numbers with signs" in comment(draft, "price")
