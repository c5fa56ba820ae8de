import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pandas as pd
import pytest
from pydantic import ValidationError

from pipeline.columns import as_time
from pipeline.config import Data, FileSource, Numeric
from pipeline.data import sources, tables
from pipeline.errors import DataError

CSV = "id,at,x\n{0}a,2026-01-01,1\n{0}b,2026-01-02,2\n"


def read(path, **options):
    source = FileSource(kind="file", path=str(path), **options)
    columns = {"x": Numeric(), "month": Numeric()}
    return sources.read(source, time="at", key="id", columns=columns)


def test_separators_after_the_last_column_name_no_column_twice(tmp_path):
    (tmp_path / "x.csv").write_text("id,at,x,,\na,2026-01-01,1,,\n")

    assert ids(tmp_path / "x.csv") == ["a"]


def ids(path, **options):
    return read(path, **options)["id"].tolist()


PACKED = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def zipped(*texts):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for i, text in enumerate(texts):
            archive.writestr(f"{i}.csv", text)
    return packed.getvalue()


@pytest.mark.parametrize("ending", PACKED)
def test_a_compressed_file_is_unpacked_as_its_ending_tells(tmp_path, ending):
    (tmp_path / f"rows.csv.{ending}").write_bytes(PACKED[ending](CSV.format("r").encode()))

    assert ids(tmp_path / f"rows.csv.{ending}") == ["ra", "rb"]


def test_compression_and_format_can_be_named_where_the_ending_does_not_tell(tmp_path):
    (tmp_path / "rows").write_bytes(gzip.compress(CSV.format("r").encode()))
    pd.DataFrame({"id": ["p"], "at": ["2026-01-01"]}).to_parquet(tmp_path / "table")

    assert ids(tmp_path / "rows", format="csv", compression="gzip") == ["ra", "rb"]
    assert ids(tmp_path / "table", format="parquet") == ["p"]


def test_a_file_named_like_a_packed_one_can_be_read_as_it_is(tmp_path):
    (tmp_path / "rows.gz").write_text(CSV.format("r"))

    assert ids(tmp_path / "rows.gz", format="csv", compression=None) == ["ra", "rb"]


@pytest.mark.parametrize("name", ["rows", "rows.xlsx", "rows.json", "rows.tar.gz", "rows.csv.tgz"])
def test_a_file_of_no_known_ending_is_refused(tmp_path, name):
    (tmp_path / name).write_text(CSV.format("r"))

    with pytest.raises(DataError, match=rf"ending of file '.*{name}' must tell its format"):
        read(tmp_path / name)


def test_an_archive_of_one_file_is_read(tmp_path):
    (tmp_path / "rows.csv.zip").write_bytes(zipped(CSV.format("r")))

    assert ids(tmp_path / "rows.csv.zip") == ["ra", "rb"]


@pytest.mark.parametrize("texts", [[], ["", ""], [CSV.format("a"), CSV.format("b")]])
def test_an_archive_of_several_files_or_none_is_refused_and_names_them(tmp_path, texts):
    (tmp_path / "rows.csv.zip").write_bytes(zipped(*texts))

    with pytest.raises(DataError, match=rf"rows\.csv\.zip.*holds {len(texts)} files") as caught:
        read(tmp_path / "rows.csv.zip")
    assert all(f"{i}.csv" in str(caught.value) for i in range(len(texts)))


def test_all_files_of_an_archive_are_read_where_they_are_named(tmp_path):
    (tmp_path / "rows.zip").write_bytes(zipped(CSV.format("a"), CSV.format("b")))
    with tarfile.open(tmp_path / "rows.tar", "w") as archive:
        for name in "ab":
            (tmp_path / f"{name}.csv").write_text(CSV.format(name))
            archive.add(tmp_path / f"{name}.csv", f"{name}.csv")

    for kind in ("zip", "tar"):
        assert ids(f"{kind}://*.csv::{tmp_path}/rows.{kind}") == ["aa", "ab", "ba", "bb"]


