import io
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.columns import as_text, as_time
from pipeline.config import FileSource, Numeric
from pipeline.data import sources
from pipeline.errors import DataError

DAY, HOUR = pd.Timedelta("1D"), pd.Timedelta("1h")
FIRST = pd.Timestamp("2026-01-01")


def read(path, start=None, end=None):
    source = FileSource(kind="file", path=str(path))
    numbers = {name: Numeric() for name in ("row", "value", "x", "y")}
    return sources.read(source, time="at", columns=numbers, start=start, end=end)


def write_days(folder, days=4, rows_a_day=20_000):
    """One file a day, its data in row groups of six hours, large beside its footer."""
    random = np.random.default_rng(0)
    for day in range(days):
        at = pd.date_range(FIRST + day * DAY, periods=rows_a_day, freq=DAY / rows_a_day, unit="us")
        frame = pd.DataFrame({"at": at, "value": random.normal(size=rows_a_day)})
        frame.to_parquet(folder / f"{day}.parquet", row_group_size=rows_a_day // 4)


def spoil(path, row_groups):
    """Overwrite the data of some row groups; the footer stays as it is."""
    metadata = pq.read_metadata(path)
    with path.open("r+b") as file:
        for i in row_groups:
            group = metadata.row_group(i)
            for j in range(group.num_columns):
                column = group.column(j)
                first = min(filter(None, [column.dictionary_page_offset, column.data_page_offset]))
                file.seek(first)
                file.write(b"\xff" * column.total_compressed_size)


class NoDateError(Exception):
    pass


def read_all_then_filter(paths, start, end):
    """What a read of every row of every file gives."""
    frames = [
        pd.read_parquet(path)
        if path.suffix == ".parquet"
        else pd.read_csv(path, dtype={"at": "str"})  # pandas takes a column of nulls for numbers
        for path in paths
    ]
    rows = pd.concat([one for one in frames if len(one)] or frames[:1], ignore_index=True)
    times = as_time(rows["at"])
    unreadable = times.isna() & rows["at"].notna()
    if unreadable.any() and times.isna().all():
        raise NoDateError
    rows = rows if unreadable.any() else rows.assign(at=times)
    inside = (times >= (start or FIRST - 9 * DAY)) & (times < (end or FIRST + 99 * DAY))
    return rows[inside | times.isna()].reset_index(drop=True)


def test_files_outside_of_the_window_are_not_read(tmp_path):
    write_days(tmp_path)
    for day in (0, 1, 3):
        spoil(tmp_path / f"{day}.parquet", range(4))

    found = read(tmp_path / "*.parquet", FIRST + 2 * DAY, FIRST + 3 * DAY)

    pd.testing.assert_frame_equal(found, pd.read_parquet(tmp_path / "2.parquet"))


def test_row_groups_outside_of_the_window_are_not_read(tmp_path):
    write_days(tmp_path, days=1)
    whole = pd.read_parquet(tmp_path / "0.parquet")
    spoil(tmp_path / "0.parquet", [0, 1, 3])

    found = read(tmp_path / "0.parquet", FIRST + 12 * HOUR, FIRST + 18 * HOUR)

    pd.testing.assert_frame_equal(found, whole[10_000:15_000].reset_index(drop=True))


@pytest.mark.parametrize("window", [(None, None), (FIRST, FIRST + 2 * DAY), (None, FIRST + DAY)])
def test_spoilt_data_inside_of_the_window_is_refused(tmp_path, window):
    write_days(tmp_path, days=1)
    spoil(tmp_path / "0.parquet", [1])

    with pytest.raises(DataError, match=r"0\.parquet' must be readable CSV or Parquet"):
        read(tmp_path / "*.parquet", *window)


class Counted(io.BytesIO):
    """A remote file that notes how many bytes are fetched of it."""

    def __init__(self, content, fetched):
        super().__init__(content)
        self.fetched = fetched

    def read(self, size=-1):
        content = super().read(size)
        self.fetched.append(len(content))
        return content


@pytest.fixture
def fetched(monkeypatch):
    """Bytes of each read from the files of `memory://`."""
    sizes, opened = [], MemoryFileSystem._open

    def counted(self, *args, **options):
        return Counted(opened(self, *args, **options).getvalue(), sizes)

    monkeypatch.setattr(MemoryFileSystem, "_open", counted)
    yield sizes
    MemoryFileSystem.store.clear()


def test_of_a_remote_history_only_footers_and_the_window_are_fetched(tmp_path, fetched):
    write_days(tmp_path, days=8, rows_a_day=100_000)
    remote = MemoryFileSystem()
    for path in tmp_path.iterdir():
        remote.pipe_file(f"/history/{path.name}", path.read_bytes())

    found = read("memory://history/*.parquet", FIRST + 2 * DAY, FIRST + 3 * DAY)

    assert len(found) == 100_000
    a_day, footers = remote.size("/history/2.parquet"), 9 * 70_000
    assert a_day < sum(fetched) < a_day + footers < remote.du("/history") / 3


@st.composite
def histories(draw):
    """The rows of several files: how each stores its times, and in row groups of what size."""
    files = []
    for number in range(draw(st.integers(1, 4))):
        hours = draw(st.lists(st.none() | st.integers(0, 30), max_size=12))
        at = pd.Series([None if h is None else FIRST + h * HOUR for h in hours])
        frame = pd.DataFrame(
            {
                "at": pd.to_datetime(at),
                "row": np.arange(len(at)) + 100 * number,
                draw(st.sampled_from(["x", "y"])): np.linspace(0, 1, len(at)),
            }
        )
        files.append((frame, draw(FORMS), draw(st.integers(1, 5))))
    return files


KINDS = {
    "ms": pa.timestamp("ms"),
    "us": pa.timestamp("us"),
    "ns": pa.timestamp("ns"),
    "zone": pa.timestamp("us", "America/New_York"),
    "date": pa.date32(),
    "text": pa.string(),
    "odd text": pa.string(),
}
FORMS = st.sampled_from([*KINDS, "csv", "csv.gz"])


def store(frame, form, size, path):
    """Write a file whose times are stored in one of `FORMS`, with so many rows in a row group."""
    if form not in KINDS:
        frame.to_csv(path.with_suffix(f".{form}"), index=False)
        return path.with_suffix(f".{form}")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    at = table["at"].cast(KINDS[form], safe=False)
    at = at.fill_null("soon") if form == "odd text" else at
    path = path.with_suffix(".parquet")
    pq.write_table(table.set_column(0, "at", at), path, row_group_size=size)
    return path


HALF_HOURS = st.integers(-10, 70).map(lambda n: FIRST + n * HOUR / 2)
BEYOND_NANOSECONDS = st.sampled_from([pd.Timestamp("0001-01-02"), pd.Timestamp("9000-01-01")])
MOMENTS = st.none() | HALF_HOURS | BEYOND_NANOSECONDS


@pytest.mark.parametrize("hours", [(-1, 1), (0.5, 11), (0.5, 11.5), (-0.5, 12), (1, 24)])
@pytest.mark.parametrize("form", [*KINDS, "csv", "csv.gz"])
def test_every_way_to_store_times_is_compared_with_the_window(tmp_path, form, hours):
    at = pd.Series([*pd.date_range(FIRST, periods=24, freq="h"), None, None])
    path = store(at.sample(frac=1, random_state=0).to_frame("at"), form, 3, tmp_path / "rows")
    window = [FIRST + n * HOUR for n in hours]

    pd.testing.assert_frame_equal(read(path, *window), read_all_then_filter([path], *window))


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view(), pa.float16()])
@pytest.mark.parametrize("size", [None, 1])
def test_columns_of_every_type_can_be_in_a_window(tmp_path, kind, size):
    at = pa.array([FIRST, FIRST + DAY], pa.timestamp("us"))
    table = pa.table({"at": at, "c": pa.array([1, 2]).cast(pa.string()).cast(kind)})
    pq.write_table(table, tmp_path / "rows.parquet")
    source = FileSource(kind="file", path=str(tmp_path / "rows.parquet"))

    window = {"start": FIRST + DAY, "end": FIRST + 2 * DAY}
    parts = sources.read_parts(source, time="at", size=size, **window)

    found = pd.concat(parts)["c"]
    assert [as_text(found).iloc[0], len(found)] == ["2", 1]


