"""HTTP clients with a limit for each key; what is inside of the limit is noted as a body."""

from __future__ import annotations

import asyncio
import gc
import importlib
import random
from contextlib import closing
from typing import Any, Self

from limiter_core import Limiter, LimiterError, LimitReached, SyncLimiter
from limiter_core.registry import open_store
from tests.faults.workers.body_notes import LIMITS, Body, Notes, any_key, limit_of

ENDS = ("all", "all", "all", "half", "read timeout", "cancel", "pool timeout", "drop")


def caller(client: str, url: str, notes: Notes) -> Any:
    if client == "aiohttp":
        return AiohttpCaller(url, notes)
    return HttpxCaller(client, url, notes)


def target(port: int, end: str) -> str:
    pause = 0.5 if end == "read timeout" else 0.003
    whole = "&whole" if random.random() < 0.3 else ""
    chunks = random.randint(1, 4)
    return f"http://127.0.0.1:{port}/plain?chunks={chunks}&pause={pause}{whole}"


class HttpxCaller:
    """Sends requests by httpx, or httpx2."""

    def __init__(self, client: str, url: str, notes: Notes) -> None:
        module: Any = importlib.import_module(client)
        adapter: Any = importlib.import_module(f"limiter_{client}")
        self._module = module
        self._store = open_store(url)
        self._limiter, self._limiter_of_threads = Limiter(self._store), SyncLimiter(self._store)
        self._clients: dict[str, Any] = {}
        self._clients_of_threads: dict[str, Any] = {}

        class NotedStream(module.AsyncByteStream, module.SyncByteStream):
            def __init__(self, stream: Any, body: Body) -> None:
                self.stream = stream
                self.body = body

            def __aiter__(self) -> Any:
                return aiter(self.stream)

            def __iter__(self) -> Any:
                return iter(self.stream)

            async def aclose(self) -> None:
                try:
                    await self.stream.aclose()
                finally:
                    self.body.end()

            def close(self) -> None:
                try:
                    self.stream.close()
                finally:
                    self.body.end()

        class NotedTransport(module.AsyncHTTPTransport):
            async def handle_async_request(self, request: Any) -> Any:
                body = notes.begin(request.headers["key"])
                try:
                    response = await super().handle_async_request(request)
                except BaseException:
                    body.end()
                    raise
                response.extensions["body"] = body
                response.stream = NotedStream(response.stream, body)
                return response

        class NotedThreadTransport(module.HTTPTransport):
            def handle_request(self, request: Any) -> Any:
                body = notes.begin(request.headers["key"])
                try:
                    response = super().handle_request(request)
                except BaseException:
                    body.end()
                    raise
                response.extensions["body"] = body
                response.stream = NotedStream(response.stream, body)
                return response

        for key in LIMITS:
            limited = adapter.AsyncLimitedTransport(
                self._limiter, limit_of(key), NotedTransport(verify=False)
            )
            headers = {"key": key}
            self._clients[key] = module.AsyncClient(transport=limited, headers=headers)
            of_threads = adapter.LimitedTransport(
                self._limiter_of_threads, limit_of(key), NotedThreadTransport(verify=False)
            )
            self._clients_of_threads[key] = module.Client(transport=of_threads, headers=headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # What was dropped while another thread collected is there still: that call did nothing.
        gc.collect()
        for client in self._clients.values():
            await client.aclose()
        for client in self._clients_of_threads.values():
            client.close()
        self._limiter_of_threads.close()  # waits until what was collected is released
        await self._limiter.aclose()
        await self._store.async_face().aclose()
        self._store.sync_face().close()

    def _timeout(self, end: str) -> Any:
        if end == "read timeout":
            return self._module.Timeout(None, read=0.02)
        if end == "pool timeout":
            return self._module.Timeout(None, pool=0.005)
        return None

    async def request(self, port: int) -> str:
        end = random.choice(ENDS)
        client = self._clients[any_key()]
        request = client.build_request("GET", target(port, end), timeout=self._timeout(end))
        try:
            if end == "cancel":
                async with asyncio.timeout(random.random() * 0.1):
                    await client.send(request)
                return "read"
            response = await client.send(request, stream=True)
            if end == "drop":
                del response
                gc.collect()  # httpx has it in a cycle; a process that only waits collects none
                return "dropped"
            try:
                async for _ in response.aiter_raw():
                    if end == "half":
                        break
            finally:
                await response.aclose()
        except LimitReached:
            return "refused"
        except TimeoutError:
            return "cancelled"
        except self._module.ConnectError:
            return "no connection"
        except self._module.ReadTimeout:
            return "read timeout"
        except (LimiterError, self._module.TransportError):
            return "broken"
        return "half read" if end == "half" else "read"

    def request_in_thread(self, port: int) -> str:
        end = random.choice([each for each in ENDS if each != "cancel"])
        client = self._clients_of_threads[any_key()]
        request = client.build_request("GET", target(port, end), timeout=self._timeout(end))
        try:
            response = client.send(request, stream=True)
            if end == "drop":
                # Nobody closes it, and its connection stays with the pool, as without a limit.
                response.extensions["body"].end()
                del response
                gc.collect()  # httpx has it in a cycle; a process that only waits collects none
                return "dropped"
            with closing(response):
                for _ in response.iter_raw():
                    if end == "half":
                        break
        except LimitReached:
            return "refused"
        except self._module.ConnectError:
            return "no connection"
        except self._module.ReadTimeout:
            return "read timeout"
        except (LimiterError, self._module.TransportError):
            return "broken"
        return "half read" if end == "half" else "read"


class AiohttpCaller:
    """Sends requests by aiohttp."""

    def __init__(self, url: str, notes: Notes) -> None:
        self._aiohttp: Any = importlib.import_module("aiohttp")
        self._adapter: Any = importlib.import_module("limiter_aiohttp")
        self._limiter = Limiter(open_store(url))
        self._notes = notes
        self._sessions: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        for key in LIMITS:
            limit = self._adapter.LimitMiddleware(self._limiter, limit_of(key))
            self._sessions[key] = self._aiohttp.ClientSession(
                middlewares=[limit, self._noted], headers={"key": key}
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in self._sessions.values():
            await session.close()
        await self._limiter.aclose()

    async def _noted(self, request: Any, handler: Any) -> Any:
        body = self._notes.begin(request.headers["key"])
        try:
            response = await handler(request)
        except BaseException:
            body.end()
            raise
        if response.connection is None:  # its whole body has come
            body.end()
        else:
            response.connection.add_callback(body.end)
        return response

    async def request(self, port: int) -> str:
        end = random.choice(ENDS)
        session = self._sessions[any_key()]
        timeout = self._aiohttp.ClientTimeout(
            total=0.05 if end == "pool timeout" else None,
            sock_read=0.02 if end == "read timeout" else None,
        )
        try:
            async with asyncio.timeout(random.random() * 0.1 if end == "cancel" else None) as own:
                async with session.get(target(port, end), timeout=timeout) as response:
                    if end == "half":
                        await response.content.readany()
                        response.close()
                        return "half read"
                    await response.read()
        except TimeoutError as error:
            if own.expired():
                return "cancelled"
            if isinstance(error, self._aiohttp.SocketTimeoutError):
                return "read timeout"
            return "refused" if isinstance(error, LimitReached) else "timeout"
        except self._aiohttp.ClientConnectorError:
            return "no connection"
        except (LimiterError, self._aiohttp.ClientError, OSError):
            return "broken"
        return "read"
