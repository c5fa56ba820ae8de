"""Flows run in this process: their CPU without servers, and how often MLflow is searched."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import mlflow

SEARCHES: Final = ("search_runs", "search_model_versions", "search_registered_models")
_searched = 0


def main() -> int:
    """Run `what conf batches`: `monitored`, run by run, or `replayed`, at once."""
    what, conf, batches = sys.argv[1:]
    for name in SEARCHES:
        setattr(mlflow.MlflowClient, name, _counting(getattr(mlflow.MlflowClient, name)))
    run = {"monitored": monitored, "replayed": replayed}[what]
    print(json.dumps(run(conf, int(batches))))
    return 0


def _counting(search: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*given: Any, **named: Any) -> Any:
        global _searched  # noqa: PLW0603 -- one process, one count
        _searched += 1
        return search(*given, **named)

    return counted


def monitored(conf: str, batches: int) -> dict[str, Any]:
    """Judge the next batches in runs of their own, after training if there is no version."""
    from flows.monitor import monitor  # noqa: PLC0415 -- Prefect reads the environment
    from flows.steps import opened  # noqa: PLC0415
    from flows.train import train  # noqa: PLC0415

    if not opened(conf)[1].versions():
        train(conf)
    return {"runs": [_measured(monitor, conf) for _ in range(batches)]}


def replayed(conf: str, batches: int) -> dict[str, Any]:
    """Replay the next batches at once."""
    from flows.replay import replay  # noqa: PLC0415 -- Prefect reads the environment

    return _measured(replay, conf, batches=batches)


def _measured(flow: Callable[..., Any], conf: str, **given: Any) -> dict[str, Any]:
    searches, cpu = _searched, time.process_time()
    flow(conf, **given)
    return {"cpu": time.process_time() - cpu, "searches": _searched - searches}


if __name__ == "__main__":
    raise SystemExit(main())
