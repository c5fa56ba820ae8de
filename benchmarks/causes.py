"""Broken or moved: are faults recognised where they are, and natural change left alone?"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks import broken_batches, clean_batches, histories, natural, outages
from benchmarks.faults import shuffled, swapped
from benchmarks.goals import Told, at_least, at_most, command, side_by_side
from benchmarks.variants import CAUSES

MISSED = 60
Records = Sequence[dict[str, Any]]


def main() -> int:
    if left_out := histories.left_out():
        print(f"Left out, as {histories.FOLDER} does not hold them: {left_out}", flush=True)
    return command("causes", __doc__, PARTS, "fewer trials, and no end_to_end")


def faults(seed: int, *, quick: bool) -> Told:
    """Real batches with one fault each: is it found, in the right place, by its name?"""
    counts = {1.0: 3, 0.3: 3} if quick else {1.0: 24, 0.3: 24, 0.1: 14}
    names = [
        f"{cause}:{fraction}:{k}:{seed}"
        for cause in CAUSES
        for fraction, count in counts.items()
        for k in range(count)
    ]
    cases: dict[str, list[str]] = defaultdict(list)
    chunks = [names[k::8] for k in range(8)]
    for chunk, keys in zip(chunks, side_by_side(_prepared, chunks), strict=True):
        for name, key in zip(chunk, keys, strict=True):
            if key is not None:
                cases[key].append(name)
    found: list[dict[str, Any]] = [
        one for many in side_by_side(_judged, cases.values()) for one in many
    ]
    large = [one for one in found if one["rows"] >= 1_000]
    told: dict[str, Any] = {
        "trials": len(found),
        "not_applicable": sum(one["invisible"] for one in found),
        "under_1000_rows": rates([one for one in found if one["rows"] < 1_000]),
        "by_cause": {
            cause: {
                f"{fraction}": rates(mine)
                for fraction in counts
                if (mine := _of(found, cause=cause, fraction=fraction))
            }
            for cause in CAUSES
        },
        "by_set": {name: rates(_of(found, set=name, fraction=1.0)) for name in histories.sets()},
        "by_variant": _by_variant(found),
        "said": {
            cause: Counter(
                said.split(" ")[0] for one in _of(found, cause=cause) for said in one["said"]
            )
            for cause in CAUSES
        },
        "cpu_seconds_a_batch": _seconds(found),
        "crashed": _crashes(found),
        "missed": [_line(one) for one in _worst(found)[:MISSED]],
        "spurious": [_line(one) for one in found if one["spurious"]][: MISSED // 2],
    }
    goals = []
    for fraction in counts:
        mean = balanced(_of(large, fraction=fraction))
        told[f"balanced_{fraction}"] = mean
        if fraction == 1:
            goals.append(at_least("all rows: broken, right column", mean["broken"], 0.97))
            goals.append(at_least("all rows: right cause", mean["right"], 0.95))
        elif fraction == 0.3:
            goals.append(at_least("30% of rows: broken, right column", mean["broken"], 0.85))
    return told, goals


def _prepared(names: list[str]) -> list[str | None]:
    return [broken_batches.prepared(name) for name in names]


def _judged(names: list[str]) -> list[dict[str, Any]]:
    trials = [broken_batches.trial(name) for name in names]
    return [broken_batches.score(one.judge(), one) for one in trials if one]


def _of(found: Records, **wanted: Any) -> list[dict[str, Any]]:
    return [one for one in found if all(one[key] == value for key, value in wanted.items())]


def rates(found: Records) -> dict[str, Any]:
    """Counts and shares of some trials; None where there is nothing to count."""
    segments = [one["segment"] for one in found if one["segment"] is not None]
    shares = [one["share"] for one in found if one["share"] is not None]
    return {
        "trials": len(found),
        "broken": _mean([one["broken"] for one in found]),
        "right": _mean([one["right"] for one in found]),
        "spurious": _mean([bool(one["spurious"]) for one in found]),
        "segment_named": _mean(segments),
        "share_told": _mean(shares),
    }


def balanced(found: Records) -> dict[str, float]:
    """Rates with the same weight for each cause."""
    each = [rates(mine) for cause in CAUSES if (mine := _of(found, cause=cause))]
    keys = ("broken", "right", "spurious")
    return {key: float(np.mean([one[key] for one in each])) if each else 0.0 for key in keys}


def _mean(values: Sequence[bool]) -> float | None:
    return round(float(np.mean(values)), 3) if values else None


def _by_variant(found: Records) -> dict[str, str]:
    """Right of trials, at all rows and at 30% of them."""
    lines: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys((one["cause"], one["variant"]) for one in found):
        for fraction in (1.0, 0.3):
            mine = _of(found, cause=name[0], variant=name[1], fraction=fraction)
            right = sum(one["right"] for one in mine)
            lines["/".join(name)].append(f"{right} of {len(mine)}")
    return {name: ", ".join(parts) for name, parts in sorted(lines.items())}


def _worst(found: Records) -> list[dict[str, Any]]:
    """Trials that failed: of all rows first, the causes in turn, no name right last."""
    failed = [one for one in found if not one["right"] and one["fraction"] > 0.1]
    seen: Counter[tuple[float, str]] = Counter()
    order = []
    for one in sorted(failed, key=lambda one: one["broken"]):
        order.append((-one["fraction"], seen[one["fraction"], one["cause"]], one))
        seen[one["fraction"], one["cause"]] += 1
    return [one for _, _, one in sorted(order, key=lambda each: each[:2])]


def _seconds(found: Records) -> dict[str, float]:
    """Of a comparison: half take less, and the longest."""
    taken = [one["seconds"] for one in found]
    return {"median": round(float(np.median(taken)), 3), "longest": round(max(taken), 3)}


def _crashes(found: Records) -> dict[str, int]:
    return dict(Counter(one["error"] for one in found if one["error"]))


def _line(one: dict[str, Any]) -> str:
    return (
        f"{one['told']} -> {one['outcome']}: {'; '.join(one['said']) or one['error'] or 'nothing'}"
    )


def clean(seed: int, *, quick: bool) -> Told:
    """Nothing is broken: how often does a batch count as broken?"""
    names = list(clean_batches.streams(seed, quick=quick))
    work = partial(clean_batches.judged, seed=seed, quick=quick)
    found = [one for many in side_by_side(work, names) for one in many]
    streams: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in found:
        streams[one["stream"].split(" #")[0]].append(one)
    wrong = [one for one in found if one["outcome"] in {"broken", "mixed"}]
    told: dict[str, Any] = {
        "batches": len(found),
        "crashed": _crashes(found),
        "by_stream": {name: _outcomes(mine) for name, mine in streams.items()},
        "causes": Counter(cause["cause"] for one in wrong for cause in one["causes"]).most_common(),
        "broken": [
            f"{one['stream']}, {one['batch']}{', recent' if one['recent'] else ''}: "
            + "; ".join(f"{cause['cause']}: {cause['sentence']}" for cause in one["causes"])
            for one in wrong
        ][: 3 * MISSED],
    }
    goals = []
    for kind in ("real", "simulated"):
        mine = [one for one in found if one["stream"].startswith("simulated") == (kind != "real")]
        share = sum(one in wrong for one in mine) / len(mine)
        told[f"share_{kind}"] = share
        goals.append(at_most(f"{kind} batches judged broken", share, 0.02))
    if change := [one for one in streams.get("elec2", []) if one["batch"] in AFTER_CHANGE]:
        told["elec2_after_the_change"] = [one["outcome"] for one in change]
        moved = sum(one["outcome"] == "moved" for one in change) / len(change)
        goals.append(at_least("elec2's first batches after the change are moved", moved, 1.0))
    return told, goals


AFTER_CHANGE = {f"row {histories.CHANGE + k * 1_344}" for k in range(3)}


def _outcomes(found: Records) -> dict[str, Any]:
    counts = Counter(one["outcome"] for one in found)
    share = (counts["broken"] + counts["mixed"]) / len(found)
    return {"batches": len(found), "broken_share": round(share, 4), **counts}


def end_to_end(_: int, *, quick: bool) -> Told:
    """Three broken weeks in the flights' own source, with the diagnosis and without."""
    if quick:
        return {"left out": "--quick replays nothing"}, []
    told = outages.run()
    faulty = told["faults"].values()
    unpaged = sum(not one["with"]["paged_at_once"] for one in faulty)
    asked = sum(one["with"]["retrains_on_faulty"] for one in faulty)
    soon, mended = (max(one[way]["over_no_fault"] for one in faulty) for way in ("with", "mended"))
    year = max(one["with"]["over_no_fault_all_year"] or float("inf") for one in faulty)
    unharmed = told["no_fault_with"]["over_no_fault"]
    return told, [
        at_most("faults not paged in their first batch", unpaged, 0),
        at_most("retrains on a faulty batch", asked, 0),
        at_most("log-loss in ten weeks after a fault, over that without one", soon, 1.01),
        at_most("the same to the end of the year", year, 1.01),
        at_most("the same in ten weeks, once the source is mended and read again", mended, 1.01),
        at_most("log-loss without a fault, over that undiagnosed", unharmed, 1.01),
    ]


