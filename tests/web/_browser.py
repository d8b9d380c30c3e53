"""A headless Chromium that is installed on this machine, and pages in it that note their errors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MISSING = (
    "the pages are looked at with Chromium, and none is installed (Debian: apt-get install "
    f"chromium). Looked for, on the PATH: {', '.join(PROGRAMS)}; or LIMITER_TEST_CHROMIUM"
)

SCREENSHOTS = Path(os.environ.get("LIMITER_TEST_SCREENSHOTS", "build/screenshots"))
"""Where the tests write what they saw."""

PATIENCE = 20_000
"""Milliseconds after which a condition that should come true is given up."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser; skips the test where there is none."""
    program = os.environ.get("LIMITER_TEST_CHROMIUM")
    program = program or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(MISSING)
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        # In containers and as root it has no sandbox; and it opens pages of these tests only.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page in a browser of its own profile.

    Attributes:
        page: playwright's page.
        errors: what scripts threw, and what the browser refused to load or run.
    """

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 800}, **options}
        self._context = browser.new_context(base_url=url, **options)
        self._context.set_default_timeout(PATIENCE)
        self.page: Page = self._context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._note)

    def _note(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def open(self, path: str) -> Page:
        """Open a page, and wait until it is live."""
        self.page.goto(path)
        self.until_live()
        return self.page

    def until_live(self) -> None:
        """Wait until the first live update has arrived, where the page has such."""
        if self.page.locator("#live").count():
            self.page.wait_for_selector("#live[data-updated]", state="attached")

    def until_updated(self) -> None:
        """Wait until the next live update has arrived."""
        self.page.evaluate("document.getElementById('live').removeAttribute('data-updated')")
        self.until_live()

    def log_in(self, token: str, by: str = "Ann") -> None:
        self.page.goto("/login")
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_label("Your name").fill(by)
        self.page.keyboard.press("Enter")
        expect(self.page.get_by_role("button", name="Log out")).to_be_visible()

    def look(self, name: str) -> None:
        """Write a screenshot, and check that it is accessible and fits its window."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
        found = Axe().run(self.page).response
        wrong = [
            (each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]
        ]
        assert not wrong, f"{name}: {wrong}"
        assert found["passes"], "axe-core looked at something"
        width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert self.page.evaluate(width) <= 0, f"{name} is wider than its window"
        assert not self.errors, self.errors

    def close(self) -> None:
        self._context.close()
