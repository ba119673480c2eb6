"""The application of the studio: its guard is before it, and all its views answer."""

from __future__ import annotations

from llmstages.studio.app import STATIC, VIEWS
from tests.studio.conftest import TOKEN


def test_the_page_is_served_without_the_token_and_the_run_only_with_it(client):
    page = client.raw.get("/")
    assert page.status_code == 200 and "<main" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert TOKEN not in page.text
    assert client.raw.get("/api/run").status_code == 401
    assert client.get("/api/run")["models"] == ["base", "helper", "plain"]


HTML_WRITERS = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")


def test_the_page_takes_nothing_from_elsewhere_and_writes_no_html():
    for path in STATIC.rglob("*.*"):
        text = path.read_text(encoding="utf-8")
        for forbidden in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ):
            assert forbidden not in text, (path.name, forbidden)
        outside = text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in outside and "https://" not in outside, path.name


def test_every_view_of_the_page_has_its_file():
    text = (STATIC / "app.js").read_text(encoding="utf-8")
    for path in (STATIC / "views").glob("*.js"):
        assert f'"./views/{path.name}"' in text, f"{path.name} is in no list"
    assert len(VIEWS) == len(set(VIEWS))


def test_starting_loads_no_torch(made):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from llmstages.pipeline import history;"
        "from llmstages.studio.app import Studio, make_app; run = history.last_run();"
        "make_app(Studio(run, Path('runs'))); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=made, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr[-500:]
