"""Which columns the model may see, how each is declared, and why the others are left out."""

import math
import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from pipeline.columns import FEWEST_TO_JUDGE, as_codes, doubt
from pipeline.config import Categorical, Numeric
from pipeline.drafting.leaks import NEARLY, Judge, joint_leaks
from pipeline.drafting.roles import Roles, Target, counts_up
from pipeline.drafting.tables import Table
from pipeline.drafting.words import (
    CODES,
    COUNTS,
    KEYS,
    OUTCOME,
    PARTITIONS,
    PREDICTIONS,
    SHARES,
    is_closed,
    names_outcome,
    words,
)

REFUSED: Final = 0.02
"""Largest share of the very rows that the rules of a draft may refuse."""
_TEXT: Final = 0.5
"""Share of distinct labels from which a column holds names or free text."""
_SEVERAL: Final = 5
"""Rows of the usual label at least, where there are many labels."""
_MANY: Final = 1000
_OFTEN_NULL: Final = 0.3
_ATOM: Final = 0.001
"""Share of rows from which a number far from all others is a sign for something."""
_NINES: Final = re.compile(r"-?9{2,}")
_DATE: Final = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}(\D|$)")
_NUMBER: Final = re.compile(r"[+-]?[$€£¥]?\s?[+-]?\d[\d,.' ]*\s?[%$€£¥]?")
_FEW: Final = 10
_COLLECTION: Final = "lists or maps: take a value out of them in the source"
_PUT_BACK: Final = "put it back if it is known beforehand"
_RANGES: Final = {
    frozenset({"hour", "hr"}): (0, 23),
    frozenset({"month", "mnth"}): (1, 12),
    frozenset({"minute"}): (0, 59),
    frozenset({"latitude", "lat"}): (-90, 90),
    frozenset({"longitude", "lon", "lng"}): (-180, 180),
    frozenset(SHARES): (0, 1),
}
"""Limits that the meaning of a word sets."""


@dataclass(frozen=True)
class Kept:
    """A feature: its name, its declaration and what was seen."""

    name: str
    column: Numeric | Categorical
    comment: str


@dataclass(frozen=True)
class LeftOut:
    """A column that the model does not see, and why."""

    name: str
    why: str


def judge_columns(
    table: Table, target: Target, roles: Roles, *, judge: Judge
) -> tuple[list[Kept], list[LeftOut]]:
    """Part the columns of a table into features and columns that are left out.

    Parameters
    ----------
    table : Table
        All rows, oldest first where they have a time.
    target : Target
        What is predicted.
    roles : Roles
        Columns that have another role.
    judge : Judge
        Scores columns by what they say about the target.
    """
    others = {target.name, *roles.names}
    names = [name for name in table.frame.columns if name not in others]
    times = None if roles.time is None else table.frame[roles.time]
    why = {name: _COLLECTION for name in names if table.kinds[name] == "collection"}
    against = {name: _against(table, name, times) for name in _without(names, why)}
    why |= {name: reason for name, (reason, _) in against.items() if reason}
    for name in _without(names, why):
        if reason := _known_afterwards(name, target, judge):
            why[name] = reason
    why |= _doubles(table, _without(names, why))
    for name, reason in joint_leaks(judge, _without(names, why)).items():
        why[name] = f"{reason}; {_PUT_BACK}"
    kept = [declared(table, name, against[name][1]) for name in _without(names, why)]
    return kept, [LeftOut(name, why[name]) for name in names if name in why]


def _without(names: list[str], left_out: Container[str]) -> list[str]:
    return [name for name in names if name not in left_out]


def _against(table: Table, name: str, times: pd.Series | None) -> tuple[str, str]:
    """Why a column is no feature whatever the target is, and the part of the time it follows."""
    values = table.frame[name]
    if len(values) < FEWEST_TO_JUDGE:
        return "", ""
    found = doubt(values, times)
    kind = found.kind if found else ""
    is_label = table.kinds[name] == "label"
    keys = is_label or counts_up(values) or bool(set(words(name)) & KEYS)
    part = "" if kind in {"constant", "moment", "identifier"} else kind
    why = ""
    if kind == "constant":
        why = _constant(values)
    elif kind == "moment":
        known = "; it may say when labels become known (data.label_time)"
        why = f"moments, which never return{known if set(words(name)) & OUTCOME else ''}"
    elif kind == "identifier" and keys:
        why = "another value in each row, as keys have"
    elif times is not None and _never_returns(values, times, part):
        why = "follows from the time of its row, and its values never return"
    elif is_label:
        why = _free_text(values)
    elif table.infinite.get(name, 0) > REFUSED:
        share = _percent(table.infinite[name])
        why = f"infinite in {share} of rows, which would be refused: write null in the source"
    return why, part


