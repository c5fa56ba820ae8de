"""Serve a model: `python -m pipeline.serving conf/<model>.yaml`, or MODEL_DIR and no argument."""

import argparse
import gc
import logging
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import uvicorn
from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from pipeline.config import ENV_PREFIX, Serving, Settings
from pipeline.errors import ConfigError, PipelineError
from pipeline.serving.app import create_app
from pipeline.serving.capturing import Captures
from pipeline.serving.follower import Follower, ServingState, load_exported


class _Environment(BaseSettings):
    """What an exported model is told by HOLDFAST__SERVING__..."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="ignore", hide_input_in_errors=True
    )

    serving: Serving = Serving()


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
        if given.config is None:
            _serve_exported()
        elif given.export is None:
            _serve_registered(Settings.load(given.config))
        else:
            _export(Settings.load(given.config), given.export)
    except PipelineError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- the one line that an operator reads
        return 2
    return 0


def _serve_exported() -> None:
    folder = os.environ.get("MODEL_DIR")
    if not folder:
        message = (
            "Serving needs a model's YAML file as its argument, or MODEL_DIR. Got neither. "
            "Name one such as conf/flights.yaml."
        )
        raise ConfigError(message)
    options = _from_environment()
    state = ServingState()
    with _captures(options.captures) as captures:
        load_exported(Path(folder), state)
        _serve(state, captures, options)


def _from_environment() -> Serving:
    try:
        return _Environment().serving
    except ValidationError as error:
        told = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        message = f"HOLDFAST__SERVING__... must be settings of serving. Got {'; '.join(told)}."
        raise ConfigError(message) from None
    except SettingsError as error:
        message = f"HOLDFAST__SERVING__... must be settings of serving. Got: {error}."
        raise ConfigError(message) from None


def _serve_registered(settings: Settings) -> None:
    state = ServingState()
    with (
        _captures(settings.captures) as captures,
        Follower(
            settings.name,
            state,
            tracking=settings.tracking,
            poll=settings.serving.poll,
            conf=settings.conf,
        ),
    ):
        _serve(state, captures, settings.serving)


def _captures(path: Path | None) -> AbstractContextManager[Captures | None]:
    return nullcontext() if path is None else Captures(path)


def _export(settings: Settings, folder: Path) -> None:
    from pipeline.registry.versions import champion_folder  # noqa: PLC0415 -- not for an export

    # Held-out and sampled rows stay at home.
    kept = shutil.ignore_patterns("heldout.parquet", "sample.parquet", "reference.json")
    shutil.copytree(
        champion_folder(settings.name, settings.tracking, settings.conf),
        folder,
        dirs_exist_ok=True,
        ignore=kept,
    )


def _serve(state: ServingState, captures: Captures | None, options: Serving) -> None:
    app = create_app(state=state, captures=captures, options=options)
    gc.freeze()  # what is here stays; collections need not look at it again and again
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=30,
    )
