"""What people read: notes on runs, batches and refused requests, figures, and pages.

Decides how findings are put into words and figures; what was found is decided elsewhere.
"""

__all__ = [
    "advice",
    "backtests",
    "batch_report",
    "delivery",
    "estimated",
    "events",
    "flow_events",
    "history_page",
    "model_card",
    "notes",
    "outbox",
    "pages",
    "refusals",
    "rendering",
    "silence",
    "wording",
    "written_pages",
]