def _constant(values: pd.Series) -> str:
    null = float(values.isna().mean())
    if null == 1:
        return "no value in any row"
    return f"one value in all rows{f' but {_percent(null)} that are null' if null else ''}"


def named_key(name: str) -> bool:
    """Whether a name says that a column holds codes."""
    return bool(set(words(name)) & CODES)


def _never_returns(values: pd.Series, times: pd.Series, part: str) -> bool:
    """Whether the time settles a column whose values do not come back: a counter or a clock."""
    order = times.argsort(kind="stable")
    there = pd.DataFrame({"at": times, "value": as_codes(values)[0]}).iloc[order]
    there = there[there["value"] >= 0]
    changes = int((there["value"] != there["value"].shift()).sum())
    distinct = there["value"].nunique()
    if part and changes <= distinct * 1.01:
        return True
    if not pd.api.types.is_numeric_dtype(values.dtype) or distinct < _FEW:
        return False
    numbers = values.iloc[order].dropna().to_numpy()
    steps = np.diff(numbers)
    rising = (steps >= 0).mean() if len(steps) else 0.0
    return bool(max(rising, (steps <= 0).mean()) > 0.999 and distinct > len(numbers) / 100)  # noqa: PLR2004


def _free_text(values: pd.Series) -> str:
    there = values.dropna()
    counts = there.value_counts()
    if len(counts) > _FEW and counts.index.str.strip().str.match(_DATE).all():
        return (
            "dates whose form is not certain: write them as 2013-02-26 in the source, or set "
            "data.time and data.train.date_format"
        )
    if len(counts) > _TEXT * len(there):
        return f"{len(counts):,} labels in {len(there):,} rows: names or free text"
    if len(counts) > _MANY and counts.median() < _SEVERAL:
        return f"{len(counts):,} labels, half of which came in at most {counts.median():g} rows"
    return ""


def _known_afterwards(name: str, target: Target, judge: Judge) -> str:
    """Why a column may be known only after the event; empty if nothing speaks for it."""
    given = set(words(name))
    if given & PREDICTIONS:
        return f"named like a prediction; {_PUT_BACK}"
    if given & PARTITIONS:
        return "named like a part of the table, which new rows do not have"
    if names_outcome(name, target.name):
        return f"named for what follows from {target.name}; {_PUT_BACK}"
    lacking = judge.null_of_one_class(name)
    if lacking:
        label = (target.classes or ("0", "1"))[lacking[0]]
        return f"null in {lacking[1]:.1%} of the rows of class {label} only; {_PUT_BACK}"
    score = judge.alone(name)
    if score > NEARLY:
        measure = "AUC" if target.task == "classification" else "R2"
        return f"predicts the target nearly alone ({measure} {score:.4f}); {_PUT_BACK}"
    return ""


def _doubles(table: Table, names: list[str]) -> dict[str, str]:
    """Columns that another one settles value by value; numbers are kept rather than labels.

    Of two numbers only those are doubles that rise and fall together, as with a change of unit:
    two coordinates of a place say more than one.
    """
    found: dict[str, str] = {}
    first: dict[bytes, str] = {}
    for name in sorted(names, key=lambda one: table.kinds[one] == "label"):
        is_label = table.kinds[name] == "label"
        by_order, by_value = _forms(table.frame[name], is_label=is_label)
        seen = [first[form] for form in (by_value if is_label else by_order) if form in first]
        if seen:
            found[name] = f"{seen[0]} holds what it holds, value by value"
        for form in (*by_order, *by_value):
            first.setdefault(form, name)
    return found


def _forms(values: pd.Series, *, is_label: bool) -> tuple[list[bytes], list[bytes]]:
    """What two columns share that rise and fall together, and that settle each other's values."""
    codes, labels = as_codes(values)
    by_value = [codes.tobytes()] if len(labels) * 2 <= len(values) else []
    if is_label:
        return [], by_value
    ranks = values.rank(method="dense").fillna(0).to_numpy()
    turned = np.where(ranks > 0, ranks.max() + 1 - ranks, 0)
    return [ranks.tobytes(), turned.tobytes()], by_value


def plain(number: float) -> str:
    """A number as people write it: whole numbers without an exponent."""
    return f"{number:.0f}" if number % 1 == 0 and abs(number) < 1e15 else f"{number:.6g}"  # noqa: PLR2004


