"""The frozen description of the training rows, and the statistics to compare it with.

Decides what is stored of the training rows and how much ordinary batches differ from them.
"""

from pipeline.reference.reference import Reference

__all__ = [
    "Reference",
    "blocks",
    "classifier",
    "finite",
    "identities",
    "masses",
    "normal_scores",
    "order",
    "pairs",
    "profile",
    "sampling",
    "serialised",
    "sketches",
    "statistics",
    "summaries",
    "tally",
    "traits",
    "variation",
]
