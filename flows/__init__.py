"""What Holdfast runs: short Prefect flows around the decisions of `pipeline`."""

import os
import sys
from pathlib import Path

from pipeline import tracing

# Prefect and MLflow read these when they are imported; values that are set already are kept.
DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Threads that wait must not use the cores that others need.
    "OMP_WAIT_POLICY": "passive",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "pipeline",
    # Lines that are logged outside of a run are expected.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # A cold start on a busy machine takes longer than Prefect's 20 seconds.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    # A server that starts again would end long runs, and never free the slots of dead runs.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
}
"""Environment of every flow where nothing else is set."""

for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
tracing.start()  # before Prefect starts the span of a run


def _module_run_as_script() -> str:
    """Name of the module of this package that Python was asked to run; empty: none."""
    if sys.argv[:1] == ["-m"]:  # so it is while Python looks for the module
        asked = next((one for one in sys.orig_argv[1:] if __name__ in one), "")
        return asked.rpartition(".")[2]
    script = Path(sys.argv[0] if sys.argv else "").resolve()
    return script.stem if script.parent == Path(__file__).resolve().parent else ""


_module = _module_run_as_script()
if _module not in {"", "cli"}:
    sys.stderr.write(
        f"{__name__}.{_module} is not a script. Run `holdfast {_module} conf/<model>.yaml` "
        "instead; `holdfast --help` lists all commands.\n"
    )
    sys.exit(2)