def test_a_zone_that_nobody_knows_is_refused_with_its_file(tmp_path):
    moments = pa.array([0], pa.timestamp("us", tz="Mars/Olympus"))
    pq.write_table(pa.table({"at": moments, "x": [1.0]}), tmp_path / "a.parquet")

    with pytest.raises(DataError, match=r"a\.parquet.*Mars/Olympus"):
        read(tmp_path / "a.parquet")


def test_a_pipe_is_not_waited_for_and_a_link_is_read(tmp_path):
    (tmp_path / "rows").mkdir()
    write_days(tmp_path / "rows", days=1, rows_a_day=10)
    folder = tmp_path / "linked"
    folder.mkdir()
    (folder / "a.parquet").symlink_to(next((tmp_path / "rows").glob("*.parquet")))

    assert len(read(folder)) == 10
    os.mkfifo(folder / "b.parquet")
    for path in (folder, folder / "b.parquet", folder / "*.parquet"):
        with pytest.raises(DataError, match=r"b\.parquet', which is none"):
            read(path)


def test_folders_that_spell_null_are_null(tmp_path):
    for value in ("2", "NA", ""):
        (tmp_path / f"x={value}").mkdir()
        frame = pd.DataFrame({"at": [FIRST], "value": ["null"]})
        frame.to_parquet(tmp_path / f"x={value}" / "a.parquet")

    found = read(tmp_path)

    assert sorted(found["x"].dropna()) == [2.0]
    assert found["value"].isna().all()


