"""Faults of a whole batch: its columns, its number of rows, repeated rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.columns import Floats, as_number, as_text
from pipeline.monitoring.diagnoses.case import Case
from pipeline.monitoring.diagnoses.likelihood import Mask, Places
from pipeline.monitoring.diagnoses.parameters import SHARED
from pipeline.monitoring.findings import Cause
from pipeline.reference.profile import CategoricalProfile, Cells, Profile
from pipeline.reference.sampling import read_codes, repeats, row_hashes
from pipeline.reference.summaries import ROWS, Trait


@dataclass(frozen=True)
class Parameters:
    """What shows a fault of a whole batch.

    Attributes
    ----------
    unreadable : float
        Share of present values that are not numbers above which a column has another type.
    likeness : float
        Likeness from which an unknown column is taken for a missing column: the same name or
        nearly equal values.
    spelling : float
        Weight of the names, beside the values, in the likeness of two columns.
    times : float
        Factor by which the number of rows has to lie outside the usual range.
    blocks : int
        Fewest batches that show a usual range of the number of rows.
    copies : float
        Share of repeated rows, beyond the usual share, that is a fault.
    identify : int
        Fewest columns that identify a row, or numbers that identify a batch: fewer agree by
        chance.
    in_cell : int
        Rows of the sample that a cell holds at least on average, so that rows which agree by
        chance are as frequent within the sample as between it and new rows.
    rounding : float
        Largest difference of two equal figures, by rounding.
    many : float
        Mean number of times a repeated row occurs, from which the source is taken to be frozen.
    at_once : int
        Most columns that are hashed at once.
    """

    unreadable: float = 0.03
    likeness: float = 0.85
    spelling: float = 0.3
    times: float = 6.0
    blocks: int = 3
    copies: float = 0.05
    identify: int = 4
    in_cell: int = 8
    rounding: float = 1e-9
    many: float = 5.0
    at_once: int = 100


PARAMS = Parameters()


def schema(case: Case) -> Iterator[Cause]:
    """Recognise columns that are missing, renamed, or of another type."""
    strangers = [name for name in case.rows.columns if name not in case.reference.columns]
    gone = [
        name
        for name in case.reference.names
        if name not in case.rows.columns and name not in case.reference.prediction
    ]
    for name in gone if len(case.rows) else []:
        other, likeness = _namesake(case, name, strangers)
        renamed = f"; {other!r} holds what it should: renamed?" if other else "."
        evidence: dict[str, float | str] = {"columns in the batch": float(case.rows.shape[1])}
        if other:
            evidence["likeness"] = round(likeness, 3)
        yield Cause(
            "schema",
            (name,),
            f"{name!r} is missing from the batch{renamed}",
            evidence,
            f"Ask the source for {name!r}"
            + (f", or have {other!r} given its old name." if other else " back."),
        )
    for name in filter(case.is_number, case.every):
        there = case.drawn[name].notna().to_numpy()
        unreadable = there & np.isnan(as_number(case.drawn[name]).to_numpy(dtype=np.float64))
        share = float(unreadable.mean()) if len(unreadable) else 0.0
        if _flags(case, name):
            yield Cause(
                "schema",
                (name,),
                f"{name!r} holds only true and false, where numbers used to be: another type?",
                {"distinct values before": float(len(case.profile(name).grid))},
                f"Ask the source to send {name!r} as numbers again.",
            )
        if share > PARAMS.unreadable:
            yield Cause(
                "schema",
                (name,),
                f"{name!r} holds no numbers in {share:.0%} of rows, but "
                f"{_kind(case.drawn[name][unreadable])}: another type?",
                {"share of rows without a readable number": round(share, 4)},
                f"Ask the source to send {name!r} as numbers again, or parse it before it arrives.",
                share=share,
            )


def _flags(case: Case, name: str) -> bool:
    there = case.drawn[name].dropna()
    flags = len(there) > 0 and all(isinstance(value, bool | np.bool_) for value in there)
    return flags and not set(case.profile(name).grid) <= {0.0, 1.0}


def _kind(values: pd.Series) -> str:
    kinds = sorted({type(value).__name__ for value in values})
    return " and ".join("text" if kind == "str" else kind for kind in kinds)


def _namesake(case: Case, name: str, strangers: list[str]) -> tuple[str, float]:
    """The unknown column that looks most like a missing column, and its likeness from 0 to 1."""
    profile = case.reference.columns[name]
    scored = [
        (
            _likeness(profile, case.drawn[other]) + PARAMS.spelling * _spelling(name, str(other)),
            str(other),
        )
        for other in strangers
    ]
    score, best = max(scored, default=(0.0, ""))
    return (best, min(score, 1.0)) if score > PARAMS.likeness else ("", 0.0)


def _spelling(name: str, other: str) -> float:
    return SequenceMatcher(None, name.casefold(), other.casefold()).ratio()


def _likeness(profile: Profile, values: pd.Series) -> float:
    if isinstance(profile, CategoricalProfile):
        texts = as_text(values).dropna()
        return float(texts.isin(list(profile.counts)).mean()) if len(texts) else 0.0
    numbers = as_number(values).to_numpy(dtype=np.float64)
    known = np.sort(numbers[np.isfinite(numbers)])
    if len(known) < len(values) / 2 or not profile.n:
        return 0.0
    return 1 - profile.distance(profile.count(known))


def volume(case: Case) -> Iterator[Cause]:
    """Recognise far fewer or far more rows than in any ordinary batch."""
    usual = [batch[ROWS] for batch in (*case.reference.blocks, *case.recent)]
    rows = len(case.rows)
    few_blocks = len(usual) < PARAMS.blocks or max(usual) < SHARED.fewest
    if few_blocks or min(usual) / PARAMS.times < rows < max(usual) * PARAMS.times:
        return
    few, ends = rows < min(usual), dict.fromkeys([f"{min(usual):,.0f}", f"{max(usual):,.0f}"])
    yield Cause(
        "volume",
        (),
        f"The batch holds {rows:,} rows where {' to '.join(ends)} are usual: "
        + ("did a part of it not arrive?" if few else "did rows arrive more than once?"),
        {"rows": float(rows), "usual": float(np.median(usual))},
        "Check the job that delivers the rows, and load the window again.",
    )


def duplicate(case: Case) -> Iterator[Cause]:
    """Recognise rows that were loaded twice, and old rows that were sent again."""
    if len(case.rows) < SHARED.fewest or not case.every:
        return
    repeats = _repeats(case)
    repeated, share = repeats[repeats > 1], 1 - len(repeats) / len(case.rows)
    usual = _usual_copies(case)
    few = _beyond(share, usual) and repeated.mean() < PARAMS.many
    # Where values concentrate, rows of frequent values repeat by themselves, and others do not.
    if few and _beyond(_copies_of_odd_rows(case), usual):
        yield Cause(
            "duplicate",
            (),
            f"{share:.0%} of the rows repeat another row of the batch in every column, where "
            f"{usual:.1%} is usual: loaded twice?",
            {"share of rows that repeat": round(share, 4), "usual share": round(usual, 4)},
            "Load the window again, each row once; check the key of the source.",
            share=share,
        )
        return
    if _seen_as_a_whole(case):
        yield _sent_again(
            "Every figure of the batch is that of an earlier one",
            {"rows": float(len(case.rows))},
        )
        return
    known, usually = _seen_at_training(case)
    if _beyond(known, usually):
        yield _sent_again(
            f"{known:.0%} of the less usual half of the rows agree with a row of the training "
            f"sample in every column, as far as its quantiles tell, where {usually:.1%} is usual",
            {"share of rows seen before": round(known, 4), "usual share": round(usually, 4)},
        )


def _beyond(share: float, usual: float) -> bool:
    """Whether a share is beyond the largest usual share, by `copies` and by `odds`-fold odds."""
    odds = share * (1 - usual) / max((1 - share) * usual, 1e-9)
    return share > usual + PARAMS.copies and odds > SHARED.odds


def _sent_again(seen: str, evidence: dict[str, float | str]) -> Cause:
    return Cause(
        "duplicate",
        (),
        f"{seen}: were old rows sent again?",
        evidence,
        "Check that the source has moved on, and load the window again.",
    )


def _repeats(case: Case) -> Places:
    """Count how often each distinct row occurs, by the columns that are not at fault."""
    if not case.blamed:
        return case.tally.repeats
    codes = read_codes(case.rows, _profiles(case))
    return repeats(case.rows, case.every, codes)


def _copies_of_odd_rows(case: Case) -> float:
    """Share of rows that repeat another row, as the less usual half of the distinct rows tells."""
    codes = read_codes(case.rows, _profiles(case))
    hashes = row_hashes(case.rows, case.every, codes)
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    odd = _less_usual(
        (codes[name][0] if name in codes else as_number(case.rows[name]).to_numpy())[first]
        for name in case.every
    )
    return float((counts[odd] - 1).mean()) * len(first) / len(case.rows)


def _less_usual(columns: Iterable[NDArray[Any]]) -> Mask:
    """Mark the less usual half of some rows.

    How usual a row is, is the product of the shares of its values. A source that sends rows again
    does not choose the usual ones, while rows that agree by themselves are of frequent values.
    """
    usual: Floats | float = 0.0
    for values in columns:
        _, places, rows = np.unique(values, return_inverse=True, return_counts=True)
        usual = usual + np.log(rows)[places]
    return np.asarray(usual <= np.median(usual))


def _profiles(case: Case) -> dict[str, Profile]:
    return {name: case.reference.columns[name] for name in case.every}


def _usual_copies(case: Case) -> float:
    growth = max(1.0, len(case.rows) / case.reference.block_rows) if case.reference.blocks else 1.0
    repeats = _sampled_repeats(case)
    n = repeats.sum()
    sampled = (1 - len(repeats) / n) * len(case.rows) / n if n else 0.0
    return min(1.0, max(case.most(Trait("copies")) * growth, sampled))


def _sampled_repeats(case: Case) -> Places:
    """Count how often each distinct row of the sample occurs, by the columns not at fault.

    Without a column that is at fault, rows agree more often than whole rows of blocks do. As many
    rows as the batch has are compared: of more rows, more agree.
    """
    places = [case.place(name) for name in case.every]
    cells = case.reference.cells[: len(case.rows), places]
    return np.unique(_hashed(cells), return_counts=True)[1]


def _hashed(cells: Cells) -> NDArray[np.uint64]:
    """Hash each row of cells to 64 bits."""
    drawn = np.random.default_rng(0).integers(2**63, size=cells.shape[1], dtype=np.uint64)
    odd = np.asarray([drawn * np.uint64(2) + np.uint64(1)])[0]
    hashes = np.zeros(len(cells), dtype=np.uint64)
    for start in range(0, cells.shape[1], PARAMS.at_once):
        part = slice(start, start + PARAMS.at_once)
        hashes += (cells[:, part].astype(np.uint64) + np.uint64(1)) @ odd[part]
    return hashes


def _seen_as_a_whole(case: Case) -> bool:
    summary = case.summary
    traits = [
        trait
        for trait in summary
        if trait.kind in {"location", "spread", "correlation"}
        and summary[trait] != 0
        # All values beyond the training rows have one score, whichever they are.
        and all(
            summary.get(Trait("spread", (x,)), 1.0) > PARAMS.rounding**0.5 for x in trait.columns
        )
    ]
    return len(traits) >= PARAMS.identify and any(
        earlier[ROWS] == summary[ROWS]
        and all(
            abs(earlier.get(trait, np.inf) - summary[trait]) < PARAMS.rounding for trait in traits
        )
        for earlier in (*case.reference.blocks, *case.recent)
    )


def _seen_at_training(case: Case) -> tuple[float, float]:
    """Share of the less usual rows whose cells occur in the training sample, and that by chance."""
    places = [case.place(name) for name in case.every]
    if not len(case.reference.cells) or len(places) < PARAMS.identify:
        return 0.0, 0.0
    coarse = [_merged(case.reference.cells[:, at], case.drawn_cells[:, at]) for at in places]
    seen, rows = (_hashed(np.column_stack(side)) for side in zip(*coarse, strict=True))
    half = len(seen) // 2
    usual = 2 * float(np.isin(seen[:half], seen[half:]).mean()) if half else 0.0
    odd = _less_usual(new for _, new in coarse)
    return float(np.isin(rows[odd], seen).mean()), usual


def _merged(known: Cells, new: Cells) -> tuple[Cells, Cells]:
    """Merge the cells of a column, until each holds several rows of the sample.

    Where the quantiles of a column are its values, each row of a small sample has a cell of its
    own: no two of them would agree, and each new row would agree with the nearest one.
    """
    levels = np.unique(known)
    width = -(-len(levels) * PARAMS.in_cell // len(known))
    if width == 1:
        return known, new
    old, came = (np.searchsorted(levels, side) // width for side in (known, new))
    came[(new < levels[0]) | (new > levels[-1])] = len(levels)  # beyond all that was seen
    return old.astype(known.dtype), came.astype(new.dtype)


def frozen(case: Case) -> Iterator[Cause]:
    """Recognise a source that repeats one row, or a few rows, over and over."""
    if len(case.rows) < SHARED.fewest or not case.every:
        return
    repeats = _repeats(case)
    repeated, share = repeats[repeats > 1], 1 - len(repeats) / len(case.rows)
    usual, most = _usual_copies(case), repeats[0] / len(case.rows)
    sampled = _sampled_repeats(case)
    often = max(case.most(Trait("repeats")), sampled.max(initial=0) / max(sampled.sum(), 1))
    many = _beyond(share, usual) and repeated.mean() >= PARAMS.many
    if not many and not _beyond(most, often):
        return
    codes = read_codes(case.rows, _profiles(case))
    hashes = row_hashes(case.rows, case.every, codes)
    values, counts = np.unique(hashes, return_counts=True)
    again = float(counts[counts >= PARAMS.many].sum() / len(hashes))
    yield Cause(
        "frozen",
        (),
        f"{again:.0%} of the rows are the same few rows over and over, one of them "
        f"{counts.max():,} times: did the source stop and repeat its last state?",
        {
            "share of rows that repeat": round(again, 4),
            "most often": float(counts.max()),
            "distinct rows": float(len(values)),
        },
        "Check the source for a hang in this window, and load it again.",
        share=again,
    )
