"""Faults of the target: labels in another unit, flipped, recoded or stuck.

A faulty target looks like lost performance and would be learnt. The reference is of the labels
beside predictions by models that had not seen them, which tell what each label should be like.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from pipeline.columns import as_text
from pipeline.config import Categorical, Columns, Numeric
from pipeline.monitoring.drift import compare
from pipeline.monitoring.findings import Cause
from pipeline.monitoring.refusals import FLOOR
from pipeline.reference import Reference
from pipeline.reference.profile import CategoricalProfile, Profile
from pipeline.reference.summaries import Summary, Trait

PREDICTED: Final = "prediction of the target"
"""Column of the predictions beside the target."""
_OF_VALUES: Final = {"clipped", "rounded", "sentinel", "stuck"}
"""Causes that the labels show by themselves, whether their distribution moved or not."""
_FEWEST: Final = 3
"""Labels that are none of the classes, at least, that people are asked about."""
_AWAITED: Final = 20
"""Labels of other classes that would come in any block, at least, where all are of one class."""
_FEWEST_BLOCKS: Final = 3
"""Blocks that show how much a trait of the labels varies, at least."""
_EACH: Final = 1.0
"""Nats by which labels, and what they have to do with predictions, are likelier put back, each."""


def describe_target(
    target: pd.Series,
    predictions: ArrayLike,
    *,
    labels: bool,
    classes: Sequence[str] = (),
    time: pd.Series,
    block: pd.Timedelta,
    seed: int,
) -> Reference:
    """Describe the labels of training rows beside their predictions.

    Parameters
    ----------
    target : Series
        Labels, named as the target.
    predictions : array, shape (n_rows,)
        By models that were not fitted on the rows: numbers, or labels of several `classes`.
    labels : bool
        Whether the labels are classes, not numbers.
    classes : sequence of str
        Labels of a target of three or more classes, which holds their places; else empty.
    time : Series
        Time of each row.
    block : Timedelta
        Length of a live batch.
    seed : int
        Random seed of the draw of rows.
    """
    name = str(target.name)
    columns: Columns = {
        name: Categorical() if labels else Numeric(),
        PREDICTED: Categorical() if classes else Numeric(),
    }
    frame = _beside(target, predictions, labels=labels, classes=classes)
    return Reference.fit(frame, columns, time=time, block=block, seed=seed)


def target_faults(
    reference: Reference,
    target: pd.Series,
    predictions: ArrayLike,
    *,
    broken_alpha: float,
    classes: Sequence[str] = (),
    kept: Path | None = None,
) -> tuple[Cause, ...]:
    """Faults of the labels of a batch, which the labels themselves have to show.

    Where only their relation to the predictions is lost or turns round, the world may have changed:
    that is lost performance.

    Parameters
    ----------
    reference : Reference
        By `describe_target`.
    target : Series
        Labels that have arrived, named as the target.
    predictions : array of float, shape (n_rows,)
        As the reference's were made.
    broken_alpha, kept
        As of `compare`.
    classes : sequence of str
        As of `describe_target`; those that were declared since come last.
    """
    name = str(target.name)
    profile = reference.columns[name]
    labels = isinstance(profile, CategoricalProfile)
    current = _beside(target, predictions, labels=labels, classes=classes)
    if isinstance(profile, CategoricalProfile):
        came = current[name].dropna()
        known = {*profile.counts, *classes}
        if found := _no_classes(known, came) or _one_class(reference, profile, came):
            return (found,)
    report = compare(reference=reference, current=current, broken_alpha=broken_alpha, kept=kept)
    moved = any(one.drifted and one.columns == (name,) for one in report.findings)
    causes = tuple(
        cause
        for cause in report.causes
        if cause.columns == (name,) and (moved or cause.cause in _OF_VALUES)
    )
    turned = None if causes else _turned(reference, profile, current, broken_alpha)
    return causes if turned is None else (turned,)


def _no_classes(classes: Collection[str], came: pd.Series) -> Cause | None:
    """Labels that are none of the classes, which no model can mean and no drift brings."""
    odd = came[~came.isin(list(classes))].value_counts()
    share = odd.sum() / max(len(came), 1)
    if odd.sum() < _FEWEST or share < FLOOR:
        return None
    name = str(came.name)
    return Cause(
        "recode",
        (name,),
        f"{share:.0%} of the labels of {name!r} are none of its classes, as "
        f"{', '.join(repr(label) for label in odd.index[:3])}. Another encoding?",
        {"share of rows": round(share, 4), "labels": float(odd.sum())},
        f"Ask the source how it encodes {name!r} now, and write the labels as at training: "
        f"{', '.join(repr(label) for label in sorted(classes)[:3])}. A class that is new has to be "
        "declared and trained first.",
        share=round(share, 4),
    )


def _one_class(reference: Reference, profile: CategoricalProfile, came: pd.Series) -> Cause | None:
    """A single class, where any block would have brought many labels of the others.

    With 20 of them awaited at the share of the block that held fewest, none comes once in
    5e8 batches (Poisson 1837), and once in seven where their share has fallen to a tenth of that.
    """
    if came.empty or (came != came.iloc[0]).any():
        return None
    name, label = str(came.name), came.iloc[0]
    before = profile.counts[label] / profile.n
    trait = Trait("share", (name,), label)
    most = max([before, *(block[trait] for block in reference.blocks if trait in block)])
    if len(came) * (1 - most) < _AWAITED:
        return None
    return Cause(
        "stuck",
        (name,),
        f"All {len(came):,} labels of {name!r} are {label!r}, where {before:.1%} is usual and "
        f"{most:.1%} was the most: did it stop changing?",
        {"share of rows": 1.0, "usual share": round(before, 4)},
        f"Check the sensor, the cache or the default behind {name!r}, and load the window again.",
        share=round(1 - before, 4),
    )


def _turned(
    reference: Reference, profile: Profile, came: pd.DataFrame, alpha: float
) -> Cause | None:
    """Two classes that were exchanged, or a sign that was turned, in all rows.

    Put back, the labels are as those of any block, and so is what they have to do with predictions;
    as they came, neither is. Where the labels are sound, a likelihood ratio of more than
    1 / alpha comes with a chance of alpha at most (Markov's inequality). Where the predictions tell
    nothing, it has to be the square of that, as the world moves as well.
    """
    name = came.columns[0]
    if isinstance(profile, CategoricalProfile):
        if len(profile.counts) != 2:  # noqa: PLR2004 -- one exchange is possible between two
            return None
        one, other = profile.counts
        back = came.assign(**{name: came[name].map({one: other, other: one})})
        own = [Trait("share", (name,), one)]
    else:
        back = came.assign(**{name: -came[name]})
        own = [Trait("location", (name,)), Trait("spread", (name,))]
    relation = Trait("correlation", tuple(sorted((name, PREDICTED))))
    rows = int(came[name].notna().sum())
    before, after = reference.summarise(came), reference.summarise(back)
    itself = sum(_likelier(reference, trait, after, before, rows) for trait in own)
    related = _likelier(reference, relation, after, before, rows)
    nats, least = itself + related, np.log(1 / alpha) * (1 if related > _EACH else 2)
    if itself < _EACH or nats < least:
        return None
    evidence: dict[str, float | str] = {
        "share of rows": 1.0,
        "correlation with predictions now": round(before.get(relation, 0.0), 3),
        "and put back": round(after.get(relation, 0.0), 3),
        "nats": round(nats, 1),
    }
    if isinstance(profile, CategoricalProfile):
        return Cause(
            "permuted",
            (name,),
            f"{one!r} and {other!r} of {name!r} look exchanged: put back, their shares and what "
            "they have to do with the predictions are as at training.",
            evidence,
            f"Ask the source what {one!r} means now, and write the labels as at training.",
        )
    return Cause(
        "sign",
        (name,),
        f"{name!r} looks multiplied by -1: put back, its values and what they have to do with the "
        "predictions are as at training.",
        evidence,
        f"Ask the source which sign {name!r} has, and load the window again.",
    )


def _likelier(
    reference: Reference, trait: Trait, now: Summary, instead: Summary, rows: int
) -> float:
    """Nats by which one value of a trait is likelier than another one, by what the blocks show.

    A value is a new draw of what the blocks are draws of: Student's t (1908, Biometrika 6(1):
    1-25), with the variance of the blocks, 1 + 1/k times for a draw about a mean of k, beside that
    of sampling.
    """
    known = [block[trait] for block in reference.blocks if trait in block]
    if len(known) < _FEWEST_BLOCKS or trait not in now or trait not in instead:
        return 0.0
    mean, variance = float(np.mean(known)), float(np.var(known, ddof=1))
    sampled = mean * (1 - mean) if trait.kind == "share" else 1.0
    scale = np.sqrt(variance * (1 + 1 / len(known)) + sampled / max(rows, 1))
    density = stats.t(len(known) - 1, loc=mean, scale=scale).logpdf
    return float(density(now[trait]) - density(instead[trait]))


def _beside(
    target: pd.Series, predictions: ArrayLike, *, labels: bool, classes: Sequence[str]
) -> pd.DataFrame:
    shown = as_text(target) if labels else target
    if classes:  # a value that is none of the classes stays as it came
        names = {str(place): label for place, label in enumerate(classes)}
        shown = shown.map(names).fillna(shown)
    return pd.DataFrame({str(target.name): shown.to_numpy(), PREDICTED: predictions})