def test_an_address_without_its_host_is_refused():
    with pytest.raises(DataError, match="cannot be reached"):
        read("github://rows.csv")


def test_a_column_of_unreadable_times_is_refused_unless_other_files_hold_dates(tmp_path):
    odd = pd.DataFrame({"at": ["soon", "later"]})
    odd.to_csv(tmp_path / "odd.csv", index=False)
    pd.DataFrame({"at": [FIRST]}).to_parquet(tmp_path / "dates.parquet")

    found = read(tmp_path / "*", start=FIRST + DAY)

    assert found["at"].tolist() == ["soon", "later"]
    with pytest.raises(DataError, match="must hold dates such as"):
        read(tmp_path / "*.csv", start=FIRST + DAY)


NO_TIME = pd.Series([pd.NaT], dtype="datetime64[us]")


@given(histories(), MOMENTS, MOMENTS)
@example(
    [
        (pd.DataFrame({"at": [pd.NaT, FIRST], "row": [0, 1], "x": [0.0, 1.0]}), "odd text", 1),
        (pd.DataFrame({"at": NO_TIME, "row": [100], "x": [0.0]}), "csv", 1),
    ],
    None,
    None,
)
@settings(max_examples=60, deadline=None)
def test_a_window_holds_what_a_full_read_that_is_filtered_holds(
    tmp_path_factory, files, start, end
):
    folder = tmp_path_factory.mktemp("files")
    paths = [store(*file, folder / f"{i}") for i, file in enumerate(files)]
    try:
        expected = read_all_then_filter(paths, start, end)
    except NoDateError:
        with pytest.raises(DataError, match="must hold dates"):
            read(folder / "*", start, end)
        return

    pd.testing.assert_frame_equal(read(folder / "*", start, end), expected)
