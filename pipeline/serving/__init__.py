"""The champion behind HTTP: requests, predictions, captures and metrics.

Decides which requests are accepted and which version answers them.
"""

__all__ = ["retention", "server"]
