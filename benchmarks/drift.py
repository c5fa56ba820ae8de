"""The drift statistics against theory and against other tools: false alarms, power, speed."""

import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks import peers
from benchmarks.batches import draws
from benchmarks.batches import ordinary as ordinaries
from benchmarks.batches.moving_slices import slices
from benchmarks.batches.wide import wide
from benchmarks.harness.command import Result, at_least, at_most, options, run_parts
from benchmarks.harness.processes import side_by_side
from pipeline.columns import infer_columns
from pipeline.monitoring.drift import compare
from pipeline.monitoring.findings import DriftReport
from pipeline.reference import Reference
from pipeline.reference.summaries import Summary

ALPHA = 0.05


def main() -> int:
    parser = options("drift", __doc__, quick="a few trials, and no other tools")
    return run_parts(parser, PARTS)


def judged(reference: Reference, current: pd.DataFrame, **given: Any) -> DriftReport:
    return compare(reference=reference, current=current, alpha=ALPHA, diagnosis=False, **given)


def false_alarms(seed: int, *, quick: bool) -> Result:
    """Nothing is wrong: how often does a batch alarm?"""
    independent = [
        (rows, columns, "independent rows", max(10_000, rows), 5 if rows < 100_000 else 3)
        for rows in (50, 500, 5_000, 100_000)
        for columns in (5, 50, 200)
    ]
    dependent = [(500, 10, name, 0, 4) for name in draws.DEPENDENCE]
    dependent += [(5_000, 10, name, 0, 4) for name in draws.DEPENDENCE]
    cells = [*independent, *dependent]
    if quick:
        cells = [(500, 10, name, 0, 4) for name in draws.DEPENDENCE][:3] + independent[:2]
    figures: dict[str, Any] = {}
    goals, whole = [], []
    for rows, columns, name, history, batches in cells:
        trials = 8 if quick else _references(rows, columns)
        trial = partial(_nothing_wrong, (rows, columns, name, history, batches))
        found = [one for many in side_by_side(trial, range(seed, seed + trials)) for one in many]
        alarms, naive = (float(np.mean([one[k] for one in found])) for k in (0, 1))
        limit = float(stats.binom.ppf(0.995, len(found), ALPHA) / len(found))
        label = f"{rows} rows, {columns} columns, {name}"
        figures[label] = {**counted([one[0] for one in found]), "ks_loop_alarms": naive}
        whole += [one[0] for one in found]
        goals.append(at_most(f"false alarms: {label}", alarms, limit))
    figures["all of these"] = counted(whole)
    return figures, goals


def counted(alarms: Sequence[bool]) -> dict[str, Any]:
    """How many batches alarm, as a share with its 95% interval (Clopper and Pearson 1934)."""
    ends = stats.binomtest(sum(alarms), len(alarms)).proportion_ci()
    interval = [float(ends.low), float(ends.high)]
    return {"batches": len(alarms), "alarms": float(np.mean(alarms)), "interval": interval}


