import gzip

import pandas as pd
import pytest

from pipeline.config import FileSource
from pipeline.data.dialects import dialect
from pipeline.data.sources import read
from pipeline.errors import DataError

ROWS = pd.DataFrame({"name": ["Zoë", "Åsa, née B", None], "x": [1.5, -2.25, 3.0]})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sep": ";"},
        {"sep": ";", "decimal": ","},
        {"sep": "\t"},
        {"sep": "|", "encoding": "cp1252"},
        {"encoding": "utf-8-sig"},
        {"encoding": "utf-16"},
    ],
)
def test_a_file_is_read_as_it_was_written(tmp_path, options):
    path = tmp_path / "rows.csv"
    ROWS.to_csv(path, index=False, **options)

    found = dialect(str(path))

    assert found == options
    frame = read(FileSource(kind="file", path=str(path), **found), time=None, target="x")
    assert frame["x"].tolist() == ROWS["x"].tolist()
    assert frame["name"].tolist()[:2] == ROWS["name"].tolist()[:2]


def test_a_packed_file_is_looked_into(tmp_path):
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(b"a;b\n1;2\n"))

    assert dialect(str(path)) == {"sep": ";"}


def test_a_separator_within_quotes_or_in_some_lines_only_does_not_count(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n"1;2;3",x;y\n2,"z\n;;"\n3,4\n')

    assert dialect(str(path)) == {}


def test_files_that_say_their_types_need_no_options(tmp_path):
    ROWS.to_parquet(tmp_path / "rows.parquet")

    assert dialect(str(tmp_path / "*.parquet")) == {}


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(b"no gzip")

    with pytest.raises(DataError, match=r"rows.csv.gz' cannot be read"):
        dialect(str(path))
