"""Durations as people read them, in messages and logs."""

from __future__ import annotations

__all__ = ("duration_text",)


def duration_text(seconds: float) -> str:
    """Return seconds as text, to a millisecond, to a tenth or whole: `210 ms`, `1.5 s`, `75 s`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
