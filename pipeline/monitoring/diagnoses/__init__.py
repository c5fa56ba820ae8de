"""Faults of data, each recognised by a function of its own."""
