"""What limits of requests share, in clients (`limiter_httpx`) and in servers (`limiter_asgi`).

Import one of these; this package is their common part.
"""
