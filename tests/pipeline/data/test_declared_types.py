import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.columns import as_number, as_target, as_time
from pipeline.config import Data, FileSource, FunctionSource, SqlSource
from pipeline.data import sources
from pipeline.data.validation import validate
from pipeline.errors import DataError

DATA = Data.model_validate(
    {
        "train": {"kind": "file", "path": "rows.csv"},
        "key": "id",
        "time": "at",
        "target": "y",
        "features": {
            "code": {"type": "categorical", "nullable": True},
            "shop": {"type": "categorical", "nullable": True},
            "x": {"type": "numeric", "nullable": True},
            "n": {"type": "numeric", "nullable": True},
        },
    }
)
BEYOND = 2**53
TRAPS = ["01", "1", "1.0", "1E5", "TRUE", "False", "NA", "None", "null", "nan", "-", " a ", "0x1F"]


def read(source):
    return sources.read(
        source, time=DATA.time, key=DATA.key, target=DATA.target, columns=DATA.features
    )


def stored_as(form, table, folder):
    """Write a table in one form, and say how it is read back."""
    path = folder / f"rows.{form}"
    if form == "parquet":
        pq.write_table(table, path)
    elif form == "csv":
        table.to_pandas(types_mapper=pd.ArrowDtype).to_csv(path, index=False)
    else:
        return as_sql(table, path)
    return FileSource(kind="file", path=str(path))


def as_sql(table, path):
    kinds = {"x": "REAL", "n": "INTEGER", "y": "INTEGER", "shop": "INTEGER"}
    columns = ", ".join(f"{name} {kinds.get(name, 'TEXT')}" for name in table.column_names)
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE q ({columns})"))
        names = ", ".join(f":{name}" for name in table.column_names)
        rows = [{**row, "at": row["at"].isoformat()} for row in table.to_pylist()]
        connection.execute(sa.text(f"INSERT INTO q VALUES ({names})"), rows)  # noqa: S608 -- our names
    engine.dispose()
    return SqlSource(kind="sql", url=f"sqlite:///{path}", query="SELECT * FROM q")


TEXTS = st.sampled_from(TRAPS) | st.text("aÅ7 .;'", min_size=1, max_size=5)
BIG = st.integers(BEYOND - 2, BEYOND + 9) | st.integers(-9, 9)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "code": st.none() | TEXTS,
            "shop": st.none() | BIG,
            "x": st.none() | st.floats(-1e30, 1e30),
            "n": st.none() | st.integers(-(2**53), 2**53),
            "y": st.none() | st.integers(0, 1),
            "minute": st.integers(0, 10**6),
        }
    ),
    min_size=1,
    max_size=8,
)
KINDS = {"code": pa.string(), "shop": pa.int64(), "x": pa.float64(), "n": pa.int64()}


@given(ROWS)
@settings(max_examples=40, deadline=None)
def test_a_table_gives_the_same_rows_from_csv_parquet_and_sql(tmp_path_factory, rows):
    first = pd.Timestamp("2026-01-01")
    table = pa.table(
        {
            "id": pa.array([f"{BEYOND + i}" for i in range(len(rows))]),
            "at": pa.array(
                [first + pd.Timedelta(row["minute"], "min") for row in rows], pa.timestamp("us")
            ),
            **{name: pa.array([row[name] for row in rows], kind) for name, kind in KINDS.items()},
            "y": pa.array([row["y"] for row in rows], pa.int64()),
        }
    )
    folder = tmp_path_factory.mktemp("forms")
    csv, parquet, sql = (
        validate(read(stored_as(form, table, folder)), DATA) for form in ("csv", "parquet", "db")
    )

    for other in (parquet, sql):
        pd.testing.assert_frame_equal(
            csv.valid.astype({"y": "float64"}), other.valid.astype({"y": "float64"})
        )
        assert csv.reasons == other.reasons
    assert csv.valid["id"].tolist() == table["id"].to_pylist()
    assert [None if pd.isna(code) else code for code in csv.valid["code"]] == [
        row["code"] for row in rows
    ]


def written(folder, text, **options):
    path = folder / "rows.csv"
    path.write_bytes(text.encode(options.get("encoding", "utf-8")))
    return FileSource(kind="file", path=str(path), **options)


@pytest.mark.parametrize("others", [[], ["A1"], ["7"], [""]])
@pytest.mark.parametrize("text", TRAPS)
def test_text_is_read_as_written_whatever_the_other_rows_hold(tmp_path, text, others):
    lines = [f"{text},2026-01-0{i + 1},{code}" for i, code in enumerate([text, *others])]
    found = read(written(tmp_path, "\n".join(["id,at,code", *lines])))

    assert found["code"][0] == text
    assert found["id"][0] == text


