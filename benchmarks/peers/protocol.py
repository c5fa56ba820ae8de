"""The worker's side of the conversation, on the standard library alone."""

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def serve(
    read: Callable[[str], Any],
    fit: Callable[[Any, dict[str, Any]], Any],
    check: Callable[[Any, Any], Any],
    verdict: Callable[[Any], dict[str, Any]],
) -> None:
    """Answer one JSON line with another until there are no more.

    `fit` and `check` are measured; `read`, and the `verdict` taken from a check's result, are
    not. What libraries print goes to stderr.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    fitted: Any = None
    for line in sys.stdin:
        message = json.loads(line)
        frame = read(message["path"])
        if message["do"] == "reference":
            fitted, answer = measured(fit, frame, message)
        else:
            result, answer = measured(check, fitted, frame)
            answer |= verdict(result)
        print(json.dumps(answer), file=answers, flush=True)


def measured(call: Callable[..., Any], *given: Any) -> tuple[Any, dict[str, float | None]]:
    """What a call returns, its CPU seconds, and its peak above what was resident before."""
    _release()
    before = _reset_peak()
    start = time.process_time()
    result = call(*given)
    cpu = time.process_time() - start
    extra = None if before is None else (status("VmHWM") - before) / 1024
    return result, {"cpu": cpu, "extra_mb": extra}


def _release() -> None:
    """Give freed memory back, or a check could use what an earlier one left resident."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _reset_peak() -> int | None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return status("VmRSS")


def status(key: str) -> int:
    """A figure of this process in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)[key].split()[0])
