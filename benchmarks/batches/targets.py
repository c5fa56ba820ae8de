"""Faults of the labels of real tables: are they named, and are sound labels left alone?

Classes that were exchanged are no trial where their shares change by less than 0.1: the world may
have turned round as well.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.batches.estimated import CLASSIFIED, FRESH, NUMBERS, at_hand, stream
from benchmarks.harness.command import Result, at_least, at_most
from benchmarks.harness.estimates import predicted
from benchmarks.harness.processes import side_by_side
from pipeline.monitoring.targets import describe_target, target_faults

START: Final = pd.Timestamp("2020-01-06")
WEEK: Final = pd.Timedelta("7D")
SHOWS: Final = 0.1
PART: Final = 0.3
ALPHA: Final = 0.01

Spoil = Callable[[pd.Series], pd.Series]
CLASSES: Final[dict[str, tuple[str, Spoil]]] = {
    "flipped": ("permuted", lambda y: 1 - y),
    "all one class": ("stuck", lambda y: y * 0 + 1),
    "1 and 2": ("recode", lambda y: y + 1),
    "yes and no": ("recode", lambda y: y.map({0.0: "no", 1.0: "yes"})),
}
AMOUNTS: Final[dict[str, tuple[str, Spoil]]] = {
    "in thousands": ("unit", lambda y: y / 1_000),
    "x100": ("unit", lambda y: y * 100),
    "minus": ("sign", lambda y: -y),
    "one value": ("stuck", lambda y: y * 0 + y.iloc[0]),
    "in tens": ("rounded", lambda y: (y / 10).round() * 10),
}
"""Names of faults, each with its cause and what it makes of the labels."""


def target(seed: int, *, quick: bool) -> Result:
    """Faults of labels, in all rows and in 30% of them, and sound labels, of real tables."""
    names = at_hand((*CLASSIFIED, *NUMBERS, *FRESH))[:: 6 if quick else 1]
    work = partial(_of_set, seed=seed, batches=2 if quick else 6)
    found = pd.concat(side_by_side(work, names), ignore_index=True)
    sound, spoilt = found[found["fault"] == ""], found[found["fault"] != ""]
    means = spoilt.groupby(["share", "fault"])[["found", "right"]].mean().groupby("share").mean()
    called = sound.groupby("set")["found"].mean()
    figures: dict[str, Any] = {
        "sound_batches": len(sound),
        "sound_called_broken": called.to_dict(),
        "why": Counter(sound.loc[sound["found"], "named"]),
        "trials": len(spoilt),
        "by_fault": {
            f"{fault}, {share:.0%} of rows": {
                "trials": len(mine),
                "found": mine["found"].mean(),
                "right": mine["right"].mean(),
                "named": Counter(mine["named"]),
            }
            for (fault, share), mine in spoilt.groupby(["fault", "share"])
        },
        "by_set": spoilt.groupby("set")[["found", "right"]].mean().to_dict("index"),
    }
    return figures, [
        at_most("labels: sound batches called broken", float(called.mean()), 0.02),
        at_least("labels, all rows: fault found", float(means["found"][1.0]), 0.97),
        at_least("labels, all rows: right cause", float(means["right"][1.0]), 0.95),
        at_least("labels, 30% of rows: fault found", float(means["found"][PART]), 0.85),
        at_least("labels, 30% of rows: right cause", float(means["right"][PART]), 0.8),
    ]


def _of_set(name: str, seed: int, *, batches: int) -> pd.DataFrame:
    """What is said of the labels of every batch of a set, and of some once they are spoilt."""
    cut = stream(name)
    classes = cut.task == "classification"
    y = cut.y[cut.train :].reset_index(drop=True).rename("target")
    shown = predicted(cut, "boosted", seed)
    known = slice(0, cut.known)
    reference = describe_target(
        y[known],
        shown[known],
        labels=classes,
        time=START + WEEK * (pd.Series(range(cut.known)) // cut.batch),
        block=WEEK,
        seed=seed,
    )
    random = np.random.default_rng([seed, 8])
    starts = range(cut.known, len(y) - cut.batch + 1, cut.batch)
    spoilt = set(random.choice(starts, min(batches, len(starts)), replace=False).tolist())
    rows = []
    for start in starts:
        part = slice(start, start + cut.batch)
        said = partial(target_faults, reference, predictions=shown[part], broken_alpha=ALPHA)
        sound = y[part].reset_index(drop=True)
        rows.append({"batch": start, "fault": "", "cause": "", "share": 0.0, "said": said(sound)})
        for fault, (cause, spoil) in (
            (CLASSES if classes else AMOUNTS) if start in spoilt else {}
        ).items():
            for share in (1.0, PART):
                touched = random.random(len(sound)) < share
                labels = sound.astype(object).where(~touched, spoil(sound))
                labels = labels if fault == "yes and no" else labels.astype(float)
                if fault == "flipped" and abs(labels.mean() - sound.mean()) < SHOWS:
                    continue
                rows.append(
                    {
                        "batch": start,
                        "fault": fault,
                        "cause": cause,
                        "share": share,
                        "said": said(labels),
                    }
                )
    found = pd.DataFrame(rows).assign(set=name)
    named = found["said"].map(lambda said: " + ".join(one.cause for one in said))
    right = [
        cause in names.split(" + ") for cause, names in zip(found["cause"], named, strict=True)
    ]
    return found.drop(columns="said").assign(named=named, found=named != "", right=right)
