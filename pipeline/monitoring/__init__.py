"""Live batches compared with the reference: drift, faults, performance, and what to do.

Decides whether a batch is quiet, moved or broken, and whether to page people or to retrain.
"""

__all__ = [
    "drift",
    "episode",
    "estimate",
    "expectations",
    "findings",
    "indicators",
    "means",
    "performance",
    "plan",
    "promises",
    "questions",
    "refusals",
    "slice_drift",
    "slice_tests",
    "slices",
    "stored",
    "targets",
    "usual_slices",
    "verdicts",
]
