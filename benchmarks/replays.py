"""The flights replayed at once, in pieces, twice, and with a week that comes three weeks late.

Each piece is a process of its own. Decisions are compared as they were recorded, with all that
they were made from, and each is made again from its own record.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks.goals import python
from examples import flights

CONF = "conf/flights.yaml"
MISSING = "HOLDFAST_BENCH_MISSING"
"""Start of the week whose rows have not come yet."""
PIECES = [1, 3, 12, 8, 20]
LATE = 3
"""Weeks after its own end that the late one comes."""
WEEK = pd.Timedelta("7D")
Told = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replays", description=__doc__)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--quick", action="store_true", help="2 weeks, and none of them late")
    parser.add_argument("--late", help="start of the late week; else the first that retrains")
    parser.add_argument("--piece", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.piece:
        piece(*given.piece)
        return 0
    figures, goals = run(quick=given.quick, late=given.late)
    print(json.dumps(figures, indent=1))
    if given.json:
        print(json.dumps({"figures": figures, "goals": goals}))
    return 0


def rows(start: pd.Timestamp | None, end: pd.Timestamp | None) -> pd.DataFrame:
    """The flights without the week that has not come."""
    came = flights.rows(start, end)
    missing = os.environ.get(MISSING)
    if not missing:
        return came
    first = pd.Timestamp(missing)
    inside = (came["scheduled"] >= first) & (came["scheduled"] < first + WEEK)
    return came[~inside].reset_index(drop=True)


def piece(conf: str, what: str) -> None:
    """Replay so many batches, or judge the one that starts then; the last line tells the record."""
    from flows.monitor import monitor  # noqa: PLC0415 -- Prefect reads its settings at import
    from flows.replay import replay  # noqa: PLC0415
    from flows.steps import opened  # noqa: PLC0415
    from pipeline.monitoring.episode import Attempt, decide  # noqa: PLC0415
    from pipeline.registry import records  # noqa: PLC0415

    if what.isdigit():
        replay(conf, batches=int(what))
    else:
        monitor(conf, batch=what)
    _, registry = opened(conf)
    batches = {one.name: one for one in records.batches(registry)}
    record, unexplained, losses = {}, [], {}
    for name, one in batches.items():
        given = registry.read(one.run_id, records.GIVEN)
        from_record = given | {
            "history": [batches[earlier].verdict for earlier in given["history"]],
            "attempts": [Attempt(**attempt) for attempt in given["attempts"]],
        }
        verdict = one.verdict
        if decide(verdict.evidence, **from_record) != verdict.decision:
            unexplained.append(name)
        record[name] = asdict(verdict) | {"given": given}
        losses[name] = one.performance.scores["log_loss"] if one.performance else None
    told = {"record": record, "unexplained": unexplained, "losses": losses}
    counts = {"versions": len(registry.versions()), "runs": len(registry.search("tags.kind != ''"))}
    print(json.dumps(told | counts))


class Replays:
    """A model of its own in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seconds = folder, 0.0
        self.conf = folder / "flights.yaml"
        values = yaml.safe_load(Path(CONF).read_text(encoding="utf-8"))
        values["data"]["train"] = {"kind": "function", "function": "benchmarks.replays:rows"}
        values["tracking"] = {"folder": str(folder / "state")}
        (folder / "prefect").mkdir(parents=True)
        self.conf.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")

    def run(self, what: object, missing: str = "") -> Told:
        """One piece; what is recorded then."""
        started = time.perf_counter()
        asked = ["--piece", str(self.conf), str(what)]
        printed = python(
            "-m", "benchmarks.replays", *asked, folder=self.folder, **{MISSING: missing}
        )
        self.seconds += time.perf_counter() - started
        told: Told = json.loads(printed.splitlines()[-1])
        print(f"{what}: {len(told['record'])} batches after {self.seconds:.0f} s", flush=True)
        return told


