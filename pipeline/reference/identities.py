"""Arithmetic that every training row obeys: sums, products, quotients and orders of columns.

Such rules are found as Ernst et al. (2001, IEEE Trans. Softw. Eng. 27: 99-123) find invariants of
programs: all rules of a few forms are tried on a few rows, and those that survive on all rows. A
rule counts only where rows would break it if their values belonged to other rows.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Floats

Kind = Literal["sum", "product", "quotient", "order"]
Mask = NDArray[np.bool_]
_KINDS: tuple[Kind, ...] = ("sum", "product", "quotient", "order")
COLUMNS, _PROBED, _MOST = 40, 32, 100
"""Most columns that are looked at, rows on which every rule is tried, and rules that are kept."""
_FEWEST, _OF_A_BLOCK = 200, 30
"""Fewest rows that show a rule, and of a block by which it is asked for."""
_PROBES, _PROBED_OBEYED, _PROBED_BY_CHANCE = 8, 0.95, 0.8
"""How a rule is tried: fewest rows that hold all of its columns, least share that
obeys it, and the share that does not obey with the results of other rows."""
_FITTED = 1_000
"""Most rows to which sums of more than two columns are fitted."""
_THERE = (0.0, 0.5, 0.9, 0.99)
"""Least shares of a sum's rows in which its terms are there, until enough rows are complete."""
_OBEYED, _IN_A_BLOCK = 0.99, 0.98
"""Least share of rows that obey a rule, over all rows and in each block."""
_BY_CHANCE = 0.5
"""Largest share of rows that obey a rule with the results in any rows."""
_MATTERS = 0.005
"""Share of rows that a column of a rule tells, or else the rule holds without it."""
_EXACT = 1e-6
"""Distance that counts as none, relative to the largest value of the rule."""
_EXACT_ENOUGH = 0.01
"""Error of a result, relative to it, up to which its terms follow from it."""
_COVERED = 0.95
"""Least share of a column's values that a rule has to tell."""
_DECIMALS = 6
"""Decimals up to which a column counts as rounded."""
_ONE = 1e-3
"""Distance of a fitted coefficient from 0 or 1 up to which it is that."""
_NEVER = 0.001
"""Largest share of rows of a block that are out of order."""
_ORDERED, _NEAR = 0.05, 0.01
"""Least share of rows out of order by chance, and close to equal, that show a bound."""
_CLOSE = 0.1
"""How close that is, in median distances of the two columns, and relative to their sizes."""


class Identity(NamedTuple):
    """A rule that rows obey.

    Attributes
    ----------
    kind : str
        How the first column follows from the others: it is their ``sum``, their ``product``, the
        ``quotient`` of the second and the third, or at most the second (``order``).
    columns : tuple of str
        The result, and its terms.
    tolerance : float
        Largest distance by rounding, in the unit of the first column.
    usual : float
        Largest share of rows of a block that break it.
    """

    kind: Kind
    columns: tuple[str, ...]
    tolerance: float
    usual: float = 0.0

    def broken(self, values: Mapping[str, Floats]) -> tuple[Mask, Mask]:
        """Rows that hold all columns of the rule, and those of them that break it."""
        result, *terms = (values[name] for name in self.columns)
        judged = np.isfinite([result, *terms]).all(axis=0)
        judged &= (terms[-1] != 0) | (self.kind != "quotient")
        return judged, judged & ~_obeys(self.kind, result, terms, self.tolerance)

    def implied(self, name: str, values: Mapping[str, Floats]) -> Floats:
        """Values that the other columns tell of a column of a sum, a product or a quotient.

        NaN where they tell none.
        """
        place, columns = self.columns.index(name), [values[one] for one in self.columns]
        if place == 0:
            return _result_of(self.kind, columns[1:])
        others = [one for k, one in enumerate(columns) if k not in {0, place}]
        if self.kind == "sum":
            rest: Floats = columns[0] - np.sum(others, axis=0)
            return rest
        if self.kind == "quotient" and place == 1:
            return columns[0] * others[0]
        over = (columns[0], others[0]) if self.kind == "product" else (others[0], columns[0])
        exact = self.tolerance <= _EXACT_ENOUGH * np.abs(columns[0])
        return np.where(exact, _divided(*over), np.nan)


def find(values: Mapping[str, Floats], blocks: NDArray[np.integer]) -> tuple[Identity, ...]:
    """Find the rules that numeric columns obey.

    Parameters
    ----------
    values : mapping of str to array of float, shape (n_rows,)
        Values of each column, NaN where missing; the most important columns first.
    blocks : array of int, shape (n_rows,)
        Number of the block of each row.
    """
    varied = {
        name: own
        for name, own in list(values.items())[:COLUMNS]
        if len(np.unique(own[np.isfinite(own)])) > 1
    }
    if len(varied) < 2 or len(blocks) < _FEWEST:  # noqa: PLR2004 -- a rule has two columns
        return ()
    with np.errstate(all="ignore"):
        found = _survivors(varied, blocks)
    summed = [set(one.columns) for one in found if one.kind == "sum"]
    # A part is at most the whole.
    return tuple(
        x for x in found if x.kind != "order" or not any(set(x.columns) <= one for one in summed)
    )


