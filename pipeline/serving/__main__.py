"""Serve a model: `python -m pipeline.serving conf/<model>.yaml`, or MODEL_DIR and no argument."""

import argparse
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from pydantic import ValidationError

from pipeline import parity
from pipeline.config import Serving, Settings
from pipeline.errors import ConfigError, PipelineError, RegistryError
from pipeline.model import Model
from pipeline.serving.app import create_app
from pipeline.serving.capture import Captures

_LOG = logging.getLogger("pipeline.serving")


@dataclass(frozen=True)
class _Plan:
    """What to serve, where, and where to keep what was answered."""

    folder: Path
    address: Serving
    captures: Path | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop.

    Parameters
    ----------
    arguments : sequence of str, optional
        The model's YAML file, or nothing; those of the command line by default.

    Returns
    -------
    int
        0 after a stop, 2 when there is nothing that can be served.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(name)s: %(message)s")
    parser = argparse.ArgumentParser(prog="python -m pipeline.serving", description=__doc__)
    parser.add_argument("config", nargs="?", type=Path, help="a model's YAML file")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write the champion there")
    given = parser.parse_args(arguments)
    # Uvicorn raises the signal again when it has shut down; this makes that a clean exit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        plan = _exported() if given.config is None else _registered(Settings.load(given.config))
        if given.export is None:
            _serve(plan)
        else:
            shutil.copytree(plan.folder, given.export, dirs_exist_ok=True)
    except PipelineError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- the one line that an operator reads
        return 2
    return 0


def _exported() -> _Plan:
    folder = os.environ.get("MODEL_DIR")
    if not folder:
        message = (
            "Serving needs a model's YAML file as its argument, or MODEL_DIR. Got neither. "
            "Name one such as conf/flights.yaml."
        )
        raise ConfigError(message)
    captures = os.environ.get("HOLDFAST_CAPTURES")
    return _Plan(Path(folder), _address(Serving()), Path(captures) if captures else None)


def _registered(settings: Settings) -> _Plan:
    from pipeline import registry  # noqa: PLC0415 -- an exported model needs no MLflow

    return _Plan(registry.champion_folder(settings), _address(settings.serving), settings.captures)


def _address(serving: Serving) -> Serving:
    given = {key: os.environ.get(f"HOLDFAST_API_{key.upper()}") for key in ("host", "port")}
    try:
        return Serving.model_validate(
            serving.model_dump() | {key: value for key, value in given.items() if value}
        )
    except ValidationError as error:
        message = (
            f"HOLDFAST_API_PORT must be a port, 0 to 65535. Got {given['port']!r}. Set it to 8000."
        )
        raise ConfigError(message) from error


def _serve(plan: _Plan) -> None:
    model = Model.load(plan.folder / "model")
    parity.replay(model, parity.Golden.load(plan.folder / "golden"))
    name, version = _manifest(plan.folder / "manifest.json")
    with nullcontext() if plan.captures is None else Captures(plan.captures) as captures:
        app = create_app(model=model, name=name, version=version, captures=captures)
        _LOG.info("serving %s, version %s", name, version)
        uvicorn.run(app, host=plan.address.host, port=plan.address.port)


def _manifest(path: Path) -> tuple[str, str]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return str(manifest["name"]), str(manifest["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path} must hold name and version. Got: {error}. Export the model again."
        raise RegistryError(message) from error


if __name__ == "__main__":
    sys.exit(main())
