"""Leaves the comments of the Redis store's script out of the wheel: a tenth of what it has there.

Hatchling calls `get_build_hook` at each build (pyproject.toml, `wheel.hooks.custom`). The server
never gets them, so the script of the wheel is that of a checkout: .ci/try_wheel.py compares them.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

FOLDER = "limiter_redis/protocol/lua"
COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)


def get_build_hook() -> type[Any]:
    """Return the hook. Hatchling is there where it builds, and need not be where tests run."""
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface  # noqa: PLC0415  (see above)

    class ScriptWithoutComments(BuildHookInterface):
        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Put the files without comments into the wheel; an editable one has the checkout's."""
            if version == "editable":
                return
            self._made = Path(tempfile.mkdtemp())
            for file in sorted((Path(self.root) / FOLDER).glob("*.lua")):
                made = self._made / file.name
                made.write_text(COMMENT.sub("", file.read_text("utf-8")), "utf-8")
                build_data["force_include"][str(made)] = f"{FOLDER}/{file.name}"

        def finalize(self, version: str, build_data: dict[str, Any], artifact: str) -> None:  # noqa: ARG002
            """Remove the files."""
            if version != "editable":
                shutil.rmtree(self._made)

    return ScriptWithoutComments
