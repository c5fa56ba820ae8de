"""Random tables of people who never read the documents: drafted, trained and monitored unedited.

The rows of each table do not change with time, so that nothing is wrong in any batch.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from flows.check import check
from flows.init import init
from flows.monitor import monitor
from flows.steps import opened
from flows.train import train
from pipeline.columns import as_time
from pipeline.data.tables import read
from pipeline.errors import PipelineError

pytestmark = pytest.mark.integration

NAMES = ("x", "Größe", "a b", "col.1", "a/b", "_p", "1st", "x:y", "it's", 'q"q', "tab\tx")
TYPES = {
    "rounded": lambda random, base: base.round(random.integers(0, 6)),
    "skewed": lambda _, base: np.exp(base),
    "whole": lambda _, base: np.round(base * 10),
    "binary": lambda _, base: (base > 0).astype(int),
    "truth": lambda _, base: base > 0.3,
    "labels": lambda _, base: np.array(list("abcdef"))[np.clip(base + 3, 0, 5).astype(int)],
    "many labels": lambda random, base: [f"L{i % 400}" for i in random.zipf(1.5, len(base))],
    "constant": lambda _, base: np.full(len(base), 7),
    "mostly null": lambda random, base: np.where(random.random(len(base)) < 0.05, base, np.nan),
    "dates": lambda _, base: pd.Timestamp("2020-01-01") + pd.to_timedelta(base * 1e7, unit="s"),
    "notes": lambda random, base: [f"note {i}" for i in random.integers(0, 10**6, len(base))],
    "heavy tail": lambda random, base: random.standard_cauchy(len(base)) * 1e3,
    "question marks": lambda random, base: _some(random, base.round(2).astype(str), "?"),
    "sentinel": lambda random, base: _some(random, base.round(2), -999),
    "percent": lambda _, base: [f"{abs(value):.1f}%" for value in base],
    "mostly zero": lambda random, base: np.where(random.random(len(base)) < 0.9, 0, np.exp(base)),
    "tiny": lambda _, base: base * 1e-30,
    "huge": lambda _, base: base * 1e30,
    "infinite": lambda random, base: _some(random, base, np.inf),
    "blanks": lambda random, base: random.choice([" a", "a ", "A", ""], len(base)),
}
TARGETS = {
    "binary": lambda _, signal: (signal > 0).astype(int),
    "two labels": lambda _, signal: np.where(signal > 0.5, "Churn", "stay"),
    "truth": lambda _, signal: signal > 0,
    "rare": lambda _, signal: (signal > 2).astype(int),
    "number": lambda _, signal: signal * 10 + 100,
    "count": lambda random, signal: random.poisson(np.exp(np.clip(signal, -3, 3))),
    "heavy tail": lambda _, signal: np.exp(3 * signal),
}
TIMES = {
    "none": None,
    "iso": lambda _, at: at,
    "day first": lambda _, at: at.dt.strftime("%d/%m/%Y %H:%M"),
    "seconds": lambda _, at: at.astype("datetime64[s]").astype("int64"),
    "zones": lambda _, at: at.dt.tz_localize("UTC").map(pd.Timestamp.isoformat),
    "bursts": lambda _, at: at.iloc[np.arange(len(at)) // 50 * 50].reset_index(drop=True),
    "again and again": lambda random, at: pd.Series(random.choice(at, len(at))),
}
FILES = {
    "rows.csv": {},
    "rows.tsv": {"sep": "\t"},
    "rows.txt": {"sep": ";", "decimal": ","},
    "rows.csv.gz": {"encoding": "latin-1"},
    "rows.parquet": None,
}


def _some(random, values, sign):
    return np.where(random.random(len(values)) < 0.02, sign, values)


def table(random):
    """A table of random columns, one of which may tell when its rows came."""
    n = int(random.choice([200, 400, 900, 2_000, 5_000]))
    known, columns = random.normal(size=n), {}
    for place in range(random.integers(1, 8)):
        make = TYPES[random.choice([*TYPES])]
        values = pd.Series(make(random, known * random.normal() + random.normal(size=n)))
        if random.random() < 0.3:
            values = values.astype(object).where(random.random(n) > 0.1)
        columns[f"{random.choice(NAMES)}{place}"] = values
    target = TARGETS[random.choice([*TARGETS])]
    columns["y!"] = pd.Series(target(random, known + random.normal(size=n)))
    written = TIMES[random.choice([*TIMES])]
    step = pd.Timedelta(random.choice(["1min", "10min", "1h", "1D"]))
    if written is not None:
        columns["created at"] = written(
            random, pd.Series(pd.Timestamp("2025-01-01") + np.arange(n) * step)
        )
    if random.random() < 0.4:
        columns["id"] = random.permutation(n) + 10 ** int(random.integers(0, 12))
    return pd.DataFrame(columns)


def written(random, frame, folder):
    """The table as a file of one of several forms."""
    name = random.choice([*FILES])
    if FILES[name] is None:
        mixed = {n: "str" for n in frame if frame[n].dtype == object}
        frame.astype(mixed).to_parquet(folder / name)
    else:
        frame.to_csv(folder / name, index=False, **FILES[name])
    return folder / name


def assert_all_rows_counted(conf, frame, checked, results):
    """Check that every run accepted or refused each row that it read."""
    settings, registry = opened(conf)
    data = settings.data
    moments = as_time(read(data.train, data)[data.time])
    assert checked["read"] == checked["looked_at"] == len(moments) == len(frame)
    (version,) = registry.versions()
    stretches = registry.bundle(version.number).manifest["refused"]
    assert sum(rows for rows, _ in stretches) == (~(moments >= version.until)).sum()
    for start, result in enumerate(results):
        since = version.until + start * settings.monitoring.batch
        inside = (moments >= since) & (moments < since + settings.monitoring.batch)
        # A row without a time is refused wherever it is read, which is with every window.
        assert result["rows"] + result.get("refused", 0) == (inside | moments.isna()).sum()


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize(
    ("tables", "batches"), [(10, 1), pytest.param(100, 2, marks=pytest.mark.night)]
)
def test_tables_of_any_kind_are_used_or_refused_in_a_sentence(
    tmp_path, monkeypatch, empty_store, tables, batches
):
    monkeypatch.setenv("HOLDFAST__PROMOTION__FIRST", "serve")
    judged, broken = 0, []
    for seed in range(tables):
        random = np.random.default_rng([20, seed])
        folder = tmp_path / str(seed)
        empty_store(folder / "state")
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HOLDFAST__TRACKING__FOLDER", str(folder / "state"))
        frame = table(random)
        file = written(random, frame, folder)
        try:
            conf = init(str(file), "y!")["conf"]
            checked = check(conf)["rows"]
            train(conf)
            results = [monitor(conf) for _ in range(batches)]
        except PipelineError as error:
            assert str(error).endswith(".")  # noqa: PT017 -- either is right
            continue
        assert_all_rows_counted(conf, frame, checked, results)
        judged += sum(result["rows"] > 0 for result in results)
        broken += [result["reason"] for result in results if "Broken" in result["reason"]]

    assert judged >= tables * batches / 2  # most tables can be used
    # A batch in a hundred may be called broken.
    assert len(broken) <= stats.binom.ppf(0.98, batches * tables, 0.01), broken
