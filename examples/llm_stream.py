"""Streams of a language model: at most two at once, each until its last word was read.

A small server stands for the model. It streams words, and refuses the third stream at once (429).
A client that opens six streams is refused. The same client with a limit is not: a stream holds its
slot until it is read to its end, or left. The transport also fits the clients of SDKs:
`openai.AsyncOpenAI(http_client=httpx2.AsyncClient(transport=...))`.

It prints::

    without a limit: some were refused
    with a limit: 6 of 6 answered, at most 2 streams at once
    left after one word: Concurrency, slots in use: 0
"""

import asyncio

import httpx2

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
from limiter_httpx2 import AsyncLimitedTransport

limiter = Limiter("memory://")
limit = ConcurrencyLimit(LIMIT_BY.constant("model"), max_concurrent=2)


# -- the client: your code would look like this --------------------------------------------------


async def ask(client: httpx2.AsyncClient, url: str) -> str:
    """Return the words of one stream; empty if it is refused."""
    async with client.stream("GET", url) as response:
        if response.status_code == 429:
            return ""
        return " ".join([line async for line in response.aiter_lines()])


async def first_word(client: httpx2.AsyncClient, url: str) -> str:
    """Return the first word, and leave the rest."""
    async with client.stream("GET", url) as response:
        async for line in response.aiter_lines():
            return line
    return ""


# -- the server ------------------------------------------------------------------------------------

streams = most_streams = 0


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Stream a few words, unless two streams are open."""
    global streams, most_streams
    await reader.readuntil(b"\r\n\r\n")
    if streams >= 2:
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
    else:
        streams += 1
        most_streams = max(most_streams, streams)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for word in (b"Concurrency", b"is", b"not", b"parallelism"):
            writer.write(word + b"\n")
            await asyncio.sleep(0.02)
        streams -= 1
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"

    async with server, httpx2.AsyncClient() as client:
        words = await asyncio.gather(*(ask(client, url) for _ in range(6)))
        print("without a limit:", "some were refused" if "" in words else "all went well")
        while streams:
            await asyncio.sleep(0.01)

        transport = AsyncLimitedTransport(limiter, limit)
        async with httpx2.AsyncClient(transport=transport, timeout=30) as polite:
            words = await asyncio.gather(*(ask(polite, url) for _ in range(6)))
            answered = words.count("Concurrency is not parallelism")
            print(f"with a limit: {answered} of 6 answered, ", end="")
            print(f"at most {most_streams} streams at once")

            word = await first_word(polite, url)
            in_use = (await limiter.inspect("model")).in_use
            print(f"left after one word: {word}, slots in use: {in_use}")
        while streams:
            await asyncio.sleep(0.01)


asyncio.run(main())
