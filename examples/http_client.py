"""Protecting an HTTP client: at most two requests at once to each host.

Two small servers represent two hosts. While a server serves two requests, it refuses every further
request (503). A client that sends six requests to each host at once is refused. The same client
with a limit per host is not refused, and still uses both hosts at the same time.

It prints::

    without a limit: some were refused
    with a limit per host: 12 of 12 answered, at most 4 in flight
"""

import asyncio
from urllib.parse import urlsplit

from limiter_core import LIMIT_BY, ArgumentView, ConcurrencyLimit, Limiter


def host_of(call: ArgumentView) -> str:
    return urlsplit(str(call["url"])).netloc


limiter = Limiter("memory://")
per_host = ConcurrencyLimit(LIMIT_BY.fn(host_of), max_concurrent=2)


# -- the client: your code would look like this --------------------------------------------------

in_flight = most_in_flight = 0


async def get(url: str) -> int:
    """Fetch a page, and return the status."""
    global in_flight, most_in_flight
    in_flight += 1
    most_in_flight = max(most_in_flight, in_flight)
    try:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(f"GET {parts.path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
        status_line = await reader.readline()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        return int(status_line.split()[1])
    finally:
        in_flight -= 1


polite_get = limiter.limited(per_host)(get)


# -- the servers -----------------------------------------------------------------------------------


async def start_server() -> asyncio.Server:
    """Serve on a free port, two requests at a time."""
    serving = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal serving
        await reader.readuntil(b"\r\n\r\n")
        if serving >= 2:
            writer.write(b"HTTP/1.0 503 Service Unavailable\r\n\r\n")
        else:
            serving += 1
            await asyncio.sleep(0.05)
            serving -= 1
            writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello\n")
        await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


async def main() -> None:
    global most_in_flight
    async with await start_server() as one, await start_server() as two:
        ports = [server.sockets[0].getsockname()[1] for server in (one, two)]
        urls = [f"http://127.0.0.1:{port}/page/{n}" for port in ports for n in range(6)]

        statuses = await asyncio.gather(*(get(url) for url in urls))
        print("without a limit:", "some were refused" if 503 in statuses else "all went well")

        most_in_flight = 0
        statuses = await asyncio.gather(*(polite_get(url) for url in urls))
        print(f"with a limit per host: {statuses.count(200)} of {len(urls)} answered, ", end="")
        print(f"at most {most_in_flight} in flight")


asyncio.run(main())
