"""Exchanges of labels: which labels stand for which, and what is gained by putting them back."""

from typing import NamedTuple

import numpy as np

from pipeline.columns import Floats
from pipeline.monitoring.diagnoses.likelihood import Mask, Places
from pipeline.monitoring.diagnoses.relations import ExpectedLabels


class Exchange(NamedTuple):
    """Labels that changed places.

    Attributes
    ----------
    pairs : dict of str to str
        True label of each label that arrived.
    touched : array of bool, shape (n_drawn,)
        Affected rows.
    share : float
        Share of affected rows.
    nats : float
        Nats per row by which the labels are likelier once put back.
    evidence : dict
        Further figures for people.
    """

    pairs: dict[str, str]
    touched: Mask
    share: float
    nats: float
    evidence: dict[str, float | str]


def gained_before(expected: ExpectedLabels, option: Places) -> Floats:
    """Nats per row that an exchange of labels gains in the reference."""
    size = len(option)
    rows = np.arange(len(expected.classes))
    inside = expected.classes < size
    to = np.where(inside, option[np.minimum(expected.classes, size - 1)], expected.classes)
    related = expected.before - expected.shares
    gained: Floats = related[rows, to] - related[rows, expected.classes]
    return gained
