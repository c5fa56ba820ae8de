import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandera.errors import SchemaErrors

from pipeline.columns import as_text, as_time, conform
from pipeline.config import Data
from pipeline.data.contract import pandera_schema
from pipeline.data.labels import join_labels
from pipeline.data.repeats import Seen
from pipeline.data.validation import (
    REASON,
    NoValidRowError,
    Validated,
    as_they_came,
    keep,
    quarantine,
    split,
    validate,
    with_labels,
)
from pipeline.derivation import with_derived
from pipeline.errors import DataError

PLAN = "plan must be one of {free, pro, team}"
CELLS = {
    "id": st.sampled_from(["a", "b", "c", 1, None]),
    "at": st.sampled_from([pd.Timestamp("2026-01-01"), "2026-01-02", "soon", 7, None, pd.NaT]),
    "amount": st.sampled_from([0, 50.0, 100, "7", 100.1, -1, np.inf, "x", None, [1]]),
    "age": st.sampled_from([0, None, np.nan, -np.inf, "x", True]),
    "plan": st.sampled_from(["free", "pro", "Free", 1, None]),
    "city": st.sampled_from(["Oslo", "Atlantis", 5.0, None]),
}
FRAMES = st.lists(st.fixed_dictionaries(CELLS), min_size=1, max_size=8).map(
    lambda records: pd.DataFrame(
        {name: pd.Series([r[name] for r in records], dtype=object) for name in CELLS}
    ).assign(row=range(len(records)))
)


def outcome(frame, data):
    try:
        return validate(frame, data)
    except NoValidRowError as error:
        return error.validated


@pytest.mark.slow
@given(FRAMES)
@settings(max_examples=25, deadline=None)
def test_every_row_is_either_valid_or_quarantined(data, frame):
    validated = outcome(frame, data)

    kept = [*validated.valid["row"], *validated.quarantined["row"]]
    assert sorted(kept) == frame["row"].tolist()


@pytest.mark.slow
@given(FRAMES)
@settings(max_examples=25, deadline=None)
def test_quarantined_rows_are_unchanged_and_have_a_reason(data, frame):
    refused = outcome(frame, data).quarantined

    came = frame.iloc[refused["row"].tolist()].reset_index(drop=True)
    pd.testing.assert_frame_equal(refused.drop(columns=REASON), came, check_dtype=False)
    assert refused[REASON].str.contains(" must ").all()


@pytest.mark.slow
@given(FRAMES)
@settings(max_examples=15, deadline=None)
def test_a_row_is_refused_exactly_when_pandera_refuses_it_alone(data, frame):
    frame = frame.assign(id=[f"r{i}" for i in range(len(frame))])
    frame["age"] = frame["age"].replace("x", -1)  # conforming nulls it, which Pandera cannot see
    schema = pandera_schema(data.features, key="id", time="at")
    verdicts = []
    for i in frame.index:
        row = frame.loc[[i]]
        whole = {"id": as_text(row["id"]), "at": as_time(row["at"])}
        try:
            schema.validate(conform(row, data.features).assign(**whole), lazy=True)
        except SchemaErrors:
            verdicts.append(i)

    assert outcome(frame, data).quarantined["row"].tolist() == verdicts


def test_rows_that_obey_every_rule_are_valid(frame, data):
    validated = validate(frame, data)

    assert len(validated.valid) == len(frame)
    assert validated.quarantined.empty
    assert validated.reasons == {}


def test_rows_that_were_refused_before_have_their_new_reason(frame, data):
    frame.loc[0, "amount"] = -1

    refused = validate(frame.assign(**{REASON: "of last week"}), data).quarantined

    assert list(refused.columns).count(REASON) == 1
    assert refused[REASON].tolist() == ["amount must lie in 0 .. 100"]


