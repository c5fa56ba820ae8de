"""The flights replayed at once, in pieces, twice, and with a week that comes three weeks late.

Each piece is a process of its own. Decisions are compared as they were recorded, with everything
they were made from, and each is made again from its own record.
"""

import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pandas as pd
import yaml

from benchmarks.harness.command import Figures, Result, at_most, options, run
from benchmarks.harness.processes import holdfast
from examples import flights
from pipeline.config import Settings
from pipeline.monitoring.episode import Attempt, decide

CONF: Final = "conf/flights.yaml"
MISSING: Final = "HOLDFAST_BENCH_MISSING"
"""Variable with the start of the week whose rows have not come yet."""
PIECES: Final = (1, 3, 12, 8, 20)
LATE: Final = 3
"""Weeks after its own end in which the late week comes."""
WEEK: Final = pd.Timedelta("7D")
Recorded = dict[str, Any]


def main() -> int:
    parser = options("replays", __doc__, quick="two weeks, none of them late, none twice")
    parser.add_argument(
        "--late",
        type=pd.Timestamp,
        metavar="DATE",
        help="start of the late week; by default the first week that asks for a retrain",
    )
    return run(parser, measure)


def rows(start: pd.Timestamp | None, end: pd.Timestamp | None) -> pd.DataFrame:
    """Flights without the week that has not come."""
    came = flights.rows(start, end)
    missing = os.environ.get(MISSING)
    if not missing:
        return came
    first = pd.Timestamp(missing)
    inside = (came["scheduled"] >= first) & (came["scheduled"] < first + WEEK)
    return came[~inside].reset_index(drop=True)


class Model:
    """A model whose state is in a folder of its own."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seconds = folder, 0.0
        self.conf = folder / "flights.yaml"
        values = yaml.safe_load(Path(CONF).read_text(encoding="utf-8"))
        values["data"]["train"] = {"kind": "function", "function": "benchmarks.replays:rows"}
        values["training"]["seed"] = seed
        values["tracking"] = {"folder": str(folder / "state")}
        folder.mkdir()
        self.conf.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")

    def replay(self, batches: int, missing: str = "") -> Recorded:
        """Judge so many more batches; what is recorded then."""
        return self._run("replay", "--batches", batches, missing=missing)

    def judge(self, start: pd.Timestamp) -> Recorded:
        """Judge the batch that starts then; what is recorded then."""
        return self._run("monitor", "--batch", start.isoformat())

    def _run(self, flow: str, *given: object, missing: str = "") -> Recorded:
        started = time.perf_counter()
        holdfast(flow, self.conf, *given, folder=self.folder, **{MISSING: missing})
        self.seconds += time.perf_counter() - started
        found = recorded(self.conf)
        done = f"{len(found['record'])} batches after {self.seconds:.0f} s"
        print(f"{self.folder.name}, {flow} {given[-1]}: {done}", flush=True)
        return found


def recorded(conf: Path) -> Recorded:
    """All that is recorded of a model's batches, and which decisions do not follow from it."""
    from pipeline.registry import records  # noqa: PLC0415 -- MLflow reads the environment
    from pipeline.registry.versions import Registry  # noqa: PLC0415

    settings = Settings.load(str(conf))
    registry = Registry(settings.name, settings.tracking)
    batches = {one.name: one for one in records.read_history(registry).batches}
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
        # Read from JSON, nan is one object, and equals itself in another record.
        record[name] = json.loads(json.dumps(asdict(verdict) | {"given": given}))
        losses[name] = one.performance.metrics["log_loss"] if one.performance else None
    return {
        "record": record,
        "unexplained": unexplained,
        "losses": losses,
        "versions": len(registry.versions()),
        "runs": len(registry.search("tags.kind != ''")),
    }


def measure(seed: int, *, quick: bool, late: pd.Timestamp | None) -> Result:
    """What differs between replays of the same weeks."""
    pieces = (1, 1) if quick else PIECES
    with tempfile.TemporaryDirectory() as name:
        whole = Model(Path(name) / "at once", seed)
        once = whole.replay(sum(pieces))
        seconds = whole.seconds
        broken = Model(Path(name) / "in pieces", seed)
        for size in pieces:
            in_pieces = broken.replay(size)
        figures: Figures = {
            "batches": len(once["record"]),
            "retrains": len(_asking(once)),
            "pieces": pieces,
            "differing_in_pieces": _differing(once, in_pieces),
            "unexplained": {"once": once["unexplained"], "pieces": in_pieces["unexplained"]},
            "log_loss": _mean(once, once),
            "seconds": {"once": round(seconds), "pieces": round(broken.seconds)},
        }
        goals = [
            at_most("decisions that differ in pieces", len(figures["differing_in_pieces"]), 0),
            at_most("unexplained decisions", sum(map(len, figures["unexplained"].values())), 0),
        ]
        if quick:
            return figures, goals
        twice = whole.replay(sum(pieces) - len(once["record"]))
        figures["differing_twice"] = _differing(once, twice)
        figures["added_by_the_second"] = {k: twice[k] - once[k] for k in ("versions", "runs")}
        week = late or pd.Timestamp(_asking(once)[0][:10])
        figures["late"] = _late(Model(Path(name) / "late", seed), once, week)
    added = sum(figures["added_by_the_second"].values())
    unexplained = len(figures["late"]["unexplained"])
    changed = len(figures["late"]["changed_by_its_coming"])
    return figures, [
        *goals,
        at_most("decisions that differ the second time", len(figures["differing_twice"]), 0),
        at_most("versions and runs that the second time added", added, 0),
        at_most("unexplained decisions, one week late", unexplained, 0),
        at_most("decisions that the late week's coming changed", changed, 0),
    ]


def _late(model: Model, once: Recorded, week: pd.Timestamp) -> Figures:
    """What becomes of decisions when the rows of a week come after later weeks were judged."""
    names = [*once["record"]]
    own = f"{week:%Y-%m-%dT%H:%M}"
    before = names.index(own) + 1 + LATE
    missing = model.replay(before, missing=f"{week:%Y-%m-%d}")
    came = model.judge(week)
    end = model.replay(len(names) - before)
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


def _action(found: Recorded, name: str) -> str:
    record = found["record"]
    return str(record[name]["decision"]["action"]) if name in record else "none yet"


def _asking(found: Recorded) -> list[str]:
    """Names of the batches that asked for a retrain."""
    return [name for name in found["record"] if _action(found, name) == "retrain"]


def _differing(one: Recorded, other: Recorded) -> list[str]:
    """Names of the batches whose records differ, or that only one of the two has."""
    names = one["record"].keys() | other["record"].keys()
    return sorted(n for n in names if one["record"].get(n) != other["record"].get(n))


def _mean(found: Recorded, weeks: Recorded) -> float:
    """Mean log-loss over the weeks of another record."""
    losses = [found["losses"][name] for name in weeks["record"] if found["losses"].get(name)]
    return round(float(pd.Series(losses).mean()), 4)


if __name__ == "__main__":
    raise SystemExit(main())
