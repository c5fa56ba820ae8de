"""Parameters that several diagnoses share, so that each number is stated and explained once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shared:
    """What several diagnoses judge by; each has a record of its own parameters as well.

    Attributes
    ----------
    fewest : int
        Fewest rows by which a share or a distribution is judged.
    fewest_related : int
        Fewest rows by which the shares of labels, or a relation to other columns, are judged.
    fewest_of_a_block : int
        Fewest rows of a block that is taken into account.
    seen : int
        Expected rows of a label from which it would be seen.
    fewest_at_value : int
        Fewest rows with a value, or beside it, that are judged.
    many_values : int
        Distinct values of a column above which none of them is frequent by itself.
    naming : int
        Most distinct values of a numeric column that may name segments.
    frequent, rare : float
        Shares of rows from which a value counts as frequent, and up to which it is rare.
    total : float
        Least nats over all rows.
    convincing : float
        Least nats per affected row, where a part of the rows is affected.
    part : float
        Smallest share of affected rows that is looked for.
    most : float
        Share of rows from which a fault is taken to affect all rows.
    nearly_all : float
        Share of rows above which nearly all rows are affected, so that no segment is named.
    alike : float
        How well rows put back have to match the unaffected rows: 1 less the distance of their
        distributions.
    supported : float
        Least share of rows for which the other columns can predict.
    says : float
        Least nats per row by which columns are related.
    tells : float
        Least nats per row from the other columns, where a part of the rows is judged.
    odds : float
        Least ratio of the odds of a missing value, or of a repeated row, to the usual odds.
    as_many : float
        Factor within which two numbers of labels count as about equal.
    """

    fewest: int = 20
    fewest_related: int = 50
    fewest_of_a_block: int = 30
    seen: int = 5
    fewest_at_value: int = 25
    many_values: int = 50
    naming: int = 40
    frequent: float = 0.02
    rare: float = 0.01
    total: float = 25.0
    convincing: float = 1.0
    part: float = 0.04
    most: float = 0.7
    nearly_all: float = 0.9
    alike: float = 0.6
    supported: float = 0.3
    says: float = 0.05
    tells: float = 0.2
    odds: float = 3.0
    as_many: float = 2.0


SHARED = Shared()
