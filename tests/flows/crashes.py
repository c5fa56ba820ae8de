"""Cuts a replay off at every change that it makes to its store, continues, and compares the end.

`python tests/flows/crashes.py CONF BATCHES KILLED FIRST EVERY`: BATCHES are judged without harm,
then the next batch, which asks for a retrain, is cut off: at each point, when it is first passed.
The first training and its first batch are cut off at the points that only they pass. Points are
found by running both, and the folder of all state is copied at each point: a process that is killed
there leaves what the copy holds. Of the points, the FIRST and every EVERY-th after it are tried. At
the first point whose name ends with KILLED, a process is killed as well. The last line is JSON.
"""

import contextlib
import functools
import importlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import traceback
from pathlib import Path

import mlflow
import sqlalchemy as sa
from prefect import flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows import monitor, paging, replay
from flows.steps import opened
from flows.train import train
from pipeline.config import Settings
from pipeline.registry import records
from pipeline.reporting import written_pages

ROOT = Path(__file__).parents[2]
OURS = tuple(str(ROOT / folder) for folder in ("flows", "pipeline"))
CHANGES = ("create_", "set_", "log_", "update_", "delete_")
VOLATILE = ("at", "answered")


class Watch:
    """Sees every call that changes the store or pages, and reports each point once."""

    def __init__(self, first_passed):
        self.first_passed, self.seen = first_passed, []
        client = mlflow.MlflowClient
        for name in dir(client):
            if name.startswith(CHANGES):
                setattr(client, name, self.watched(getattr(client, name)))
        paging.post = self.watched(paging.post)

    def watched(self, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            self.passed(function.__name__, sys._getframe(1))
            return function(*args, **kwargs)

        return call

    def passed(self, name, frame):
        while frame is not None and not frame.f_code.co_filename.startswith(OURS):
            frame = frame.f_back
        if frame is None:
            return
        file = Path(frame.f_code.co_filename).relative_to(ROOT)
        caller = frame.f_back
        path = f"{caller.f_code.co_name} > {frame.f_code.co_name} > {name}"
        point = f"{file}:{caller.f_lineno}:{frame.f_lineno} {path}"
        if point not in self.seen:
            self.first_passed(point, len(self.seen))
            self.seen.append(point)


def apart(work):
    """What some work returns, done in another process; its exit code if it was killed."""
    sys.stdout.flush()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            result = json.dumps(work(), default=str).encode()
            with os.fdopen(write, "wb") as pipe:
                pipe.write(result)
        except BaseException:  # noqa: BLE001 -- whatever it is, the child ends here
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        result = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(result) if code == 0 else code


def judged(conf, batches, first_passed=lambda *_: None):
    """Judge some batches; the points that were passed."""
    watch = Watch(first_passed)
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        judge_next(conf, batches)
    return watch.seen


@flow
def judge_next(conf, batches):
    """Judge some batches as `replay` does, without its table."""
    settings, registry = opened(conf)
    if registry.alias("champion") is None:
        train(conf)
    replay.catch_up(settings, registry)
    for _ in range(batches):
        start = monitor.next_batch(settings, registry, records.read_history(registry))
        replay.step(settings, registry, start, say=str)


def went_on(conf, batches):
    """The state once that number of batches is judged."""
    _, registry = opened(conf)
    judged(conf, batches - len(records.read_history(registry).batches))
    return _state(conf)


def _state(conf):
    _, registry = opened(conf)
    versions = registry.versions()
    names = {version.run_id: f"run of version {version.number}" for version in versions}
    runs = {run.info.run_id: run for run in registry.search("tags.kind != ''")}
    names |= {key: f"{run.data.tags['kind']} {run.info.run_name}" for key, run in runs.items()}
    pages = written_pages.undelivered(registry.folder / "pages.db", registry.name)
    state = {"versions": [], "runs": [], "pages": sorted(page["id"] for page in pages)}
    for version in versions:
        found = registry.client.get_model_version(registry.name, str(version.number))
        stored = [sorted(found.aliases), found.description, found.status]
        state["versions"].append([version.number, version.tags, *stored])
    changes = registry.model_tags()
    state["history"] = {
        key: {k: v for k, v in json.loads(value).items() if k not in VOLATILE}
        for key, value in changes.items()
        if key.startswith("mlflow.holdfast.change.")
    }
    for key, found in sorted(runs.items(), key=lambda item: names[item[0]]):
        if found.info.status == "KILLED":
            continue
        own = {k: names.get(v, v) for k, v in found.data.tags.items() if _kept(k)}
        points = sorted(
            [metric, at.step, at.value, at.timestamp if own["kind"] != "training" else 0]
            for metric in found.data.metrics
            for at in registry.client.get_metric_history(key, metric)
        )
        files = sorted(file.path for file in registry.client.list_artifacts(key))
        state["runs"].append([names[key], found.info.status, own, points, files])
    return state


def _kept(tag):
    if tag == "prefect":  # the address of the flow run, which a run that was cut off is not
        return False
    return not tag.startswith(("mlflow.source", "mlflow.user", "mlflow.log-model", "mlflow.git"))


@sa.event.listens_for(sa.Engine, "connect")
def wait_for_no_disk(connection, _):
    """A process that is killed loses nothing that it has written."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("pragma synchronous = off")


def main():
    conf, killed = sys.argv[1], sys.argv[3]
    batches, first, every = (int(sys.argv[place]) for place in (2, 4, 5))
    state = Settings.load(conf).tracking.folder
    kept = Path(conf).parent / "kept"
    left, expected = {}, {}

    def copy(_, number):
        shutil.copytree(state, kept / f"{start} {number}")

    def kill(point, _):
        if point.endswith(killed):
            os.kill(os.getpid(), signal.SIGKILL)

    for start, harmless in ((0, 0), (batches, batches - 1)):
        if harmless:
            apart(lambda: judged(conf, harmless))  # noqa: B023 -- called at once
        shutil.copytree(state, kept / str(start))
        seen, modules = apart(lambda: [judged(conf, 1, copy), list(sys.modules)])
        import_here(modules)
        left |= {point: (start, f"{start} {number}") for number, point in enumerate(seen)}
        expected[start] = apart(lambda: _state(conf))

    def difference(start):
        got = apart(lambda: went_on(conf, start + 1))
        return _difference(expected[start], got)

    results = {}
    for point, (start, copied) in [*left.items()][first::every]:
        shutil.rmtree(state)
        (kept / copied).rename(state)
        results[point] = difference(start)
    shutil.rmtree(state)
    (kept / str(start)).rename(state)
    code = apart(lambda: judged(conf, 1, kill))
    found = {"points": [*left], "results": results, "killed": [code, difference(start)]}
    found |= {key: expected[batches][key] for key in ("versions", "pages")}
    sys.stdout.write(json.dumps(found) + "\n")


def import_here(modules):
    """What a run imports on its way: a process that is forked afterwards has it already."""
    for name in modules:
        if name not in sys.modules:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def _difference(expected, got):
    """The first difference in words; empty: none."""
    if isinstance(got, int):
        return f"going on ended with {got}"
    for key in expected:
        if expected[key] != got[key]:
            pairs = zip(expected[key], got[key], strict=False)
            first = next(((a, b) for a, b in pairs if a != b), ("length", "length"))
            return f"{key}: {first[0]!s:.600} became {first[1]!s:.600}"
    return ""


if __name__ == "__main__":
    main()
