"""Tables that are read and validated in parts, beside the same tables at once."""

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from pipeline.config import OWN_KEY, OWN_TIME, REASON, Data
from pipeline.data import tables
from pipeline.data.parts import Checked
from pipeline.data.validation import quarantine, validate
from pipeline.errors import DataError, RegistryError

SIZES = [1, 7, 1_000]
FEW = [7, 1_000]
"""Sizes of parts, in rows, for tests that also validate each part: 20 ms a part."""
FEATURES = {
    "size": {"type": "numeric", "min": -2, "nullable": True},
    "kind": {"type": "categorical", "values": ["a", "b"], "nullable": True},
}


@pytest.fixture
def make(tmp_path):
    """Declares a source of rows with key, time, target and two features."""

    def made(source, **given):
        roles = {"key": "id", "time": "at"} | given
        if isinstance(source, str):
            source = {"kind": "file", "path": str(tmp_path / source)}
        return Data.model_validate(
            {"train": source, "target": "late", "features": FEATURES, **roles}
        )

    return made


def rows_of(n, seed=0):
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": [f"r{seed}-{i}" for i in range(n)],
            "at": pd.date_range("2026-01-01", periods=n, freq="h", unit="us"),
            "size": random.normal(size=n),
            "kind": random.choice(["a", "b", "c"], n, p=[0.5, 0.4, 0.1]),
            "late": random.integers(0, 2, n),
        }
    )


def read(data, size, **window):
    """Rows in parts of a size, each checked not to be larger."""
    parts = list(tables.read_parts(data.train, data, size=size, **window))
    assert max(map(len, parts)) <= size
    return pd.concat(parts, ignore_index=True)


def both(data, size, folder):
    """Valid rows, refused rows and reasons, of the whole and of parts."""
    rows = tables.read(data.train, data)
    whole = validate(rows, data)
    quarantine(whole, folder, "whole")
    (folder / "refused").mkdir()
    checked = Checked(data, "classification", "parts", folder / "refused")
    valid = [checked.add(part) for part in tables.read_parts(data.train, data, size=size)]
    checked.quarantine(folder)
    return (whole.valid, pd.read_parquet(folder / "whole.parquet"), whole.reasons), (
        pd.concat(valid, ignore_index=True),
        pd.read_parquet(folder / "parts.parquet"),
        checked.reasons,
    )


