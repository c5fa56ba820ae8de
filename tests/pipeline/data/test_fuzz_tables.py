"""Random tables through every source: a sentence of ours or every row accounted for."""

import datetime as dt
import itertools
import warnings
from collections import Counter

import pandas as pd
import pytest
import sqlalchemy as sa
import yaml
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from flows.check import check
from pipeline.columns import as_text
from pipeline.config import Data, FileSource, SqlSource
from pipeline.data import sources, validation
from pipeline.data.parts import Checked
from pipeline.data.tables import read, read_parts
from pipeline.data.validation import NoValidRowError, validate
from pipeline.errors import PipelineError

NAMES = ["x", "a b", "größe", "p/q", "Zeit.1", "select", "1", "%s", "☃"]
TRAPS = [
    "",
    "NA",
    "null",
    "01",
    "1E5",
    "TRUE",
    "1,5",
    "1.234,5",
    "inf",
    "-0",
    " x ",
    '"',
    "a\nb",
    "'",
]
TIMES = st.datetimes(dt.datetime(1970, 1, 2), dt.datetime(2200, 1, 1))  # noqa: DTZ001 -- naive
CELLS = {
    "integers": st.integers(-(2**70), 2**70),
    "floats": st.floats(),
    "decimals": st.decimals(allow_nan=False, allow_infinity=False, places=3),
    "booleans": st.booleans(),
    "texts": st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6),
    "traps": st.sampled_from(TRAPS),
    "dates": st.dates(dt.date(1600, 1, 1), dt.date(2300, 1, 1)),
    "times": TIMES,
    "times with zones": st.datetimes(timezones=st.just(dt.UTC)),
    "times as text": TIMES.map(lambda at: at.isoformat()),
    "durations": st.timedeltas(dt.timedelta(0), dt.timedelta(999)),
    "bytes": st.binary(max_size=4),
    "zero and one": st.integers(0, 1),
}
LIKELY = {"numeric": ["floats", "integers", "decimals"] * 10, "categorical": ["texts"] * 30}
MORE = 30


@st.composite
def columns(draw, rows, likely):
    """A column of one kind of cells, sometimes of two, with some nulls."""
    kinds = [draw(st.sampled_from([*likely, *CELLS]))]
    kinds += draw(st.lists(st.sampled_from([*CELLS]), max_size=1)) if draw(st.booleans()) else []
    cells = st.one_of(*(CELLS[kind] for kind in kinds))
    if draw(st.booleans()):
        cells |= st.none()
    return draw(st.lists(cells, min_size=rows, max_size=rows))


