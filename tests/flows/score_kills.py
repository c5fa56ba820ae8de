"""Kills `score` at many of the lines that it passes, runs it again, and compares what is left.

`python tests/flows/score_kills.py CONF OUTPUT ROWS FIRST EVERY`: ROWS are scored into OUTPUT in
parts of a few rows, by a process that is killed at the FIRST line of the watched files and at every
EVERY-th after it, each time in front of the file of an earlier run. OUTPUT is a file, or the
address of a database with the table `scores` of CONF. The last line is JSON: how many lines there
are, and for each that was tried what was left by the killed process, and by the next.
"""

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import pandas as pd
import sqlalchemy as sa
from crashes import apart

from flows import output, score
from pipeline.config import Settings
from pipeline.data import parts, results, tables

WATCHED = {module.__file__ for module in (score, output, parts, results)}
SIZE = 40
OLD = b"an earlier file"
WINDOW = (pd.Timestamp("2026-02-16"), pd.Timestamp("2026-02-23"))


class Lines:
    """Counts the lines of the watched files that are passed, and ends the process at one."""

    def __init__(self, last=None):
        self.passed, self._last = 0, last

    def __call__(self, frame, event, _):
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            self.passed += 1
            if self.passed == self._last:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


class File:
    """A file that is scored into."""

    def __init__(self, path):
        self.named, self.stem, self._path = path, Path(path).stem, Path(path)

    def put_old(self):
        self._path.write_bytes(OLD)

    def content(self):
        return self._path.read_bytes().hex()


class Table:
    """A table that is scored into, as CONF names it."""

    named, stem = "", "scores"

    def __init__(self, url):
        self._url = url

    def put_old(self):
        """Leave some rows, as an older version scored them, one of another window, and one more."""
        self._run(
            "DELETE FROM scores WHERE id LIKE '%2' OR id IN ('other', 'gone')",
            "UPDATE scores SET version = 0",
            "INSERT INTO scores VALUES ('other', '2020-01-01 00:00:00.000000', 0.5, 0)",
            "INSERT INTO scores VALUES ('gone', '2026-02-17 00:10:00.000000', 0.5, 0)",
        )

    def content(self):
        return json.dumps(self._run("SELECT * FROM scores ORDER BY id"), default=str).encode().hex()

    def _run(self, *statements):
        engine = sa.create_engine(self._url)
        with engine.begin() as connection:
            results = [connection.execute(sa.text(one)) for one in statements]
            found = [tuple(row) for row in results[-1]] if results[-1].returns_rows else []
        engine.dispose()
        return found


def scored(conf, output, rows, last=None):
    """Score the rows; how many lines were passed."""
    tables.read_parts.__kwdefaults__["size"] = SIZE
    lines = Lines(last)
    threading.settrace(lines)
    sys.settrace(lines)
    try:
        score.score.fn(conf, output.named, rows, *WINDOW)
    finally:
        sys.settrace(None)
    return lines.passed


def left(output, folder, state):
    """Content of the output and of refused rows, and the other files that a run leaves."""
    refused = [*(state / "quarantine").rglob(f"score {output.stem}.parquet")]
    beside = [one.name for one in folder.iterdir()]
    inside = [one.name for one in state.iterdir()]
    content = [output.content(), *(one.read_bytes().hex() for one in refused)]
    return {"content": content, "files": sorted([*beside, *inside])}


def main():
    conf, given, rows = sys.argv[1:4]
    first, every = map(int, sys.argv[4:])
    output = Table(given) if "://" in given else File(given)
    folder, state = Path(rows).with_name("scores"), Settings.load(conf).tracking.folder
    folder.mkdir()
    count = apart(lambda: scored(conf, output, rows))
    output.put_old()
    found = {"lines": count, "old": output.content(), "tried": {}}
    apart(lambda: scored(conf, output, rows))
    found["whole"] = left(output, folder, state)
    for last in range(first, count + 1, every):
        shutil.rmtree(state / "quarantine")
        output.put_old()
        code = apart(lambda: scored(conf, output, rows, last))  # noqa: B023 -- called at once
        killed = left(output, folder, state)["content"]
        apart(lambda: scored(conf, output, rows))
        found["tried"][last] = {
            "code": code,
            "killed": killed,
            "again": left(output, folder, state),
        }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