def _references(rows: int, columns: int) -> int:
    """Number of references: fewer where a reference takes long."""
    return int(np.clip(8_000 // columns, 40, 80)) if rows < 5_000 else max(8, 400 // columns)


def _nothing_wrong(cell: tuple[int, int, str, int, int], seed: int) -> list[tuple[bool, bool]]:
    """Whether sound batches alarm, here and in the loop; the reference: `history` rows, or blocks.

    Without a history it consists of ten blocks of the batch's length.
    """
    rows, columns, dependence, history, batches = cell
    random = np.random.default_rng([seed, rows, columns])
    draw = partial(draws.messy, random, columns=columns, rows=draws.DEPENDENCE[dependence])
    if history:
        before, block = draw(history), None
    else:
        before = pd.concat([draw(rows) for _ in range(10)], ignore_index=True)
        block = rows
    reference = Reference.fit(before, infer_columns(before), block=block)
    found = []
    for _ in range(batches):
        recent = [] if history else [reference.summarise(draw(rows)) for _ in range(2)]
        now = draw(rows)
        alarm = judged(reference, now, recent=recent).alarm
        found.append((alarm, _ks_loop(before, now)))
    return found


def _ks_loop(before: pd.DataFrame, now: pd.DataFrame) -> bool:
    """Whether a test per column at 0.05 alarms: the loop that most people write first."""
    numbers = before.select_dtypes("number").columns
    return any(
        stats.ks_2samp(before[name].dropna(), now[name].dropna()).pvalue < ALPHA
        for name in numbers
        if now[name].notna().any()
    )


SHIFTS = (0.0, 0.25, 0.5, 1.0)
"""By how many standard deviations the mean of one of ten columns is raised; 0: a sound batch."""
RULES = ("ours", "evidently, any column", "evidently, its dataset rule", "ks_2samp loop")


def dependent_peers(seed: int, *, quick: bool) -> Result:
    """Evidently and the loop on the same batches: sound ones, and ones in which one mean rose.

    Evidently calls a data set drifted when at least half of its columns are, by default.
    """
    if quick:
        return {"left out": "--quick runs no other tool"}, []
    figures: dict[str, Any] = {}
    goals = []
    with tempfile.TemporaryDirectory() as folder, peers.worker("evidently") as evidently:
        path = Path(folder) / "rows.parquet"
        for name in draws.DEPENDENCE:
            trials = [_beside(evidently, path, name, [seed, trial]) for trial in range(40)]
            alarms = np.mean(trials, axis=0)  # trials, shifts, rules
            shown = {
                f"+{shift} sd": dict(zip(RULES, one, strict=True))
                for shift, one in zip(SHIFTS, alarms.tolist(), strict=True)
            }
            figures[name] = {"batches of each": len(trials), **shown}
            if name != "independent rows" and "day" not in name:
                more = float(alarms[0, 1] - alarms[0, 0])
                goals.append(at_least(f"Evidently's alarms less ours: {name}", more, 0.0))
    return figures, goals


def _beside(evidently: peers.Worker, path: Path, name: str, seed: list[int]) -> list[list[bool]]:
    """Whether each of `RULES` alarms, for each of `SHIFTS`; the reference: ten blocks."""
    draw = partial(
        draws.plain, np.random.default_rng(seed), columns=10, rows=draws.DEPENDENCE[name]
    )
    before = pd.concat([draw(500) for _ in range(10)], ignore_index=True)
    reference = Reference.fit(before, infer_columns(before), block=500)
    before.to_parquet(path)
    evidently.ask({"do": "reference", "path": str(path), "count_only": True})
    found = []
    for shift in SHIFTS:
        now = draw(500)
        now["x000"] += shift
        now.to_parquet(path)
        answer = evidently.ask({"do": "check", "path": str(path)})
        ours = judged(reference, now).alarm
        found.append([ours, bool(answer["alarm"]), answer["dataset"], _ks_loop(before, now)])
    return found


def power(seed: int, *, quick: bool) -> Result:
    """One thing changed, in 1,000 rows against 10,000: how often is it found?"""
    trials = 4 if quick else 200
    found = side_by_side(_changed, range(seed, seed + trials))
    figures, goals = {}, []
    for name, (_, asked) in draws.CHANGES.items():
        alarms = 100 * float(np.mean([one[name][0] for one in found]))
        families = sorted({kind for one in found for kind in one[name][1]})
        by = {kind: sum(kind in one[name][1] for one in found) for kind in families}
        figures[name] = {"found_percent": alarms, "asked_percent": asked, "by": by}
        goals.append(at_least(f"power: {name}", alarms, asked))
    return figures, goals


def _changed(seed: int) -> dict[str, tuple[bool, list[str]]]:
    random = np.random.default_rng([seed, 1])
    before = draws.table(random, 10_000)
    reference = Reference.fit(before, infer_columns(before))
    found = {}
    for name, (draw, _) in draws.CHANGES.items():
        report = judged(reference, draw(random, 1_000))
        found[name] = (report.alarm, sorted({f.kind for f in report.findings if f.drifted}))
    return found


def ordinary(seed: int, *, quick: bool) -> Result:
    """Batches like the blocks of the reference, whose levels differ: how often do they alarm?"""
    figures, goals = {}, []
    cells = dict(list(ordinaries.CELLS.items())[:3]) if quick else ordinaries.CELLS
    for name, (judge, batches) in cells.items():
        trials = 1 if quick else -(-(1_000 if name.startswith("shocks") else 400) // batches)
        found = [one for many in side_by_side(judge, range(seed, seed + trials)) for one in many]
        limit = float(stats.binom.ppf(0.975, len(found), ALPHA) / len(found))
        figures[name] = {"batches": len(found), "alarms": float(np.mean(found))}
        goals.append(at_most(f"ordinary batches: {name}", figures[name]["alarms"], limit))
    return figures, goals


def decay(seed: int, *, quick: bool) -> Result:
    """Simulated years of weekly batches of 2,000 rows: when does an episode open?"""
    years = {"stationary": 1, "covariate": 1, "correlation": 1}
    if not quick:
        years = {"stationary": 100, "covariate": 20, "correlation": 20}
    figures: dict[str, Any] = {}
    goals = []
    for kind, count in years.items():
        found = side_by_side(partial(_year, kind), range(seed, seed + count))
        first = [next((week for week, on in enumerate(one, 1) if on), 99) for one in found]
        figures[kind] = {"years": count, "median_first_week": float(np.median(first))}
        if kind == "stationary":
            opened = [
                sum(b and not a for a, b in zip([False, *one], one, strict=False)) for one in found
            ]
            figures[kind] = {"years": count, "false_episodes_a_year": float(np.mean(opened))}
            goals.append(at_most("false episodes a year", float(np.mean(opened)), 0.1))
        else:
            goals.append(at_most(f"first week: {kind}", float(np.median(first)), 5))
    return figures, goals


def _year(kind: str, seed: int) -> list[bool]:
    """Whether drift persists in each week, up to the week in which drift that exists is found."""
    random = np.random.default_rng([seed, 2])
    before = draws.table(random, 20_000)
    reference = Reference.fit(before, infer_columns(before), block=2_000)
    recent: list[Summary] = []
    persisted = []
    for week in range(1, 53):
        report = judged(reference, draws.YEARS[kind](random, 2_000, week), recent=recent)
        recent.append(report.summary)
        persisted.append(report.persisted)
        if kind != "stationary" and report.persisted:
            break
    return persisted


def silence(seed: int, *, quick: bool) -> Result:
    """Everything shifted by 0.01 sd in 100,000 rows against 100,000."""
    trials = 1 if quick else 20
    found = side_by_side(_barely, range(seed, seed + trials))
    figures = {"batches": trials, "alarms": float(np.mean(found))}
    limit = float(stats.binom.ppf(0.995, trials, ALPHA) / trials)
    return figures, [at_most("alarms when all moved by 0.01 sd", figures["alarms"], limit)]


def _barely(seed: int) -> bool:
    random = np.random.default_rng([seed, 3])
    before, now = (random.normal(size=(100_000, 20)) for _ in range(2))
    names = [f"x{i}" for i in range(20)]
    frame = pd.DataFrame(before, columns=names)
    reference = Reference.fit(frame, infer_columns(frame))
    return judged(reference, pd.DataFrame(now + 0.01, columns=names)).alarm


TOOLS: dict[str, tuple[peers.Name, dict[str, Any]]] = {
    "ours": ("ours", {}),
    "evidently": ("evidently", {}),
    "evidently without its report": ("evidently", {"count_only": True}),
    "nannyml": ("nannyml", {}),
    "ks_2samp loop": ("ks_loop", {}),
}


def speed(seed: int, *, quick: bool) -> Result:
    """CPU seconds of one check, one thread, interleaved in one run."""
    if quick:
        return {"left out": "--quick runs no other tool"}, []
    random = np.random.default_rng(seed)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        paths = {
            name: _wide(random, rows, Path(folder) / f"{name}.parquet")
            for name, rows in (("reference", 100_000), ("10k", 10_000), ("1m", 1_000_000))
        }
        workers = {}
        for tool, (name, options) in TOOLS.items():
            workers[tool] = stack.enter_context(peers.worker(name))
            workers[tool].ask({"do": "reference", "path": paths["reference"], **options})
            workers[tool].ask({"do": "check", "path": paths["10k"]})  # late imports
        for size, repeats in (("10k", 7), ("1m", 2)):
            figures[size] = _interleaved(workers, paths[size], repeats)
        figures["extra_mb"] = max(_memory(paths["reference"], paths["1m"]) for _ in range(3))
    ratio = {
        f"{tool}, {size}": round(figures[size][tool]["cpu"] / figures[size]["ours"]["cpu"], 1)
        for size in ("10k", "1m")
        for tool in TOOLS
        if tool != "ours"
    }
    figures["cpu_over_ours"] = ratio
    return figures, [
        at_least("Evidently over ours, 1,000,000 rows", ratio["evidently, 1m"], 60),
        at_least("NannyML over ours, 1,000,000 rows", ratio["nannyml, 1m"], 3),
        at_least("Evidently over ours, 10,000 rows", ratio["evidently, 10k"], 30),
        at_most("extra peak MB, 1,000,000 rows", figures["extra_mb"], 300),
    ]


def _memory(reference: str, current: str) -> float:
    """Peak above what was resident before, in MB, in a fresh process.

    In an older process, memory that was freed before may hide a part of the peak.
    """
    with peers.worker("ours") as fresh:
        fresh.ask({"do": "reference", "path": reference})
        return max(fresh.ask({"do": "check", "path": current})["extra_mb"] or 0 for _ in range(3))


def _interleaved(workers: dict[str, Any], path: str, repeats: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for _ in range(repeats):
        for name, one in workers.items():
            found[name].append(one.ask({"do": "check", "path": path}))
    return {
        name: {
            "cpu": statistics.median(answer["cpu"] for answer in answers),
            "extra_mb": max((answer["extra_mb"] or 0 for answer in answers), default=0),
        }
        for name, answers in found.items()
    }


def _wide(random: np.random.Generator, rows: int, path: Path) -> str:
    """40 numbers and 10 label columns of eight labels."""
    frame = pd.DataFrame(random.normal(size=(rows, 40)), columns=[f"x{i}" for i in range(40)])
    labels = np.asarray([f"label {i}" for i in range(8)], dtype=object)
    for i in range(10):
        frame[f"c{i}"] = pd.Series(labels[random.integers(8, size=rows)], dtype="str")
    frame.to_parquet(path, index=False)
    return str(path)


PARTS = (false_alarms, dependent_peers, power, ordinary, slices, decay, silence, speed, wide)


if __name__ == "__main__":
    raise SystemExit(main())