@pytest.mark.parametrize("path", ["{}", "{}/", "{}/month=*/*.csv", "{}/month=0[12]/part.csv"])
def test_the_keys_of_partitioned_folders_are_columns(tmp_path, path):
    for month in ("01", "02"):
        folder = tmp_path / f"month={month}" / "shop=a%20b"
        (folder if path in {"{}", "{}/"} else folder.parent).mkdir(parents=True)
        (folder if path in {"{}", "{}/"} else folder.parent).joinpath("part.csv").write_text(
            CSV.format(month)
        )
    (tmp_path / "_SUCCESS").touch()

    found = read(path.format(tmp_path))

    assert found["id"].tolist() == ["01a", "01b", "02a", "02b"]
    assert found["month"].tolist() == [1, 1, 2, 2]
    assert "shop" not in found or found["shop"].unique().tolist() == ["a b"]


def test_names_of_folders_that_spell_null_are_null_and_obey_the_decimal_point(tmp_path):
    for month, shop in (("-1", "a"), ("-1,00", "?"), ("1,5", "b"), ("1.5", "c")):
        folder = tmp_path / f"month={month}" / f"shop={shop}"
        folder.mkdir(parents=True)
        (folder / "part.csv").write_text(f"id;at\n{shop}{month};2026-01-01\n")

    found = read(tmp_path, sep=";", decimal=",", na_values=["-1", "?"])
    found = found.set_index("id")[["month", "shop"]].astype(object)

    assert found.where(found.notna(), None).to_dict("index") == {
        "a-1": {"month": None, "shop": "a"},
        "?-1,00": {"month": None, "shop": None},
        "b1,5": {"month": 1.5, "shop": "b"},
        "c1.5": {"month": "'1.5'", "shop": "c"},
    }


def test_partitioned_folders_that_pyarrow_wrote_give_the_same_rows(tmp_path):
    frame = pd.DataFrame(
        {"id": ["a", "b"], "at": pd.to_datetime(["2026-01-01", "2026-01-02"]), "shop": ["01", None]}
    )
    frame.to_parquet(tmp_path / "rows", partition_cols=["shop"])

    found = read(tmp_path / "rows").sort_values("id", ignore_index=True)

    assert found["shop"][0] == "01"
    assert found["shop"].isna().tolist() == [False, True]


def test_folders_of_truth_values_are_numbers_as_in_a_file(tmp_path):
    frame = pd.DataFrame({"id": [*"abc"], "x": [True, False, None], "at": "2026-01-01"})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows", partition_cols=["x"])

    folders = read(tmp_path / "rows").sort_values("id")["x"].tolist()

    assert folders[:2] == read(tmp_path / "rows.csv")["x"].tolist()[:2] == [1, 0]
    assert pd.isna(folders[2])


def test_a_folder_of_a_truth_value_beside_a_number_is_no_number(tmp_path):
    for value in ("True", "3"):
        (tmp_path / f"month={value}").mkdir()
        (tmp_path / f"month={value}" / "rows.csv").write_text(CSV.format(value))

    assert read(tmp_path)["month"].tolist() == [3, 3, "True", "True"]


def test_a_column_of_a_file_counts_for_more_than_a_folder(tmp_path):
    (tmp_path / "id=z").mkdir()
    (tmp_path / "id=z" / "rows.csv").write_text(CSV.format("r"))

    assert ids(tmp_path) == ["ra", "rb"]


@pytest.mark.parametrize("name", ["rows[1].csv", "[ab].csv", "what?.csv", "r*.csv"])
def test_a_name_with_signs_of_a_glob_is_found(tmp_path, name):
    (tmp_path / name).write_text(CSV.format("r"))
    (tmp_path / "ra.csv").write_text(CSV.format("other"))

    assert ids(tmp_path / name) == ["ra", "rb"]


@pytest.mark.parametrize("empty", ["", "id,at,x\n", "\n\n"])
def test_an_empty_file_among_others_holds_no_rows(tmp_path, empty):
    (tmp_path / "a.csv").write_text(empty)
    (tmp_path / "b.csv").write_text(CSV.format("b"))

    assert ids(tmp_path / "*.csv") == ["ba", "bb"]


def test_files_that_are_all_empty_are_refused(tmp_path):
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.csv").touch()

    with pytest.raises(DataError, match="is empty: no file has a header"):
        read(tmp_path / "*.csv")


def test_an_empty_parquet_file_is_named(tmp_path):
    (tmp_path / "a.parquet").touch()

    with pytest.raises(DataError, match=r"a\.parquet' must be readable"):
        read(tmp_path / "*.parquet")


