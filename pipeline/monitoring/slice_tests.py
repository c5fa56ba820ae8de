"""Drift of each slice of the rows, such as one carrier's, apart from the other rows of its batch.

A change of a twentieth of the rows hardly moves a column as a whole. So the mean of each slice is
compared with that of the rest of its batch: what all rows share, such as a season, cancels out, and
the blocks of training show how far apart the two usually are.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.monitoring.budget import decide_family
from pipeline.monitoring.findings import Finding
from pipeline.monitoring.slice_drift import SliceDrift
from pipeline.monitoring.slices import LONGEST
from pipeline.monitoring.usual_slices import (
    IN_BLOCK,
    KEY,
    UsualSlices,
    numbers_of,
    places_of,
    power_sums,
)
from pipeline.reference import Reference
from pipeline.reference.statistics import calibrated, mean_p
from pipeline.reference.variation import FEWEST_BLOCKS, grown

SMALLEST = 50
"""Fewest rows of a slice of a batch that is compared, and of the rest of the batch."""
FLOORS = {"location": 0.25, "share": 0.1, "missing": 0.05}
"""Smallest change of a slice that matters: in standard deviations of the column, and in shares."""
_SEVERAL = 3
"""Slices whose median change is what they share."""


def compare_slices(
    *,
    reference: Reference,
    usual: UsualSlices,
    current: pd.DataFrame,
    slices: pd.DataFrame,
    alpha: float,
) -> tuple[SliceDrift, ...]:
    """Find the slices of a batch that moved apart from the rest of the batch.

    The difference of a slice's mean from that of the other rows of its batch is compared with the
    same difference in training: a normal test with the skewness of the means (Pearson III), whose
    p-value is corrected by how much the blocks of training differ, as those of all rows are. All
    slices and columns share `alpha`, by the bound that families of tests share theirs
    (`decide_family`). A slice also differs when the rest moved. So it is named only
    if it moved further than the rest did, both beside the median change of the slices of the same
    column, of which most have not changed.

    Parameters
    ----------
    reference : Reference
        The training rows.
    usual : UsualSlices
        Their slices.
    current : DataFrame
        Valid rows of the batch, predictions included.
    slices : DataFrame
        The slices of each row, as of `slices_of`.
    alpha : float
        Largest chance that a slice is named of a batch in which none has changed.

    Returns
    -------
    tuple of SliceDrift
        Each slice that is followed, those that drifted first, then by how clear the change is, and
        at the end those that were not compared.

    References
    ----------
    Kish (1965), Survey Sampling, sections 8.2 and 11.7, for design effects and unequal sizes.
    """
    tests = {} if usual.table.empty else _tested(reference, usual, current, slices, alpha)
    drifts = [
        _drift_of(name, int(counts.get(name, 0)), len(current), tests.get(name))
        for of, kept in usual.sliced.items()
        if of in slices
        for counts in [slices[of].value_counts()]
        for name in kept
    ]
    return tuple(sorted(drifts, key=_order))


def _tested(
    reference: Reference,
    usual: UsualSlices,
    current: pd.DataFrame,
    slices: pd.DataFrame,
    alpha: float,
) -> dict[str, pd.DataFrame]:
    """The tests of each slice, the clearest first."""
    table = usual.table.merge(_seen(reference, usual, current, slices), on=KEY, how="left")
    findings = decide_family(_tests(table), alpha, alpha)
    found = np.array([one.drifted for one in findings], dtype=bool)
    table = table.assign(
        size=[one.statistic for one in findings],
        p=[one.adjusted for one in findings],
        drifted=found & _moved_itself(table, usual),
        floors=[abs(one.statistic) / one.floor for one in findings],
    )
    order = ["drifted", "p", "floors", "column", "label"]
    table = table.sort_values(order, ascending=[False, True, False, True, True])
    return {str(name): own for name, own in table.groupby("slice")}


def _seen(
    reference: Reference, usual: UsualSlices, current: pd.DataFrame, slices: pd.DataFrame
) -> pd.DataFrame:
    """Rows and means of each number of each slice of a batch, and of the rest of the batch."""
    columns = list(dict.fromkeys(usual.table["column"]))
    sliced = {of: kept for of, kept in usual.sliced.items() if of in slices}
    places = {of: places_of(slices[of], kept) for of, kept in sliced.items()}
    found = []
    for number in numbers_of(reference, current, columns):
        for of, kept in sliced.items():
            n, first = power_sums(number.values, places[of], (len(kept) + 1,), powers=1)
            m, rest = n.sum() - n, first.sum() - first
            with np.errstate(invalid="ignore"):
                sides = n, first / n, m, rest / m
            found += [
                (name, *number[:3], *values) for name, *values in zip(kept, *sides, strict=False)
            ]
    return pd.DataFrame(found, columns=[*KEY, "rows", "now", "rest_rows", "rest"])


def _tests(table: pd.DataFrame) -> list[Finding]:
    """The difference of each slice from the rest, as one test; NaN where either is too small."""
    floor = np.array([FLOORS[kind] for kind in table["kind"]])
    of = {str(name): table[name].to_numpy(np.float64) for name in table if name not in KEY}
    enough = np.minimum(of["rows"], of["rest_rows"]) >= SMALLEST
    size = np.where(enough, of["now"] - of["rest"] - of["apart"], np.nan)
    n, m = (np.where(enough, of[rows], SMALLEST) for rows in ("rows", "rest_rows"))
    own = of["variance"] / n + of["others_variance"] / m
    variance = own + 1 / of["precision"] / of["blocks"]
    skewness = (of["third"] / n**2 - of["others_third"] / m**2) / variance**1.5
    effect = grown(of["effect"], n=1 / own, n_block=of["precision"])
    freedom = np.where(np.isnan(of["freedom"]), np.inf, of["freedom"])
    p_values, reach = (
        calibrated(
            mean_p(far / np.sqrt(variance), skewness=skewness), effect=effect, freedom=freedom
        )
        for far in (size, floor)
    )
    figures = (one.tolist() for one in (size, p_values, floor, reach))
    tests = zip(table["column"], table["kind"], *figures, strict=True)
    return [Finding((column,), "rows", kind, *values) for column, kind, *values in tests]


def _moved_itself(table: pd.DataFrame, usual: UsualSlices) -> NDArray[np.bool_]:
    """Whether a slice moved further than the rest, beside what the slices of its column share."""
    own, rest = table["now"] - table["before"], table["rest"] - table["others"]
    own = own.where(table[["rows", "rest_rows"]].min(axis=1) >= SMALLEST)
    group = own.groupby([usual.groups, table["label"]])
    shared = group.transform("median").where(group.transform("count") >= _SEVERAL, 0.0)
    moved: NDArray[np.bool_] = ((own - shared).abs() > (rest - shared).abs()).to_numpy()
    return moved


def _drift_of(name: str, rows: int, whole: int, tests: pd.DataFrame | None) -> SliceDrift:
    """A slice by its clearest test, from its tests in that order."""
    for count, where in ((rows, "in"), (whole - rows, "outside of")):
        if count < SMALLEST:
            why = f"fewer than {SMALLEST} rows of the batch are {where} it"
            return SliceDrift(name, rows, why=why)
    if tests is None or tests["p"].isna().all():
        why = f"fewer than {FEWEST_BLOCKS} blocks of training hold {IN_BLOCK} of its rows"
        return SliceDrift(name, rows, why=why)
    first, found = tests.iloc[0], tests[tests["drifted"]]
    columns = found["column"] if len(found) else tests["column"][:1]
    return SliceDrift(
        name=name,
        rows=rows,
        columns=tuple(dict.fromkeys(columns)),
        kind=f"share of {first['label'][:LONGEST]}" if first["kind"] == "share" else first["kind"],
        before=float(first["before"]),
        now=float(first["now"]),
        size=float(first["size"]),
        p_value=float(first["p"]),
        drifted=bool(first["drifted"]),
    )


def _order(one: SliceDrift) -> tuple[bool, bool, float, str]:
    return bool(one.why), not one.drifted, one.p_value if not one.why else 0.0, one.name