@pytest.mark.parametrize("column", ["categorical", "numeric"])
def test_a_value_that_cannot_be_derived_refuses_its_row(frame, data, column):
    declared = data.model_dump(mode="json")
    declared["features"]["hour"] = {"type": column}
    declared["derive"] = {"hour": "hour(seen)"}
    frame["seen"] = "2026-01-01T05:00"
    frame.loc[3, "seen"] = "yesterday"
    derived = Data.model_validate(declared)

    checked = validate(with_derived(frame, derived.derive, derived.features), derived)

    assert checked.quarantined["seen"].tolist() == ["yesterday"]
    assert checked.quarantined["hour"].tolist() == ["hour(yesterday)"]


def test_undeclared_columns_stay_with_their_rows(frame, data):
    frame.loc[0, "amount"] = -1

    valid = validate(frame, data).valid

    pd.testing.assert_series_equal(valid["spend"], frame["spend"][1:].reset_index(drop=True))


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("amount", None, "amount must not be null"),
        ("amount", "x", "amount must be a number"),
        ("amount", -0.5, "amount must lie in 0 .. 100"),
        ("amount", np.inf, "amount must lie in 0 .. 100"),
        ("age", -1, "age must lie in 0 .. 3.40282e+38"),
        ("age", "x", "age must be a number"),
        ("plan", "Free", PLAN),
        ("plan", None, "plan must not be null"),
        ("id", "r1", "id must be unique"),
        ("id", None, "id must not be null"),
        ("at", None, "at must not be null"),
        ("at", "31/12/2026", "at must be a time"),
    ],
)
def test_a_broken_rule_is_reported_once(frame, data, column, value, reason):
    frame = frame.astype({column: object})
    frame.loc[7, column] = value

    validated = validate(frame, data)

    assert validated.reasons == {reason: 1}
    assert validated.quarantined[REASON].tolist() == [reason]
    assert validated.quarantined["id"].tolist() == [frame["id"][7]]


def test_all_broken_rules_of_a_row_are_reported(frame, data):
    frame.loc[7, ["amount", "plan"]] = [101, "gold"]

    assert validate(frame, data).quarantined[REASON][0] == f"amount must lie in 0 .. 100; {PLAN}"


def test_rows_with_a_required_column_of_nulls_are_all_quarantined(frame, data):
    frame["amount"] = None

    with pytest.raises(NoValidRowError, match="has no valid row among its 600") as caught:
        validate(frame, data, source="batch 2026-01-05")

    assert isinstance(caught.value, DataError)
    assert str(caught.value).startswith("batch 2026-01-05")
    assert "amount must not be null (600 rows)" in str(caught.value)
    assert len(caught.value.validated.quarantined) == len(frame)


@pytest.mark.parametrize("column", ["plan", "at", "id"])
def test_a_required_column_of_nulls_is_named(frame, data, column):
    with pytest.raises(NoValidRowError, match=f"{column} must not be null"):
        validate(frame.assign(**{column: None}), data)


def test_a_nullable_column_may_hold_only_nulls(frame, data):
    assert len(validate(frame.assign(age=None, city=None), data).valid) == len(frame)


@pytest.mark.parametrize("role", ["id", "at"])
def test_every_missing_column_is_named(frame, data, role):
    names = [role, "amount", "plan"]

    with pytest.raises(DataError, match=f"lack the columns {', '.join(names)}") as caught:
        validate(frame.drop(columns=names), data)

    assert not isinstance(caught.value, NoValidRowError)


def test_rows_without_a_declared_feature_are_all_quarantined(frame, data):
    came = frame.drop(columns=["amount", "plan"])

    with pytest.raises(NoValidRowError, match="lack the columns amount, plan") as caught:
        validate(came, data)

    refused = caught.value.validated.quarantined
    reasons = ["amount must be present", "plan must be present"]
    assert caught.value.validated.reasons == dict.fromkeys(reasons, len(frame))
    assert set(refused[REASON]) == {"; ".join(reasons)}
    pd.testing.assert_frame_equal(refused.drop(columns=REASON), came)


