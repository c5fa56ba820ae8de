"""Whether the packages of this process predict golden rows of a stored version as its own did."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np

from pipeline.errors import RegistryError
from pipeline.training import parity
from pipeline.training.golden import Golden
from pipeline.training.model import Model, Predictions
from pipeline.training.parity import ABSOLUTE, ParityError, are_close

Verdict = Literal["equal", "within tolerance", "different"]
VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)
"""From the best to the worst."""
LOADING: Final = "the loading of the model"


@dataclass(frozen=True)
class Compatibility:
    """What becomes of golden rows here.

    Attributes
    ----------
    verdict : str
        ``equal`` to the bit, ``within tolerance`` or ``different``.
    stage : str
        The first stage that differs, as `ParityError` names it; empty if none does.
    columns : sequence of str
        The columns that differ there; empty where the whole model does.
    message : str
        What differs, with values before and now; empty if nothing does.
    """

    verdict: Verdict
    stage: str = ""
    columns: Sequence[str] = ()
    message: str = ""


def compatibility_of(folder: Path) -> Compatibility:
    """Load the model of a version or an export, and replay its golden rows.

    Parameters
    ----------
    folder : Path
        Holds the folders ``model`` and ``golden``.
    """
    try:
        found = parity.replay(Model.load(folder / "model"), Golden.load(folder / "golden"))
    except ParityError as error:
        return Compatibility("different", error.stage, error.columns, str(error))
    except RegistryError as error:
        return Compatibility("different", LOADING, (), str(error))
    return Compatibility("equal" if found.equal else "within tolerance")


def largest_difference(now: Predictions, before: Predictions) -> float:
    """Largest difference of two sets of predictions; infinite where their shapes differ."""
    if now.shape != before.shape:
        return float("inf")
    return float(np.abs(now - before).max(initial=0))


def verdict_of(now: Predictions, before: Predictions) -> Verdict:
    """Compare predictions of equal rows, within the tolerances of golden rows."""
    if np.array_equal(now, before):
        return "equal"
    close = now.shape == before.shape and are_close(now, before, atol=ABSOLUTE).all()
    return "within tolerance" if close else "different"


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that differs most; ``equal`` of none."""
    return max(verdicts, key=VERDICTS.index, default="equal")
