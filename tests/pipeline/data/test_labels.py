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
