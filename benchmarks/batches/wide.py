"""What tables with many columns cost: their references, their batches, and the causes in them."""

import json
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.batches import draws
from benchmarks.harness.command import Result, at_most
from pipeline.columns import infer_columns
from pipeline.monitoring.calibration import limits
from pipeline.monitoring.drift import compare
from pipeline.monitoring.findings import Cause
from pipeline.reference import Reference
from pipeline.reference.summaries import Summary

ALPHA = 0.05

WIDE = {
    "2,000 columns": (2_000, 10_000, 1_000, 10_000, 0.0),
    "500 columns": (500, 10_000, 1_000, 1_000, 0.0),
    "500 ageing sensors": (500, 10_000, 1_000, 1_000, 1.0),
    "128 ageing sensors": (128, 2_400, 240, 240, 1.0),
    "50 ageing sensors": (50, 2_400, 240, 240, 1.0),
}
"""Columns, rows of the reference, of a block and of a batch, and how far sensors aged since."""


def wide(seed: int, *, quick: bool) -> Result:
    """CPU seconds and memory of tables with many columns, with every diagnosis, one thread.

    The first batch that looks broken also tries the diagnoses on the blocks of the reference.
    """
    cells = {name: WIDE[name] for name in (["128 ageing sensors"] if quick else WIDE)}
    figures: dict[str, Any] = {}
    for name, cell in cells.items():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            figures[name] = fresh.submit(_wide_costs, cell, seed).result()
    sensors = figures["128 ageing sensors"]
    goals = [at_most("128 columns, CPU s of a batch", sensors["later_batch_cpu"], 5)]
    if not quick:
        most, few = figures["2,000 columns"], figures["50 ageing sensors"]
        goals += [
            at_most("2,000 columns, CPU s of the reference", most["fit_cpu"], 120),
            at_most("2,000 columns, CPU s of a batch", most["first_batch_cpu"], 60),
            at_most("2,000 columns, peak MB", most["peak_mb"], 1_500),
            at_most("50 columns, trial on the blocks over fit", few["trial_over_fit"], 2),
        ]
    return figures, goals


def _wide_costs(cell: tuple[int, int, int, int, float], seed: int) -> dict[str, float]:
    """Costs of a reference and of batches, in a process of their own."""
    columns, rows, block, batch, age = cell
    draw = draws.sensors(np.random.default_rng([seed, columns]), columns)
    if not age:
        draw = partial(_normal, np.random.default_rng([seed, columns]), columns)
    before = pd.concat([draw(block, 0.02 * age * k) for k in range(rows // block)])
    before = before.reset_index(drop=True)
    start = time.process_time()
    reference = Reference.fit(before, infer_columns(before), block=block)
    del before
    costs = {"fit_cpu": time.process_time() - start}
    recent: list[Summary] = []
    for name in ("first_batch_cpu", "later_batch_cpu"):
        now = draw(batch, age)
        start = time.process_time()
        report = compare(reference=reference, current=now, recent=recent, alpha=ALPHA)
        costs[name] = time.process_time() - start
        recent.append(report.summary)
    costs["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    costs["report_mb"] = len(json.dumps(report.to_dict())) / 1e6
    start = time.process_time()
    if columns <= 100:  # in a wider table only the columns around the suspects are tried
        limits(replace(reference), _causes, alpha=0.01)
        costs["trial_over_fit"] = (time.process_time() - start) / costs["fit_cpu"]
    return {name: round(value, 2) for name, value in costs.items()}


def _normal(random: np.random.Generator, columns: int, n: int, _: float) -> pd.DataFrame:
    names = [f"x{i:04d}" for i in range(columns)]
    return pd.DataFrame(random.normal(size=(n, columns)), columns=names)


def _causes(reference: Reference, current: pd.DataFrame) -> tuple[Cause, ...]:
    return compare(reference=reference, current=current, broken_alpha=1.0).causes
