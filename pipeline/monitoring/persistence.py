"""Persistent change: tests of the last batches, and of all batches since the reference."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.columns import Floats
from pipeline.monitoring.budget import Group
from pipeline.monitoring.findings import FLOORS, Finding
from pipeline.monitoring.rows import Since
from pipeline.reference import Reference
from pipeline.reference.summaries import Summary, Trait
from pipeline.reference.variation import batches_since, gathered, last_batches_p, last_batches_reach


def changes_since(reference: Reference, observed: Sequence[Summary]) -> Since:
    """Count the batches that the change of each trait covers, the last batch included."""
    if len(observed) < 2:  # noqa: PLR2004 -- a single batch has no earlier start
        return {}
    start = batches_since(reference.usual.observed, reference.traits.observed(observed))
    return {trait: int(n) for trait, n in zip(reference.traits.all, start, strict=True)}


def batch_tests(reference: Reference, last: Sequence[Summary], since: Since) -> Iterator[Group]:
    """Test each trait of the last batches against the reference's blocks.

    Parameters
    ----------
    reference : Reference
        The training rows.
    last : sequence of Summary
        The batches that are judged together, oldest first.
    since : mapping of Trait to int
        Number of batches that the change of each trait covers.
    """
    traits, usual = reference.traits, reference.usual
    before, now, units, ruler = usual.observed, traits.observed(last), usual.units, usual.ruler
    p_values = last_batches_p(before, now, units, ruler)
    floors = np.asarray([FLOORS["batches"][trait.kind] for trait in traits.all])
    centre = traits.effects(before.mean[None])
    change = (traits.effects(now.mean[None]) - centre)[0]
    edges = _edges(reference, centre, floors)
    reach = last_batches_reach(before, len(last), units, ruler, floor=edges)
    tests = zip(traits.all, change, p_values, floors, reach, strict=True)
    for trait, size, p_value, floor, chance in tests:
        yield Group(
            f"{'pairs' if trait.kind == 'correlation' else trait.kind} of batches",
            [
                Finding(
                    columns=trait.columns,
                    level="batches",
                    kind=_kind(trait),
                    statistic=float(size),
                    p_value=float(p_value),
                    floor=float(floor),
                    reach=float(chance),
                    since=since.get(trait, 1),
                )
            ],
        )


def _kind(trait: Trait) -> str:
    return f"share of {trait.label}" if trait.kind == "share" else trait.kind


def _edges(reference: Reference, centre: Floats, floors: Floats) -> Floats:
    """Convert floors to the scale of `Traits.vectors`, taking the nearer of the two sides."""
    traits = reference.traits
    plain = traits.vectors_of(centre)
    sides = [np.abs(traits.vectors_of(centre + sign * floors) - plain) for sign in (1, -1)]
    nearer: Floats = np.minimum(*sides)[0]
    return nearer


def decay_tests(reference: Reference, observed: Sequence[Summary], since: Since) -> list[Finding]:
    """Test each trait for slow decay since the reference.

    Half of the weight goes to columns and half to pairs. Parameters are those of `batch_tests`,
    with all batches since the reference.
    """
    traits, now = reference.traits, reference.traits.observed(observed)
    evidence = gathered(reference.usual.observed, now, reference.usual.units, reference.usual.ruler)
    pairs = traits.of_kind("correlation")
    weights = np.where(pairs, 1 / max(pairs.sum(), 1), 1 / max((~pairs).sum(), 1))
    weights = weights / 2 if pairs.any() and not pairs.all() else weights
    p_values = np.minimum(1 / np.maximum(weights * evidence, 1e-300), 1.0)
    change = traits.effects(now.values[-1:]) - traits.effects(reference.usual.observed.mean[None])
    return [
        Finding(
            columns=trait.columns,
            level="decay",
            kind=_kind(trait),
            statistic=float(size),
            p_value=float(p_value) if np.isfinite(size) else float("nan"),
            floor=FLOORS["decay"][trait.kind],
            reach=0.0,
            since=since.get(trait, 1),
        )
        for trait, size, p_value in zip(traits.all, change[0], p_values, strict=True)
    ]