def pairs(seed: int, *, quick: bool) -> Told:
    """Faults that no column shows: twins swapped, and a shuffle within one."""
    found = side_by_side(_pair, range(seed, seed + (10 if quick else 100)))
    told: dict[str, Any] = {}
    goals = []
    for kind in ("swapped", "shuffled", "neither"):
        mine = [one[kind] for one in found]
        told[kind] = {
            "trials": len(mine),
            "right": sum(one["right"] for one in mine) / len(mine),
            "by_size": {
                size: _mean([one["right"] for one in mine if low <= one["rows"] < low + 2_000])
                for size, low in (("1,000-2,999", 1_000), ("3,000-5,000", 3_000))
            },
            "instead": Counter(" + ".join(one["said"]) or one["outcome"] for one in mine),
        }
        goals.append(at_least(f"pairs: {kind}", told[kind]["right"], 0.95))
    return told, goals


def _pair(seed: int) -> dict[str, dict[str, Any]]:
    """Swapped needs both columns, shuffled the one; with neither nothing may be said."""
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
    told = {}
    for kind, (frame, columns) in batches.items():
        verdict = histories.report_on(reference, frame, [])
        right = any(
            cause.cause == kind and set(cause.columns) == columns for cause in verdict.causes
        )
        told[kind] = {
            "right": not verdict.causes if kind == "neither" else right,
            "rows": n,
            "outcome": verdict.outcome,
            "said": [cause.name for cause in verdict.causes],
        }
    return told


PARTS = (faults, clean, pairs, end_to_end)


if __name__ == "__main__":
    raise SystemExit(main())
