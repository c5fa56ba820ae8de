"""Rows: where they come from, which of them are valid, and when their labels are known.

Decides which rows a source returns for a window of time, and which of them are quarantined.
"""

__all__ = [
    "captures",
    "contract",
    "declared",
    "dialects",
    "forgetting",
    "labels",
    "parts",
    "places",
    "results",
    "sources",
    "tables",
    "validation",
]
