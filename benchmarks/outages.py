"""Three broken weeks in the flights' own source: what the shipped flows do, and what it costs.

Weeks 8 to 19 are replayed once. From there each fault damages weeks 20 to 22, for training as
well, and the ten weeks after them are replayed in three ways: with the diagnosis, where nobody
answers for the broken weeks; with it, where the source is mended and the weeks are read again;
and without it. With the diagnosis the rest of the year is measured as well.
"""

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import yaml

from benchmarks.batches.faulty_flights import AFTER, FAULT, FIRST, FLIGHTS
from benchmarks.harness.command import Figures, Goal, Result, at_most, name_some, options, run
from benchmarks.harness.processes import ChildError, holdfast

CONF: Final = "conf/flights.yaml"
FAULTY: Final = 3
"""Batches that a fault damages."""
BROKEN: Final = {"broken", "mixed"}
WAYS: Final[dict[str, dict[str, bool]]] = {
    "with": {"diagnosis": True},
    "mended": {"diagnosis": True, "mended": True},
    "without": {"diagnosis": False},
}
Story = list[dict[str, Any]]


@dataclass(frozen=True)
class Extent:
    """How much is replayed.

    Attributes
    ----------
    until : str or None
        End of the first version's rows; None: as the shipped configuration says.
    before, soon : int
        Batches before the faulty ones and after them.
    rest : bool
        Whether the rest of the year is replayed where the diagnosis is on.
    ways : tuple of str
        Keys of `WAYS`.
    """

    until: str | None = None
    before: int = 12
    soon: int = 10
    rest: bool = True
    ways: tuple[str, ...] = tuple(WAYS)


QUICK: Final = Extent(until=f"{FIRST:%Y-%m-%d}", before=0, soon=1, rest=False, ways=("with",))


def main() -> int:
    quick = "one fault, one week after it, a first version that is trained up to it"
    parser = options("outages", __doc__, quick=quick)
    name_some(parser, "causes", FLIGHTS)
    parser.add_argument(
        "--on-unanswered",
        choices=("hold", "accept"),
        default="hold",
        help="what a fault counts as that nobody answers for (monitoring.on_unanswered)",
    )
    return run(parser, measure)


class Replays:
    """Continuations of one replay, each in the same folder, as stored paths are absolute."""

    def __init__(self, folder: Path, extent: Extent, seed: int, on_unanswered: str) -> None:
        self.folder, self.extent, self.seed = folder, extent, seed
        self.on_unanswered = on_unanswered
        self.state, self.kept = folder / "state", folder / "kept"
        self.afterwards: dict[bool, Story] = {}
        self.faulty: dict[str, Story] = {}
        self._run("", extent.before, diagnosis=False)  # no false alarms before the fault
        shutil.copytree(self.state, self.kept)

    def story(self, fault: str, *, diagnosis: bool, mended: bool = False) -> Story:
        """Batches from week 20 on.

        What follows weeks that were all quarantined is the same for every fault, as nothing
        counts them, and is replayed once; so is what follows weeks that were all mended. It is not
        where faults that nobody answers for are accepted.
        """
        if diagnosis and fault in self.faulty and mended in self.afterwards:
            return self.faulty[fault] + self.afterwards[mended]
        shutil.rmtree(self.state)
        shutil.copytree(self.kept, self.state)
        faulty = _since(FIRST, self._run(fault, FAULTY, diagnosis=diagnosis))
        aside = [row["batch"] for row in faulty if row["outcome"] in BROKEN]
        alike = diagnosis and len(aside) == FAULTY and self.on_unanswered == "hold"
        if alike:
            self.faulty[fault] = faulty
            if mended in self.afterwards:
                return faulty + self.afterwards[mended]
        for batch in aside if mended else []:
            answer = ("--batch", batch, "--answer", "reload", "--reason", "sent again")
            holdfast("review", self._conf(diagnosis=diagnosis), *answer, folder=self.folder)
        clean = self._afterwards("" if mended else fault, FAULTY - len(faulty), diagnosis=diagnosis)
        if alike:
            self.afterwards[mended] = clean
        return faulty + clean

    def _afterwards(self, fault: str, unjudged: int, *, diagnosis: bool) -> Story:
        """Batches after the faulty weeks; weeks that could not be judged are tried again first."""
        whole = self.extent.rest and (diagnosis or not fault)
        batches = None if whole else self.extent.soon + unjudged
        return _since(AFTER, self._run(fault, batches, diagnosis=diagnosis))

    def _run(self, fault: str, batches: int | None, *, diagnosis: bool) -> Story:
        conf = self._conf(diagnosis=diagnosis)
        count = () if batches is None else ("--batches", batches)
        given = {FAULT: f"{fault}:{self.seed}"}
        story: Story = holdfast("replay", conf, *count, folder=self.folder, **given)["batches"]
        return story

    def _conf(self, *, diagnosis: bool) -> Path:
        """The shipped configuration on the damaged source, with its state in this folder."""
        values = yaml.safe_load(Path(CONF).read_text(encoding="utf-8"))
        function = "benchmarks.batches.faulty_flights:faulty_flights"
        values["data"]["train"] = {"kind": "function", "function": function}
        values["training"]["seed"] = self.seed
        values["training"]["until"] = self.extent.until or values["training"]["until"]
        values["monitoring"]["diagnosis"] = diagnosis
        values["monitoring"]["on_unanswered"] = self.on_unanswered
        values["tracking"] = {"folder": str(self.state)}
        conf = self.folder / "conf.yaml"
        conf.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return conf


