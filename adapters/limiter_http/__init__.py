"""What the limits of HTTP clients share: `limiter_httpx`, `limiter_httpx2` and `limiter_aiohttp`.

Import one of these; this package is their common part.
"""