@pytest.mark.parametrize("form", ["csv", "parquet", "db"])
def test_identifiers_beyond_the_range_of_floats_stay_exact_beside_a_null(tmp_path, form):
    ids = [BEYOND + 1, BEYOND, None]
    at = pd.date_range("2026-01-01", periods=3)
    table = pa.table({"id": ids, "at": pa.array(at, pa.timestamp("us")), "shop": ids})

    found = read(stored_as(form, table, tmp_path))

    for name in ("id", "shop"):
        assert found[name][:2].tolist() == [str(BEYOND + 1), str(BEYOND)]
        assert found[name].isna().tolist() == [False, False, True]


def test_files_that_store_one_column_in_two_types_give_one_text(tmp_path):
    at = pa.array([pd.Timestamp("2026-01-01")], pa.timestamp("us"))
    (tmp_path / "a.csv").write_text(f"id,at,code\n{BEYOND + 1},2026-01-01,5\n")
    pq.write_table(pa.table({"id": [BEYOND + 1], "at": at, "code": [5]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"id": [1.0], "at": at, "code": ["5"]}), tmp_path / "c.parquet")

    found = read(FileSource(kind="file", path=f"{tmp_path}/*"))

    assert found["id"].tolist() == [str(BEYOND + 1), str(BEYOND + 1), "1"]
    assert found["code"].tolist() == ["5", "5", "5"]


def test_a_key_that_pandas_stored_as_the_index_is_a_column(tmp_path):
    at = pd.date_range("2026-01-01", periods=2)
    frame = pd.DataFrame({"at": at}, index=pd.Index(["a", "b"], name="id"))
    frame.to_parquet(tmp_path / "rows.parquet")

    found = read(FileSource(kind="file", path=str(tmp_path / "rows.parquet")))

    assert found["id"].tolist() == ["a", "b"]


def test_undeclared_columns_of_a_csv_file_are_text(tmp_path):
    found = read(written(tmp_path, "id,at,zip\n1,2026-01-01,01069\n2,2026-01-02,\n"))

    assert found["zip"][0] == "01069"
    assert found["zip"].isna().tolist() == [False, True]


def test_one_value_that_is_no_number_leaves_the_others_numbers(tmp_path):
    lines = [
        "id,at,x,n,code,shop",
        "1,2026-01-01,0.1,,,",
        "2,2026-01-02,?,,,",
        "3,2026-01-03,NA,,,",
    ]
    found = read(written(tmp_path, "\n".join(lines)))

    assert found["x"][:2].tolist() == [0.1, "?"]
    assert validate(found, DATA).reasons == {"x must be a number": 1}


@pytest.mark.parametrize("null", ["", "NA", "null", "NaN", "None"])
def test_the_usual_spellings_of_null_are_null_in_numbers_times_and_targets(tmp_path, null):
    found = read(written(tmp_path, f"id,at,x,y\n1,{null},{null},{null}\n2,2026-01-02,1,1\n"))

    assert found[["at", "x", "y"]].isna().all(axis=1).tolist() == [True, False]


def test_truth_values_are_numbers_where_the_contract_asks_for_numbers(tmp_path):
    text = "id,at,x,code\n1,2026-01-01,True,True\n2,2026-01-02,false,false\n3,2026-01-03,,\n"
    found = read(written(tmp_path, text))

    assert as_number(found["x"])[:2].tolist() == [1, 0]
    assert found["code"][:2].tolist() == ["True", "false"]


def test_a_decimal_comma_is_read_in_every_row(tmp_path):
    text = "id;at;x;code\n1;2026-01-01;1,5;1,5\n2;2026-01-02;?;a\n3;2026-01-03;1.234;b\n"
    found = read(written(tmp_path, text, sep=";", decimal=","))

    assert found["x"].tolist() == [1.5, "?", "'1.234'"]
    assert found["code"][0] == "1,5"


MARKS = [".", ",", "·", "\u066b", "'", "_"]


