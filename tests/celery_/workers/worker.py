"""A Celery worker of the tests: the app of `app.py`, with what the test gave it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if given.get("pool") == "gevent":
        from gevent import monkey

        monkey.patch_all()
    elif given.get("pool") == "eventlet":
        import eventlet

        eventlet.monkey_patch()
    app = load("app").make_app(given)
    if given.get("faults"):
        load("faults").break_at(given["faults"], given)
    if given["url"] != given.get("broker", given["url"]):
        load("faults").break_connection_on_signal(app)
    arguments = ["worker", "--without-mingle", "--without-gossip", "-l", given.get("log", "INFO")]
    arguments += ["-n", f"{given['name']}@test", "-P", given["pool"]]
    arguments += ["-c", str(given["concurrency"]), *given.get("options", [])]
    app.worker_main(arguments)
