"""Live batches against the reference: drift, faults, performance, and what to do about them.

Decides whether a batch is quiet, moved or broken, and whether to page people or to retrain.
"""
