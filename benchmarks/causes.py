"""Broken or moved: are faults recognised where they are, and natural change left alone?"""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.batches import foreign, histories, many, natural, streams, trials
from benchmarks.batches.faults import Names, shuffled, swapped
from benchmarks.batches.targets import target
from benchmarks.batches.variants import CAUSES, REPORTED
from benchmarks.harness.command import Result, at_least, at_most, options, run_parts
from benchmarks.harness.processes import side_by_side
from pipeline.monitoring.drift import compare
from pipeline.reference.serialised import reference_from_dict, reference_to_dict

SHOWN = 60
"""Trials and batches that are listed at most."""
Records = Sequence[dict[str, Any]]


def main() -> int:
    quick = "one trial of each cause, a few batches of each history"
    return run_parts(options("causes", __doc__, quick=quick), PARTS)


def faults(seed: int, *, quick: bool) -> Result:
    """Real batches with one fault each: is it found, in the right place, by its name?"""
    counts = {1.0: 1} if quick else {1.0: 24, 0.3: 24, 0.1: 14}
    names = [
        f"{cause}:{fraction}:{k + (place if quick else 0)}:{seed}"  # the number chooses the set
        for place, cause in enumerate((*CAUSES, REPORTED))
        for fraction, count in counts.items()
        for k in range(count)
    ]
    found = _tried(names)
    large = [one for one in found if one["rows"] >= 1_000]
    figures: dict[str, Any] = {
        "trials": len(found),
        "left_out": histories.left_out(histories.MAKERS),
        "not_applicable": sum(one["invisible"] for one in found),
        "under_1000_rows": rates([one for one in found if one["rows"] < 1_000]),
        "by_cause": {
            cause: {
                f"{fraction}": rates(mine)
                for fraction in counts
                if (mine := _of(found, cause=cause, fraction=fraction))
            }
            for cause in (*CAUSES, REPORTED)
        },
        "by_set": {name: rates(_of(found, set=name, fraction=1.0)) for name in histories.sets()},
        "by_variant": _by_variant(found),
        "named": {
            cause: Counter(
                name.split(" ")[0] for one in _of(found, cause=cause) for name in one["named"]
            )
            for cause in CAUSES
        },
        "cpu_seconds_a_batch": _seconds(found),
        "crashed": _crashes(found),
        "missed": [_line(one) for one in _worst(found)[:SHOWN]],
        "spurious": [_line(one) for one in found if one["spurious"]][: SHOWN // 2],
    }
    goals = []
    for fraction in counts:
        mean = balanced(_of(large, fraction=fraction))
        figures[f"balanced_{fraction}"] = mean
        if fraction == 1:
            goals.append(at_least("all rows: broken, right column", mean["broken"], 0.97))
            goals.append(at_least("all rows: right cause", mean["right"], 0.95))
        elif fraction == 0.3:
            goals.append(at_least("30% of rows: broken, right column", mean["broken"], 0.85))
    return figures, goals


def _tried(names: list[str], sets: Names = ()) -> list[dict[str, Any]]:
    """Scores of trials on some sets; trials of one reference run together."""
    cases: dict[str, list[str]] = defaultdict(list)
    chunks = [names[k::8] for k in range(8)]
    keys = side_by_side(partial(_prepared, sets=sets), chunks)
    for chunk, prepared in zip(chunks, keys, strict=True):
        for name, key in zip(chunk, prepared, strict=True):
            if key is not None:
                cases[key].append(name)
    judged = side_by_side(partial(_judged, sets=sets), cases.values())
    return [one for many in judged for one in many]


def _prepared(names: list[str], sets: Names) -> list[str | None]:
    return [trials.prepared(name, sets) for name in names]


def _judged(names: list[str], sets: Names) -> list[dict[str, Any]]:
    found = [trials.trial(name, sets) for name in names]
    return [trials.score(one.judge(), one) for one in found if one]


def _of(found: Records, **wanted: Any) -> list[dict[str, Any]]:
    return [one for one in found if all(one[key] == value for key, value in wanted.items())]


def rates(found: Records) -> dict[str, Any]:
    """Number of trials and shares of them; None where there is nothing to count."""
    segments = [one["segment"] for one in found if one["segment"] is not None]
    shares = [one["share"] for one in found if one["share"] is not None]
    return {
        "trials": len(found),
        "broken": _mean([one["broken"] for one in found]),
        "right": _mean([one["right"] for one in found]),
        "spurious": _mean([bool(one["spurious"]) for one in found]),
        "segment_named": _mean(segments),
        "share_right": _mean(shares),
    }


def balanced(found: Records) -> dict[str, float]:
    """Mean of the causes' rates, so that each cause has the same weight."""
    each = [rates(mine) for cause in CAUSES if (mine := _of(found, cause=cause))]
    keys = ("broken", "right", "spurious")
    return {key: float(np.mean([one[key] for one in each])) if each else 0.0 for key in keys}


def _mean(values: Sequence[bool]) -> float | None:
    return round(float(np.mean(values)), 3) if values else None


def _by_variant(found: Records) -> dict[str, str]:
    """How many trials of each variant got the right cause, at all rows and at 30% of them."""
    lines: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys((one["cause"], one["variant"]) for one in found):
        for fraction in (1.0, 0.3):
            mine = _of(found, cause=name[0], variant=name[1], fraction=fraction)
            right = sum(one["right"] for one in mine)
            lines["/".join(name)].append(f"{right} of {len(mine)}")
    return {name: ", ".join(parts) for name, parts in sorted(lines.items())}


def _worst(found: Records) -> list[dict[str, Any]]:
    """Failed trials: those of all rows first, the causes in turn, wrong names last."""
    failed = [one for one in found if not one["right"] and one["fraction"] > 0.1]
    seen: Counter[tuple[float, str]] = Counter()
    order = []
    for one in sorted(failed, key=lambda one: one["broken"]):
        order.append((-one["fraction"], seen[one["fraction"], one["cause"]], one))
        seen[one["fraction"], one["cause"]] += 1
    return [one for _, _, one in sorted(order, key=lambda each: each[:2])]


def _seconds(found: Records) -> dict[str, float]:
    """CPU seconds of a comparison: the median and the longest."""
    taken = [one["seconds"] for one in found]
    return {"median": round(float(np.median(taken)), 3), "longest": round(max(taken), 3)}


def _crashes(found: Records) -> dict[str, int]:
    return dict(Counter(one["error"] for one in found if one["error"]))


def _line(one: dict[str, Any]) -> str:
    return (
        f"{one['text']} -> {one['outcome']}: {'; '.join(one['named']) or one['error'] or 'nothing'}"
    )


def clean(seed: int, *, quick: bool) -> Result:
    """Nothing is broken: how often does a batch count as broken?"""
    names = list(streams.streams(seed, quick=quick))
    work = partial(streams.judged, seed=seed, quick=quick)
    found = [one for many in side_by_side(work, names) for one in many]
    by_stream: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in found:
        by_stream[one["stream"].split(" #")[0]].append(one)
    wrong = [one for one in found if one["outcome"] in {"broken", "mixed"}]
    figures: dict[str, Any] = {
        "batches": len(found),
        "left_out": histories.left_out(dict.fromkeys(name.split(",")[0] for name in streams.REAL)),
        "crashed": _crashes(found),
        "by_stream": {name: _outcomes(mine) for name, mine in by_stream.items()},
        "causes": Counter(cause["cause"] for one in wrong for cause in one["causes"]).most_common(),
        "broken": [
            f"{one['stream']}, {one['batch']}{', recent' if one['recent'] else ''}: "
            + "; ".join(f"{cause['cause']}: {cause['sentence']}" for cause in one["causes"])
            for one in wrong
        ][: 3 * SHOWN],
    }
    goals = []
    for kind in ("real", "simulated"):
        mine = [one for one in found if one["stream"].startswith("simulated") == (kind != "real")]
        share = sum(one in wrong for one in mine) / len(mine)
        figures[f"share_{kind}"] = share
        after = [one in wrong for one in mine if one["recent"]]
        figures[f"{kind}_with_the_batches_before"] = {"batches": len(after), "broken": sum(after)}
        goals.append(at_most(f"{kind} batches judged broken", share, 0.02))
    if change := [one for one in by_stream.get("elec2", []) if one["batch"] in AFTER_CHANGE]:
        figures["elec2_after_the_change"] = [one["outcome"] for one in change]
        moved = sum(one["outcome"] == "moved" for one in change) / len(change)
        goals.append(at_least("elec2's first batches after the change are moved", moved, 1.0))
    return figures, goals


AFTER_CHANGE = {f"row {histories.CHANGE + k * 1_344}" for k in range(3)}


def _outcomes(found: Records) -> dict[str, Any]:
    counts = Counter(one["outcome"] for one in found)
    share = (counts["broken"] + counts["mixed"]) / len(found)
    return {"batches": len(found), "broken_share": round(share, 4), **counts}


def held_out(seed: int, *, quick: bool) -> Result:
    """Faults and clean batches of data sets that nothing was chosen on."""
    sets = foreign.NAMES[:1] if quick else foreign.NAMES
    names = [
        f"{cause}:{fraction}:{k}:{seed}"
        for cause in (*CAUSES, REPORTED)
        for fraction in (1.0, 0.3)
        for k in range(1 if quick else 12)
    ]
    found = _tried(names, sets)
    work = partial(streams.judged, seed=seed, quick=quick)
    by_set = dict(zip(sets, side_by_side(work, sets), strict=True))
    called = {
        name: sum(one["outcome"] in {"broken", "mixed"} for one in mine)
        for name, mine in by_set.items()
    }
    wrong = [called[name] / len(mine) for name, mine in by_set.items()]
    figures: dict[str, Any] = {
        "trials": len(found),
        "clean_batches": {name: len(mine) for name, mine in by_set.items()},
        "clean_called_broken": called,
        "by_cause": {cause: rates(_of(found, cause=cause)) for cause in (*CAUSES, REPORTED)},
        "missed": [_line(one) for one in _worst(found)[:SHOWN]],
    }
    means = {fraction: balanced(_of(found, fraction=fraction)) for fraction in (1.0, 0.3)}
    figures |= {f"balanced_{fraction}": mean for fraction, mean in means.items()}
    return figures, [
        at_most("held out: clean batches called broken, mean of sets", float(np.mean(wrong)), 0.02),
        at_least("held out, all rows: broken, right column", means[1.0]["broken"], 0.97),
        at_least("held out, all rows: right cause", means[1.0]["right"], 0.95),
        at_least("held out, 30% of rows: broken, right column", means[0.3]["broken"], 0.85),
        at_least("held out, 30% of rows: right cause", means[0.3]["right"], 0.8),
    ]


def unseen(seed: int, *, quick: bool) -> Result:
    """Sound batches of some 140 public tables: how often does one count as broken?

    The first batch of a table is judged alone, each other one with those before it.
    """
    names = many.names()[:: 60 if quick else 1]
    verdicts = side_by_side(partial(streams.judged, seed=seed, quick=quick), names)
    judged = dict(zip(names, verdicts, strict=True))
    figures: dict[str, Any] = {}
    for kind, order in product(("held out", "looked at"), ("by time", "shuffled")):
        last = {
            f"{name}, {one['batch']}": one  # of several, the one with the batches before
            for name, mine in judged.items()
            for one in mine
            if many.looked_at(name) == (kind == "looked at")
            and name.endswith(many.SHUFFLED) == (order == "shuffled")
        }
        wrong = {key: one for key, one in last.items() if one["outcome"] not in {"quiet", "moved"}}
        figures[f"{kind}, {order}"] = {
            "batches": len(last),
            "broken": len(wrong),
        }
        if kind == "looked at":  # what is held out is counted, and not shown
            said = {key: [x["sentence"] for x in one["causes"]] for key, one in wrong.items()}
            figures["which"] = figures.get("which", {}) | said
    goals = []
    for order in ("by time", "shuffled"):
        mine = figures[f"held out, {order}"]
        if mine["batches"]:
            share = mine["broken"] / mine["batches"]
            goals.append(at_most(f"unseen tables, {order}: called broken", share, 0.02))
    return figures, goals


def unseen_faults(seed: int, *, quick: bool) -> Result:
    """Faults put into those of the public tables that nobody looked at."""
    own = [name for name in many.each() if not many.looked_at(name)]
    found = []
    for place, cause in enumerate((*CAUSES, REPORTED)):
        turned = np.roll(own, -5 * place).tolist()  # each cause begins with other tables
        keys = [f"{cause}:{f}:{k}:{seed}" for f in (1.0, 0.3) for k in range(1 if quick else 6)]
        found += _tried(keys[: 1 if quick else None], tuple(turned))
    figures: dict[str, Any] = {
        "trials": len(found),
        "by_cause": {cause: rates(_of(found, cause=cause)) for cause in (*CAUSES, REPORTED)},
    }
    large = [one for one in found if one["rows"] >= 1_000]
    goals = []
    for fraction, least in ((1.0, 0.97), (0.3, 0.85)):
        if mine := _of(found, fraction=fraction):
            figures[f"balanced_{fraction}"] = balanced(mine)
            figures[f"balanced_{fraction}_of_1000_rows"] = balanced(_of(large, fraction=fraction))
            found_share = figures[f"balanced_{fraction}"]["broken"]
            goals.append(at_least(f"unseen, {fraction:.0%} of rows: broken", found_share, least))
    return figures, goals


def pairs(seed: int, *, quick: bool) -> Result:
    """Two like columns swapped, or the rows of one shuffled: faults that no single column shows."""
    found = side_by_side(_pair, range(seed, seed + (2 if quick else 100)))
    figures: dict[str, Any] = {}
    goals = []
    for kind in ("swapped", "shuffled", "neither"):
        mine = [one[kind] for one in found]
        figures[kind] = {
            "trials": len(mine),
            "right": sum(one["right"] for one in mine) / len(mine),
            "by_size": {
                size: _mean([one["right"] for one in mine if low <= one["rows"] < low + 2_000])
                for size, low in (("1,000-2,999", 1_000), ("3,000-5,000", 3_000))
            },
            "instead": Counter(" + ".join(one["named"]) or one["outcome"] for one in mine),
        }
        goals.append(at_least(f"pairs: {kind}", figures[kind]["right"], 0.95))
    return figures, goals


def _pair(seed: int) -> dict[str, dict[str, Any]]:
    """Results of one trial: swapped needs both columns named, shuffled one, neither none."""
    random = np.random.default_rng([seed, 6])
    strength, n = float(random.uniform(0.6, 0.9)), int(random.integers(1_000, 5_000))
    reference = histories.fit(natural.alike(random, 10_000, strength), None, n)
    now = natural.alike(random, n, strength)
    one = "ab"[seed % 2]
    everything = np.ones(n, dtype=bool)
    batches = {
        "swapped": (swapped(now, ("a", "b"), everything, random), {"a", "b"}),
        "shuffled": (shuffled(now, (one,), everything, random), {one}),
        "neither": (now, set()),
    }
    results = {}
    for kind, (frame, columns) in batches.items():
        verdict = histories.report_on(reference, frame, [])
        right = any(
            cause.cause == kind and set(cause.columns) == columns for cause in verdict.causes
        )
        results[kind] = {
            "right": not verdict.causes if kind == "neither" else right,
            "rows": n,
            "outcome": verdict.outcome,
            "named": [cause.name for cause in verdict.causes],
        }
    return results


def calibration(seed: int, *, quick: bool) -> Result:
    """CPU seconds to fit a reference, to judge its own blocks once, and to judge a faulty batch."""
    figures = {
        str(columns): _calibrated(seed, columns) for columns in ((5,) if quick else (50, 150))
    }
    ratio = max(one["calibration_over_fit"] for one in figures.values())
    return figures, [at_most("calibration: CPU over that of the fit", ratio, 2.0)]


def _calibrated(seed: int, columns: int) -> dict[str, float]:
    """Cost of independent columns in eight blocks of 1,000 rows, one of them in another unit."""
    values = np.random.default_rng([seed, columns]).normal(size=(9_000, columns))
    frame = pd.DataFrame(values, columns=[f"x{k:03}" for k in range(columns)])
    times = [time.process_time()]
    reference = histories.fit(frame[:8_000], None, 1_000)
    times.append(time.process_time())
    faulty = frame[8_000:].assign(x000=frame["x000"] * 25.4 + 32)
    with TemporaryDirectory() as folder:
        kept = Path(folder) / "kept.json"
        for known in (reference, reference_from_dict(reference_to_dict(reference))):
            compare(reference=known, current=faulty, kept=kept)
            times.append(time.process_time())
    fit, first, later = np.diff(times)
    return {
        "fit": float(fit),
        "first_fault": float(first),
        "fault_in_another_process": float(later),
        "calibration_over_fit": float((first - later) / fit),
    }


PARTS = (faults, clean, held_out, unseen, unseen_faults, target, pairs, calibration)


if __name__ == "__main__":
    raise SystemExit(main())