def test_a_repeated_column_name_fails_the_whole_source(frame, data):
    doubled = pd.concat([frame.drop(columns="amount"), frame["plan"]], axis=1)

    with pytest.raises(DataError, match="hold plan more than once") as caught:
        validate(doubled, data)

    assert not isinstance(caught.value, NoValidRowError)


def test_an_empty_batch_is_refused(frame, data):
    with pytest.raises(NoValidRowError, match=r"has no rows\.") as caught:
        validate(frame[:0], data)

    assert caught.value.validated.quarantined.empty
    assert caught.value.validated.reasons == {}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda frame: frame[:0],
        lambda frame: frame[:0].drop(columns=list(frame)),
        lambda frame: frame.drop(columns=["amount", "plan"]),
        lambda frame: frame.assign(amount=None),
    ],
)
def test_an_empty_valid_frame_has_the_columns_and_types_of_a_full_one(frame, data, spoil):
    with pytest.raises(NoValidRowError) as caught:
        validate(spoil(frame), data)

    none, columns = caught.value.validated.valid, [*data.features, "id", "at"]
    pd.testing.assert_series_equal(
        none[columns].dtypes, validate(frame, data).valid.dtypes[columns]
    )
    assert none.empty


@pytest.mark.parametrize("index", [np.zeros(600, dtype=int), [f"i{n}" for n in range(600)]])
def test_validation_ignores_the_index_of_a_batch(frame, data, index):
    frame.loc[3, "amount"] = -1

    validated = validate(frame.set_axis(index), data)

    assert validated.quarantined["id"].tolist() == ["r3"]


def test_invalid_unicode_refuses_its_row_and_not_the_batch(frame, data):
    frame["plan"] = frame["plan"].astype(object)
    frame.loc[3, "plan"] = "\ud800"

    validated = validate(frame, data)

    assert validated.quarantined["id"].tolist() == ["r3"]


@given(FRAMES)
@settings(max_examples=15, deadline=None)
def test_every_refused_row_can_be_stored(data, tmp_path_factory, frame):
    validated = outcome(frame, data)

    path = quarantine(validated, tmp_path_factory.mktemp("quarantine"), "b")

    stored = 0 if path is None else len(pd.read_parquet(path))
    assert stored == len(validated.quarantined)


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1, 2**70], dtype=object),
        pd.Series([1, "a"], dtype=object),
        pd.Series([[1], None], dtype=object),
        pd.Series([b"a", 1.5], dtype=object),
        pd.Series([1, "a"], dtype="category"),
        pd.Series([1j, 2j]),
        pd.Series(["\ud800", "a"], dtype=object),
        pd.Series([pd.Timestamp("2026-01-01"), "soon"], dtype=object),
    ],
)
def test_columns_of_mixed_types_are_stored_as_text(tmp_path, values):
    frame = pd.DataFrame({"x": values, 7: [1, 2], REASON: "x must be a number"})

    path = quarantine(Validated(frame[:0], frame, {}), tmp_path, "2026-01-05T00:00:00")

    stored = pd.read_parquet(path)
    assert len(stored) == 2
    assert str(values[1]) in str(stored["x"].tolist()) or values[1] is None


def test_quarantining_a_batch_again_replaces_its_file(tmp_path, frame, data):
    frame.loc[3, "amount"] = -1
    validated = validate(frame, data)

    once = quarantine(validated, tmp_path / "new", "b").read_bytes()
    again = quarantine(validated, tmp_path / "new", "b").read_bytes()

    assert once == again
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["b.parquet"]


def test_the_file_of_a_batch_that_has_become_valid_is_removed(tmp_path, frame, data):
    path = quarantine(
        validate(frame.assign(amount=[-1, *frame["amount"][1:]]), data), tmp_path, "b"
    )

    assert quarantine(validate(frame, data), tmp_path, "b") is None
    assert not path.exists()