def _survivors(values: Mapping[str, Floats], blocks: NDArray[np.integer]) -> list[Identity]:
    """Candidates that all rows obey, one of each set of columns."""
    found: dict[frozenset[str], Identity] = {}
    for kind, columns in sorted(_candidates(values), key=lambda one: _KINDS.index(one[0])):
        rule, key = _verified(kind, columns, values, blocks), frozenset(columns)
        # Of a product and the quotients that follow from it, the surest is kept.
        if rule and (key not in found or _surer(rule, found[key], values)):
            found[key] = rule
        if len(found) == _MOST:
            break
    return list(found.values())


def implied_by(
    rules: Sequence[Identity],
    name: str,
    among: Collection[str],
    numbers: Callable[[str], Floats],
) -> tuple[Floats, frozenset[str]] | None:
    """What other columns tell of a column, by the rule that most rows obey.

    Parameters
    ----------
    rules : sequence of Identity
        Rules that training rows obey.
    name : str
        The column.
    among : collection of str
        The columns that may tell it.
    numbers : callable
        Finds the values of a column, shape (n_rows,).

    Returns
    -------
    array of float, shape (n_rows,), and frozenset of str
        The values that the rule tells, and the columns that tell them. The column's own value
        where the rule tells none. None if no rule tells nearly all values.
    """
    own, found = numbers(name), list[tuple[float, Floats, frozenset[str]]]()
    for rule in rules:
        columns = frozenset(rule.columns)
        if rule.kind != "order" and name in columns and columns <= {name, *among}:
            values = {column: numbers(column) for column in columns}
            meant, (judged, breaks) = rule.implied(name, values), rule.broken(values)
            there = np.isfinite(own)
            if np.isfinite(meant[there]).sum() >= max(_COVERED * there.sum(), 1):
                share = float(breaks.sum() / max(judged.sum(), 1))
                found.append((share, np.where(np.isfinite(meant), meant, own), columns - {name}))
    return min(found, key=lambda one: one[0])[1:] if found else None


def kept_by_both(one: Sequence[Identity], other: Sequence[Identity]) -> tuple[Identity, ...]:
    """Rules that the rows of two references obey."""
    known = {(rule.kind, rule.columns): rule for rule in other}
    return tuple(
        rule._replace(
            tolerance=max(rule.tolerance, also.tolerance), usual=max(rule.usual, also.usual)
        )
        for rule in one
        if (also := known.get((rule.kind, rule.columns)))
    )


def _surer(one: Identity, other: Identity, values: Mapping[str, Floats]) -> bool:
    error = [
        rule.tolerance / np.nanmedian(np.abs(values[rule.columns[0]])) for rule in (one, other)
    ]
    return bool(error[0] < error[1])


def _result_of(kind: Kind, terms: Sequence[Floats]) -> Floats:
    if kind == "quotient":
        return _divided(terms[0], terms[1])
    result: Floats = (np.sum if kind == "sum" else np.prod)(terms, axis=0)
    return result


def _divided(one: Floats, other: Floats) -> Floats:
    quotient: Floats = np.divide(one, other, out=np.full(len(one), np.nan), where=other != 0)
    return quotient


def _obeys(kind: Kind, result: Floats, terms: Sequence[Floats], tolerance: float) -> Mask:
    size = np.max(np.abs([result, *(terms if kind == "sum" else ())]), axis=0)
    if kind == "order":
        ordered: Mask = result <= terms[0] + _EXACT * size
        return ordered
    near: Mask = np.abs(result - _result_of(kind, terms)) <= tolerance + _EXACT * size
    return near


def _candidates(values: Mapping[str, Floats]) -> Iterator[tuple[Kind, tuple[str, ...]]]:
    """Rules that a few rows obey."""
    names, every = list(values), np.asarray(list(values.values()))
    rows = np.flatnonzero(np.isfinite(every).sum(axis=0) > 1)
    few = every[:, rows[np.linspace(0, len(rows) - 1, _PROBED).astype(int)]] if len(rows) else every
    follows: dict[int, set[int]] = defaultdict(set)  # from which column others follow
    for i, name in enumerate(names):
        others, unit = np.delete(np.arange(len(names)), i), decimals(every[i])
        one, other = (others[places] for places in np.triu_indices(len(others), 1))
        forms: tuple[tuple[Kind, list[NDArray[np.intp]], Floats], ...] = (
            ("sum", [others[others > i]], few[others[others > i]]),
            ("sum", [one, other], few[one] + few[other]),
            ("product", [one, other], few[one] * few[other]),
            ("quotient", [one, other], few[one] / few[other]),
            ("quotient", [other, one], few[other] / few[one]),
        )
        for kind, terms, made in forms:
            for k in np.flatnonzero(_probed(few[i], made, unit)):
                places = [own[k] for own in terms]
                if kind == "sum":
                    for place in places:
                        follows[place].add(i)
                yield kind, (name, *(names[place] for place in places))
        for k in others[_probed(few[i], few[others], None)]:
            yield "order", (name, names[k])
    for i, name in enumerate(names):
        for places in _summed(i, every, without=follows[i]):
            yield "sum", (name, *(names[k] for k in places))


