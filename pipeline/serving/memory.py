"""Gives memory of long requests back to the system, which glibc's allocator keeps otherwise."""

import ctypes
import sys

_MMAP_THRESHOLD = -3  # its name in malloc.h
_LARGE = 1 << 20
"""Bytes from which a block is a mapping of its own, which goes back as soon as it is freed."""


def keep_large_blocks_apart() -> None:
    """Stop glibc from putting large blocks into its heap, as it does after the first was freed."""
    if sys.platform == "linux" and hasattr(_LIBRARY, "mallopt"):
        _LIBRARY.mallopt(_MMAP_THRESHOLD, _LARGE)


def give_back() -> None:
    """Return free memory to the system; takes some milliseconds, without Python's lock."""
    if sys.platform == "linux" and hasattr(_LIBRARY, "malloc_trim"):
        _LIBRARY.malloc_trim(0)


_LIBRARY = ctypes.CDLL(None)
