"""Checks the built site: `python .ci/check_site.py [SITE]`, after `make docs`.

Each page of `docs/` is in the navigation, and each that the navigation names is there. No link,
image or anchor is dead, no cross reference was left open, and a browser loads nothing from
elsewhere. The external links are listed: nothing here asks whether they answer.
"""

from __future__ import annotations

import sys
import tomllib
from collections import defaultdict
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")}
"""What a browser fetches by itself; and the `href` of a `link` of one of these kinds."""

LOADED_KINDS = {"stylesheet", "preload", "icon", "preconnect", "dns-prefetch", "modulepreload"}


@dataclass
class Page(HTMLParser):
    """What a page links to, loads, and offers as anchors."""

    path: Path
    links: list[str] = field(default_factory=list[str])
    loaded: list[str] = field(default_factory=list[str])
    anchors: set[str] = field(default_factory=set[str])
    open_references: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        """Read the page."""
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what one element says."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "autoref":
            self.open_references.append(given.get("identifier", "?"))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and set(given.get("rel", "").split()) & LOADED_KINDS:
            self.loaded.append(given["href"])
        for element, name in LOADED:
            if tag == element and given.get(name):
                self.loaded.append(given[name])


def named_in(nav: Any) -> set[str]:
    """Return the pages that a navigation names, at any depth."""
    if isinstance(nav, str):
        return {nav}
    return {
        page for each in (nav.values() if isinstance(nav, dict) else nav) for page in named_in(each)
    }


def check_navigation(docs: Path) -> list[str]:
    """Return what the navigation and the folder do not have in common."""
    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    named = named_in(config["nav"])
    there = {str(path.relative_to(docs)) for path in docs.rglob("*.md")}
    return [
        *(f"{page} is in docs/, and not in the navigation" for page in sorted(there - named)),
        *(f"{page} is in the navigation, and not in docs/" for page in sorted(named - there)),
    ]


def target_of(link: str, page: Path, site: Path) -> Path:
    """Return the file that a link of a page leads to."""
    path = unquote(urlsplit(link).path)
    target = site / path.lstrip("/") if path.startswith("/") else page.parent / path
    target = page if not path else target
    return (target / "index.html" if target.is_dir() else target).resolve()


def check_pages(site: Path) -> tuple[list[str], dict[str, set[str]]]:
    """Return the faults of the built pages, and the external links with the pages they are on."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    faults: list[str] = []
    external: dict[str, set[str]] = defaultdict(set)
    for path, page in pages.items():
        name = str(path.relative_to(site))
        faults += [f"{name}: no target of the reference {each}" for each in page.open_references]
        for link in {*page.links, *page.loaded}:
            parts = urlsplit(link)
            if parts.scheme in {"mailto", "data", "javascript"}:
                continue
            if parts.netloc:
                external[link].add(name)
                if link in page.loaded:
                    faults.append(f"{name}: a browser loads {link}")
                continue
            target = target_of(link, path, site)
            if not target.exists():
                faults.append(f"{name}: dead link {link}")
            elif parts.fragment and target in pages:
                if unquote(parts.fragment) not in pages[target].anchors:
                    faults.append(f"{name}: no anchor {link}")
    return faults, external


def main() -> None:
    """Check, print the external links, and fail if there is a fault."""
    site = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site").resolve()
    faults, external = check_pages(site)
    faults += check_navigation(ROOT / "docs")
    print(f"{len(external)} external links, which nobody has asked:")
    for link, names in sorted(external.items()):
        print(f"  {link}  ({len(names)} pages)" if len(names) > 1 else f"  {link}  ({min(names)})")
    if faults:
        sys.exit("\n".join([f"{len(faults)} faults:", *sorted(faults)]))
    print(f"{sum(1 for _ in site.rglob('*.html'))} pages, no dead link")


main()
