"""What people read: notes on runs, batches and refused requests, figures, and pages.

Decides how findings are put into words and figures; what was found is decided elsewhere.
"""

__all__ = ["backtests", "delivery", "events", "notes", "outbox", "pages", "refusals", "silence"]
