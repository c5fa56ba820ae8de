"""Three broken weeks in the flights' own source: what the shipped flow does, and what is left.

Weeks 8 to 19 are replayed once; each fault then goes on from there through weeks 20 to 22, which
it damages for training as well, and through the ten weeks after: with the diagnosis, where nobody
answers for the broken weeks, and where the source is mended after them and they are read again;
and without. With the diagnosis the rest of the year is told as well.
`python -m benchmarks.outages [causes...]`.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks.faults import AFTER, FAULT, FIRST, FLIGHTS
from benchmarks.goals import python

CONF = "conf/flights.yaml"
BEFORE, FAULTY, SOON, REST = 12, 3, 10, 0
"""Batches up to week 19, with the fault, soon after it, and all that are left of the year."""
BROKEN = {"broken", "mixed"}
WAYS = {
    "with": {"diagnosis": True},
    "mended": {"diagnosis": True, "mended": True},
    "without": {"diagnosis": False},
}
Story = list[dict[str, Any]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outages", description=__doc__)
    parser.add_argument("causes", nargs="*", help=f"some of {', '.join(FLIGHTS)}")
    parser.add_argument("--replay", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.replay:
        conf, batches, target = given.replay
        from flows.replay import replay  # noqa: PLC0415 -- Prefect reads its settings at import

        story = replay(conf, batches=int(batches) or None)
        Path(target).write_text(json.dumps(story, default=str), encoding="utf-8")
        return 0
    print(json.dumps(run(given.causes), indent=1))
    return 0


class Replays:
    """Continuations of one replay, in turn at the same place, as stored paths are absolute."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state, self.kept = folder / "state", folder / "kept"
        self.conf = folder / "conf.yaml"
        (folder / "prefect").mkdir()
        self.afterwards: dict[bool, Story] = {}
        self.faulty: dict[str, Story] = {}
        self._run("", BEFORE, diagnosis=False)  # false alarms there are not what is measured
        shutil.copytree(self.state, self.kept)

    def story(self, fault: str, *, diagnosis: bool, mended: bool = False) -> Story:
        """Batches from week 20 on.

        What comes after weeks that were all set aside is the same for every fault, as nothing
        counts them, and is replayed once; so is what comes after weeks that were all mended.
        """
        if diagnosis and fault in self.faulty and mended in self.afterwards:
            return self.faulty[fault] + self.afterwards[mended]
        shutil.rmtree(self.state)
        shutil.copytree(self.kept, self.state)
        faulty = _since(FIRST, self._run(fault, FAULTY, diagnosis=diagnosis))
        aside = [row["batch"] for row in faulty if row["outcome"] in BROKEN]
        alike = diagnosis and len(aside) == FAULTY
        if alike:
            self.faulty[fault] = faulty
            if mended in self.afterwards:
                return faulty + self.afterwards[mended]
        if mended:
            for batch in aside:
                answer = ("--batch", batch, "--answer", "reload", "--reason", "sent again")
                self._python("", "flows.review", str(self.conf), *answer)
        unjudged = FAULTY - len(faulty)  # are tried again
        now, batches = "" if mended else fault, REST if diagnosis or not fault else SOON + unjudged
        clean = _since(AFTER, self._run(now, batches, diagnosis=diagnosis))
        if alike:
            self.afterwards[mended] = clean
        return faulty + clean

    def _python(self, fault: str, *arguments: str) -> None:
        python("-m", *arguments, folder=self.folder, **{FAULT: fault})

    def _run(self, fault: str, batches: int, *, diagnosis: bool) -> Story:
        conf, target = self.conf, self.folder / "story.json"
        values = yaml.safe_load(Path(CONF).read_text(encoding="utf-8"))
        source = {"kind": "function", "function": "benchmarks.faults:faulty_flights"}
        values["data"]["train"] = source
        values["monitoring"]["diagnosis"] = diagnosis
        values["tracking"] = {"folder": str(self.state)}
        conf.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        replay = ["--replay", str(conf), str(batches), str(target)]
        self._python(fault, "benchmarks.outages", *replay)
        story: Story = json.loads(target.read_text(encoding="utf-8"))
        return story


def _since(start: pd.Timestamp, story: Story) -> Story:
    return [row for row in story if pd.Timestamp(row["batch"]) >= start]


