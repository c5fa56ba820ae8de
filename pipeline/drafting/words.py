"""What the name of a column says about it."""

import re
from collections.abc import Iterable
from typing import Final

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
FLAGS: Final = {"is", "has", "was", "did", "target", "label", "flag", "clf", "y"}
"""Words in the name of a target that say what kind of column it is."""
AFTER: Final = {
    *("actual", "after", "amount", "at", "closed", "code", "date", "day", "final", "on", "outcome"),
    *("reason", "result", "settled", "status", "time", "timestamp", "type", "value"),
}
"""Words that, beside the name of the target, name what is known only after the event."""
BEFORE: Final = {
    *("ago", "avg", "before", "earlier", "former", "historic", "history", "lag", "last", "mean"),
    *("past", "prev", "previous", "prior", "rolling"),
}
"""Words that name what was known before the event."""
OUTCOME: Final = {
    *("closed", "completed", "decided", "known", "label", "outcome", "paid", "resolved", "result"),
    *("returned", "settled", "status"),
}
"""Words for when an outcome became known."""
PREDICTIONS: Final = {"pred", "predicted", "prediction", "predictions", "proba", "yhat"}
PARTITIONS: Final = {"fold", "partition", "split", "subset"}
KEYS: Final = {"guid", "id", "ident", "identifier", "index", "key", "no", "nr", "number", "uuid"}
CODES: Final = {"code", "id", "postal", "postcode", "tract", "zip", "zipcode"}
"""Words for numbers that are names."""
CLASSES: Final = {"category", "class", "cluster", "group", "kind", "label", "species", "type"}
"""Words in the name of a target whose numbers are names of classes."""
CLOCK: Final = {
    *("at", "created", "date", "datetime", "time", "timestamp", "ts", "when"),
    *("day", "dteday", "hour", "month", "period", "quarter", "season", "week", "year", "yr"),
}
"""Words for times and their parts."""
COUNTS: Final = {"age", "count", "distance", "duration", "seconds", "minutes", "num"}
"""Words for what is never negative."""
SHARES: Final = {"fraction", "prob", "probability", "proportion", "share"}
TRUTHS: Final = (
    *(("no", "yes"), ("n", "y"), ("false", "true"), ("f", "t"), ("0", "1"), ("-1", "1")),
    *(("negative", "positive"), ("bad", "good"), ("off", "on"), ("failure", "success")),
)
"""Pairs of labels, the second of which is the event."""
WEEK: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
YEAR: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def words(name: str) -> list[str]:
    """The words of a name, in lower case: `isChurned_2` is is, churned, 2."""
    return [word.lower() for word in _WORD.findall(name)]


def names_outcome(name: str, target: str) -> bool:
    """Whether a name holds that of the target and a word for what is known afterwards."""
    of_target = [word for word in words(target) if word not in FLAGS]
    given = set(words(name))
    inside = bool(of_target) and set(of_target) <= given
    return inside and bool(given & AFTER) and not given & BEFORE


def event_of(labels: Iterable[str]) -> str | None:
    """Which of two labels is the event by its wording; None if their words do not say it."""
    spelled = {label.strip().casefold(): label for label in labels}
    for no, yes in TRUTHS:
        if {no, yes} == set(spelled):
            return spelled[yes]
    return None


def is_closed(labels: Iterable[str]) -> bool:
    """Whether labels are a whole set by their nature: yes and no, or all days or months."""
    spelled = {label.strip().casefold() for label in labels}
    if any({no, yes} == spelled for no, yes in TRUTHS):
        return True
    short = {label[:3] for label in spelled}
    return len(short) == len(spelled) and short in (set(WEEK), set(YEAR))
