"""What the comparison of a batch found of its slices, such as one carrier's rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import RESERVED


@dataclass(frozen=True)
class SliceDrift:
    """How a slice of a batch differs from the rest of the batch, beside what is usual.

    Attributes
    ----------
    name : str
        The slice, such as ``carrier = HA``.
    rows : int
        Its rows in the batch.
    columns : tuple of str
        The columns that drifted in it, the clearest first; if none did, the clearest column.
    kind : str
        What of the first column was compared: ``location``, ``missing``, or ``share of`` a label.
    before, now : float
        Mean of the slice in training and in the batch: of normal scores, or a share.
    size : float
        How much further the slice moved than the rest of the batch, in standard deviations of the
        column or as a share of rows; NaN where it was not compared.
    p_value : float
        Corrected p-value of the clearest test, over all slices and columns.
    drifted : bool
        Whether the slice surely moved apart from the rest, and by more than the floor.
    why : str
        Why it was not compared; empty where it was.
    """

    name: str
    rows: int
    columns: tuple[str, ...] = ()
    kind: str = ""
    before: float = float("nan")
    now: float = float("nan")
    size: float = float("nan")
    p_value: float = float("nan")
    drifted: bool = False
    why: str = ""

    @property
    def change(self) -> str:
        """What changed of the first column, with its size, as displayed text."""
        column = self.columns[0].removeprefix(RESERVED)
        if self.kind == "location":
            return f"{column} {self.size:+.2f} sd"
        what = f"{self.kind} in {column}" if self.kind != "missing" else f"missing {column}"
        return f"{what} {100 * self.size:+.0f} points"

    @property
    def sentence(self) -> str:
        """The slice with its clearest change, as pages name it."""
        return f"{self.name}, {self.change} beyond the other rows, {self.rows:,} rows"


def most_drifted(slices: Sequence[SliceDrift]) -> SliceDrift | None:
    """The slice that moved apart the most clearly; None: none did.

    Parameters
    ----------
    slices : sequence of SliceDrift
        As of `compare_slices`.
    """
    return next((one for one in slices if one.drifted), None)


def charted(slices: Sequence[SliceDrift]) -> dict[str, float]:
    """What is charted of slices: how many drifted, and how clearly the first one differs.

    Slices that did not drift count as well, so that a chart has no gaps; the p-value has its limit
    in `alpha`.
    """
    compared = [one for one in slices if not one.why]
    if not compared:
        return {}
    return {
        "drifted_slices": float(sum(one.drifted for one in compared)),
        "most_drifted_slice_p": compared[0].p_value,
    }
