"""Rows: where they come from, which of them are valid, and when their labels are known.

Decides what a source returns for a window of time and which rows are quarantined.
"""
