import pandas as pd
import pytest

from pipeline.config import Data
from pipeline.data.labels import join_labels, labelled
from pipeline.errors import DataError


def test_labels_are_joined_by_key_and_every_row_keeps_its_place(rows, data):
    labels = rows[["id", "churned"]].sample(100, random_state=0)
    joined = join_labels(rows, labels, data)

    expected = rows["churned"].where(rows["id"].isin(labels["id"]))
    assert list(joined["id"]) == list(rows["id"])
    pd.testing.assert_series_equal(joined["churned"], expected)


def test_the_newest_label_of_a_key_wins(rows, data):
    labels = pd.DataFrame({"id": ["r0", "r1", "r0"], "churned": [0.0, 1.0, 1.0]})

    assert list(join_labels(rows[:2], labels, data)["churned"]) == [1, 1]


def test_keys_with_the_same_text_are_one_key(rows, data):
    numbered = rows[:3].assign(id=["1", "2", "3"])
    labels = pd.DataFrame({"id": pd.Series([1, "1", 2.0], dtype=object), "churned": [0, 1, 0]})
    joined = join_labels(numbered, labels, data)

    assert list(joined["id"]) == ["1", "2", "3"]
    assert list(joined["churned"][:2]) == [1, 0]


def test_labels_without_a_key_or_target_column_are_refused(rows, data):
    with pytest.raises(DataError, match="id, churned"):
        join_labels(rows, pd.DataFrame({"x": [1]}), data)


def test_a_label_is_used_once_its_delay_has_passed(rows, data):
    delayed = Data.model_validate(data.model_dump() | {"label_delay": "3D"})
    as_of = pd.Timestamp("2026-01-11")

    newest = labelled(rows, delayed, as_of=as_of)["at"].max()
    assert newest == pd.Timestamp("2026-01-08")
    assert labelled(rows, data, as_of=as_of)["at"].max() == as_of


def test_rows_without_a_label_are_left_out(rows, data):
    half = rows.assign(churned=rows["churned"].where(rows.index % 2 == 0))

    assert len(labelled(half, data, as_of=rows["at"].max())) == len(rows) / 2


def test_rows_without_the_target_column_are_refused(rows, data):
    with pytest.raises(DataError, match=r"must hold the column 'churned' \(data.target\)"):
        labelled(rows.drop(columns="churned"), data, as_of=rows["at"].max())


@pytest.fixture
def dated(rows, data):
    """Declared columns with a time of labels, and labels that were corrected after ten days."""
    with_time = data.model_copy(update={"label_time": "known_at"})
    first = pd.DataFrame(
        {
            "id": rows["id"],
            "churned": rows["churned"],
            "known_at": rows["at"] + pd.Timedelta("2D"),
        }
    )
    again = first.iloc[:3].assign(
        churned=1 - first["churned"].iloc[:3], known_at=first["known_at"].iloc[:3] + WEEK
    )
    return with_time, pd.concat([first, again, again])


WEEK = pd.Timedelta("7D")


@pytest.mark.parametrize("seed", range(5))
def test_labels_that_carry_their_time_count_from_then_on_in_whatever_order_they_come(
    rows, dated, seed
):
    data, labels = dated
    mixed = labels.sample(frac=1, random_state=seed)
    first_day = rows["at"].min()

    def known(days):
        as_of = first_day + pd.Timedelta(days=days)
        joined = join_labels(rows, mixed, data, as_of=as_of)
        return labelled(joined, data, as_of=as_of).set_index("id")["churned"]

    truth = rows.set_index("id")["churned"]
    early = truth[(rows["at"] <= first_day + pd.Timedelta("2D")).to_numpy()]
    pd.testing.assert_series_equal(known(4), early, check_dtype=False)
    late = truth.where(~truth.index.isin(rows["id"].iloc[:3]), 1 - truth)
    pd.testing.assert_series_equal(known(400), late, check_dtype=False)


def test_labels_without_the_column_of_their_time_are_refused(rows, data):
    with_time = data.model_copy(update={"label_time": "known_at"})

    with pytest.raises(DataError, match=r"'known_at' \(data.label_time\)"):
        labelled(rows, with_time, as_of=rows["at"].max())


def keyed(keys):
    return pd.DataFrame({"id": keys, "at": pd.Timestamp("2026-01-01"), "amount": 1.0})


@pytest.mark.parametrize(
    ("keys", "others"),
    [
        ([1, 2, 3], [1, 2]),
        ([1, 2, 3], ["1", "2"]),
        (["1", "2", "3"], [1.0, 2.0]),
        (["1.0", "2.0", "3"], [1, 2]),
        (["1", "2", "3"], ["1  ", " 2"]),
        (pd.array([2**53 + 1, 2**53, None], "Int64"), [str(2**53 + 1), str(2**53)]),
    ],
)
def test_keys_are_joined_as_text_whatever_their_types(data, keys, others, caplog):
    labels = pd.DataFrame({"id": others, "churned": [0, 1]})

    joined = join_labels(keyed(keys), labels, data)

    assert joined["churned"][:2].tolist() == [0, 1]
    assert joined["churned"].isna().tolist() == [False, False, True]
    assert joined["id"].equals(keyed(keys)["id"])
    assert not caplog.records


def test_rows_and_labels_without_a_key_are_not_joined(data):
    labels = pd.DataFrame({"id": [None, "b"], "churned": [0, 1]})

    assert join_labels(keyed([None, "b"]), labels, data)["churned"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("keys", "others", "why"),
    [
        (["1", "2"], ["0001", "0003"], "differ in zeros before them or in case: spell them alike"),
        (["ab-1"], ["AB-1"], "differ in zeros before them or in case"),
        (["1", "2"], ["x"], "Correct data.key, data.labels or data.label_delay"),
    ],
)
def test_a_join_that_finds_nothing_says_so(data, caplog, keys, others, why):
    labels = pd.DataFrame({"id": others, "churned": 1})

    joined = join_labels(keyed(keys), labels, data)

    assert joined["churned"].isna().all()
    assert f"({others[0]!r}" in caplog.text
    assert f"({keys[0]!r}" in caplog.text
    assert why in caplog.text


def test_labels_that_are_not_due_yet_are_not_missed(data, caplog):
    delayed = Data.model_validate(data.model_dump() | {"label_delay": "3D"})
    yesterday = pd.Timestamp.now("UTC").tz_localize(None) - pd.Timedelta("1D")
    labels = pd.DataFrame({"id": ["0001"], "churned": 1})

    join_labels(keyed(["1"]).assign(at=yesterday), labels, delayed)
    assert not caplog.records

    join_labels(keyed(["1"]).assign(at=yesterday), labels, data)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("keys", "others"), [([], ["1"]), (["1"], [])])
def test_a_join_of_nothing_is_no_reason_to_warn(data, caplog, keys, others):
    labels = pd.DataFrame({"id": others, "churned": [1] * len(others)})

    assert len(join_labels(keyed(keys), labels, data)) == len(keys)
    assert not caplog.records
