"""What the comparison of a batch found: tests, drift per column and pair, and causes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import pandas as pd

from pipeline.config import RESERVED
from pipeline.monitoring.indicators import Indicator
from pipeline.monitoring.shapes import Shape
from pipeline.monitoring.slice_drift import SliceDrift
from pipeline.reference.finite import finite
from pipeline.reference.summaries import Summary, summary_to_json

LISTED = 5_000
"""Most findings that are stored of a batch; a table of 50 columns has fewer."""
Level = Literal["rows", "batches", "decay"]

FLOORS: dict[Level, dict[str, float]] = {
    "rows": {
        "location": 0.075,  # reference standard deviations
        "spread": 0.1,  # logarithm of the ratio of standard deviations
        "distribution": 0.03,  # Kolmogorov-Smirnov distance
        "range": 1.0,  # distance of the median beyond the usual range, in widths of that range
        "labels": 0.03,  # half the chi-square distance of label shares, beyond chance
        "missing": 0.01,  # share of rows
        "unseen": 0.005,  # share of rows, beyond what the reference leads to expect
        "correlation": 0.1,  # change of a correlation of normal scores or of indicators of labels
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
"""Smallest effect of each kind that matters to a person, by level."""


@dataclass(frozen=True)
class Finding:
    """Result of one test of a column, of a pair, or of all columns together.

    Attributes
    ----------
    columns : tuple of str
        The column or pair that was tested; for a test of all columns together, the columns that
        contribute most.
    level : str
        ``rows``: this batch alone; ``batches``: the last batches together; ``decay``: all
        batches since the reference.
    kind : str
        What was compared: a key of `FLOORS`, for a share followed by its label.
    statistic : float
        Size of the difference, in the unit of the floor; signed where it has a direction.
    p_value : float
        Calibrated p-value of this test alone; at the level of decay, the inverse of the
        evidence.
    floor : float
        Smallest difference that counts.
    reach : float
        Chance that a batch with nothing wrong differs by the floor or more.
    since : int
        Number of batches that the change covers, this batch included.
    adjusted : float
        `p_value` corrected so that at most `alpha` of the batches with nothing wrong alarm.
    drifted : bool
        Whether the difference is both significant and at least as large as the floor.
    importance : float
        How much the model relies on the columns, as given to `compare`; NaN when not given.
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
        """What was tested, as displayed text: ``a``, ``a ~ b`` or ``all columns together``."""
        shown = [name.removeprefix(RESERVED) for name in self.columns]
        return "all columns together" if self.whole else " ~ ".join(shown)


@dataclass(frozen=True)
class Drift:
    """Summary of all tests of one column or pair.

    Attributes
    ----------
    name : str
        The column, or the pair as `a ~ b`, as displayed text.
    columns : tuple of str
        The column, or both columns of the pair.
    statistic, p_value, effect : float
        Size, corrected p-value, and size over floor of the most significant test.
    drifted : bool
        Whether any of the tests found drift.
    since : int
        Number of batches that the change covers, this batch included.
    importance : float
        How much the model relies on the column or pair; NaN when not given.
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
class PairDrift(Drift):
    """Summary of all tests of a pair of columns, with its correlation.

    Attributes
    ----------
    before, now : float
        Correlation of normal scores, or of indicators of the most frequent labels, in the
        reference and in the batch; NaN where the pair did not drift.
    """

    before: float = float("nan")
    now: float = float("nan")


@dataclass(frozen=True)
class ColumnDrift(Drift):
    """Summary of all tests of one column, with figures for display.

    Attributes
    ----------
    psi : float
        Population stability index; NaN, as are the next three figures, when the batch holds no
        value.
    jensen_shannon : float
        Jensen-Shannon distance over deciles of the reference or over labels, from 0 to 1.
    distance : float
        Kolmogorov-Smirnov distance or total variation, from 0 to 1.
    wasserstein : float
        Wasserstein distance in standard deviations of the reference; NaN for a categorical
        column.
    missing : float
        Share of rows without a value.
    outliers : int
        Number of values that lie three times as far from the median as any training row.
    """

    psi: float = float("nan")
    jensen_shannon: float = float("nan")
    distance: float = float("nan")
    wasserstein: float = float("nan")
    missing: float = float("nan")
    outliers: int = 0


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
    "inconsistent",
]


WHOLE = "the batch"
"""What a fault names instead of columns where the whole batch is at fault."""


@dataclass(frozen=True)
class Cause:
    """A fault that explains a change, in words that a person can act on.

    Attributes
    ----------
    cause : str
        What happened, one of `CauseName`.
    columns : tuple of str
        The columns at fault; empty when the whole batch is.
    sentence : str
        What was observed, and what it looks like.
    evidence : dict of str to float or str
        The numbers that support the cause.
    cure : str
        What to do and whom to ask.
    share : float
        Share of rows that the fault affects, from 0 to 1.
    segment : str
        Which rows are affected, as `carrier = UA`; empty when all rows are, or when the affected
        rows have nothing in common.
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
        """The cause and its columns, as displayed text."""
        return f"{self.cause} ({', '.join(self.columns) or WHOLE})"