@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize("decimal", MARKS)
def test_a_value_with_another_decimal_point_is_refused_and_never_read_as_a_number(
    tmp_path, decimal, size
):
    others = [mark for mark in MARKS if mark != decimal]
    values = [f"1{decimal}5", *(f"1{mark}5" for mark in others), "1.000,5", "1,000.5", "2e1", ""]
    lines = ["id|at|x|y", *(f"{i}|2026-01-01|{value}|{value}" for i, value in enumerate(values))]
    source = written(tmp_path, "\n".join(lines), sep="|", decimal=decimal)
    options = {"time": "at", "key": "id", "target": "y", "columns": DATA.features}
    parts = list(sources.read_parts(source, **options, size=size))
    found = pd.concat(parts, ignore_index=True).assign(code="a", shop="b", n=1)

    valid = validate(found, DATA).valid

    assert valid["x"].dropna().tolist() == [1.5, 20]
    assert len(valid) == 3
    labels, strays = as_target(found["y"], "regression")
    assert labels.dropna().tolist() == [1.5, 20]
    assert strays.sum() == len(values) - 3


def test_seconds_with_another_decimal_point_are_not_read_as_times(tmp_path):
    text = "id;at;x\n1;86400,5;1\n2;86.400;1\n"
    found = read(written(tmp_path, text, sep=";", decimal=",", date_format="s"))

    assert as_time(found["at"]).tolist() == [pd.Timestamp("1970-01-02T00:00:00.5"), pd.NaT]


LABELS = [["TRUE", "FALSE"], ["false", "true"], ["1,5", "2,5"], ["1.50", "2.50"], ["01", "1"]]


@pytest.mark.parametrize("classes", LABELS)
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("size", [None, 1])
def test_classes_are_known_as_their_file_spells_them(tmp_path, classes, decimal, size):
    lines = ["id|at|y", *(f"{i}|2026-01-01|{label}" for i, label in enumerate(classes * 2))]
    source = written(tmp_path, "\n".join(lines), sep="|", decimal=decimal)
    options = {"time": "at", "key": "id", "target": "y", "classes": tuple(classes)}
    parts = sources.read_parts(source, **options, size=size)

    assert pd.concat(parts)["y"].tolist() == [0, 1, 0, 1]


def test_a_number_with_another_decimal_point_is_not_a_class(tmp_path):
    text = "id;at;y\n1;2026-01-01;1,0\n2;2026-01-01;1.000\n3;2026-01-01;2\n"
    found = sources.read(
        written(tmp_path, text, sep=";", decimal=","),
        time="at",
        key="id",
        target="y",
        classes=("2", "1"),
    )

    assert found["y"].tolist() == [1, "'1.000'", 0]


def test_truth_values_are_classes_however_these_are_spelled(tmp_path):
    table = pa.table({"id": ["1", "2"], "at": ["2026-01-01"] * 2, "y": [True, False]})
    pq.write_table(table, tmp_path / "rows.parquet")
    source = FileSource(kind="file", path=str(tmp_path / "rows.parquet"))
    options = {"time": "at", "key": "id", "target": "y"}

    found = sources.read(source, **options, classes=("FALSE", "TRUE"))

    assert found["y"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "options", "codes"),
    [
        ("id\tat\tcode\n1\t2026-01-01\ta,b\n", {"sep": "\t"}, ["a,b"]),
        ("id,at,code\n1,2026-01-01,'a,b'\n", {"quotechar": "'"}, ["a,b"]),
        ("id,at,code\n1,2026-01-01,Tromsø\n", {"encoding": "latin-1"}, ["Tromsø"]),
        ("id,at,code\n1,2026-01-01,Tromsø\n", {"encoding": "utf-16"}, ["Tromsø"]),
        ("\ufeffid,at,code\n1,2026-01-01,a\n", {}, ["a"]),
        ("id,at,code\n1,2026-01-01,-\n2,2026-01-02,NA\n", {"na_values": ["-"]}, [None, "NA"]),
        ("id,at,code\r\n1,2026-01-01,a\r\n", {}, ["a"]),
    ],
)
def test_the_options_of_a_csv_file_are_obeyed(tmp_path, text, options, codes):
    found = read(written(tmp_path, text, **options))

    assert [None if pd.isna(code) else code for code in found["code"]] == codes


NINES = ["-999", "-999.0", "-999.00", "-9.99e2", " -999"]


@pytest.mark.parametrize("beside", ["7", "ill", "TRUE", "-", ""])
@pytest.mark.parametrize("size", [None, 2, 4])
def test_a_number_that_stands_for_null_does_so_however_it_is_written(tmp_path, beside, size):
    lines = ["id,at,x,y,code", *(f"{i},2026-01-01,{x},{x},a" for i, x in enumerate(NINES))]
    lines.append(f"9,2026-01-01,{beside},1,b")
    source = written(tmp_path, "\n".join(lines), na_values=["-999", "-"])
    options = {"time": "at", "key": "id", "target": "y", "columns": DATA.features}

    parts = sources.read_parts(source, **options, size=size or 100)
    found = pd.concat(parts, ignore_index=True)

    assert found["x"][: len(NINES)].isna().all()
    assert found["y"].isna().tolist() == [True] * len(NINES) + [False]
    assert pd.isna(found["x"].iloc[-1]) == (beside in {"-", ""})


