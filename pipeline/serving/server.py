"""Serve or export a model: what `holdfast serve` and `holdfast export` run."""

import gc
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from pipeline.config import ENV_PREFIX, Serving, Settings, secrets_of
from pipeline.errors import ConfigError
from pipeline.logs import LogFormat, formatter
from pipeline.redaction import RedactedRecord, remember
from pipeline.serving.app import create_app
from pipeline.serving.capturing import Captures
from pipeline.serving.connections import Server
from pipeline.serving.follower import Follower, ServingState, load_exported
from pipeline.serving.sums import Sums
from pipeline.serving.workers import Worker, supervise
from pipeline.training.golden import Golden
from pipeline.training.seals import seal


class _Environment(BaseSettings):
    """Settings of an exported model, which come from HOLDFAST__SERVING__... alone."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="ignore", hide_input_in_errors=True
    )

    serving: Serving = Serving()


def serve(
    conf: str | None, workers: int | None = None, log_format: LogFormat | None = None
) -> None:
    """Serve a model until SIGTERM or Ctrl-C.

    Parameters
    ----------
    conf : str or None
        The model's YAML file, whose registered champion is served; without it, the exported
        model in the folder that the environment variable MODEL_DIR names.
    workers : int or None
        Processes that answer, in place of ``serving.workers``.
    log_format : str or None
        How records are logged, ``text`` or ``json``, in place of ``serving.log_format``.

    Raises
    ------
    PipelineError
        If there is nothing that can be served.
    """
    _set_up_process()
    options, serve_alone = _opened(conf)
    kind = log_format or options.log_format
    _log_as(kind)
    _check_address(options)
    n = workers or options.workers
    if n > 1:
        supervise(n, (options.host, options.port), partial(_serve_beside, conf, kind))
    serve_alone(None)


def _serve_beside(conf: str | None, log_format: LogFormat, worker: Worker) -> None:
    """Serve a model beside other workers."""
    _set_up_process()
    _log_as(log_format)
    _, serve_model = _opened(conf)
    serve_model(worker)


def _log_as(log_format: LogFormat) -> None:
    stderr = logging.StreamHandler()
    stderr.setFormatter(formatter(log_format, "%(levelname)s: %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[stderr])
    logging.captureWarnings(capture=True)


def _set_up_process() -> None:
    logging.setLogRecordFactory(RedactedRecord)
    # Uvicorn raises the signal again when it has shut down; this makes that a clean exit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))


def export(conf: str, folder: str) -> dict[str, Any]:
    """Write the champion to a folder that is served without MLflow.

    Held-out and sampled rows of the training data are left out.

    Parameters
    ----------
    conf : str
        The model's YAML file.
    folder : str
        Where to write; made if it does not exist.

    Returns
    -------
    dict
        The ``version`` that was written, and the ``folder``.

    Raises
    ------
    ConfigError
        If the folder holds something else.
    RegistryError
        If no champion has passed the gate, or it is incomplete.
    """
    from pipeline.registry.versions import Registry  # noqa: PLC0415 -- an exported model needs no MLflow

    settings, target = Settings.load(conf), Path(folder)
    if target.exists() and not (target / "manifest.json").exists() and any(target.iterdir()):
        message = f"{folder} must be empty, or hold an earlier export. Name another folder."
        raise ConfigError(message)
    registry = Registry(settings.name, settings.tracking, settings.conf)
    number = registry.champion().number
    source = registry.folder_of(number)
    for part in ("model", "golden"):
        shutil.rmtree(target / part, ignore_errors=True)  # of an earlier export
    shutil.copytree(source / "model", target / "model")
    Golden.load(source / "golden").export(target / "golden")
    shutil.copyfile(source / "manifest.json", target / "manifest.json")
    seal(target)
    return {"version": number, "folder": folder}


def _opened(conf: str | None) -> tuple[Serving, Callable[[Worker | None], None]]:
    """The settings by which a model is served, and what serves it."""
    if conf is not None:
        settings = Settings.load(conf)
        return settings.serving, partial(_serve_registered, settings)
    folder = os.environ.get("MODEL_DIR")
    if not folder:
        message = (
            "No model is named. Run `holdfast serve conf/<model>.yaml`, or set MODEL_DIR to a "
            "folder that `holdfast export` wrote."
        )
        raise ConfigError(message)
    options = _from_environment()
    remember(secrets_of(options), os.environ)
    return options, partial(_serve_exported, Path(folder), options)


def _from_environment() -> Serving:
    try:
        return _Environment().serving
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        message = f"HOLDFAST__SERVING__... must hold valid settings. Got {'; '.join(problems)}."
        raise ConfigError(message) from None
    except SettingsError as error:
        message = f"HOLDFAST__SERVING__... must hold valid settings. Got: {error}."
        raise ConfigError(message) from None


def _serve_exported(folder: Path, options: Serving, worker: Worker | None) -> None:
    state = ServingState()
    with _captures(options.captures, options) as captures:
        load_exported(folder, state)
        _serve(state, captures, options, worker)


def _serve_registered(settings: Settings, worker: Worker | None) -> None:
    state = ServingState()
    with (
        _captures(settings.captures, settings.serving) as captures,
        Follower(
            settings.name,
            state,
            tracking=settings.tracking,
            poll=settings.serving.poll,
            conf=settings.conf,
        ),
    ):
        _serve(state, captures, settings.serving, worker)


def _captures(path: Path | None, options: Serving) -> AbstractContextManager[Captures | None]:
    if path is None:
        return nullcontext()
    return Captures(path, keep=options.keep, max_bytes=options.max_capture_bytes)


def _check_address(options: Serving) -> None:
    """Refuse an address that cannot be listened on, in place of uvicorn's log lines and exit."""
    host, port = options.host, options.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError) as error:
        message = (
            f"serving.host and serving.port must be an address that is free. Got {host}:{port} "
            f"({error}). Stop what listens there, or name another port."
        )
        raise ConfigError(message) from error


def _serve(
    state: ServingState, captures: Captures | None, options: Serving, worker: Worker | None
) -> None:
    sums = None if worker is None else Sums(worker.page)
    app = create_app(state=state, captures=captures, options=options, sums=sums)
    gc.freeze()  # what is here stays; collections need not look at it again and again
    # Uvicorn warns of each request that is not HTTP, which would fill the log under an attack.
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.levelno != logging.WARNING)
    server = Server(app, options)
    if worker is None:
        server.run()
    else:
        server.run([worker.listen()])