def run(causes: list[str] | None = None) -> dict[str, Any]:
    """Figures of every fault, or of some, with the diagnosis and without.

    The yardstick is no fault and no diagnosis; what its false alarms cost is told as well.
    """
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        replays = Replays(Path(name))
        usual = replays.story("", diagnosis=False)
        watched = replays.story("", diagnosis=True)
        print("no fault:", json.dumps(_figures(watched, usual)), flush=True)
        for fault in causes or FLIGHTS:
            started = time.perf_counter()
            told[fault] = {}
            for word, options in WAYS.items():
                try:
                    story = replays.story(fault, **options)
                except RuntimeError as error:
                    told[fault][word] = _failed(str(error))
                else:
                    told[fault][word] = _figures(story, usual)
            seconds = round(time.perf_counter() - started)
            print(f"{fault}, {seconds} s:", json.dumps(told[fault]), flush=True)
    clean = [row["batch"] for row in watched if row["outcome"] in BROKEN]
    figures = {
        "no_fault_log_loss": round(float(np.mean(list(_losses(usual).values())[:SOON])), 4),
        "no_fault_with": _figures(watched, usual),
        "no_fault_broken": clean,
        "faults": told,
    }
    print(markdown(figures), flush=True)
    return figures


def _losses(story: Story) -> dict[str, float]:
    """Log-loss by week, of the weeks after the fault."""
    return {
        row["batch"]: row["maintained"]["log_loss"]
        for row in story
        if pd.Timestamp(row["batch"]) >= AFTER and "log_loss" in row["maintained"]
    }


def _figures(story: Story, usual: Story) -> dict[str, Any]:
    faulty = [row for row in story if pd.Timestamp(row["batch"]) < AFTER]
    first = next((row for row in faulty if pd.Timestamp(row["batch"]) == FIRST), None)
    broken = first is not None and first["outcome"] in BROKEN
    now, then = _losses(story), _losses(usual)
    both = [week for week in list(then)[:SOON] if week in now]
    ratios = [now[week] / then[week] for week in both]
    mean = float(np.mean([now[week] for week in both])) if both else float("nan")
    usual_mean = float(np.mean([then[week] for week in both])) if both else float("nan")
    return {
        "paged_at_once": bool(first is not None and broken and first["action"] == "page"),
        "first": f"{first['outcome']}, {first['action']}" if first else "not judged",
        "causes": first["causes"] if first else [],
        "outcomes": [row["outcome"] for row in faulty],
        "retrains_on_faulty": sum(row["action"] == "retrain" for row in faulty),
        "retrained_in": [row["batch"] for row in story if row["action"] == "retrain"],
        "log_loss": round(mean, 4),
        "over_no_fault": round(mean / usual_mean, 4),
        "over_no_fault_all_year": _ratio(now, then) if len(now) == len(then) else None,
        "worst_week": round(max(ratios, default=float("nan")), 4),
        "weeks": len(both),
    }


def _ratio(now: dict[str, float], then: dict[str, float]) -> float:
    return round(sum(now.values()) / sum(then.values()), 4)


def _failed(message: str) -> dict[str, Any]:
    """A flow that dies pages nobody of the fault."""
    return {
        "paged_at_once": False,
        "first": "the flow failed",
        "causes": [],
        "outcomes": [],
        "retrains_on_faulty": 0,
        "retrained_in": [],
        "log_loss": float("nan"),
        "over_no_fault": float("inf"),
        "over_no_fault_all_year": None,
        "worst_week": float("nan"),
        "weeks": 0,
        "error": message,
    }


def markdown(figures: dict[str, Any]) -> str:
    """One row a fault."""
    columns = ("fault", "first broken batch", "causes", "retrains on faulty rows")
    losses = ("log-loss, set aside", "mended", "without diagnosis", "no fault")
    lines = [f"| {' | '.join((*columns, *losses))} |", "|" + "---|" * 8]
    for fault, told in figures["faults"].items():
        one, other = told["with"], told["without"]
        asked = f"{one['retrains_on_faulty']} with, {other['retrains_on_faulty']} without"
        cells = [fault, one["first"], "; ".join(one["causes"]), asked]
        cells += [f"{told[word]['log_loss']:.4f}" for word in WAYS]
        lines.append(f"| {' | '.join(cells)} | {figures['no_fault_log_loss']:.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
