"""The Redis store: the same limits across processes and machines (extra `redis`)."""

from importlib import import_module

try:
    import_module("redis")
except ImportError as error:
    raise ImportError(
        'the Redis store needs redis-py: pip install "concurrency-limits[redis]"'
    ) from error

from limiter_redis.store import RedisStore, store_from_url

__all__ = ("RedisStore", "store_from_url")
