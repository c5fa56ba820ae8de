"""Faults of data: one function recognises each."""