def test_kept_rows_are_unchanged_and_their_folder_is_made(tmp_path, frame):
    keep(frame, tmp_path / "new" / "b broken.parquet")

    (path,) = (tmp_path / "new").iterdir()
    assert path.name == "b broken.parquet"
    pd.testing.assert_frame_equal(pd.read_parquet(path), frame)


def test_a_label_that_is_none_of_the_task_leaves_its_row_valid_and_unlabelled(frame, data):
    frame["churned"] = frame["churned"].astype(object)
    frame.loc[[3, 5], "churned"] = ["unknown", 9]

    validated = with_labels(validate(frame, data), data, "classification")

    assert len(validated.valid) == len(frame)
    assert validated.valid.index[validated.valid["churned"].isna()].tolist() == [3, 5]
    came = as_they_came(validated, "churned")["churned"]
    assert came[[3, 5]].tolist() == ["unknown", 9]
    assert came.drop([3, 5]).tolist() == frame["churned"].drop([3, 5]).tolist()


def test_rows_without_a_target_have_no_labels(frame, data):
    validated = validate(frame.drop(columns="churned"), data)

    assert with_labels(validated, data, "classification") is validated
    assert as_they_came(validated, "churned") is validated.valid


def test_keys_may_come_again_at_another_time_where_they_need_not_be_unique(frame, data):
    repeated = Data.model_validate(data.model_dump() | {"key_unique": False})
    frame.loc[[3, 4, 5], "id"] = "r2"
    frame.loc[5, "at"] = frame.loc[4, "at"]

    assert validate(frame, data).reasons == {"id must be unique": 3}
    validated = validate(frame, repeated)
    assert validated.reasons == {"id and at must be unique together": 1}
    assert validated.quarantined["amount"].tolist() == frame["amount"][[5]].tolist()


def test_two_rows_of_a_key_within_one_microsecond_are_one_row(frame, data):
    repeated = Data.model_validate(data.model_dump() | {"key_unique": False})
    frame["at"] = frame["at"].astype("datetime64[ns]")
    frame.loc[[3, 4, 5], "id"] = "r2"
    frame.loc[[3, 4, 5], "at"] = frame.loc[3, "at"] + pd.to_timedelta([1100, 1900, 2000], "ns")

    found = validate(frame, repeated)

    assert found.reasons == {"id and at must be unique together": 1}
    assert found.quarantined["amount"].tolist() == frame["amount"][[4]].tolist()
    seen = Seen()
    parts = [split(frame.loc[[row]], repeated, seen) for row in (3, 4, 5)]
    assert [len(part.valid) for part in parts] == [1, 0, 1]


@pytest.mark.parametrize("unique", [True, False])
def test_rows_without_a_key_are_refused_for_that_alone(frame, data, unique):
    declared = Data.model_validate(data.model_dump() | {"key_unique": unique})
    frame.loc[[3, 4], "id"] = None
    frame.loc[4, "at"] = frame.loc[3, "at"]

    assert validate(frame, declared).reasons == {"id must not be null": 2}


def test_keys_that_a_join_takes_for_one_are_one_key():
    rows = pd.DataFrame(
        {
            "id": pd.Series(["7", 7.0, " 7 ", "7.0", "07", "  ", "", 8], dtype=object),
            "at": "2026-01-01",
            "x": 1.0,
        }
    )
    data = Data.model_validate(
        {
            "train": {"kind": "file", "path": "rows.csv"},
            "key": "id",
            "time": "at",
            "target": "y",
            "features": {"x": {"type": "numeric"}},
        }
    )

    found = validate(rows, data)

    assert found.valid["id"].tolist() == ["7", "07", "8"]
    assert found.reasons == {"id must be unique": 3, "id must not be null": 2}
    seen = Seen()
    parts = [split(rows.iloc[[i]], data, seen) for i in range(len(rows))]
    assert [len(part.valid) for part in parts] == [1, 0, 0, 0, 1, 0, 0, 1]
    labels = pd.DataFrame({"id": [7], "y": [1]})
    assert join_labels(found.valid, labels, data)["y"].tolist()[:1] == [1]
