"""A headless Chromium, for tests that walk through the studio as a person does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# The walks need Debian's package `chromium`; .ci/run installs it.
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}
SERIOUS = ("serious", "critical")  # what axe calls faults that keep people out


@dataclass
class Visit:
    """A page of a browser, and what went wrong on it.

    Attributes:
        page: of playwright.
        base: the address of the studio, without the token.
        faults: console errors, uncaught exceptions, refused requests and dialogs so far.
    """

    page: Any
    base: str
    faults: list[str] = field(default_factory=list)

    def open(self, view: str) -> None:
        """Open a view by its address, such as "runs" or "lineage/sft", and wait for it."""
        self.page.evaluate("address => { location.hash = address }", f"#/{view}")
        name = view.partition("/")[0]
        self.page.wait_for_selector(f'nav a[href="#/{name}"][aria-current="page"]')

    def serious_faults(self) -> list[str]:
        """Faults of accessibility that axe calls serious or critical, as the page is now."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright")
        found = axe.Axe().run(self.page).response["violations"]
        return [
            f"{fault['id']}: {node['html'][:200]}"
            for fault in found
            if fault["impact"] in SERIOUS
            for node in fault["nodes"]
        ]

    def scrolls_sideways(self) -> bool:
        """Whether the page is wider than the window."""
        return self.page.evaluate(
            "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )


@contextmanager
def visit(address: Any, viewport: dict[str, int], color_scheme: Any = "light") -> Iterator[Visit]:
    """Open a studio in a browser of its own."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=viewport, color_scheme=color_scheme)
        made = Visit(page, address.base)
        page.on("console", lambda line: _note_console(made, line))
        page.on("pageerror", lambda error: made.faults.append(f"exception: {error}"))
        page.on("dialog", lambda dialog: _note_dialog(made, dialog))
        page.goto(address.link)
        page.wait_for_selector("nav a")
        yield made
        browser.close()


def _note_console(visit: Visit, line: Any) -> None:
    if line.type in ("error", "warning"):
        visit.faults.append(f"console: {line.text}")


def _note_dialog(visit: Visit, dialog: Any) -> None:
    visit.faults.append(f"dialog: {dialog.message}")
    dialog.dismiss()