@pytest.mark.parametrize("size", SIZES)
def test_row_groups_of_any_size_give_the_rows_of_a_window_in_their_order(make, tmp_path, size):
    rows = rows_of(200)
    rows.to_parquet(tmp_path / "rows.parquet", row_group_size=33)
    data = make("rows.parquet")

    found = read(data, size, start=rows["at"][50], end=rows["at"][150])

    pd.testing.assert_frame_equal(found, rows[50:150].reset_index(drop=True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_files_with_different_columns_give_the_columns_of_all(make, tmp_path, size, ending):
    (tmp_path / "rows").mkdir()
    frames = [rows_of(20, 1), rows_of(30, 2).assign(more="x"), rows_of(0), rows_of(9, 3)]
    frames[3] = frames[3].drop(columns="kind")
    for place, frame in enumerate(frames):
        writer = frame.to_csv if ending == "csv" else frame.to_parquet
        writer(tmp_path / "rows" / f"{place}.{ending}", index=False)
    data = make("rows")

    found = read(data, size)

    pd.testing.assert_frame_equal(
        found.assign(at=pd.to_datetime(found["at"]).dt.as_unit("us")),
        tables.read(data.train, data),
        check_dtype=False,
    )
    assert list(found.columns) == [*rows_of(1).columns, "more"]


@pytest.mark.parametrize("size", FEW)
@pytest.mark.parametrize("unique", [True, False])
def test_keys_that_came_before_are_refused_as_within_a_part(make, tmp_path, size, unique):
    rows = pd.concat([rows_of(40), rows_of(60)[20:], rows_of(5).assign(at=None)])
    rows.assign(id=rows["id"].where(rows["size"] < 1.5)).to_csv(tmp_path / "rows.csv", index=False)
    data = make("rows.csv", key_unique=unique)

    (valid, refused, reasons), found = both(data, size, tmp_path)

    pd.testing.assert_frame_equal(found[0], valid)
    pd.testing.assert_frame_equal(found[1], refused)
    assert found[2] == reasons
    assert any("unique" in reason for reason in reasons)
    assert len(valid) + len(refused) == len(rows)


@pytest.mark.parametrize("size", FEW)
def test_refused_rows_of_many_types_are_stored_as_from_one_part(make, tmp_path, size):
    rows = rows_of(50)
    rows = rows.assign(size=rows["size"].astype(object), note=[1, 2.5, "x", None, True] * 10)
    rows.loc[::5, "size"] = "many"
    rows.loc[1::5, "kind"] = "c"
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'rows.db'}")
    rows.to_sql("rows", engine, index=False)
    engine.dispose()
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    data = make({"kind": "sql", "url": url, "query": "SELECT * FROM rows"})

    (valid, refused, reasons), found = both(data, size, tmp_path)

    pd.testing.assert_frame_equal(found[0][valid.columns[:-1]], valid[valid.columns[:-1]])
    pd.testing.assert_frame_equal(found[1].astype(str), refused.astype(str))
    assert found[2] == reasons


@pytest.mark.parametrize("size", FEW)
@pytest.mark.parametrize(
    "values",
    [
        ["True"] * 30,
        ["True"] * 15 + ["1"] * 15,
        ["1"] * 15 + ["false"] * 15,
        [""] * 15 + ["TRUE"] * 15,
        [""] * 15 + ["TRUE"] * 14 + ["2"],
        ["0.1", "x", "1e400", "9223372036854775808", " 4"] * 6,
    ],
)
def test_truth_values_and_numbers_of_a_column_count_as_in_one_part(make, tmp_path, size, values):
    rows_of(30).assign(size=values).to_csv(tmp_path / "rows.csv", index=False)
    data = make("rows.csv")

    (valid, refused, reasons), found = both(data, size, tmp_path)

    pd.testing.assert_frame_equal(found[0], valid)
    assert list(found[1][REASON]) == list(refused[REASON])
    assert found[2] == reasons


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shuffled", [0, 20, 1_000])
def test_rows_without_a_time_are_numbered_on_from_part_to_part(make, tmp_path, size, shuffled):
    rows_of(100).drop(columns=["id", "at"]).to_csv(tmp_path / "rows.csv", index=False)
    arrival = {"start": "2026-01-01", "every": "1h", "shuffled": shuffled}
    data = make("rows.csv", key=OWN_KEY, time=OWN_TIME, arrival=arrival)
    window = {"start": pd.Timestamp("2026-01-02"), "end": pd.Timestamp("2026-01-04")}

    found = list(tables.read_parts(data.train, data, size=size, **window))

    pd.testing.assert_frame_equal(
        pd.concat(found, ignore_index=True), tables.read(data.train, data, **window)
    )


def test_rows_that_would_come_after_all_times_are_refused_in_a_later_part(make, tmp_path):
    rows_of(100).drop(columns=["id", "at"]).to_csv(tmp_path / "rows.csv", index=False)
    arrival = {"start": "2026-01-01", "every": "3650D"}
    data = make("rows.csv", key=OWN_KEY, time=OWN_TIME, arrival=arrival)

    with pytest.raises(DataError, match=r"Set a shorter data\.arrival\.every\.$"):
        read(data, 10)


@pytest.mark.parametrize("size", SIZES)
def test_rows_without_a_key_are_counted_from_part_to_part(make, tmp_path, size):
    rows = rows_of(50).drop(columns="id").iloc[[0, 1, 2, *range(50), 1, 1, 7]]
    rows.to_csv(tmp_path / "rows.csv", index=False)
    data = make("rows.csv", key=OWN_KEY)

    found = read(data, size)

    assert list(found[OWN_KEY]) == list(tables.read(data.train, data)[OWN_KEY])
    assert found[OWN_KEY].is_unique


@pytest.mark.parametrize("size", SIZES)
def test_a_column_without_a_date_is_refused_after_the_last_part(make, tmp_path, size):
    rows_of(30).assign(at="noon").to_csv(tmp_path / "rows.csv", index=False)
    data = make("rows.csv")
    with pytest.raises(DataError) as whole:
        tables.read(data.train, data)

    with pytest.raises(DataError) as parts:
        read(data, size)

    assert str(parts.value) == str(whole.value)
    assert "Got 'noon' and no date in 30 rows" in str(whole.value)


@pytest.mark.parametrize("size", SIZES)
def test_one_date_of_another_part_keeps_a_column_of_times(make, tmp_path, size):
    rows = rows_of(30)
    rows["at"] = rows["at"].astype(str).where(rows.index == 29, "noon")
    rows.to_csv(tmp_path / "rows.csv", index=False)
    data = make("rows.csv")

    assert len(read(data, size)) == 30


@pytest.mark.parametrize("size", SIZES)
def test_a_row_with_too_many_values_is_refused_wherever_it_is(make, tmp_path, size):
    text = rows_of(30).to_csv(index=False)
    (tmp_path / "rows.csv").write_text(text + "r,2026-01-01,1,a,1,2\n")
    data = make("rows.csv")

    with pytest.raises(DataError, match=r"must be readable CSV or Parquet\. Got: "):
        read(data, size)


def test_an_empty_table_is_one_part_with_its_columns(make, tmp_path):
    rows_of(0).to_csv(tmp_path / "rows.csv", index=False)
    data = make("rows.csv")

    [found] = tables.read_parts(data.train, data)

    assert list(found.columns) == list(rows_of(0).columns)
    assert found.empty


def test_postgresql_sends_rows_in_parts(postgres, make):
    engine = sa.create_engine(postgres)
    rows_of(50).to_sql("streamed", engine, index=False, if_exists="replace")
    engine.dispose()
    query = 'SELECT * FROM streamed WHERE "at" >= :start ORDER BY id'
    data = make({"kind": "sql", "url": postgres, "query": query})
    window = {"start": pd.Timestamp("2026-01-02")}

    found = read(data, 7, **window)

    pd.testing.assert_frame_equal(found, tables.read(data.train, data, **window))
    assert len(found) == 26


def test_a_file_in_the_place_of_the_quarantine_is_named(make, tmp_path):
    data = make("rows.csv")
    place, rows = tmp_path / "quarantine", rows_of(40)
    place.write_text("")
    checked = Checked(data, "classification", "rows", tmp_path)
    checked.add(rows)

    with pytest.raises(RegistryError, match=r"quarantine must be a folder\..* Move it away"):
        checked.quarantine(place)
    with pytest.raises(RegistryError, match=r"quarantine must be a folder\..* Move it away"):
        quarantine(validate(rows, data, source="rows"), place, "rows")
