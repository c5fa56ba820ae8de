"""What a batch showed and what was decided about it, as the monitor records them."""

from dataclasses import dataclass
from typing import Literal

Action = Literal["none", "page", "retrain", "halt"]
State = Literal["quiet", "moved", "worse", "broken"]
"""A batch in one word: nothing differs; something does; performance is lost; a fault was found."""


@dataclass(frozen=True)
class Evidence:
    """What a batch showed.

    Attributes
    ----------
    batch : str
        Name of the batch: the start of its window, ISO. Batches sort by it.
    version : int
        Version of the champion that the batch was compared with.
    alarm : bool
        Whether the batch alarms.
    persisted : tuple of str
        Displayed names of the columns and pairs whose drift persists over the last batches.
    worse : str
        The batch whose realised loss is larger than allowed; empty when there is none.
    broken : tuple of str
        Names of the faults that were recognised.
    harmless : bool
        Whether the champion's last batches with labels were certainly no worse than allowed.
    otherwise : Evidence or None
        What the batch shows if the faults that nobody answers for are the world as it is now; None
        where that was not asked, or no row of the batch is valid.
    labels : tuple of str
        Faults of labels that came late, each with its batch, that nobody has answered for.
    measured : str
        The batch that `change` and `at_least` are of: `worse`, else the newest with labels; empty
        while no label has come, and in stores of before.
    change, at_least : float
        Relative change of the loss, and the lower end of its one-sided 95% interval; 0.05 is 5%
        worse than after training.
    worst_slice : str
        The slice of `measured` whose loss is the most above its baseline, with its change; empty:
        no slice is surely worse.
    moved_slice : str
        The slice of the batch that moved apart from its other rows the most clearly, with what of
        it moved; empty: none did.
    """

    batch: str
    version: int
    alarm: bool = False
    persisted: tuple[str, ...] = ()
    worse: str = ""
    broken: tuple[str, ...] = ()
    harmless: bool = False
    otherwise: "Evidence | None" = None
    labels: tuple[str, ...] = ()
    measured: str = ""
    change: float = 0.0
    at_least: float = 0.0
    worst_slice: str = ""
    moved_slice: str = ""


@dataclass(frozen=True)
class Decision:
    """The action for a batch, and its reason.

    Attributes
    ----------
    action : str
        ``none``, ``page``, ``retrain`` or ``halt``.
    reason : str
        The reason in one sentence.
    episode : str
        The episode that the action belongs to; empty when there is none.
    presumed : tuple of str
        Faults that count as accepted from this batch on, because nobody answered for them.
    due : bool
        Whether people are paged about the action, or were paged often enough about it before.
    """

    action: Action
    reason: str
    episode: str = ""
    presumed: tuple[str, ...] = ()
    due: bool = True


@dataclass(frozen=True)
class Verdict:
    """Evidence and decision of a batch, as recorded."""

    evidence: Evidence
    decision: Decision


@dataclass(frozen=True)
class Attempt:
    """A challenger that was trained for an episode.

    Attributes
    ----------
    episode : str
        The episode that asked for it.
    promoted : bool
        Whether the challenger became champion.
    version : int
        Version number of the challenger.
    """

    episode: str
    promoted: bool
    version: int = 0


def state_of(*, alarm: bool, broken: bool, worse: bool) -> State:
    """The one word for a batch: a fault counts more than lost performance, and that than drift."""
    if broken:
        return "broken"
    if worse:
        return "worse"
    return "moved" if alarm else "quiet"
