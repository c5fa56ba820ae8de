"""The rows of a table too large for memory, validated part by part as they are all at once."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.columns import as_text, as_time
from pipeline.config import Data
from pipeline.data.repeats import Seen
from pipeline.data.validation import (
    NoValidRowError,
    most_frequent,
    none_valid,
    split,
    storable,
    stray_labels,
    with_labels,
)
from pipeline.errors import DataError, writing

SHOWN = 5
"""Targets that are not labels, of which a warning names examples."""


class Checked:
    """What validation finds in the parts of a table. No row is lost.

    Refused rows wait in files until the last part, since only then their types are known.

    Attributes
    ----------
    rows, valid : int
        How many rows have come, and how many of them are valid.
    quarantined : int
        How many are refused.
    strays : Series
        The first targets of valid rows that are not labels, as they arrived.
    stray_count : int
        How many valid rows have such a target.
    """

    def __init__(self, data: Data, task: str, name: str, folder: Path) -> None:
        """Begin with no row.

        Parameters
        ----------
        data : Data
            The declared columns and their roles.
        task : str
            ``classification`` or ``regression``.
        name : str
            What to call the rows in an error message, and their quarantine.
        folder : Path
            An empty folder for refused rows.
        """
        self._data, self._task, self._name, self._folder = data, task, name, folder
        self._seen = Seen()
        self._reasons: Counter[str] = Counter()
        self._lacking: NoValidRowError | None = None
        self._files: list[Path] = []
        self._dated = True
        """Whether all times can be read: a row whose time cannot be is refused."""
        self.rows = self.valid = self.quarantined = self.stray_count = 0
        self.strays = pd.Series(dtype=object)

    def add(self, part: pd.DataFrame) -> pd.DataFrame:
        """Validate the next rows as `validation.validate` does all at once; the valid ones.

        Raises
        ------
        DataError
            If the key or time column is missing, or two columns share a name.
        """
        try:
            found = split(part, self._data, self._seen)
        except NoValidRowError as error:  # no part has the feature that is missing
            self._lacking, found = error, error.validated
        self.rows += len(part)
        self.valid += len(found.valid)
        self._reasons.update(found.reasons)
        if len(found.quarantined):
            self._keep(found.quarantined)
        strays = stray_labels(with_labels(found, self._data, self._task), self._data)
        self.stray_count += len(strays)
        self.strays = pd.concat([self.strays, strays.drop_duplicates()[:SHOWN]])[:SHOWN]
        return found.valid

    def _keep(self, refused: pd.DataFrame) -> None:
        times = refused[self._data.time]
        self._dated &= bool((as_time(times).notna() | times.isna()).all())
        path = self._folder / f"{len(self._files)}.parquet"
        storable(refused).to_parquet(path, index=False)
        self._files.append(path)
        self.quarantined += len(refused)

    @property
    def reasons(self) -> dict[str, int]:
        """Number of rows refused for each reason, the most frequent first."""
        return most_frequent(self._reasons)

    def require_valid(self) -> None:
        """Check that a row is valid.

        Raises
        ------
        DataError
            If none is.
        """
        if self._lacking is not None:
            raise DataError(str(self._lacking))
        if self.rows and not self.valid:
            raise DataError(none_valid(self._name, self.reasons, self.rows))

    def quarantine(self, folder: Path) -> None:
        """Write the refused rows to a file of their name, as `validation.quarantine` does."""
        path = folder / f"{self._name}.parquet"
        partial = path.with_suffix(".partial")
        if not self._files and not path.exists():
            return
        with writing(folder):
            if not self._files:
                path.unlink()
                return
            schema = self._schema()
            with pq.ParquetWriter(partial, schema) as writer:
                for file in self._files:
                    writer.write_table(self._typed(pq.read_table(file), schema))
            partial.replace(path)

    def _schema(self) -> pa.Schema:
        """Types that hold the refused rows of all parts; text, where nothing else does."""
        schemas = [pq.read_schema(file) for file in self._files]
        own = {self._data.time: pa.timestamp("us")} if self._dated else {}
        return pa.schema(
            [
                (name, own.get(name) or _common([schema.field(name).type for schema in schemas]))
                for name in schemas[0].names
            ]
        )

    def _typed(self, table: pa.Table, schema: pa.Schema) -> pa.Table:
        for place, field in enumerate(schema):
            if table.schema.field(place).type == field.type:
                continue
            column = table[place].to_pandas(integer_object_nulls=True)
            if self._dated and field.name == self._data.time:
                column = as_time(column)
            elif pa.types.is_large_string(field.type):
                column = as_text(column)
            table = table.set_column(place, field, pa.array(column, field.type, from_pandas=True))
        return table.cast(schema)


def _common(kinds: list[pa.DataType]) -> pa.DataType:
    fields = [pa.schema([("", kind)]) for kind in kinds]
    try:
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except pa.ArrowTypeError:  # numbers here and text there
        return pa.large_string()