def _probed(result: Floats, made: Floats, unit: float | None) -> Mask:
    """Whether nearly all tried rows obey a rule, shape (n_rules,), and fewer those of others.

    Without a unit the rule is an order.
    """
    obeyed = []
    for own in (result, np.roll(result, 1)):
        there = np.isfinite(own) & np.isfinite(made)
        size = np.maximum(np.abs(own), np.abs(made))
        far = own - made if unit is None else np.abs(own - made) - 1.001 * unit
        obeyed.append((far <= _EXACT * size).sum(axis=1) / np.maximum(there.sum(axis=1), _PROBES))
    by_chance = 1.0 if unit is None else _PROBED_BY_CHANCE
    passed: Mask = (obeyed[0] >= _PROBED_OBEYED) & (obeyed[1] < by_chance)
    return passed


def _summed(i: int, every: Floats, *, without: set[int]) -> Iterator[list[int]]:
    """Three columns or more whose sum is a column, by least squares over complete rows.

    Columns that are missing beside the sum, most often first, are left out until enough rows are.
    """
    there = np.isfinite(every[:, np.isfinite(every[i])])
    others = np.delete(np.arange(len(every)), [i, *without])
    for least in _THERE:
        others = others[there[others].mean(axis=1) >= least]
        complete = np.isfinite(every[[i, *others]]).all(axis=0)
        if complete.sum() >= _FEWEST:
            break
    else:
        return
    rows = np.flatnonzero(complete)[:_FITTED]
    for factors in _solutions(every[np.ix_(others, rows)].T, every[i, rows]):
        ones = np.abs(factors - 1) < _ONE
        if ones.sum() > 2 and (ones | (np.abs(factors) < _ONE)).all():  # noqa: PLR2004 -- others are tried
            yield others[ones].tolist()
            return


def _solutions(terms: Floats, result: Floats) -> Iterator[Floats]:
    """Factors by which the terms add up to the result, by least squares.

    If one term follows from the others, as an amount from three counts, there are many solutions:
    those that do without one term are tried.
    """
    fitted = np.linalg.lstsq(terms, result, rcond=None)
    factors, rank = np.asarray(fitted[0], dtype=float), fitted[2]
    if rank == terms.shape[1] - 1:
        free = np.linalg.svd(terms, full_matrices=False)[2][-1]
        for k in np.flatnonzero(np.abs(free) > _ONE * np.abs(free).max()):
            yield factors - float(factors[k] / free[k]) * free
    yield factors


def decimals(values: Floats) -> float:
    """The unit of the last decimal of a column, as 0.01; 0 where values are not rounded."""
    known = values[np.isfinite(values)]
    for places in range(_DECIMALS + 1):
        if np.isclose(np.round(known, places), known, rtol=0, atol=1e-9).mean() >= _OBEYED:
            return float(10.0**-places)
    return 0.0


def _verified(
    kind: Kind,
    columns: tuple[str, ...],
    values: Mapping[str, Floats],
    blocks: NDArray[np.integer],
) -> Identity | None:
    """The rule with the smallest tolerance by which rows obey; None if they do not."""
    unit = decimals(values[columns[0]])
    tolerances = [0.0] if kind == "order" else [0.0, 0.501 * unit, 1.001 * unit]
    if kind == "sum" and unit == 1:  # whole numbers add up
        tolerances = [0.0]
    for tolerance in tolerances:
        rule = Identity(kind, columns, tolerance)
        judged, breaks = rule.broken(values)
        if judged.sum() < _FEWEST:
            return None
        if breaks.sum() > (1 - _OBEYED) * judged.sum():
            continue
        shares = [
            breaks[own].sum() / own.sum()
            for number in np.unique(blocks)
            if (own := judged & (blocks == number)).sum() >= _OF_A_BLOCK
        ]
        usual = float(max(shares, default=breaks.sum() / judged.sum()))
        most = _NEVER if kind == "order" else 1 - _IN_A_BLOCK
        if usual <= most and _says(rule, values, judged):
            return rule._replace(usual=usual)
        return None
    return None


def _says(rule: Identity, values: Mapping[str, Floats], judged: Mask) -> bool:
    """Whether rows would break the rule with values of other rows."""
    own = {name: values[name][judged] for name in rule.columns}
    mixed = np.random.default_rng(0).permutation(int(judged.sum()))

    result, *terms = rule.columns

    def obeyed(name: str) -> float:
        there, breaks = rule.broken(own | {name: own[name][mixed]})
        return float(1 - breaks.sum() / max(there.sum(), 1))

    if rule.kind == "order":
        least, most = (own[name] for name in rule.columns)
        size, distance = np.maximum(np.abs(least), np.abs(most)), most - least
        near = (distance <= _CLOSE * np.minimum(np.median(distance), size)) & (size > 0)
        return bool(near.mean() >= _NEAR and obeyed(result) <= 1 - _ORDERED)
    matter = all(obeyed(name) <= 1 - _MATTERS for name in terms)
    return matter and obeyed(result) <= _BY_CHANCE
