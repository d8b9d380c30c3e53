"""The in-process store: for asyncio, trio and threads, one at a time or all at once."""

from limiter_memory.store import MemoryStore, store_from_url

__all__ = ("MemoryStore", "store_from_url")
