"""The loader that versions registered before the rooms were named point to; keep it."""

from pipeline.training.model import _load_pyfunc

__all__ = ["_load_pyfunc"]
