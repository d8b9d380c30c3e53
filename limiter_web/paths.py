"""Where the app is mounted, and the path of a request below that."""

from __future__ import annotations

from starlette.types import Scope

__all__ = ("path_of", "root_of")


def root_of(scope: Scope) -> str:
    """Return the path at which the app is mounted; empty at the root."""
    root: str = scope.get("root_path", "")
    return root.rstrip("/")


def path_of(scope: Scope) -> str:
    """Return the path of a request below the app."""
    root, path = root_of(scope), str(scope["path"])
    if path == root or path.startswith(f"{root}/"):
        return path[len(root) :] or "/"
    return path