def run(*, quick: bool, late: str | None) -> tuple[Told, list[Told]]:
    """Figures and goals."""
    pieces = [1, 1] if quick else PIECES
    with tempfile.TemporaryDirectory() as name:
        whole = Replays(Path(name) / "once")
        once = whole.run(sum(pieces))
        seconds = whole.seconds
        twice = whole.run(sum(pieces) if len(once["record"]) < sum(pieces) else 0)
        broken = Replays(Path(name) / "pieces")
        for size in pieces:
            in_pieces = broken.run(size)
        figures: Told = {
            "batches": len(once["record"]),
            "retrains": len(_asking(once)),
            "pieces": pieces,
            "differing_in_pieces": _differing(once, in_pieces),
            "differing_twice": _differing(once, twice),
            "added_by_the_second": {k: twice[k] - once[k] for k in ("versions", "runs")},
            "unexplained": {"once": once["unexplained"], "pieces": in_pieces["unexplained"]},
            "log_loss": _mean(once, once),
            "seconds": {"once": round(seconds), "pieces": round(broken.seconds)},
        }
        if not quick:
            week = late or _asking(once)[0][:10]
            figures["late"] = _late(Replays(Path(name) / "late"), once, pd.Timestamp(week))
    goals = [
        _none("decisions that differ in pieces", len(figures["differing_in_pieces"])),
        _none("decisions that differ the second time", len(figures["differing_twice"])),
        _none("versions and runs that it added", sum(figures["added_by_the_second"].values())),
        _none("unexplained decisions", sum(map(len, figures["unexplained"].values()))),
    ]
    if not quick:
        unexplained = len(figures["late"]["unexplained"])
        changed = len(figures["late"]["changed_by_its_coming"])
        goals.append(_none("unexplained decisions, one week late", unexplained))
        goals.append(_none("decisions that the late week's coming changed", changed))
    return figures, goals


def _late(model: Replays, once: Told, week: pd.Timestamp) -> Told:
    names = [*once["record"]]
    before = names.index(f"{week:%Y-%m-%dT%H:%M}") + 1 + LATE
    missing = model.run(before, missing=f"{week:%Y-%m-%d}")
    came = model.run(week.isoformat())
    end = model.run(len(names) - before)
    own = f"{week:%Y-%m-%dT%H:%M}"
    others = [name for name in names if name != own]
    actions = {name: _action(end, name) for name in names}
    return {
        "week": f"{week:%Y-%m-%d}",
        "its_decision": {"in time": _action(once, own), "late": actions[own]},
        "its_version": {
            "in time": once["record"][own]["evidence"]["version"],
            "late": end["record"][own]["evidence"]["version"],
        },
        "recorded_before_it_came": own in missing["record"],
        "changed_by_its_coming": [
            name for name in _differing(missing, came) if name in missing["record"]
        ],
        "other_decisions": {
            name: f"{_action(once, name)} -> {actions[name]}"
            for name in others
            if _action(once, name) != actions[name]
        },
        "unexplained": end["unexplained"],
        "retrains": len(_asking(end)),
        "log_loss_of_all_weeks": {"in time": _mean(once, once), "late": _mean(end, once)},
    }


def _action(told: Told, name: str) -> str:
    return str(told["record"][name]["decision"]["action"]) if name in told["record"] else "none yet"


def _asking(told: Told) -> list[str]:
    return [name for name in told["record"] if _action(told, name) == "retrain"]


def _differing(one: Told, other: Told) -> list[str]:
    """Batches that were judged, decided on or recorded in another way."""
    names = one["record"].keys() | other["record"].keys()
    return sorted(n for n in names if one["record"].get(n) != other["record"].get(n))


def _mean(told: Told, weeks: Told) -> float:
    found = [told["losses"][name] for name in weeks["record"] if told["losses"].get(name)]
    return round(float(pd.Series(found).mean()), 4)


def _none(goal: str, value: int) -> Told:
    return {"goal": goal, "value": value, "limit": 0, "met": value == 0}


if __name__ == "__main__":
    raise SystemExit(main())
