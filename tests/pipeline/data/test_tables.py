import numpy as np
import pandas as pd
import pytest

from pipeline.config import OWN_KEY, OWN_TIME, Data
from pipeline.data.tables import progress, read
from pipeline.data.validation import validate
from pipeline.errors import DataError

NOW = pd.Timestamp.now("UTC").tz_localize(None)
FEATURES = {"size": {"type": "numeric", "nullable": True}, "kind": {"type": "categorical"}}


@pytest.fixture
def make_data(tmp_path):
    """Declares a CSV file of the given columns."""

    def make(columns, **given):
        path = tmp_path / "rows.csv"
        pd.DataFrame(columns).to_csv(path, index=False)
        train = {"kind": "file", "path": str(path)}
        return Data.model_validate(
            {"train": train, "target": "late", "features": FEATURES, **given}
        )

    return make


def columns_of(n):
    rows = {"size": np.arange(n) * 1.5, "kind": ["a", "b"] * (n // 2), "late": [0, 1] * (n // 2)}
    return rows | {"at": pd.date_range("2026-01-01", periods=n, freq="h")}


def hourly(**given):
    return {"arrival": {"start": "2026-01-01", "every": "1h", **given}}


def test_rows_without_a_time_come_one_after_another_in_their_order(make_data):
    data = make_data(columns_of(48), **hourly())

    day = read(data.train, data, start=pd.Timestamp("2026-01-02"), end=pd.Timestamp("2026-01-03"))

    assert list(day[OWN_TIME]) == list(pd.date_range("2026-01-02", periods=24, freq="h"))
    assert list(day["size"]) == [n * 1.5 for n in range(24, 48)]
    assert list(day[OWN_KEY]) == [str(n) for n in range(24, 48)]


def test_the_shuffled_rows_come_first_each_once_and_always_alike(make_data):
    data = make_data(columns_of(400), **hourly(shuffled=300))

    rows, again = read(data.train, data), read(data.train, data)

    places = rows[OWN_KEY].astype(int)
    assert rows.equals(again)
    assert sorted(places[:300]) == list(range(300))
    assert list(places[300:]) == list(range(300, 400))
    assert abs(np.corrcoef(np.arange(300), places[:300])[0, 1]) < 0.2  # 3.4 standard errors


def test_rows_that_are_added_later_change_no_earlier_row(make_data):
    before = make_data(columns_of(100), **hourly(shuffled=100))
    rows = read(before.train, before)

    after = make_data(columns_of(120), **hourly(shuffled=100))

    assert read(after.train, after)[:100].equals(rows)


def test_another_live_table_starts_at_its_own_time_with_keys_of_its_own(make_data, tmp_path):
    pd.DataFrame(columns_of(10)).to_csv(tmp_path / "live.csv", index=False)
    live = {"kind": "file", "path": str(tmp_path / "live.csv")}
    data = make_data(columns_of(48), live=live, **hourly(live_start="2026-01-03", shuffled=48))

    rows, keys = read(data.live, data), read(data.train, data)[OWN_KEY]

    assert rows[OWN_TIME][0] == pd.Timestamp("2026-01-03")
    assert list(rows["size"]) == [n * 1.5 for n in range(10)]
    assert not set(rows[OWN_KEY]) & set(keys)


@pytest.mark.parametrize("given", [{"every": "3650D"}, {"start": "2261-12-31"}])
def test_rows_that_would_come_after_all_times_are_refused(make_data, given):
    data = make_data(columns_of(100), arrival={"start": "2026-01-01", "every": "1D", **given})

    with pytest.raises(DataError, match=r"Set a shorter data\.arrival\.every\.$"):
        read(data.train, data)


def test_rows_without_a_key_are_identified_by_what_they_hold(make_data):
    data = make_data(columns_of(40), time="at")
    rows = read(data.train, data)

    half = read(data.train, data, start=pd.Timestamp("2026-01-01T20:00"))
    labelled = make_data(columns_of(40) | {"late": [1] * 40}, time="at")

    assert rows[OWN_KEY].is_unique
    assert list(half[OWN_KEY]) == list(rows[OWN_KEY][20:])
    assert list(read(labelled.train, labelled)[OWN_KEY]) == list(rows[OWN_KEY])


def test_equal_rows_without_a_key_are_all_kept(make_data):
    columns = {name: [values[0]] * 3 for name, values in columns_of(4).items()}
    data = make_data(columns, time="at")

    rows = read(data.train, data)

    assert rows[OWN_KEY].is_unique
    assert len(validate(rows, data).valid) == 3


def test_a_key_does_not_depend_on_how_a_source_spells_a_row(make_data, tmp_path):
    columns = columns_of(20)
    csv = make_data(columns, time="at")
    pd.DataFrame(columns).to_parquet(tmp_path / "rows.parquet")
    parquet = make_data(
        columns, time="at", train={"kind": "file", "path": str(tmp_path / "rows.parquet")}
    )

    assert list(read(csv.train, csv)[OWN_KEY]) == list(read(parquet.train, parquet)[OWN_KEY])


def test_a_row_that_lacks_a_feature_still_reaches_validation(make_data):
    columns = columns_of(20)
    del columns["size"]
    data = make_data(columns, time="at")

    assert read(data.train, data)[OWN_KEY].is_unique


HOUR, DAY = pd.Timedelta("1h"), pd.Timedelta("1D")


@pytest.mark.parametrize(
    ("newest", "end", "state"),
    [
        ("2020-01-01", "2020-01-01T00:30", "whole"),
        ("2020-01-01", "2020-02-01", "silent"),
        (NOW, NOW + DAY / 2, "open"),
        (NOW + 2 * DAY, NOW + DAY, "whole"),  # rows of a simulation
    ],
)
def test_a_batch_is_whole_when_its_rows_or_later_ones_are_there(make_data, newest, end, state):
    columns = columns_of(2) | {"at": pd.Timestamp(newest).isoformat()}
    data, end = make_data(columns, time="at"), pd.Timestamp(end)

    assert progress(data.train, data, end - DAY, end) == state


def test_a_batch_whose_times_cannot_be_read_has_come(make_data):
    columns = columns_of(2) | {"at": ["2020-01-01", "yesterday"]}
    data, end = make_data(columns, time="at"), pd.Timestamp("2020-02-01")

    assert progress(data.train, data, end - HOUR, end) == "whole"


@pytest.mark.parametrize(("end", "state"), [("2026-01-03", "whole"), ("2026-01-03T01:00", "open")])
def test_a_batch_without_times_is_whole_with_its_last_row(make_data, end, state):
    data, end = make_data(columns_of(48), **hourly()), pd.Timestamp(end)

    assert progress(data.train, data, end - 24 * HOUR, end) == state


def test_derived_columns_are_added_and_validated(make_data):
    features = {"hour": {"type": "numeric"}, "much": {"type": "categorical"}}
    columns = columns_of(4) | {"departs": ["2026-01-01T07:00", "20260102", "soon", None]}
    derive = {"hour": "hour(departs)", "much": "bins(size, 2)"}
    data = make_data(columns, time="at", features=features, derive=derive)

    found = validate(read(data.train, data), data)

    assert list(found.valid["hour"]) == [7, 0]
    assert list(found.valid["much"]) == ["below 2", "below 2"]
    assert found.reasons == {"hour must be a number": 1, "hour must not be null": 1}


def test_a_source_that_lacks_the_origin_of_a_column_is_refused(make_data):
    data = make_data(columns_of(4), time="at", derive={"size": "log(weight)"})

    with pytest.raises(DataError, match="holds the columns size already"):
        read(data.train, data)

    columns = columns_of(4)
    del columns["size"]
    data = make_data(columns, time="at", derive={"size": "log(weight)"})
    with pytest.raises(DataError, match="lack the columns weight"):
        read(data.train, data)


def test_the_time_of_a_row_can_be_derived_from(make_data):
    data = make_data(
        columns_of(30), time="at", features={"h": {"type": "numeric"}}, derive={"h": "hour(at)"}
    )

    assert list(read(data.train, data)["h"][22:26]) == [22, 23, 0, 1]
