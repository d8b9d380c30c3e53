"""The Redis store: the same limits across processes and machines (extra `redis`)."""

from importlib import import_module

from limiter_core import extras

with extras.required("redis", "the Redis store needs redis-py"):
    import_module("redis")

from limiter_redis.store import RedisStore, store_from_url

__all__ = ("RedisStore", "store_from_url")
