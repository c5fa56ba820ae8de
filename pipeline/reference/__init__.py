"""What training rows looked like, frozen, and the statistics that compare other rows with it.

Decides what is stored of the training rows and how much ordinary batches differ from them.
"""

from pipeline.reference.reference import Reference

__all__ = ["Reference"]