@st.composite
def tables(draw):
    """A frame, and what is declared of it."""
    rows = draw(st.integers(0, 8))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    frame = {"id": draw(columns(rows, ["integers", "texts"] * 5))}
    frame |= {"at": draw(columns(rows, ["times", "times as text", "times with zones"] * 5))}
    numeric = st.fixed_dictionaries({"type": st.just("numeric"), "nullable": st.booleans()})
    label = st.fixed_dictionaries({"type": st.just("categorical"), "nullable": st.booleans()})
    limited = st.just({"type": "numeric", "min": 0, "max": 1})
    listed = st.just({"type": "categorical", "values": ["01", "a", "TRUE"]})
    declared = {name: draw(numeric | label | limited | listed) for name in names}
    for name, column in declared.items():
        frame[name] = draw(columns(rows, LIKELY[column["type"]] if draw(st.booleans()) else []))
    frame |= {"y": draw(columns(rows, ["zero and one"] * 5))}
    if draw(st.booleans()):  # a model needs more rows, each with a key and a time
        hours = pd.date_range("2025-01-01", periods=rows * MORE, freq="h")
        frame = {name: cells * MORE for name, cells in frame.items()}
        frame |= {"id": [*range(rows * MORE)], "at": [*hours.to_pydatetime()]}
        if draw(st.booleans()):  # nothing is wrong with it
            frame["y"] = [i % 2 for i in range(rows * MORE)]
            own = {
                name: [0, 1] if "numeric" in x["type"] else ["01", "a"]
                for name, x in declared.items()
            }
            frame |= {name: cells * (rows * MORE // 2) for name, cells in own.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in frame.items()})
        return (made.infer_objects() if draw(st.booleans()) else made), declared


@st.composite
def stores(draw):
    """A kind of source, with its options."""
    kind = draw(st.sampled_from(["csv", "parquet", "sql"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-16-le", "latin-1"]))
    sep = draw(st.sampled_from([",", ";", "\t", "|"]))
    decimal = draw(st.sampled_from([".", ","])) if sep != "," else "."
    compression = draw(st.sampled_from([None, None, "gzip", "zip", "bz2"]))
    return kind, {"encoding": encoding, "sep": sep, "decimal": decimal, "compression": compression}


def stored(frame, store, folder):
    """Write a frame, and say how it is read back; None if it cannot be written so."""
    kind, options = store
    try:
        if kind == "csv":
            path = folder / "rows.csv"
            frame.to_csv(path, index=False, **options)
            given = {key: value for key, value in options.items() if value is not None}
            return FileSource(kind="file", path=str(path), **given)
        if kind == "parquet":
            frame.to_parquet(folder / "rows.parquet")
            return FileSource(kind="file", path=str(folder / "rows.parquet"))
        engine = sa.create_engine(f"sqlite:///{folder / 'rows.db'}")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="the 'timedelta' type")
                frame.to_sql("rows", engine, index=False, if_exists="replace")
        finally:
            engine.dispose()
    except (ValueError, TypeError, OverflowError, AttributeError, sa.exc.SQLAlchemyError, OSError):
        return None
    except Exception as error:
        if type(error).__module__.startswith(("pyarrow", "sqlite3")):
            return None
        raise
    return SqlSource(kind="sql", url=f"sqlite:///{folder / 'rows.db'}", query="SELECT * FROM rows")


@pytest.mark.parametrize("examples", [200, pytest.param(2_000, marks=pytest.mark.night)])
def test_a_table_is_refused_in_a_sentence_or_every_row_is_accounted_for(tmp_path, examples):
    seen, count = Counter(), itertools.count()

    @given(tables(), stores(), st.booleans())
    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[*HealthCheck],
        phases=[Phase.reuse, Phase.generate],  # to shrink a table takes minutes
    )
    def accounted(table, store, window):
        frame, declared = table
        folder = tmp_path / str(next(count))
        folder.mkdir()
        source = stored(frame, store, folder)
        assume(source is not None)
        roles = {"key": "id", "time": "at", "target": "y", "key_unique": window}
        data = Data(train=source, features=declared, **roles)
        seen["valid rows"] += bool(read_and_validated(frame, data, window))
        seen["checked"] += bool(checked(frame, folder, source, roles | {"features": declared}))

    accounted()
    assert min(seen["valid rows"], seen["checked"]) >= examples // 100  # some can be used


def read_and_validated(frame, data, window):
    start = pd.Timestamp("2000-01-01") if window else None
    roles = {"key": data.key, "target": data.target, "columns": data.features}
    try:
        read = sources.read(data.train, time=data.time, start=start, end=None, **roles)
        found = validate(read, data)
    except PipelineError as error:
        assert is_sentence(error)  # noqa: PT017 -- either is right
        return None

    assert len(found.valid) + len(found.quarantined) == len(read)
    assert found.quarantined.iloc[:, -1].astype(bool).all()
    if not window:
        assert len(read) == len(frame)
    return found


def checked(frame, folder, source, data):
    """Whether `check` takes a table; every row is counted then."""
    conf = {"name": "rows", "task": "classification", "data": data}
    conf["data"] = data | {"train": source.model_dump(mode="json", exclude_defaults=True)}
    conf["training"] = {"params": {"n_estimators": 2, "n_jobs": 1}, "holdout": "1D"}
    conf["monitoring"] = {"batch": "1D"}
    if isinstance(source, SqlSource):
        conf["data"]["train"]["url"] = source.url.get_secret_value()
    (folder / "rows.yaml").write_text(yaml.safe_dump(conf, allow_unicode=True))
    try:
        rows = check(str(folder / "rows.yaml"))["rows"]
    except PipelineError as error:
        assert is_sentence(error)  # noqa: PT017 -- either is right
        return False

    assert rows["read"] == rows["looked_at"] == len(frame)
    assert sum(rows["labels"].values()) + rows["unlabelled"] == len(frame) - rows["refused"]
    return True


def is_sentence(error):
    return str(error).endswith((".", ")"))


def at_once(data, folder, **window):
    """Valid and refused rows of a table that is read at once, and why rows are refused."""
    rows = read(data.train, data, **window)
    if rows.empty:
        return None
    try:
        checked, said = validate(rows, data, source="rows"), None
    except NoValidRowError as error:
        checked, said = error.validated, str(error)
    kept = validation.quarantine(checked, folder, "rows")
    return checked.valid, kept and pd.read_parquet(kept), said or checked.reasons


def by_parts(data, folder, size, **window):
    """What `at_once` says, of a table that is read and validated in parts."""
    (folder / "parts").mkdir()
    checked = Checked(data, "classification", "rows", folder / "parts")
    parts = [checked.add(p) for p in read_parts(data.train, data, size=size, **window) if len(p)]
    if not parts:
        return None
    checked.quarantine(folder)
    kept = folder / "rows.parquet"
    try:
        checked.require_valid()
    except PipelineError as error:
        said = str(error)
    else:
        said = checked.reasons
    refused = pd.read_parquet(kept) if kept.exists() else None
    return pd.concat(parts, ignore_index=True), refused, said


def outcome(call):
    try:
        found = call()
    except PipelineError as error:
        return str(error)
    if found is None:
        return None
    valid, refused, said = found
    return [as_texts(frame) for frame in (valid, refused)], said


def as_texts(frame):
    if frame is None:
        return None
    return {name: as_text(frame[name]).fillna("null").tolist() for name in frame}


WINDOWS = st.sampled_from([{}, {"start": pd.Timestamp("2000-01-01")}])


@given(tables(), stores(), st.tuples(st.booleans(), WINDOWS), st.sampled_from([1, 2, 3, 7]))
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[*HealthCheck],
    phases=[Phase.reuse, Phase.generate],  # to shrink a table takes minutes
)
def test_parts_hold_what_a_table_holds_that_is_read_at_once(
    tmp_path_factory, table, store, asked, size
):
    frame, declared = table
    folder = tmp_path_factory.mktemp("table")
    source = stored(frame, store, folder)
    assume(source is not None)
    unique, asked = asked
    data = Data(train=source, key="id", time="at", target="y", features=declared, key_unique=unique)
    for name in ("at once", "by parts"):
        (folder / name).mkdir()

    found = outcome(lambda: by_parts(data, folder / "by parts", size, **asked))

    assert found == outcome(lambda: at_once(data, folder / "at once", **asked))