def declared(table: Table, name: str, part: str) -> Kept:
    """Declare a feature, and say what was seen and what to check."""
    values = table.frame[name]
    null = float(values.isna().mean())
    notes = [f"follows from the {part} of its row"] if part else []
    if null:
        notes.append(f"{_percent(null)} null{': check why' if null > _OFTEN_NULL else ''}")
    if name in table.infinite:
        notes.append(f"infinite in {_percent(table.infinite[name])} of rows, which are refused")
    nullable = null > 0
    codes = table.kinds[name] == "number" and named_key(name) and _whole(values)
    if table.kinds[name] == "number" and not codes:
        return _number(name, values, notes, nullable=nullable)
    return _label(name, table.labels(name), notes, nullable=nullable)


def _number(name: str, values: pd.Series, notes: list[str], *, nullable: bool) -> Kept:
    there = values.dropna()
    low, high = float(there.min()), float(there.max())
    seen = f"seen: {plain(low)} .. {plain(high)}"
    signs = [sign for sign in dict.fromkeys((low, high)) if _is_sign(there, sign)]
    notes += [
        f"{plain(sign)} in {_percent(float((there == sign).mean()))} of rows lies far from all "
        "others: if it stands for null, write null in the source"
        for sign in signs
    ]
    least, most = (None, None) if signs else _limits(name, low, high)
    few = _whole(there) and low >= 1 and 2 < there.nunique() <= _FEW  # noqa: PLR2004
    if few and least is None:
        notes.append(f"{there.nunique()} whole numbers; declare it categorical if they are codes")
    column = Numeric(min=least, max=most, nullable=nullable)
    return Kept(name, column, "; ".join([seen, *notes]))


def _limits(name: str, low: float, high: float) -> tuple[float | None, float | None]:
    """The limits that the meaning of a name sets, if all values obey them."""
    given = set(words(name))
    for named, (least, most) in _RANGES.items():
        if given & named and least <= low and high <= most:
            return float(least), float(most)
    return (0.0, None) if given & COUNTS and low >= 0 else (None, None)


def _whole(values: pd.Series) -> bool:
    return bool((values.dropna() % 1 == 0).all())


def _is_sign(values: pd.Series, sign: float) -> bool:
    """Whether a number at one end stands for something else, such as 999 for unknown."""
    others = values[values != sign]
    if not _NINES.fullmatch(plain(sign)) or not len(others):
        return False
    low, high = float(others.min()), float(others.max())
    gap = max(low - sign, sign - high)
    return bool((values == sign).mean() >= _ATOM and gap > high - low)


def _label(name: str, texts: pd.Series, notes: list[str], *, nullable: bool) -> Kept:
    shares = texts.value_counts(normalize=True)
    labels = [str(label) for label in shares.index]
    shown = ", ".join(f"{_short(one)} {_percent(share)}" for one, share in shares.head(3).items())
    seen = f"{len(labels)} labels: {shown}{', ...' if len(labels) > 3 else ''}"  # noqa: PLR2004
    if len(labels) > _FEW and _are_numbers(labels):
        notes.append("numbers with signs: write them plainly in the source if their size counts")
    alike = _spellings(labels)
    if alike:
        notes.append(f"spelled in several ways: {' and '.join(map(repr, alike))}")
    closed = is_closed(labels) and not alike
    if closed:
        notes.append("any other label is refused")
    values = tuple(sorted(labels)) if closed else None
    return Kept(name, Categorical(values=values, nullable=nullable), "; ".join([seen, *notes]))


def _are_numbers(labels: list[str]) -> bool:
    """Whether labels are numbers with a currency, a percent sign or separators of thousands."""
    return all(_NUMBER.fullmatch(label.strip()) for label in labels)


def _spellings(labels: list[str]) -> list[str]:
    """The first labels that differ only in case and blanks."""
    known: dict[str, str] = {}
    for label in labels:
        plain = " ".join(label.split()).casefold()
        if plain in known:
            return [known[plain], label]
        known[plain] = label
    return []


def _short(label: object) -> str:
    text = " ".join(str(label).split())
    return text if len(text) <= 24 else f"{text[:21]}..."  # noqa: PLR2004 -- a comment stays on its line


def _percent(share: float) -> str:
    if share >= 0.0995 or share == 0:  # noqa: PLR2004 -- two digits from there on
        return f"{min(99, math.floor(share * 100 + 0.5)) if share < 1 else 100}%"
    return f"{share:.1%}" if share >= 0.001 else "<0.1%"  # noqa: PLR2004
