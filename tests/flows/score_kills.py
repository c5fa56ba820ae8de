"""Kills `score` at many of the lines that it passes, runs it again, and compares what is left.

`python tests/flows/score_kills.py CONF OUTPUT ROWS FIRST EVERY`: ROWS are scored into OUTPUT in
parts of a few rows, by a process that is killed at the FIRST line of the watched files and at every
EVERY-th after it, each time in front of the file of an earlier run. The last line is JSON: how many
lines there are, and for each that was tried what was left by the killed process, and by the next.
"""

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from crashes import apart

from flows import output, score
from pipeline.config import Settings
from pipeline.data import parts, tables

WATCHED = {module.__file__ for module in (score, output, parts)}
SIZE = 40
OLD = b"an earlier file"


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


def scored(conf, path, rows, last=None):
    """Score the rows; how many lines were passed."""
    tables.read_parts.__kwdefaults__["size"] = SIZE
    lines = Lines(last)
    threading.settrace(lines)
    sys.settrace(lines)
    try:
        score.score.fn(conf, str(path), rows)
    finally:
        sys.settrace(None)
    return lines.passed


def left(path, state):
    """Content of the output and of refused rows, and the other files that a run leaves."""
    refused = [*(state / "quarantine").rglob(f"score {path.stem}.parquet")]
    beside = [one.name for one in path.parent.iterdir() if one != path]
    inside = [one.name for one in state.iterdir()]
    content = [one.read_bytes().hex() for one in (path, *refused)]
    return {"content": content, "files": sorted([*beside, *inside])}


def main():
    conf, path, rows = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    first, every = map(int, sys.argv[4:])
    state = Settings.load(conf).tracking.folder
    path.parent.mkdir()
    count = apart(lambda: scored(conf, path, rows))
    found = {"lines": count, "whole": left(path, state), "old": OLD.hex(), "tried": {}}
    for last in range(first, count + 1, every):
        shutil.rmtree(state / "quarantine")
        path.write_bytes(OLD)
        code = apart(lambda: scored(conf, path, rows, last))  # noqa: B023 -- called at once
        killed = left(path, state)["content"]
        apart(lambda: scored(conf, path, rows))
        found["tried"][last] = {"code": code, "killed": killed, "again": left(path, state)}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
