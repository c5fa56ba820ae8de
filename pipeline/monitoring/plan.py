"""What the monitor will find, before it runs: how often by chance, and how small a change."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from pipeline.columns import Floats
from pipeline.monitoring.budget import Bounds, bounds
from pipeline.monitoring.findings import FLOORS
from pipeline.monitoring.persistence import batch_tests
from pipeline.monitoring.rows import Judged, Scale, row_tests
from pipeline.reference import Reference
from pipeline.reference.profile import CategoricalProfile
from pipeline.reference.statistics import homogeneity
from pipeline.reference.summaries import Trait
from pipeline.reference.variation import FEWEST_BLOCKS

POWER = 0.8
"""Chance with which a change of a stated size is found."""
USED = {"alarm": 0.44, "persisted": 0.41, "broken": 0.02}
"""Share of each bound that sound batches use up: the mean over ten real tables whose rows were
shuffled (`python -m benchmarks.plans`, which sets each table against the mean of the others)."""
_FEWEST_ORDERED = 8
"""Blocks from which on it is asked whether neighbours are alike."""
_MOVES = 0.05
"""Chance that any column seems to move with time where none does."""


@dataclass(frozen=True)
class Shift:
    """The smallest change of one column that is found with the chance `POWER`.

    Attributes
    ----------
    column : str
        The column.
    kind : str
        ``location`` (standard deviations), ``spread`` (factor of the standard deviation),
        ``labels`` (share of rows with another label) or ``missing`` (share of rows).
    batch, together : float
        The size that one batch shows, and that the batches which are judged together show;
        infinite where no share of rows is enough, and nan where it is not judged.
    """

    column: str
    kind: str
    batch: float
    together: float = float("nan")


@dataclass(frozen=True)
class Variation:
    """How much the blocks of the reference differ in one column.

    Attributes
    ----------
    column : str
        The column.
    effect : float
        Design effect: variance between blocks over that of independent rows.
    differs : float
        Standard deviation between blocks beyond chance, in standard deviations of the rows for a
        number, else in share of rows.
    depends : bool
        Whether the blocks differ by more than chance.
    moves : bool
        Whether neighbouring blocks are alike, as with a season or a trend.
    """

    column: str
    effect: float
    differs: float
    depends: bool
    moves: bool


@dataclass(frozen=True)
class Plan:
    """What is to be expected of the monitor.

    Attributes
    ----------
    alarm, persisted : float
        Largest chances that a batch with nothing wrong alarms, and that it asks for a retrain.
    shifts : tuple of Shift
        What is found of each column.
    variations : tuple of Variation
        How ordinary batches differ, the largest design effect first; empty with too few blocks.
    """

    alarm: float
    persisted: float
    shifts: tuple[Shift, ...]
    variations: tuple[Variation, ...]


def plan(reference: Reference, batch: pd.DataFrame, *, alpha: float, persistence: int) -> Plan:
    """Foresee what the monitor finds in batches like one batch.

    Parameters
    ----------
    reference : Reference
        Training rows, or some of them.
    batch : DataFrame
        Rows of one ordinary batch; only their number and their columns count.
    alpha : float
        Chance that a batch with nothing wrong alarms, over all tests together.
    persistence : int
        Number of batches that are judged together.
    """
    tally = reference.tally(batch)
    summary = reference.summarise(tally)
    judged = Judged(reference, tally, summary, {})
    enough = len(reference.blocks) >= FEWEST_BLOCKS
    groups = list(row_tests(judged))
    groups += batch_tests(reference, [summary] * persistence, {}) if enough else []
    found = bounds(groups, alpha, decay=enough)
    together = _together(reference, tally.rows * persistence, persistence, found) if enough else {}
    return Plan(
        alarm=found.alarm,
        persisted=found.persisted if enough else 0.0,
        shifts=tuple(_shifts(judged, found, together)),
        variations=tuple(_variations(reference)) if enough else (),
    )


def _shifts(judged: Judged, found: Bounds, together: dict[Trait, float]) -> Iterator[Shift]:
    for name, profile in judged.reference.columns.items():
        n, m = judged.tally.known(name), profile.n
        if min(n, m) < 2:  # noqa: PLR2004 -- one value has no spread
            continue
        size = partial(_found, noise=np.sqrt(1 / n + 1 / m))
        if isinstance(profile, CategoricalProfile):
            yield Shift(name, "labels", *_labels(judged, name, profile, found, together))
        elif profile.normal_scores.any():
            trait = Trait("location", (name,))
            scale = judged.scale(trait, rows=n)
            floor, level = FLOORS["rows"]["location"], found.levels["location"]
            shown = size(floor=floor, level=level, scale=scale)
            yield Shift(name, "location", shown, together.get(trait, np.nan))
            scale = judged.scale(Trait("spread", (name,)), rows=n)
            floor = float(np.expm1(2 * FLOORS["rows"]["spread"]))
            unit = np.sqrt(profile.moments.square_variance)
            excess = unit * size(floor=floor / unit, level=found.levels["spread"], scale=scale)
            yield Shift(name, "spread", float(np.sqrt(1 + excess)))
        if profile.missing:
            share = profile.missing / (profile.n + profile.missing)
            unit = np.sqrt(share * (1 - share))
            trait = Trait("missing", (name,))
            scale = judged.scale(trait, rows=judged.tally.rows)
            floor, level = FLOORS["rows"]["missing"] / unit, found.levels["missing"]
            shown = unit * size(floor=floor, level=level, scale=scale)
            yield Shift(name, "missing", _share(shown), _share(together.get(trait, np.nan)))


def _found(*, floor: float, level: float, scale: Scale, noise: float) -> float:
    """Shift of a mean of unit variance that is found: beyond floor and level, plus luck.

    Elementary: a normal estimate of a shift exceeds a cut with the chance `POWER` where the shift
    lies that quantile of the normal distribution, in standard errors, beyond the cut.
    """
    value = (
        special.chdtri(1, level)
        if np.isinf(scale.freedom)
        else special.fdtri(1, scale.freedom, 1 - level)
    )
    noise = noise * np.sqrt(scale.effect)
    return float(max(floor, np.sqrt(value) * noise) + special.ndtri(POWER) * noise)


def _labels(
    judged: Judged,
    name: str,
    profile: CategoricalProfile,
    found: Bounds,
    together: dict[Trait, float],
) -> tuple[float, float]:
    """Share of rows that has to change its label, by the power of the chi-square test.

    References
    ----------
    Patnaik (1949), Biometrika 36(1-2): 202-232, for the power by the noncentral distribution.
    """
    now = judged.tally.counts[name][:-1]
    n, m = float(now.sum()), profile.n
    traits = [Trait("share", (name,), label) for label in profile.followed]
    scale = judged.scale(*traits, rows=n)
    _, freedom = homogeneity(profile.rows, now)
    several = max((together.get(trait, np.nan) for trait in traits), default=np.nan)
    if freedom == 0 or not n:
        return np.nan, several
    level, rows = found.levels["labels"], 4 * n * m / (n + m)
    cut = (
        special.chdtri(freedom, level)
        if np.isinf(scale.freedom)
        else freedom * special.fdtri(freedom, freedom * scale.freedom, 1 - level)
    )
    cut = max(cut, freedom + rows * FLOORS["rows"]["labels"] ** 2 / scale.effect)

    def missed(noncentral: float) -> float:
        return float(stats.ncx2.cdf(cut, freedom, noncentral) - (1 - POWER))

    noncentral = optimize.brentq(missed, 1e-9, 4 * cut + 100)
    return _share(np.sqrt(scale.effect * noncentral / rows)), _share(several)


def _share(size: float) -> float:
    """A change of a share of rows; no change is larger than 1."""
    return float("inf") if size > 1 else float(size)


def _together(
    reference: Reference, rows: float, persistence: int, found: Bounds
) -> dict[Trait, float]:
    """Change of each trait that is found in batches that are judged together, as by `_found`."""
    before, units, ruler = reference.usual.observed, reference.usual.units, reference.usual.ruler
    sizes = {}
    for place, trait in enumerate(reference.traits.all):
        blocks = before.count[place]
        if trait.kind in {"correlation", "spread"} or blocks < FEWEST_BLOCKS:
            continue
        variance, freedom = units.variance[place], blocks + persistence - 2
        level = found.levels[f"{trait.kind} of batches"]
        if ruler.dependent[place]:
            typical = variance / max(before.usual_size[place], 1)
            spread = max(before.squares[place] / (blocks - 1), typical)
            error = np.sqrt(spread * (1 / blocks + 1 / persistence))
            cut = special.stdtrit(freedom, 1 - level / 2)
        else:
            pooled = variance * (1 / rows + 1 / before.rows[place])
            error = np.sqrt(pooled * ruler.effect[place])
            cut = special.ndtri(1 - level / 2)
        floor = FLOORS["batches"][trait.kind]
        sizes[trait] = float(max(floor, cut * error) + special.ndtri(POWER) * error)
    return sizes


def _variations(reference: Reference) -> list[Variation]:
    """How the blocks differ in each column: its location, or its most variable label."""
    usual, traits = reference.usual, reference.traits.all
    chances = _alike(usual.observed.values)
    found: dict[str, Variation] = {}
    followed = [i for i, trait in enumerate(traits) if trait.kind in {"location", "share"}]
    for place in followed:
        name, effect = traits[place].columns[0], float(usual.ruler.effect[place])
        variance = usual.units.variance[place] / max(usual.observed.usual_size[place], 1)
        before = found.get(name)
        moves = bool(chances[place] * len(followed) < _MOVES) or bool(before and before.moves)
        if before is None or effect > before.effect:
            depends = bool(usual.ruler.dependent[place])
            differs = float(np.sqrt(max(effect - 1, 0) * variance))
            before = Variation(name, effect, differs, depends, moves)
        found[name] = Variation(**(vars(before) | {"moves": moves}))
    return sorted(found.values(), key=lambda one: -one.effect)


def _alike(values: Floats) -> Floats:
    """Chance that successive blocks are so alike, by von Neumann's ratio (1941), per trait."""
    n = len(values)
    if n < _FEWEST_ORDERED:
        return np.ones(values.shape[1])
    steps = (np.diff(values, axis=0) ** 2).sum(axis=0)
    around = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (steps / around - 2) / np.sqrt(4 * (n - 2) / ((n - 1) * (n + 1)))
    chances: Floats = np.where(np.isfinite(z), special.ndtr(z), 1.0)
    return chances
