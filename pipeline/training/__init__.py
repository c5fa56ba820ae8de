"""Models: how they are fitted, stored, checked for parity and judged by the gate.

Decides whether a challenger is better than the champion. Imports neither Prefect nor MLflow.
"""

__all__ = [
    "bundle",
    "calibrating",
    "compatibility",
    "contributions",
    "costs",
    "elsewhere",
    "estimators",
    "evaluation",
    "fitting",
    "forgetting",
    "gate",
    "golden",
    "intervals",
    "metrics",
    "model",
    "parity",
    "predictions",
    "seals",
    "spaces",
    "target",
    "tuning",
    "unseen",
]
