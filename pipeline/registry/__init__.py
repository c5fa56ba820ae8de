"""What MLflow stores about a model: runs, versions, champions and recorded batches.

Decides how results are stored and which version is champion. Only this room imports MLflow.
"""

__all__ = [
    "answers",
    "backtests",
    "cards",
    "champions",
    "copying",
    "environment",
    "forgetting",
    "health",
    "history",
    "pruning",
    "recent",
    "records",
    "stores",
    "studies",
    "training_runs",
    "versions",
]