def test_a_number_with_a_decimal_comma_may_stand_for_null(tmp_path):
    text = "id;at;x\n1;2026-01-01;-99,90\n2;2026-01-02;ill\n3;2026-01-03;-99,9\n4;2026-01-04;1,5\n"
    found = read(written(tmp_path, text, sep=";", decimal=",", na_values=["-99,9"]))

    assert found["x"].isna().tolist() == [True, False, True, False]


def test_a_number_that_stands_for_null_is_compared_as_text_with_labels(tmp_path):
    lines = ["id,at,code", *(f"{i},2026-01-01,{text}" for i, text in enumerate(NINES))]
    lines += ["01,2026-01-01,01", "1,2026-01-01,1", "1.0,2026-01-01,1.0"]
    found = read(written(tmp_path, "\n".join(lines), na_values=[-999, "01"]))

    assert found["code"].isna().tolist() == [True, *[False] * 4, True, False, False]
    assert found["id"].tolist()[-2:] == ["1", "1.0"]


def test_a_class_of_the_target_is_compared_as_text_with_what_stands_for_null(tmp_path):
    text = "id,at,kind\n1,2026-01-01,01\n2,2026-01-01,1\n3,2026-01-01,a\n"
    classes = ("01", "a", "b")
    found = sources.read(
        written(tmp_path, text, na_values=["1"]),
        time="at",
        key="id",
        target="kind",
        columns={},
        classes=classes,
    )

    assert found["kind"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("id,at,id\n1,2026-01-01,2\n", "its header names id more than once"),
        ("id,at\n1,2026-01-01,2\n", "a row holds more values than the 2 names of the header"),
        ("id,at\n1,2026-01-01,\n2,2026-01-02,\n", "more values than the 2 names"),
        ("id,at\n0,2026-01-01,2\n1,2026-01-02,3\n", "more values than the 2 names"),
        ("id,at\n1,2026-01-01\n2,2026-01-02,3\n", "Expected 2 fields in line 3, saw 3"),
        ('id,at\n1,"2026', "EOF inside string"),
    ],
)
def test_a_csv_file_that_would_be_misread_is_refused(tmp_path, text, got):
    with pytest.raises(DataError, match=rf"rows\.csv' must be readable CSV.*{got}"):
        read(written(tmp_path, text))


def test_text_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_bytes("id,at,code\n1,2026-01-01,Tromsø\n".encode("latin-1"))

    with pytest.raises(DataError, match="correct the options of the file source"):
        read(FileSource(kind="file", path=str(tmp_path / "rows.csv")))


NESTED = {
    "list": [[1, 2], None],
    "map": [[("a", 1)], None],
    "struct": [{"a": 1}, None],
    "lists of lists": [None, [[1]]],
}


@pytest.mark.parametrize("values", NESTED.values(), ids=NESTED)
@pytest.mark.parametrize("name", ["code", "x", "id", "at", "y"])
def test_a_column_of_collections_is_refused_by_name(tmp_path, values, name):
    whole = {"id": ["1", "2"], "at": ["2026-01-01"] * 2, "code": ["a", "b"], "x": [1, 2]}
    kind = (
        pa.map_(pa.string(), pa.int64())
        if isinstance(values[0], list) and isinstance(values[0][0], tuple)
        else None
    )
    columns = {**whole, "y": [0, 1], name: pa.array(values, kind)}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")

    with pytest.raises(DataError, match=f"Column '{name}' must hold one value in each row"):
        read(FileSource(kind="file", path=str(tmp_path / "rows.parquet")))


def test_a_column_of_collections_that_nothing_names_does_no_harm(tmp_path):
    columns = {"id": ["1", "2"], "at": ["2026-01-01"] * 2, "tags": [[1], None]}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")

    assert len(read(FileSource(kind="file", path=str(tmp_path / "rows.parquet")))) == 2


def nested(start, end):
    del start, end
    return pd.DataFrame({"id": [1], "at": ["2026-01-01"], "code": [{"a": 1}]})


def test_a_function_that_returns_a_column_of_collections_is_refused_by_name():
    with pytest.raises(DataError, match="Column 'code' must hold one value in each row"):
        read(FunctionSource(kind="function", function=nested))
