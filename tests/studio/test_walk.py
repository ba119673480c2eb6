"""A walk through the studio in headless Chromium: no error in the console, no serious fault."""

from __future__ import annotations

import pytest

from llmstages.studio.app import Studio, make_app
from tests.live import live

from .browser import DESKTOP, PHONE, needs_chromium, visit

pytestmark = needs_chromium


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_every_view_opens_without_a_fault(last, viewport, color_scheme):
    studio = Studio(last, last.store.parent / "runs")
    with live(make_app(studio)) as address, visit(address, viewport, color_scheme) as seen:
        views = seen.page.eval_on_selector_all(
            "nav a", "links => links.map(link => link.getAttribute('href').slice(2))"
        )
        assert "runs" in views
        for view in views:
            seen.open(view)
            assert not seen.serious_faults(), view
            assert not seen.scrolls_sideways(), view
        assert not seen.faults