Outcome = Literal["quiet", "moved", "broken", "mixed"]


@dataclass(frozen=True, eq=False)
class DriftReport:
    """What the comparison of one batch found.

    Attributes
    ----------
    rows : int
        Number of rows of the batch.
    alpha : float
        Chance that a batch with nothing wrong alarms.
    columns : tuple of ColumnDrift
        Drift per column, most significant first.
    pairs : tuple of PairDrift
        Drift per pair of columns, most significant first.
    findings : tuple of Finding
        All tests, most significant first.
    summary : Summary
        This batch as one observation; later comparisons take it in `recent`.
    batches : int
        Number of batches judged together at the level of batches.
    run_length : float
        Least mean number of batches with nothing wrong until decay is found by mistake.
    false_persisted : float
        Upper bound of the chance that a batch with nothing wrong counts as persistent drift.
    notes : tuple of str
        What could not be judged and why; columns that are absent or unknown.
    causes : tuple of Cause
        Faults that were recognised in the rows as they arrived.
    broken_alpha : float
        Largest share of sound batches that may show again, and more clearly, what blocks of the
        reference showed of a fault, over all faults and columns together.
    shapes : tuple of Shape
        Each column of the reference and of the batch, as they are drawn.
    indicators : tuple of Indicator
        What is predicted, how surely, and which share of rows is valid, beside training.
    refused : mapping of str to int
        The most frequent reasons of refused rows, with their numbers.
    slices : tuple of SliceDrift
        Slices of the batch beside its other rows, those that moved apart first.
    """

    rows: int
    alpha: float
    columns: tuple[ColumnDrift, ...]
    pairs: tuple[PairDrift, ...]
    findings: tuple[Finding, ...]
    summary: Summary = field(repr=False)
    batches: int
    run_length: float
    false_persisted: float
    notes: tuple[str, ...]
    causes: tuple[Cause, ...] = ()
    broken_alpha: float = 0.01
    shapes: tuple[Shape, ...] = field(default=(), repr=False)
    indicators: tuple[Indicator, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    slices: tuple[SliceDrift, ...] = ()

    def __eq__(self, other: object) -> bool:
        """Whether both reports are equal; values that are undefined in both are equal."""
        return isinstance(other, DriftReport) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def alarm(self) -> bool:
        """Whether this batch alarms, at any level."""
        return any(finding.drifted for finding in self.findings)

    @property
    def persisted(self) -> bool:
        """Whether the last batches, or all batches since the reference, differ from it."""
        return bool(self.persistent)

    @property
    def persistent(self) -> tuple[str, ...]:
        """Displayed names of columns and pairs that drifted at the level of batches or decay."""
        found = (f for f in self.findings if f.drifted and f.level != "rows")
        return tuple(dict.fromkeys(finding.name for finding in found))

    @property
    def outcome(self) -> Outcome:
        """The report in one word.

        ``quiet``: nothing differs. ``moved``: something differs, and no fault explains it.
        ``broken``: a fault was recognised. ``mixed``: a fault was recognised, and other columns
        drifted at the level of batches or decay.
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
        """Displayed names of the drifted columns and pairs, most significant first."""
        found = (finding.name for finding in self.findings if finding.drifted)
        return tuple(dict.fromkeys(found))

    def to_dict(self) -> dict[str, Any]:
        """Convert the report to JSON-able values; undefined numbers become None.

        At most `LISTED` findings are listed, the most significant, and the others are counted.
        """
        listed = replace(self, findings=self.findings[:LISTED])
        values = asdict(listed) | {
            "findings_not_listed": max(len(self.findings) - LISTED, 0),
            "summary": summary_to_json(self.summary),
            "alarm": self.alarm,
            "outcome": self.outcome,
        }
        cleaned: dict[str, Any] = finite(values)
        return cleaned

    def to_frame(self) -> pd.DataFrame:
        """Tabulate the report: one row per test, most significant first."""
        return pd.DataFrame([{"name": found.name} | asdict(found) for found in self.findings])
