"""Choose the columns in which faults are looked for, in a table that has too many for all."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.findings import Finding
from pipeline.reference import Reference
from pipeline.reference.profile import NumericProfile


@dataclass(frozen=True)
class Parameters:
    """How many columns of a wide table are looked at, and which.

    Attributes
    ----------
    naming : int
        Most columns that may name segments, where a table has more than 100 columns.
    examined : int
        Most columns in which faults are looked for, where a table has more than 100 columns.
    not_drifted : float
        Weight of the size of a change that no test calls drift: it orders columns without drift.
    of_a_relation : float
        Divisor of the size of a change in a relation, which any of its columns may have caused.
    """

    naming: int = 100
    examined: int = 50
    not_drifted: float = 1e-3
    of_a_relation: float = 10.0


PARAMS = Parameters()


def few_valued(reference: Reference, names: Sequence[str]) -> list[str]:
    """The first `PARAMS.naming` columns with few values, by which segments may be named."""
    few = [
        name
        for name in names
        if not isinstance(profile := reference.columns[name], NumericProfile)
        or len(profile.grid) <= SHARED.naming
    ]
    return few[: PARAMS.naming]


def most_suspicious(
    names: Collection[str],
    findings: Sequence[Finding],
    *,
    strain: Mapping[str, float],
    atoms: Mapping[str, float],
) -> frozenset[str]:
    """Choose `PARAMS.examined` columns by what a fault shows in, each way of showing in turn.

    These are: drift of a column that matters to the model, the size of a drift, a column that
    contradicts the others of its rows, and a single value that is more frequent than ever.

    Parameters
    ----------
    names : collection of str
        Columns to choose from.
    findings : sequence of Finding
        Tests of the batch.
    strain : mapping of str to float
        Misfit of each column among the others, over the largest usual misfit.
    atoms : mapping of str to float
        Growth of the share of a single value of each column, beyond the largest usual growth.
    """
    weight, size = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for found in findings:
        if found.whole or not np.isfinite(found.statistic):
            continue
        effect = abs(found.statistic) / found.floor * (1.0 if found.drifted else PARAMS.not_drifted)
        for name in found.columns:
            if name in size:
                alone = len(found.columns) == 1
                size[name] = max(size[name], effect if alone else effect / PARAMS.of_a_relation)
                if found.drifted and np.isfinite(found.importance):
                    weight[name] = max(weight[name], found.importance / len(found.columns))
    turns = [
        sorted(names, key=lambda name: -weight[name]),
        sorted(names, key=lambda name: -size[name]),
        sorted(names, key=lambda name: -strain.get(name, 0.0)),
        sorted(names, key=lambda name: -atoms.get(name, 0.0)),
    ]
    if not any(weight.values()):
        turns = turns[1:]
    by_turns = dict.fromkeys(name for rank in zip(*turns, strict=True) for name in rank)
    return frozenset(list(by_turns)[: PARAMS.examined])
