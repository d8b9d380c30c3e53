"""Puts the Lua scripts into the wheel without comments, and that of the Redis store as one file.

They are 22 kB there, and would be 44. Hatchling calls `get_build_hook` at each build
(pyproject.toml, `wheel.hooks.custom`). The store's script has the same digest as in a checkout:
.ci/try_wheel.py compares them.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

STORE = "limiter_redis/protocol/lua"
COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)


def scripts(root: Path) -> dict[str, str]:
    """Return the texts by their paths in the wheel."""

    def text(file: Path) -> str:
        return COMMENT.sub("", file.read_text("utf-8"))

    texts = {
        file.relative_to(root / "adapters").as_posix(): text(file)
        for file in sorted(root.glob("adapters/*/lua/*.lua"))
    }
    parts = [f"--- {file.stem}\n{text(file)}" for file in sorted((root / STORE).glob("*.lua"))]
    return texts | {f"{STORE}/together.lua": "".join(parts)}


def get_build_hook() -> type[Any]:
    """Return the hook. Hatchling is there where it builds, and need not be where tests run."""
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface  # noqa: PLC0415  (see above)

    class ScriptsForWheel(BuildHookInterface):
        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Put the files into the wheel; an editable one has the checkout's."""
            if version == "editable":
                return
            self._made = Path(tempfile.mkdtemp())
            for number, (path, text) in enumerate(scripts(Path(self.root)).items()):
                made = self._made / f"{number}.lua"
                made.write_text(text, "utf-8")
                build_data["force_include"][str(made)] = path

        def finalize(self, version: str, build_data: dict[str, Any], artifact: str) -> None:  # noqa: ARG002  (Hatchling's)
            """Remove the files."""
            if version != "editable":
                shutil.rmtree(self._made)

    return ScriptsForWheel
