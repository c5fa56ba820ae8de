"""Which rows repeat earlier ones, where only a part of the rows is at hand.

Kept is a hash of 128 bits of each row: 16 bytes. That two of a thousand million rows share one by
accident has a chance below 1e-20 (the birthday bound, n^2 / 2^129).
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Hashes = NDArray[np.integer[Any]]
_KEYS = ("holdfast-parts-1", "holdfast-parts-2")
"""Keys of the two halves of a hash, of 16 letters each, as SipHash asks for."""


class Seen:
    """The rows of all parts so far.

    Hashes lie in sorted runs, of which each is at least twice as long as the next, so that a
    row is moved, and a look-up searches, as often as there are doublings of the number of rows.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[Hashes, Hashes]] = []

    def again(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Find the rows of a part that are equal to a row of an earlier part, and remember all.

        Parameters
        ----------
        rows : DataFrame
            The columns to compare, of equal types in all parts. Nulls are equal.

        Returns
        -------
        array of bool, shape (n_rows,)
        """
        one, two = (
            pd.util.hash_pandas_object(rows, index=False, hash_key=key, categorize=False).to_numpy(
                np.uint64
            )
            for key in _KEYS
        )
        order = np.argsort(one)
        one, two = one[order], two[order]
        again = np.zeros(len(rows), dtype=bool)
        for run in self._runs:
            again |= _among(one, two, run)  # in order, so that places in the run lie side by side
        new = ~again
        new[1:] &= (one[1:] != one[:-1]) | (two[1:] != two[:-1])
        self._add(one[new], two[new])
        found = np.empty_like(again)
        found[order] = again
        return found

    def _add(self, one: Hashes, two: Hashes) -> None:
        while self._runs and len(self._runs[-1][0]) < 2 * len(one):
            earlier = self._runs.pop()
            one, two = (np.concatenate(pair) for pair in zip(earlier, (one, two), strict=True))
            order = np.argsort(one, kind="stable")
            one, two = one[order], two[order]
        self._runs.append((one, two))


def _among(one: Hashes, two: Hashes, run: tuple[Hashes, Hashes]) -> NDArray[np.bool_]:
    first, last = (np.searchsorted(run[0], one, side=side) for side in ("left", "right"))
    found = np.zeros(len(one), dtype=bool)
    for place in range(int((last - first).max(initial=0))):
        near = first + place < last
        found[near] |= run[1][first[near] + place] == two[near]
    return found


class Counted:
    """How often each text came in all parts so far."""

    def __init__(self) -> None:
        self._seen = Seen()
        self._counts: dict[str, int] = {}
        """Texts that came more than once, and how often."""

    def before(self, texts: pd.Series) -> pd.Series:
        """Count the earlier rows, of this part and of those before, that hold the text of a row.

        Parameters
        ----------
        texts : Series of text
            The texts of the next part.

        Returns
        -------
        Series of int
        """
        once = pd.Series(self._seen.again(texts.to_frame()), index=texts.index).astype("int64")
        earlier = texts.map(self._counts).fillna(once).astype("int64")
        found = earlier + texts.groupby(texts).cumcount()
        repeated = found[found > 0]
        counts = (repeated.groupby(texts[repeated.index]).max() + 1).items()
        self._counts |= {str(text): int(count) for text, count in counts}
        return found
