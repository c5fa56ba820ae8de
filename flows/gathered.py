"""The rows of a batch as they were read and checked, and what a comparison found in them."""

from dataclasses import dataclass

import pandas as pd

from flows.settle import live_source, rows_name
from flows.steps import check, read
from pipeline.config import Settings
from pipeline.data.validation import NoValidRowError, Validated
from pipeline.monitoring.findings import DriftReport
from pipeline.registry import champions
from pipeline.registry.history import batch_name
from pipeline.registry.versions import Registry


@dataclass(frozen=True)
class Gathered:
    """A batch as it was read.

    Attributes
    ----------
    name : str
        Name of the batch.
    start, end : Timestamp
        Its window.
    reading : int
        How often it was read, this time included.
    version : int
        Number of the champion that judges it.
    rows : DataFrame
        Rows as they arrived.
    checked : Validated
        Valid and refused rows.
    refusal : NoValidRowError or None
        Set if no row is valid, which counts unless a fault explains it.
    """

    name: str
    start: pd.Timestamp
    end: pd.Timestamp
    reading: int
    version: int
    rows: pd.DataFrame
    checked: Validated
    refusal: NoValidRowError | None

    @property
    def kept_as(self) -> str:
        """Name that its rows are kept under."""
        return rows_name(self.name, self.reading)

    @property
    def lies_ahead(self) -> bool:
        """Whether its window is empty because it is not over yet."""
        return self.rows.empty and self.end > pd.Timestamp.now("UTC").tz_localize(None)


@dataclass(frozen=True)
class Compared:
    """A batch beside the champion's reference.

    Attributes
    ----------
    report : DriftReport
        The comparison, without faults that people have accepted.
    predicted : DataFrame
        Key, time and the champion's ``prediction`` of each valid row, with its label if known.
    """

    report: DriftReport
    predicted: pd.DataFrame


def gather(settings: Settings, registry: Registry, start: pd.Timestamp, reading: int) -> Gathered:
    """Read and check the rows of a batch, and find the champion that judges it."""
    name, end = batch_name(start), start + settings.monitoring.batch
    version = champions.champion_at(registry, start)
    rows = read(settings, live_source(settings), start, end, as_of=end, need_labels=False)
    refusal = None
    try:
        checked = check(settings, rows, rows_name(name, reading))
    except NoValidRowError as error:
        checked, refusal = error.validated, error
    return Gathered(name, start, end, reading, version, rows, checked, refusal)
