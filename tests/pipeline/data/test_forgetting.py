import json
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Categorical, Numeric
from pipeline.data.captures import Layout
from pipeline.data.forgetting import Person, forget_captures, forget_quarantined
from pipeline.serving.capturing import Captures

COLUMNS = {"x": Numeric(nullable=True), "plan": Categorical(), "hidden": Numeric(private=True)}
ROWS = pd.DataFrame(
    {
        "id": [7, 8, 7, 9],
        "x": [1.25, 2.5, np.nan, 4.0],
        "plan": ["a", "b", "a", "b"],
        "hidden": [0.1, 0.2, 0.3, 0.4],
    }
)


@pytest.fixture
def person():
    return Person.of(" 7.0", [(ROWS, "id"), (ROWS[["x"]], "id")], COLUMNS)


@pytest.fixture
def store(tmp_path):
    """A store with one answered request of three rows, each with three predictions."""
    path = tmp_path / "captures.db"
    with Captures(path) as captures:
        captures.answer(
            at=1,
            request_id=32 * "a",
            layout=Layout("classification", json.dumps({"x": None, "plan": ["b"]})),
            version="1",
            latency=1,
            features=np.array([[1.25, -1.0], [2.5, 0.0], [4.0, -1.0]]),
            unseen=[(0, 1, "mine"), (2, 1, "theirs")],
            keys=None,
            predictions=np.arange(9.0).reshape(3, 3),
        )
        for number, body in enumerate(('{"key": 7}', '{"key": 71.7}', '{"key": "n7"}', '["7"]')):
            captures.refusal(
                at=1,
                request_id=str(number),
                version="1",
                route="/",
                caller="",
                problems="[]",
                body=body.encode(),
            )
    return path


def select(store, query):
    with closing(sqlite3.connect(store)) as connection:
        return connection.execute(query).fetchall()


def test_a_person_has_the_rows_of_every_spelling_of_the_key_without_private_values(person):
    assert person.key == "7"
    assert person.rows["x"].tolist()[:1] == [1.25]
    assert list(person.rows) == ["x", "plan"]
    assert person.has_key(pd.Series([7.0, "7 ", 77, None])).tolist() == [True, True, False, False]


def test_rows_without_a_key_are_found_by_all_of_their_values(person):
    found = person.resembles(ROWS[["x", "plan"]])

    assert (found >= 0).tolist() == [True, False, True, False]


def test_a_row_with_a_changed_or_a_blanked_value_is_found_where_that_is_allowed(person):
    rows = pd.DataFrame({"x": [1.25, np.nan, 5.0, 1.5], "plan": ["z", "b", "b", "b"]})

    assert (person.resembles(rows) >= 0).tolist() == [False] * 4
    assert (person.resembles(rows, but=1) >= 0).tolist() == [True, True, False, False]


def test_other_rows_of_a_request_keep_their_keys_labels_and_all_predictions(store):
    assert forget_captures(store, f"{32 * 'a'}-0")["captured rows"] == 1

    ((features, unseen, keys, predictions),) = select(
        store, "SELECT features, unseen, keys, predictions FROM answers"
    )
    assert np.frombuffer(features).tolist() == [2.5, 0.0, 4.0, -1.0]
    assert json.loads(unseen) == [[1, 1, "theirs"]]
    assert json.loads(keys) == [f"{32 * 'a'}-1", f"{32 * 'a'}-2"]
    assert np.frombuffer(predictions).tolist() == [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    with Captures(store) as captures:
        assert captures.label([(f"{32 * 'a'}-2", 1.0)], at=2) == 0


def test_a_refused_request_that_names_the_key_is_removed_whole(store):
    assert forget_captures(store, "7")["refused requests"] == 2

    assert select(store, "SELECT request_id FROM refusals") == [("1",), ("2",)]


def test_a_store_that_does_not_exist_holds_nobody(tmp_path):
    assert forget_captures(tmp_path / "none.db", "7") == {}
    assert not (tmp_path / "none.db").exists()


def test_refused_rows_are_found_by_key_or_by_values_and_an_empty_file_goes(tmp_path, person):
    ROWS.to_parquet(tmp_path / "with.parquet")
    ROWS.drop(columns="id").to_parquet(tmp_path / "without.parquet")
    ROWS[:1].to_parquet(tmp_path / "only.parquet")
    (tmp_path / "killed.partial").write_text("7")

    assert forget_quarantined(tmp_path, person, "id") == {"quarantined rows": 5}

    assert sorted(path.name for path in tmp_path.iterdir()) == ["with.parquet", "without.parquet"]
    assert pd.read_parquet(tmp_path / "without.parquet")["x"].tolist() == [2.5, 4.0]
