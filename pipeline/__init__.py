"""What Holdfast decides about a model, in rooms that import each other in one direction only.

No room imports Prefect, which runs the decisions in `flows`; only `registry` imports MLflow.
"""

__all__ = [
    "backtest",
    "columns",
    "config",
    "data",
    "derivation",
    "drafting",
    "errors",
    "logs",
    "monitoring",
    "redaction",
    "reference",
    "registry",
    "reporting",
    "serving",
    "tracing",
    "training",
]
