"""`limiter serve` and `limiter demo --serve` as processes: what they refuse, show, and hide."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from limiter_core.requests import Demand, Request
from limiter_redis import RedisStore
from limiter_web.server import bind
from tests._fork_server import ForkedProcess
from tests._polling import until_now as until
from tests.redis._servers import Process, server_program

from ._server import TOKEN

COMMAND = Path(__file__).parents[1] / "cli" / "workers" / "limiter.py"
SECRET = "hunter2-secret"
Start = Callable[..., Any]


@pytest.fixture
def server() -> Iterator[Process]:
    """A Redis server that asks for a password."""
    program = server_program()
    server = Process(program)
    server.admin.execute_command("ACL", "SETUSER", "ops", "on", f">{SECRET}", "~*", "&*", "+@all")
    yield server
    server.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command; each is ended with the test."""
    started: list[ForkedProcess] = []

    def start_one(*arguments: str, **environment: str) -> ForkedProcess:
        process = ForkedProcess(
            [str(COMMAND), *arguments],
            imports=("limiter_cli.main", "limiter_redis", "limiter_web.server"),
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.close()


def url_of(process: ForkedProcess) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.match(r"(http://\S+?)/ ", line)
    assert found is not None, (line, process.stderr and process.stderr.read())
    return found[1]


def test_the_page_of_a_server_and_no_secret_of_its_url(server: Process, start: Start) -> None:
    plain = RedisStore(server.url)
    plain.sync_face().acquire(Request("one", (Demand("openai", 5, name="openai"),), lease=600))
    plain.close()
    url = server.url.replace("redis://", f"redis://ops:{SECRET}@")
    process = start("serve", "--port", "0", LIMITER_URL=url, LIMITER_TOKEN=TOKEN)
    base = url_of(process)
    seen: list[str] = []

    def found() -> bool:
        answer = httpx.get(f"{base}/api/keys")
        seen.append(answer.text)
        return bool(answer.json()["total"] == 1)

    until(found, "the key is found")
    paths = ("/", "/key?key=openai", "/names", "/changes", "/metrics", "/api/openapi.json")
    seen += [httpx.get(base + path).text for path in paths]
    server.kill()

    def away() -> bool:
        seen.append(httpx.get(f"{base}/").text)
        return "cannot be reached since" in seen[-1]

    until(away, "the page says that the store is away")
    assert "openai" in seen[-1], "what was seen last stays"
    seen.append(httpx.get(f"{base}/api/keys").text)
    seen.append(httpx.get(f"{base}/metrics").text)
    assert "limiter_store_up 0.0" in seen[-1]
    seen.append(httpx.get(f"{base}/changes").text)
    failing = httpx.post(
        f"{base}/api/pause",
        json={"key": "openai"},
        headers={"authorization": f"Bearer {TOKEN}"},
        timeout=30,
    )
    assert failing.status_code == 503
    seen.append(failing.text)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    for text in (*seen, out, err):
        assert SECRET not in text
        assert TOKEN not in text
    assert "Traceback" not in err


def test_others_are_shown_nothing_by_mistake(start: Start) -> None:
    process = start("serve", "--host", "0.0.0.0", "--port", "0")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "--public" in err


def test_a_port_that_is_in_use(server: Process, start: Start) -> None:
    process = start("serve", "--port", str(server.port), "--url", server.url)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 69
    assert str(server.port) in err


def test_a_memory_store_is_of_no_use(start: Start) -> None:
    process = start("serve", "--url", "memory://")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "memory://" in err


@pytest.mark.parametrize("path", ["limits", "//evil.example", "https://limits.example/"])
def test_a_root_path_that_is_none_is_refused(start: Start, path: str) -> None:
    """All links of the page would lead elsewhere."""
    process = start("serve", "--port", "0", "--root-path", path)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert f"got {path!r}" in err


def test_the_load_of_the_demo_is_live(start: Start) -> None:
    process = start("demo", "--serve", "--port", "0")
    base = url_of(process)
    until(lambda: httpx.get(f"{base}/api/keys").json()["total"] >= 3, "the load is seen")
    with httpx.stream("GET", f"{base}/events?of=keys") as live:
        assert next(live.iter_text())
        process.send_signal(signal.SIGINT)  # while a browser is open
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "Traceback" not in err


def test_a_load_without_end_makes_no_report(start: Start) -> None:
    process = start("demo", "--serve", "--fast")
    process.communicate(timeout=20)
    assert process.returncode == 2


def test_a_response_that_is_sent_in_parts_is_not_held_back() -> None:
    """Nagle's algorithm is off for the connections of the socket that the page is served on."""

    async def accept() -> int:
        accepted: asyncio.Queue[socket.socket] = asyncio.Queue()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted.put_nowait(transport.get_extra_info("socket"))

        listener = bind("127.0.0.1", 0)
        server = await asyncio.get_running_loop().create_server(Protocol, sock=listener)
        async with server:
            with socket.create_connection(listener.getsockname()):
                connection = await accepted.get()
                return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert asyncio.run(accept())