def _since(start: pd.Timestamp, story: Story) -> Story:
    return [row for row in story if pd.Timestamp(row["batch"]) >= start]


def measure(seed: int, *, quick: bool, causes: list[str], on_unanswered: str) -> Result:
    """Figures of every fault beside a year without fault and diagnosis, which is the yardstick."""
    extent = QUICK if quick else Extent()
    faults: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        replays = Replays(Path(name), extent, seed, on_unanswered)
        usual = replays.story("", diagnosis=False)
        watched = usual if quick else replays.story("", diagnosis=True)
        for fault in causes or (["unit"] if quick else FLIGHTS):
            started = time.perf_counter()
            faults[fault] = {way: _outcome(replays, fault, way, usual) for way in extent.ways}
            seconds = round(time.perf_counter() - started)
            print(f"{fault}, {seconds} s:", json.dumps(faults[fault]), flush=True)
    figures: Figures = {"no_fault_log_loss": _mean(_losses(usual)), "faults": faults}
    figures["on_unanswered"] = on_unanswered
    if not quick:
        figures["no_fault_with"] = _figures(watched, usual)
        figures["no_fault_broken"] = [row["batch"] for row in watched if row["outcome"] in BROKEN]
        print(markdown(figures), flush=True)
    return figures, _goals(figures)


def _outcome(replays: Replays, fault: str, way: str, usual: Story) -> Figures:
    """Figures of a fault in one of the ways; a flow that fails pages nobody about the fault."""
    try:
        return _figures(replays.story(fault, **WAYS[way]), usual)
    except ChildError as error:
        return _figures([], usual) | {"first": "the flow failed", "error": str(error)}


def _losses(story: Story) -> dict[str, float]:
    """Log-loss of each week after the faulty ones."""
    return {
        row["batch"]: row["maintained"]["log_loss"]
        for row in _since(AFTER, story)
        if row["maintained"].get("log_loss") is not None
    }


def _mean(losses: dict[str, float]) -> float:
    """Mean of the ten weeks after the fault; nan without any."""
    soon = list(losses.values())[: Extent.soon]
    return round(float(np.mean(soon)), 4) if soon else float("nan")


def _figures(story: Story, usual: Story) -> Figures:
    faulty = [row for row in story if pd.Timestamp(row["batch"]) < AFTER]
    first = next((row for row in faulty if pd.Timestamp(row["batch"]) == FIRST), None)
    broken = first is not None and first["outcome"] in BROKEN
    now, then = _losses(story), _losses(usual)
    both = [week for week in list(then)[: Extent.soon] if week in now]
    mean, usual_mean = (_mean({week: one[week] for week in both}) for one in (now, then))
    whole = len(now) == len(then)
    return {
        "paged_at_once": bool(first is not None and broken and first["action"] == "page"),
        "first": f"{first['outcome']}, {first['action']}" if first else "not judged",
        "causes": first["causes"] if first else [],
        "outcomes": [row["outcome"] for row in faulty],
        "retrains_on_faulty": sum(row["action"] == "retrain" for row in faulty),
        "retrained_in": [row["batch"] for row in story if row["action"] == "retrain"],
        "log_loss": mean,
        "over_no_fault": round(mean / usual_mean, 4) if both else float("inf"),
        "over_no_fault_all_year": _ratio(now, then) if whole and now else None,
        "worst_week": max((round(now[week] / then[week], 4) for week in both), default=None),
        "weeks": len(both),
    }


def _ratio(now: dict[str, float], then: dict[str, float]) -> float:
    return round(sum(now.values()) / sum(then.values()), 4)


def _goals(figures: Figures) -> list[Goal]:
    faulty = figures["faults"].values()
    unpaged = sum(not one["with"]["paged_at_once"] for one in faulty)
    asked = sum(one["with"]["retrains_on_faulty"] for one in faulty)
    soon = max(one["with"]["over_no_fault"] for one in faulty)
    goals = [
        at_most("faults not paged in their first batch", unpaged, 0),
        at_most("retrains on a faulty batch", asked, 0),
        at_most("log-loss in ten weeks after a fault, over that without a fault", soon, 1.01),
    ]
    if "no_fault_with" not in figures:
        return goals
    mended = max(one["mended"]["over_no_fault"] for one in faulty)
    year = max(one["with"]["over_no_fault_all_year"] or float("inf") for one in faulty)
    unharmed = figures["no_fault_with"]["over_no_fault"]
    return [
        *goals,
        at_most("log-loss to the end of the year, over that without a fault", year, 1.01),
        at_most("log-loss in ten weeks if the weeks are read again mended", mended, 1.01),
        at_most("log-loss without a fault, over that without diagnosis", unharmed, 1.01),
    ]


def markdown(figures: Figures) -> str:
    """A table with a row for each fault."""
    columns = ("fault", "first broken batch", "causes", "retrains on faulty rows")
    losses = ("log-loss, quarantined", "mended", "without diagnosis", "no fault")
    lines = [f"| {' | '.join((*columns, *losses))} |", "|" + "---|" * 8]
    for fault, found in figures["faults"].items():
        one, other = found["with"], found["without"]
        asked = f"{one['retrains_on_faulty']} with, {other['retrains_on_faulty']} without"
        cells = [fault, one["first"], "; ".join(one["causes"]), asked]
        cells += [f"{found[way]['log_loss']:.4f}" for way in WAYS]
        lines.append(f"| {' | '.join(cells)} | {figures['no_fault_log_loss']:.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
