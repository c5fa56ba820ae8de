"""Log records as lines: as text for people, or as JSON objects for programs."""

import json
import logging
from datetime import UTC, datetime
from typing import Final, Literal

from pipeline import tracing

LogFormat = Literal["text", "json"]
TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
IDS: Final = ("flow_run_id", "flow_run_name", "task_run_id", "task_run_name")
"""What Prefect adds to the records of its runs."""


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on a line.

    Its names are ``time`` (ISO 8601, UTC), ``level``, ``logger`` and ``message``; of a run of
    Prefect those of `IDS`, of a trace ``trace_id`` and ``span_id``, and of an error ``exception``,
    the traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One record, as JSON."""
        written = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        written |= {name: str(getattr(record, name)) for name in IDS if hasattr(record, name)}
        written |= tracing.ids()
        if record.exc_info:
            # Set on the record, where secrets are left out of it.
            record.exc_text = record.exc_text or self.formatException(record.exc_info)
            written["exception"] = record.exc_text
        return json.dumps(written)


def formatter(kind: LogFormat, text: str = TEXT) -> logging.Formatter:
    """What writes records in a format; `text` is the pattern of lines for people."""
    return JsonFormatter() if kind == "json" else logging.Formatter(text)
