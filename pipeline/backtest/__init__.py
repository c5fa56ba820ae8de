"""What policies of retraining would have been worth on the rows of the past, and which is best.

Decides which policy is recommended. Imports neither Prefect nor MLflow.
"""

__all__ = ["fits", "oracle", "policies", "recommendation"]
