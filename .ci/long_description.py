"""Makes the long description of the README: PyPI shows it, and knows no file of the repository.

Hatchling calls `get_metadata_hook` at each build (pyproject.toml, `metadata.hooks.custom`). What a
link or a picture names is taken from the repository, at the tag of the release.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?![a-z]+:|#)(?P<path>[^)\s]+)\)")
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def with_absolute_links(text: str, source: str, version: str) -> str:
    """Return a page whose links lead into the repository at `source`, but for those in code."""

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link["picture"] else "blob"
        return f"{link['picture']}[{link['text']}]({source}/{kind}/v{version}/{link['path']})"

    parts = FENCED.split(text)
    parts[::2] = [LINK.sub(absolute, part) for part in parts[::2]]
    return "".join(parts)


def get_metadata_hook() -> type[Any]:
    """Return the hook. Hatchling is there where it builds, and need not be where tests run."""
    from hatchling.metadata.plugin.interface import MetadataHookInterface  # noqa: PLC0415  (see above)

    class LongDescription(MetadataHookInterface):
        def update(self, metadata: dict[str, Any]) -> None:
            """Set the long description."""
            text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
            metadata["readme"] = {
                "content-type": "text/markdown",
                "text": with_absolute_links(text, metadata["urls"]["Source"], metadata["version"]),
            }

    return LongDescription
