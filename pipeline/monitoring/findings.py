"""What the comparison of a batch found, in words and numbers."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline.reference.summaries import Summary, summary_to_json

Level = Literal["rows", "batches", "decay"]

FLOORS: dict[Level, dict[str, float]] = {
    "rows": {
        "location": 0.075,  # reference standard deviations
        "spread": 0.1,  # logarithm of the ratio of standard deviations
        "distribution": 0.03,  # Kolmogorov-Smirnov distance
        "labels": 0.03,  # half the chi-square distance of label shares, beyond chance
        "missing": 0.01,  # share of rows
        "unseen": 0.005,  # share of rows, beyond what the reference leads to expect
        "correlation": 0.1,  # of normal scores, or of indicators of labels
        "joint": 0.02,  # standard deviations, root mean square over all columns
        "classifier": 0.03,  # area under the ROC curve beyond 0.5
    },
    "batches": {
        "location": 0.25,
        "spread": 0.25,
        "share": 0.03,
        "missing": 0.01,
        "correlation": 0.1,
    },
    "decay": {
        "location": 0.1,
        "spread": 0.1,
        "share": 0.03,
        "missing": 0.01,
        "correlation": 0.1,
    },
}
"""Smallest effect of each kind that a person would want to hear of."""


@dataclass(frozen=True)
class Finding:
    """One test of a column, of a pair, or of all columns together.

    Attributes
    ----------
    columns : tuple of str
        What was tested: one name, two, or, for all columns together, those that show most.
    level : str
        ``rows``: this batch alone; ``batches``: the last ones together; ``decay``: all since
        the reference.
    kind : str
        What was compared, a key of `FLOORS`, with the label behind a share.
    statistic : float
        Size of the difference, in the unit of its floor; signed where it has a direction.
    p_value : float
        Calibrated, for this test alone. At the level of decay the inverse of the evidence.
    floor : float
        Smallest difference that counts.
    reach : float
        Chance that a batch with nothing wrong differs by the floor or more.
    since : int
        Batches that the change takes in, this one included.
    adjusted : float
        `p_value`, so corrected that at most `alpha` of batches with nothing wrong alarm.
    drifted : bool
        Whether it is both significant and larger than the floor.
    importance : float
        How much the model relies on its columns, as given to `compare`; NaN when it was not.
    """

    columns: tuple[str, ...]
    level: Level
    kind: str
    statistic: float
    p_value: float
    floor: float
    reach: float
    since: int = 1
    adjusted: float = float("nan")
    drifted: bool = False
    importance: float = float("nan")

    @property
    def whole(self) -> bool:
        """Whether all columns were tested together."""
        return self.kind in {"joint", "classifier"}

    @property
    def name(self) -> str:
        """What was tested, in words."""
        return "all columns" if self.whole else " ~ ".join(self.columns)


@dataclass(frozen=True)
class Drift:
    """All there is to say of one column or pair.

    Attributes
    ----------
    name : str
        The column, or both, as `a ~ b`.
    columns : tuple of str
        The column, or both.
    statistic, p_value, effect : float
        Of its most significant test: size, corrected p-value, size over floor.
    drifted : bool
        Whether any of its tests found drift.
    since : int
        Batches that the change takes in, this one included.
    importance : float
        How much the model relies on it; NaN when that was not given.
    """

    name: str
    columns: tuple[str, ...]
    statistic: float
    p_value: float
    effect: float
    drifted: bool
    since: int
    importance: float


@dataclass(frozen=True)
class ColumnDrift(Drift):
    """The same for a column, with the figures that people draw.

    Attributes
    ----------
    psi : float
        Population stability index; NaN, as the next three, when the batch holds no value.
    jensen_shannon : float
        Jensen-Shannon distance over tenths of the reference, or over labels, from 0 to 1.
    distance : float
        Kolmogorov-Smirnov distance or total variation, from 0 to 1.
    wasserstein : float
        Wasserstein distance in standard deviations of the reference; NaN for labels.
    missing : float
        Share of rows without a value.
    """

    psi: float = float("nan")
    jensen_shannon: float = float("nan")
    distance: float = float("nan")
    wasserstein: float = float("nan")
    missing: float = float("nan")


CauseName = Literal[
    "unit",
    "sign",
    "stuck",
    "frozen",
    "nulls",
    "sentinel",
    "clipped",
    "rounded",
    "recode",
    "permuted",
    "swapped",
    "shuffled",
    "shifted",
    "duplicate",
    "volume",
    "schema",
    "join",
]


@dataclass(frozen=True)
class Cause:
    """A fault that explains a change, in words that a person can act on.

    Attributes
    ----------
    cause : str
        What happened, one of `CauseName`.
    columns : tuple of str
        The columns it happened to; empty for a whole batch.
    sentence : str
        What was seen, and what it looks like.
    evidence : dict of str to float or str
        The numbers that it rests on.
    cure : str
        What to do and whom to ask.
    share : float
        Rows that it touches, from 0 to 1.
    segment : str
        Which rows, as `carrier = UA`; empty when all, or when they have nothing in common.
    """

    cause: CauseName
    columns: tuple[str, ...]
    sentence: str
    evidence: dict[str, float | str]
    cure: str
    share: float = 1.0
    segment: str = ""

    @property
    def name(self) -> str:
        """The cause and where, in a few words."""
        return f"{self.cause} ({', '.join(self.columns) or 'the batch'})"


Outcome = Literal["quiet", "moved", "broken", "mixed"]


@dataclass(frozen=True, eq=False)
class DriftReport:
    """What the comparison of one batch found.

    Attributes
    ----------
    rows : int
        Rows of the batch.
    alpha : float
        Chance that a batch with nothing wrong alarms.
    columns : tuple of ColumnDrift
        Most significant first.
    pairs : tuple of Drift
        Most significant first.
    findings : tuple of Finding
        Every test, most significant first.
    summary : Summary
        This batch as one observation; those of earlier ones are given as `recent`.
    batches : int
        Batches judged together at the level of batches.
    run_length : float
        Batches with nothing wrong, on average at least, until decay is found by mistake.
    false_persisted : float
        Bound of the chance that a batch with nothing wrong counts as persisting drift.
    notes : tuple of str
        What got no verdict and why; columns that are absent or unknown.
    causes : tuple of Cause
        Faults that were recognised in the rows as they came.
    """

    rows: int
    alpha: float
    columns: tuple[ColumnDrift, ...]
    pairs: tuple[Drift, ...]
    findings: tuple[Finding, ...]
    summary: Summary = field(repr=False)
    batches: int
    run_length: float
    false_persisted: float
    notes: tuple[str, ...]
    causes: tuple[Cause, ...] = ()

    def __eq__(self, other: object) -> bool:
        """Whether both say the same; what is undefined in both is the same."""
        return isinstance(other, DriftReport) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def alarm(self) -> bool:
        """Whether this batch alarms, at any level."""
        return any(finding.drifted for finding in self.findings)

    @property
    def persisted(self) -> bool:
        """Whether the last batches, or all since the reference, differ from it."""
        return bool(self.persistent)

    @property
    def persistent(self) -> tuple[str, ...]:
        """Names of the columns and pairs whose difference is not of this batch alone."""
        found = (f for f in self.findings if f.drifted and f.level != "rows")
        return tuple(dict.fromkeys(finding.name for finding in found))

    @property
    def outcome(self) -> Outcome:
        """The report in one word.

        ``quiet``: nothing differs. ``moved``: something does, and no fault explains it.
        ``broken``: a fault was recognised. ``mixed``: a fault, and drift of other columns that
        does not rest on this batch alone.
        """
        if not self.causes:
            return "moved" if self.alarm else "quiet"
        touched = {column for cause in self.causes for column in cause.columns}
        others = [
            found
            for found in self.findings
            if found.drifted and found.level != "rows" and not touched & set(found.columns)
        ]
        whole = any(not cause.columns for cause in self.causes)
        return "mixed" if others and not whole else "broken"

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the drifted columns and pairs, most significant first."""
        found = (finding.name for finding in self.findings if finding.drifted)
        return tuple(dict.fromkeys(found))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values; what is undefined is None."""
        values = asdict(self) | {
            "summary": summary_to_json(self.summary),
            "alarm": self.alarm,
            "outcome": self.outcome,
        }
        cleaned: dict[str, Any] = _without_nan(values)
        return cleaned

    def to_frame(self) -> pd.DataFrame:
        """One row per test, most significant first."""
        return pd.DataFrame([{"name": found.name} | asdict(found) for found in self.findings])


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
