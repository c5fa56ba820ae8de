"""Drafts: from a table to the configuration of a model, with a reason for each choice.

Decides what an expert would decide who sees the table for the first time: what is predicted, when
rows come, which columns the model may see, and how long a batch is.
"""

__all__ = ["drafts", "sourcing", "writing"]
