"""Where the values of a numeric column lie: single values, and density between quantiles."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Floats

ATOM = 0.01
"""Share of rows from which a single value counts as an atom."""


class Masses(NamedTuple):
    """Logarithms of shares along the range of a numeric column.

    Attributes
    ----------
    atoms : array of bool, shape (n_points,)
        Points of the grid that hold a share of `ATOM` or more by themselves.
    logs : array of float, shape (n_points,)
        Logarithm of the share of each point.
    edges : array of float, shape (n_edges,)
        Every eighth point.
    density : array of float, shape (n_edges - 1,)
        Logarithm of the share, without atoms, of a 512th of the range between two edges.
    """

    atoms: NDArray[np.bool_]
    logs: Floats
    edges: Floats
    density: Floats


def masses_of(points: Floats, below: Floats, upto: Floats) -> Masses:
    """Compute masses from a grid of at least two points and the shares below and up to each."""
    weight = upto - below
    atoms = weight >= ATOM
    edges = np.unique(np.append(np.arange(0, len(points), 8), len(points) - 1))
    step = float(points[-1] - points[0]) / 512
    rest = np.where(atoms, 0.0, weight).cumsum()
    gaps = np.append(0.0, below[1:] - upto[:-1]).cumsum()
    mass = np.diff((rest + gaps)[edges])
    wide = np.maximum(np.diff(points[edges]), step)
    density = np.log(np.maximum(mass / wide * step, np.exp(-12.0)))
    return Masses(atoms, np.log(np.maximum(weight, 1e-9)), points[edges], density)
