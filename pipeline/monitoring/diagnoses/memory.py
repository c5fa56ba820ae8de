"""Keep what was computed about a batch."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class Memory:
    """Results by key; each is computed once."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def recall(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The result of a key, computed if it is not known yet."""
        if key not in self._known:
            self._known[key] = compute()
        return cast("T", self._known[key])
