"""arq's command line, all options kept, with a `LimitedWorker` in place of its worker."""

from __future__ import annotations

import inspect
from typing import Any, cast

import arq.cli
import arq.logs
from arq.worker import Worker

from limiter_arq._worker import LimitedWorker

_SETTINGS = {*inspect.signature(Worker).parameters, *inspect.signature(LimitedWorker).parameters}


def create_worker(settings_cls: Any, **kwargs: Any) -> LimitedWorker:
    """Return the worker of a settings class (or dict), as arq's function of this name does."""
    given = cast(
        "dict[str, Any]", settings_cls if isinstance(settings_cls, dict) else vars(settings_cls)
    )
    settings = {name: value for name, value in given.items() if name in _SETTINGS}
    return LimitedWorker(**{**settings, **kwargs})


def run_worker(settings_cls: Any, **kwargs: Any) -> LimitedWorker:
    """Make the worker of a settings class, and run it."""
    worker = create_worker(settings_cls, **kwargs)
    worker.run()
    return worker


def default_log_config(verbose: bool) -> dict[str, Any]:
    """Return arq's own configuration, with what happens to jobs at their limits besides."""
    config = arq.logs.default_log_config(verbose)
    config["loggers"]["limiter"] = config["loggers"]["arq"]
    return config


def main() -> None:
    """Run the command line."""
    command: Any = arq.cli
    command.default_log_config = default_log_config
    command.create_worker = create_worker
    command.run_worker = run_worker
    command.cli(prog_name="python -m limiter_arq")
