"""Stretches of rows: a column that stops changing, or stops coming, within a batch."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.columns import as_codes, as_number
from pipeline.monitoring.diagnoses.case import NATS, Case
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.findings import Cause
from pipeline.reference.order import Stretch
from pipeline.reference.profile import CategoricalProfile
from pipeline.reference.summaries import ROWS, Kind, Trait


@dataclass(frozen=True)
class Parameters:
    """When a stretch of rows is longer than sound batches explain.

    Attributes
    ----------
    times : float
        Least ratio of a stretch to the longest one in any block or recent batch, in rows and as a
        share of the rows.
    heavy : float
        Power of the ratio of the longest stretch of the blocks to their median, which `times` is
        at least: where these differ much, as spells of rain do, a longer one comes by itself.
    on_top : float
        Least growth of the share of a value, of the growth by a stretch in place of ordinary rows.
    missing : float
        Least share of a batch's rows in a stretch without values.
    alike : float
        Share of a stretch in which another column does not change either, from which the rows are
        those of one customer or place, and no column is at fault.
    """

    times: float = 3.0
    heavy: float = 2.0
    on_top: float = 0.5
    missing: float = 0.07
    alike: float = 0.5


PARAMS = Parameters()
_STRETCH: Kind = "stretch"
_GAP: Kind = "gap"


def stuck_in_a_row(case: Case) -> Iterator[Cause]:
    """Recognise a value that holds on for far more rows in a row than any value ever did."""
    for name in case.features:
        profile = case.reference.columns[name]
        several = isinstance(profile, CategoricalProfile) and len(profile.counts)
        # Many labels name customers or places, one of which may have many rows in a row.
        if several > SHARED.many_values or name not in case.tally.stretches:
            continue
        longest, usual = case.tally.stretches[name].value, _usual(case, name, _STRETCH)
        least = max(SHARED.fewest_at_value, SHARED.part * case.tally.rows)
        if usual is None or longest.rows < least or not _too_long(case, longest, *usual):
            continue
        value, share, before = _value(case, name, longest)
        nats = _nats(case, longest, max(share, before))
        new_label = before == 0 and not case.is_number(name)
        if (
            new_label
            or nats < SHARED.total
            or not _on_top(case, longest, share, before)
            or _of_one_thing(case, name, longest)
        ):
            continue
        yield Cause(
            "stuck",
            (name,),
            f"{name!r} is {value} in {longest.rows:,} rows in a row (from row "
            f"{longest.start + 1:,} on), where at most {usual[0]:,.0f} held one value before: did "
            "it stop changing?",
            {
                NATS: nats / case.tally.rows,
                "share of rows": round(longest.rows / case.tally.rows, 4),
                "rows in a row": float(longest.rows),
                "most rows in a row before": usual[0],
                "value": value,
            },
            f"Check the sensor, the cache or the default behind {name!r}, and load the window "
            "again.",
            share=round(longest.rows / case.tally.rows, 4),
        )


def missing_in_a_row(case: Case) -> Iterator[Cause]:
    """Recognise a column without values in far more rows in a row than ever before."""
    for name in case.features:
        if name not in case.tally.stretches:
            continue
        longest = case.tally.stretches[name].missing
        usual = _usual(case, name, _GAP)
        share = longest.rows / max(case.tally.rows, 1)
        if usual is None or longest.rows < SHARED.fewest or share < PARAMS.missing:
            continue
        elsewhere = (case.missing(name).mean() - share) / max(1 - share, 1 / case.tally.rows)
        most = case.most(Trait("missing", (name,)))
        if (
            not _too_long(case, longest, *usual)
            or _nats(case, longest, max(most, elsewhere)) < SHARED.total
            or not _on_top(case, longest, elsewhere, most)
            or _of_one_thing(case, name, longest)
        ):
            continue
        yield Cause(
            "nulls",
            (name,),
            f"{name!r} is missing in {longest.rows:,} rows in a row (from row "
            f"{longest.start + 1:,} on), where at most {usual[0]:,.0f} is usual.",
            {
                "share of rows": round(share, 4),
                "rows in a row": float(longest.rows),
                "most rows in a row before": usual[0],
            },
            f"Ask the source why {name!r} is not filled in, and load the window again.",
            share=share,
        )


def _usual(case: Case, name: str, kind: Kind) -> tuple[float, float] | None:
    """Longest stretch that is usual, in rows and as a share; None where too few blocks tell.

    Where the longest stretches of blocks differ, the longest is raised by how much they do.
    """
    trait, found = Trait(kind, (name,)), []
    for batch in (*case.reference.blocks, *case.recent):
        if trait not in batch:
            return None  # an older version did not look at stretches
        found.append((batch[trait], batch[trait] / batch[ROWS]))
    if len(found) < 2:  # a single block shows no habit
        return None
    rows, shares = np.asarray(found).T
    factor = (rows.max() / max(np.median(rows), 1.0)) ** PARAMS.heavy / PARAMS.times
    return float(rows.max()) * max(factor, 1.0), float(shares.max())


def _too_long(case: Case, longest: Stretch, rows: float, share: float) -> bool:
    return longest.rows > PARAMS.times * max(rows, share * case.tally.rows)


def _nats(case: Case, longest: Stretch, share: float) -> float:
    """Surprise at a stretch anywhere in the batch, if rows of a share follow by chance."""
    n = case.tally.rows
    return float(-longest.rows * np.log(max(share, 1 / n)) - np.log(n))


def _on_top(case: Case, longest: Stretch, elsewhere: float, before: float) -> bool:
    """Whether the rows of a stretch are more than there were; rows in another order are not."""
    part = longest.rows / case.tally.rows
    excess = part + (1 - part) * elsewhere - before
    return excess > PARAMS.on_top * part * (1 - before)


def _value(case: Case, name: str, longest: Stretch) -> tuple[str, float, float]:
    """The value of a stretch, its share of the other rows, and that of the reference."""
    outside = np.ones(case.tally.rows, dtype=bool)
    outside[longest.start : longest.stop] = False
    if case.is_number(name):
        values = as_number(case.rows[name]).to_numpy(dtype=np.float64)
        value, profile = values[longest.start], case.profile(name)
        upto, below = (profile.share(np.asarray([value]), x)[0] for x in ("upto", "below"))
        text, before, same = f"{value:g}", float(upto - below), values == value
    else:
        places, labels = as_codes(case.rows[name])
        label, counts = labels[places[longest.start]], case.counts(name)
        before = counts.get(label, 0) / max(sum(counts.values()), 1)
        text, same = repr(label), places == places[longest.start]
    share = float(same[outside].mean()) if outside.any() else 0.0
    return text, share, before


def _of_one_thing(case: Case, name: str, longest: Stretch) -> bool:
    """Whether another column that varies from row to row does not change in these rows either."""
    for other, (value, missing) in case.tally.stretches.items():
        for kind, found in ((_STRETCH, value), (_GAP, missing)):
            shared = min(found.stop, longest.stop) - max(found.start, longest.start)
            if other == name or shared < PARAMS.alike * longest.rows:
                continue
            usual = _usual(case, other, kind)
            if usual is not None and _too_long(case, found, *usual):
                return True
    return False
