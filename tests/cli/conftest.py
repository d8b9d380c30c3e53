"""Files for the command, and the command itself."""

import json

import pytest
from typer.testing import CliRunner

from limiter_cli.main import app


class Demo:
    """Writes inputs into a folder of its own and runs `limiter demo` on them."""

    def __init__(self, folder):
        self.folder = folder
        self.calls = folder / "calls.jsonl"
        self.limits = folder / "limits.toml"

    def log(self, *calls):
        self.calls.write_text("".join(json.dumps(call) + "\n" for call in calls))

    def declare(self, text):
        self.limits.write_text(text)

    def run(self, *options):
        return run(
            "demo", "--fast", "--calls", str(self.calls), "--limits", str(self.limits), *options
        )


def run(*arguments):
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "140"})


def call(at, function="bill", duration=1.0, priority=0, **arguments):
    return {
        "at": at,
        "function": function,
        "arguments": arguments,
        "duration": duration,
        "priority": priority,
    }


@pytest.fixture
def demo(tmp_path):
    return Demo(tmp_path)


@pytest.fixture(name="call")
def call_fixture():
    return call


@pytest.fixture(name="run")
def run_fixture():
    return run
