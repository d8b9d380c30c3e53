"""For PyInstaller, which follows imports: what it cannot see, since it is found by name.

It finds the folder of its hooks by an entry point, when it freezes a program with this package.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from limiter_core.registry import BUILT_IN

__all__ = ("WITH_DATA", "hidden_imports", "hook_dirs")

WITH_DATA = (
    "limiter_redis",
    "limiter_arq",
    "limiter_docket",
    "limiter_saq",
    "limiter_cli",
    "limiter_web",
)
"""The packages with files beside their modules: scripts for Redis, templates, samples."""

_NEEDED = {"limiter_redis": "redis"}


def hook_dirs() -> list[str]:
    """Return where the hooks are."""
    return [str(Path(__file__).parent)]


def hidden_imports() -> list[str]:
    """Return the modules of the stores that can be used here: a URL names them."""
    modules = dict.fromkeys(each.partition(":")[0] for each in BUILT_IN.values())
    return [each for each in modules if find_spec(_NEEDED.get(each, each)) is not None]
