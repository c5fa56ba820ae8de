"""More than a hundred public tables, by time and shuffled: half of them were never looked at."""

import zlib
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import peers
from benchmarks.harness.processes import output

SHUFFLED = ", shuffled"
_DAY = ["year", "month", "day"]
_TIMES = (
    *("date", "created_at", "response_datetime", "startdate", "timestamp", "license_issue_date"),
    *("sample.yr", "yearacc", "yronset", "year"),
)
"""Names of columns that tell when a row was made, in lower case, the best first."""
_MOMENTS, _ROWS, _COLUMNS = 8, 30_000, 60
_BLOCKS, _JUDGED = 10, 8
"""Blocks of the reference, and batches that are judged."""
_OWN = ("nycflights13/", "openintro/nycflights")
"""Tables of the flights on which diagnoses were written."""
_OF_ONE_SOURCE = (
    ("gt/sp500", "openintro/sp500_1950_2018"),
    ("mosaicData/Births", "mosaicData/BirthsSSA", "mosaicData/Birthdays"),
    ("AER/STAR", "Ecdat/Star", "mlmRev/star"),
    ("Ecdat/DoctorContacts", "sampleSelection/RandHIE", "Ecdat/MedExp"),
    ("stevedata/wvs_immig", "stevedata/wvs_justifbribe", "stevedata/wvs_usa_abortion"),
    ("stevedata/gss_abortion", "stevedata/gss_wages", "carData/GSSvocab", "AER/GSS7402"),
)
"""Tables that share rows or people: none is held out where one was looked at."""


@cache
def names() -> list[str]:
    """Every table in random order, and those that have a time in its order as well."""
    paths = sorted(_folder().glob("*/*.parquet"))
    found = [f"{path.parent.name}/{path.stem}" for path in paths]
    found = [name for name in found if not name.startswith(_OWN)]
    by_time = [name for name in found if _time(_read(name)) is not None]
    return [*by_time, *(name + SHUFFLED for name in found)]


def each() -> list[str]:
    """Every table once: by time where it has one."""
    every = names()
    return [x for x in every if not x.endswith(SHUFFLED) or x.removesuffix(SHUFFLED) not in every]


def looked_at(name: str) -> bool:
    """Whether false alarms of a table were looked at and mended; the others are held out."""
    table = name.removesuffix(SHUFFLED)
    alike = next((tables for tables in _OF_ONE_SOURCE if table in tables), (table,))
    return any(zlib.crc32(one.encode()) % 2 == 0 for one in alike)


def batches(name: str) -> tuple[pd.DataFrame, list[pd.DataFrame], int]:
    """Rows of the reference, the batches after it in order of time, and the rows of a batch."""
    rows = _read(name.removesuffix(SHUFFLED))
    times = _time(rows)
    mixed = np.random.default_rng(0).permutation(len(rows))  # rows of one moment have no order
    rows = rows.iloc[mixed]
    if times is not None:
        rows = rows[[x for x in rows if str(x).lower() not in {*_TIMES, *_DAY}]]
        if not name.endswith(SHUFFLED):
            times = times.iloc[mixed]
            rows = rows[times.notna()].loc[times.dropna().sort_values(kind="stable").index]
    rows = _features(rows[:_ROWS])
    block = int(np.clip(len(rows) // (_BLOCKS + _JUDGED), 200, 2_000))
    cut = [rows[k : k + block].reset_index(drop=True) for k in range(0, len(rows), block)]
    before = rows[: _BLOCKS * block].reset_index(drop=True)
    return before, [one for one in cut[_BLOCKS:] if len(one) == block][:_JUDGED], block


@cache
def _folder() -> Path:
    folder = peers.folder() / "tables.parquet"
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.part")
        part.mkdir(parents=True, exist_ok=True)
        output(peers.environment("tables"), peers.HERE / "tables_worker.py", part)
        part.rename(folder)
    return folder


@lru_cache(maxsize=4)
def _read(name: str) -> pd.DataFrame:
    return pd.read_parquet(_folder() / f"{name}.parquet").drop(columns="rownames", errors="ignore")


def _time(rows: pd.DataFrame) -> pd.Series | None:
    """When rows were made; None if no column tells."""
    columns = {str(name).lower(): name for name in reversed(rows.columns)}
    name = next((columns[x] for x in _TIMES if x in columns), None)
    if name is None:
        return None
    times = rows[name]
    if set(_DAY) <= set(rows) and name == "year":
        times = pd.to_datetime(rows[_DAY], errors="coerce")
    elif times.dtype.kind not in "iufM":
        times = pd.to_datetime(times, errors="coerce", utc=True, format="mixed")
    return times if times.nunique() >= _MOMENTS else None


def _features(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns without identifiers, free text and times."""
    kept = []
    for name in rows:
        known = rows[name].dropna()
        most = 0.999 * len(known) if known.dtype.kind in "iu" else np.inf
        if known.dtype.kind not in "iufM":
            most = max(1_000, 0.3 * len(rows))
        if known.dtype.kind != "M" and known.nunique() < most:
            kept.append(name)
    return rows[kept[:_COLUMNS]]
