"""A table that is written part by part, and appears as a whole or not at all."""

from pathlib import Path
from typing import Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


class Output:
    """A `.parquet` or `.csv` file that replaces an earlier one at the end of a `with` statement.

    After an error nothing of it is left.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._partial = path, path.with_name(f".{path.name}.partial")
        self._parquet: pq.ParquetWriter | None = None
        self._rows = 0

    def __enter__(self) -> Self:
        self._partial.unlink(missing_ok=True)
        return self

    def write(self, part: pd.DataFrame) -> None:
        """Append rows, which have the columns and types of the first part."""
        if self._path.suffix == ".csv":
            # pandas would write the times of a part that lie at midnight as dates.
            times = part.select_dtypes("datetime")
            moments = {str(name): part[name].map(str) for name in times}
            text = part.assign(**moments)
            text.to_csv(self._partial, mode="a", header=not self._rows, index=False)
        else:
            table = pa.Table.from_pandas(part, preserve_index=False)
            if self._parquet is None:
                self._parquet = pq.ParquetWriter(self._partial, table.schema)
            self._parquet.write_table(table)
        self._rows += len(part)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._parquet is not None:
            self._parquet.close()
        if kind is None:
            self._partial.replace(self._path)
        self._partial.unlink(missing_ok=True)
