"""Damage that real upstream systems do to rows: one function for each fault.

Each takes a frame, the columns, the touched rows and a random generator, and returns a new
frame. A fault may change nothing, as rounding does to whole numbers; `differing` finds out.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Names = tuple[str, ...]
Random = np.random.Generator
Apply = Callable[..., pd.DataFrame]

CYCLES: dict[str, tuple[float, float, int]] = {
    "hour": (0, 1, 24),
    "hr": (0, 1, 24),
    "trip_start_hour": (0, 1, 24),
    "period": (0, 1 / 47, 48),
    "weekday": (0, 1, 7),
    "day": (1, 1, 7),
    "trip_start_day": (1, 1, 7),
    "mnth": (1, 1, 12),
    "trip_start_month": (1, 1, 12),
}
"""Columns of hours, weekdays and months: first value, step and number of steps of the cycle."""
DAYS, MONTHS = 7, 12


def put(frame: pd.DataFrame, name: str, mask: Mask, values: Any) -> pd.DataFrame:
    """Put values into the touched rows of a column; it stays integer if its values allow that."""
    old = frame[name]
    kind: Any = "float64" if old.dtype.kind in "iuf" else object
    new = old.astype(kind).to_numpy(copy=True)
    new[mask] = np.broadcast_to(np.asarray(values, dtype=kind), (int(mask.sum()),))
    series = pd.Series(new, index=old.index)
    if old.dtype.kind in "iu" and np.isfinite(new).all() and (new == np.round(new)).all():
        series = series.astype("int64")
    if isinstance(old.dtype, pd.StringDtype | pd.CategoricalDtype):
        series = series.astype("str")
    return frame.assign(**{name: series})


def touched(frame: pd.DataFrame, name: str, mask: Mask) -> Any:
    """Values of the touched rows: floats of a numeric column, else objects."""
    values = frame[name]
    return values[mask].to_numpy(dtype="float64" if values.dtype.kind in "iuf" else object)


def differing(before: pd.DataFrame, after: pd.DataFrame, columns: Names, mask: Mask) -> Mask:
    """Which of the touched rows changed in at least one of the columns; empty: any column."""
    if len(before) != len(after):
        return np.ones(int(mask.sum()), dtype=bool)
    different = np.zeros(int(mask.sum()), dtype=bool)
    for name in columns or tuple(map(str, before)):
        old = touched(before, name, mask)
        if name not in after:
            different |= ~pd.isna(old)
            continue
        new = after[name][mask].to_numpy(dtype=object)
        both_null = pd.isna(old) & pd.isna(new)
        different |= (old.astype(object) != new) & ~both_null
    return different


def affine(
    frame: pd.DataFrame,
    columns: Names,
    mask: Mask,
    random: Random,
    *,
    factor: float | None = None,
    offset: float = 0.0,
    whole: bool = False,
) -> pd.DataFrame:
    """Another unit: factor and offset, both random without a factor."""
    values = touched(frame, columns[0], mask)
    if factor is None:
        factor = float(np.exp(random.choice([-1, 1]) * random.uniform(np.log(1.5), np.log(5))))
        offset = float(random.uniform(-3, 3) * np.nanstd(values))
    changed = values * factor + offset
    return put(frame, columns[0], mask, np.round(changed) if whole else changed)


def sign(frame: pd.DataFrame, columns: Names, mask: Mask, _: Random) -> pd.DataFrame:
    return put(frame, columns[0], mask, 0.0 - touched(frame, columns[0], mask))


def stuck(frame: pd.DataFrame, columns: Names, mask: Mask, random: Random) -> pd.DataFrame:
    """One ordinary value everywhere: between the quartiles, or one of ten frequent labels."""
    known = frame[columns[0]].dropna()
    if known.dtype.kind in "iuf":
        known = known[known.between(known.quantile(0.25), known.quantile(0.75))]
    else:
        known = known[known.isin(known.value_counts().index[:10])]
    return put(frame, columns[0], mask, known.iloc[int(random.integers(len(known)))])


def frozen(
    frame: pd.DataFrame, _: Names, mask: Mask, random: Random, *, runs: int = 1
) -> pd.DataFrame:
    """Touched rows, cut into so many runs, repeat the first row of their run."""
    places = np.flatnonzero(mask)
    source = np.arange(len(frame))
    cuts = np.sort(random.choice(len(places) - 1, runs - 1, replace=False) + 1)
    for run in np.split(places, cuts):
        source[run] = run[0]
    return frame.iloc[source].set_axis(frame.index)


def nulls(frame: pd.DataFrame, columns: Names, mask: Mask, _: Random) -> pd.DataFrame:
    for name in columns:
        null = np.nan if frame[name].dtype.kind in "iuf" else None
        frame = put(frame, name, mask, null)
    return frame


def sentinel(
    frame: pd.DataFrame, columns: Names, mask: Mask, _: Random, *, value: Any
) -> pd.DataFrame:
    return put(frame, columns[0], mask, value)


def clipped(
    frame: pd.DataFrame, columns: Names, mask: Mask, _: Random, *, at: float
) -> pd.DataFrame:
    """Values beyond a quantile become that quantile; above it if it is an upper one."""
    values = touched(frame, columns[0], mask)
    bound = float(frame[columns[0]].quantile(at, interpolation="nearest"))
    new = np.fmin(values, bound) if at > 0.5 else np.fmax(values, bound)
    return put(frame, columns[0], mask, np.where(np.isnan(values), np.nan, new))


def decimals(values: pd.Series) -> int:
    """Fewest decimals, 0 to 6, with which nearly all values are exact."""
    known = values.dropna().to_numpy(dtype="float64")
    for places in range(6):
        if np.mean(np.abs(np.round(known, places) - known) < 1e-9) >= 0.99:
            return places
    return 6


def rounded(
    frame: pd.DataFrame,
    columns: Names,
    mask: Mask,
    random: Random,
    *,
    to: int | Literal["fewer", "half"],
) -> pd.DataFrame:
    """Rounded to so many decimals, to fewer than there are, or to half precision."""
    values = touched(frame, columns[0], mask)
    if to == "half":
        with np.errstate(over="ignore"):
            new = values.astype(np.float16).astype(np.float64)
        return put(frame, columns[0], mask, np.where(np.isfinite(new), new, values))
    held = decimals(frame[columns[0]])
    places = int(random.integers(min(held, 3))) if to == "fewer" and held else to
    return put(frame, columns[0], mask, np.round(values, 0 if isinstance(places, str) else places))


def recode(
    frame: pd.DataFrame, columns: Names, mask: Mask, random: Random, *, how: str
) -> pd.DataFrame:
    """Each label becomes another spelling or code of it; 1 and 0 only where there are two."""
    values = touched(frame, columns[0], mask)
    labels = sorted({str(v) for v in frame[columns[0]].dropna()})
    if how == "1 and 0" and len(labels) != 2:
        return frame
    short = max(1, min(3, min(map(len, labels), default=1) - 1))
    order = random.permutation(len(labels))
    code = {label: int(order[i]) for i, label in enumerate(labels)}
    write: dict[str, Callable[[str], str]] = {
        "lower case": str.lower,
        "spaces": lambda label: f"{label} ",
        "truncated": lambda label: label[:short],
        "codes": lambda label: str(code[label] + 1),
        "long codes": lambda label: f"C{code[label] + 101}",
        "prefix": lambda label: f"US-{label}",
        "1 and 0": lambda label: str(code[label]),
    }
    new = [None if pd.isna(v) else write[how](str(v)) for v in values]
    return put(frame, columns[0], mask, np.asarray(new, dtype=object))


def rare_case(frame: pd.DataFrame, columns: Names, mask: Mask, _: Random) -> pd.DataFrame:
    """A label of 1 to 5% of the rows comes in the other letter case."""
    values = frame[columns[0]]
    shares = values.value_counts(normalize=True)
    rare = [str(x) for x, share in shares.items() if 0.01 <= share <= 0.05]
    rare = [label for label in rare if label != label.swapcase()]
    if not rare:
        return frame
    chosen = mask & (values == rare[0]).to_numpy()
    return put(frame, columns[0], chosen, rare[0].swapcase())


def handful(
    frame: pd.DataFrame, columns: Names, mask: Mask, random: Random, *, count: int
) -> pd.DataFrame:
    """A thousandfold value in a few of the touched rows, as of metres sent as millimetres."""
    chosen = np.zeros(len(frame), dtype=bool)
    chosen[random.choice(np.flatnonzero(mask), count, replace=False)] = True
    return put(frame, columns[0], chosen, touched(frame, columns[0], chosen) * 1000)


def permuted(frame: pd.DataFrame, columns: Names, mask: Mask, random: Random) -> pd.DataFrame:
    """Each label becomes the label one to three places on in the alphabet."""
    labels = sorted({str(v) for v in frame[columns[0]].dropna()})
    step = int(random.integers(1, min(len(labels), 4))) if len(labels) > 1 else 0
    following = {label: labels[(i + step) % len(labels)] for i, label in enumerate(labels)}
    values = touched(frame, columns[0], mask)
    new = [None if pd.isna(v) else following[str(v)] for v in values]
    return put(frame, columns[0], mask, np.asarray(new, dtype=object))


def swapped(frame: pd.DataFrame, columns: Names, mask: Mask, _: Random) -> pd.DataFrame:
    one, other = columns
    kept = touched(frame, one, mask)
    after = put(frame, one, mask, touched(frame, other, mask))
    return put(after, other, mask, kept)


def shuffled(frame: pd.DataFrame, columns: Names, mask: Mask, random: Random) -> pd.DataFrame:
    return put(frame, columns[0], mask, random.permutation(touched(frame, columns[0], mask)))


def shifted(
    frame: pd.DataFrame,
    columns: Names,
    mask: Mask,
    random: Random,
    *,
    by: int | None = None,
    around: bool = True,
) -> pd.DataFrame:
    """Hours moved round the clock, by 1 to 12 at random, weekdays round the week, or months."""
    first, step, steps = CYCLES[columns[0]]
    if by is None:
        by = int(random.choice([-1, 1]) * random.integers(1, 13))
    moved = np.round((touched(frame, columns[0], mask) - first) / step)
    moved = moved + by * max(1, steps // 24)
    moved = np.mod(moved, steps) if around else moved
    return put(frame, columns[0], mask, first + step * moved)


def doubled(frame: pd.DataFrame, _: Names, mask: Mask, random: Random) -> pd.DataFrame:
    """The touched rows come a second time, at the end or anywhere."""
    both = pd.concat([frame, frame[mask]], ignore_index=True)
    if random.random() < 0.5:
        both = both.iloc[random.permutation(len(both))].reset_index(drop=True)
    return both


def stale(
    frame: pd.DataFrame,
    _: Names,
    mask: Mask,
    random: Random,
    *,
    rows: pd.DataFrame,
    whole: bool = False,
) -> pd.DataFrame:
    """Earlier rows in place of the touched ones, or of the whole batch."""
    if whole:
        return rows.copy()
    n = int(mask.sum())
    if mask.all():  # rows that followed one another
        start = int(random.integers(max(len(rows) - n, 0) + 1))
        return rows.iloc[start : start + n].reset_index(drop=True)
    source = np.arange(len(frame))
    source[mask] = len(frame) + random.choice(len(rows), n, replace=len(rows) < n)
    return pd.concat([frame, rows], ignore_index=True).iloc[source].set_axis(frame.index)


def collapsed(
    frame: pd.DataFrame, _: Names, _mask: Mask, random: Random, *, head: bool
) -> pd.DataFrame:
    """Only 2-8% of the rows arrive: the first ones, or random ones."""
    n = max(2, round(len(frame) * random.uniform(0.02, 0.08)))
    kept = np.arange(n) if head else np.sort(random.choice(len(frame), n, replace=False))
    return frame.iloc[kept].reset_index(drop=True)


def exploded(frame: pd.DataFrame, _: Names, _mask: Mask, random: Random) -> pd.DataFrame:
    """Twelve times the rows, similar but not equal: numbers move to neighbouring values."""
    many = frame.iloc[random.integers(len(frame), size=12 * len(frame))].reset_index(drop=True)
    for name in many:
        numeric = frame[name].dtype.kind in "iuf"
        known: Any = np.unique(frame[name].dropna()) if numeric else []
        if len(known) > 10:
            values = touched(many, str(name), np.ones(len(many), dtype=bool))
            there = ~np.isnan(values)
            step = random.integers(-1, 2, size=int(there.sum()))
            place = (np.searchsorted(known, values[there]) + step).clip(0, len(known) - 1)
            many = put(many, str(name), there, known[place])
    return many


def absent(frame: pd.DataFrame, columns: Names, _: Mask, _random: Random) -> pd.DataFrame:
    return frame.drop(columns=list(columns))


def renamed(frame: pd.DataFrame, columns: Names, _: Mask, random: Random) -> pd.DataFrame:
    (name,) = columns
    new = (f"{name}_v2", name.upper() if name.upper() != name else name.lower(), f" {name}")
    return frame.rename(columns={name: new[int(random.integers(3))]})


def text(frame: pd.DataFrame, columns: Names, mask: Mask, _: Random, *, how: str) -> pd.DataFrame:
    """Numbers as text that cannot be parsed as a number, or as words."""
    values = touched(frame, columns[0], mask)
    middle = float(frame[columns[0]].median())
    write: dict[str, Callable[[float], str]] = {
        "comma and unit": lambda v: f"{v:.1f} mph".replace(".", ","),
        "currency": lambda v: f"${v:,.2f}",
        "list": lambda v: f"[{v:g}]",
        "words": lambda v: "high" if v > middle else "low",
    }
    new = np.asarray([None if np.isnan(v) else write[how](v) for v in values], dtype=object)
    return put(frame.astype({columns[0]: object}), columns[0], mask, new)


def flags(frame: pd.DataFrame, columns: Names, _: Mask, _random: Random) -> pd.DataFrame:
    """A boolean in place of a number: whether it is over the median."""
    return frame.assign(**{columns[0]: frame[columns[0]] > frame[columns[0]].median()})