DATES = [
    ("%d/%m/%Y %H:%M", ["05/02/2026 07:30", "28/02/2026 00:00"], "2026-02-05 07:30"),
    ("%m-%d-%y", ["02-05-26", "02-28-26"], "2026-02-05"),
    ("%Y%m%d", ["20260205", "20260228"], "2026-02-05"),
    ("%d.%m.%Y %H:%M%z", ["05.02.2026 07:30+0200", "28.02.2026 00:00+0200"], "2026-02-05 05:30"),
    ("s", [1_770_276_600, 1_772_236_800], "2026-02-05 07:30"),
    ("ms", [1_770_276_600_123, 1_772_236_800_000], "2026-02-05 07:30:00.123"),
]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(("written", "times", "first"), DATES, ids=[one[0] for one in DATES])
def test_times_are_read_as_date_format_says(tmp_path, ending, written, times, first):
    path = tmp_path / f"rows.{ending}"
    rows = pd.DataFrame({"id": ["a", "b"], "at": times, "x": [1, 2]})
    rows.to_csv(path, index=False) if ending == "csv" else rows.to_parquet(path)
    source = FileSource(kind="file", path=str(path), date_format=written)

    found = sources.read(source, time="at", end=pd.Timestamp("2026-02-20"))

    assert found["at"].tolist() == [pd.Timestamp(first)]


def test_a_time_in_another_form_stays_for_validation_to_refuse_or_iso_8601_to_read(tmp_path):
    (tmp_path / "r.csv").write_text("id,at\na,05/02/2026\nb,2026-02-06\nc,02/28/2026\nd,\n")

    found = read(tmp_path / "r.csv", date_format="%d/%m/%Y")

    assert found["at"].tolist()[2] == "02/28/2026"
    assert as_time(found["at"]).tolist()[:2] == [
        pd.Timestamp("2026-02-05"),
        pd.Timestamp("2026-02-06"),
    ]
    assert as_time(found["at"]).isna().tolist() == [False, False, True, True]


def test_times_of_labels_and_of_derived_columns_are_written_alike(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("id,at,due,known,y\na,05/02/2026,06/02/2026,07/02/2026,1\n")
    source = FileSource(kind="file", path=str(path), date_format="%d/%m/%Y")
    data = Data(
        train=source,
        labels=source,
        key="id",
        time="at",
        target="y",
        label_time="known",
        features={"day": Numeric()},
        derive={"day": "day(due)"},
    )

    assert tables.read(source, data)[["day", "known"]].values.tolist() == [
        [6.0, pd.Timestamp("2026-02-07", tz="UTC")]
    ]
    assert as_time(tables.read_labels(data, captures=path)["known"]).tolist() == [
        pd.Timestamp("2026-02-07")
    ]


@pytest.mark.parametrize("wrong", ["", "%H:%M", "%d/%m", "dd/mm/yyyy", "minutes", "%Q"])
def test_a_form_that_does_not_name_a_day_is_refused(wrong):
    with pytest.raises(ValidationError, match="must name year, month and day"):
        FileSource(kind="file", path="r.csv", date_format=wrong)


ENCRYPTED, METHOD_97 = (6, 8, b"\x01\x00"), (8, 10, b"\x61\x00")
"""Places in the two headers of a zip archive, and what they hold."""


@pytest.mark.parametrize("change", [ENCRYPTED, METHOD_97], ids=["encrypted", "unknown method"])
def test_an_archive_that_cannot_be_unpacked_is_refused(tmp_path, change):
    local, central, flag = change
    packed = bytearray(zipped(CSV.format("x")))
    for start, place in ((0, local), (packed.index(b"PK\x01\x02"), central)):
        packed[start + place : start + place + 2] = flag
    (tmp_path / "rows.csv.zip").write_bytes(packed)

    with pytest.raises(DataError, match=r"'.*rows\.csv\.zip' must be readable"):
        read(tmp_path / "rows.csv.zip")


@pytest.mark.parametrize("protocol", ["zip", "tar"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, protocol):
    (tmp_path / "rows.csv").write_text(CSV.format("x"))

    with pytest.raises(DataError, match="cannot be reached"):
        read(f"{protocol}://*.csv::{tmp_path / 'rows.csv'}")
