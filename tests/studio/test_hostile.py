"""Text of strangers in the page: what pages, files, models and tools say never becomes HTML."""

from __future__ import annotations

import json
import shutil

from llmstages.pipeline import history
from llmstages.serve.pool import LoadedModel
from llmstages.studio.app import Studio, make_app
from tests.live import live
from tests.scripted import scripted

from .browser import DESKTOP, needs_chromium, visit

pytestmark = needs_chromium

DO = "window.attacked=1"
# 50 ways to run a script where a text is taken for HTML, an attribute, an address or a style.
STRINGS = [
    f"<script>{DO}</script>",
    f"<img src=x onerror={DO}>",
    f"<svg onload={DO}>",
    f"<svg><script>{DO}</script></svg>",
    f"<body onload={DO}>",
    f"<iframe src='javascript:{DO}'></iframe>",
    f"<iframe srcdoc='<script>parent.{DO}</script>'></iframe>",
    f"<a href='javascript:{DO}'>x</a>",
    f"<details open ontoggle={DO}>",
    f"<video><source onerror={DO}></video>",
    f"<audio src=x onerror={DO}>",
    f"<input autofocus onfocus={DO}>",
    f"<select autofocus onfocus={DO}>",
    f"<textarea autofocus onfocus={DO}>",
    f"<marquee onstart={DO}>",
    f"<object data='javascript:{DO}'>",
    f"<embed src='javascript:{DO}'>",
    f"<form action='javascript:{DO}'><input type=submit></form>",
    f"<math><mtext></mtext><script>{DO}</script></math>",
    f"<style>@import 'javascript:{DO}'</style>",
    f"<link rel=stylesheet href='javascript:{DO}'>",
    f"<meta http-equiv=refresh content='0;url=javascript:{DO}'>",
    f"<base href='javascript:{DO}//'>",
    f"<template><script>{DO}</script></template>",
    f"<noscript><p title='</noscript><img src=x onerror={DO}>'>",
    f'"><script>{DO}</script>',
    f"'><script>{DO}</script>",
    f"</title><script>{DO}</script>",
    f"</textarea><script>{DO}</script>",
    f"</pre><script>{DO}</script>",
    f"</script><script>{DO}</script>",
    f"--><script>{DO}</script>",
    f"]]><script>{DO}</script>",
    f'" onmouseover="{DO}',
    f"' onfocus='{DO}' autofocus='",
    f"javascript:{DO}",
    f"JaVaScRiPt:{DO}",
    f"java\tscript:{DO}",
    f"data:text/html,<script>{DO}</script>",
    f"vbscript:{DO}",
    f"${{{DO}}}",
    f"{{{{{DO}}}}}",
    f"`-{DO}-`",
    f"\\u003cscript\\u003e{DO}\\u003c/script\\u003e",
    f"&lt;script&gt;{DO}&lt;/script&gt;",
    f"%3Cscript%3E{DO}%3C/script%3E",
    f"<scr<script>ipt>{DO}</scr</script>ipt>",
    f"<ScRiPt >{DO}</ScRiPt >",
    f"<img src=x:x onerror\n=\n{DO}>",
    f"<svg><animate onbegin={DO} attributeName=x dur=1s>",
    f"<x onclick={DO} id=x tabindex=1 autofocus onfocus={DO}>",
]
ALL = " ".join(STRINGS)


def hostile_run(made, folder):
    """A copy of the run in which every text that a file holds is hostile."""
    shutil.copytree(made, folder, symlinks=True)
    for link in (folder / "runs" / "tiny").iterdir():
        if link.is_symlink():
            target = folder / "store" / link.resolve().name
            link.unlink()
            link.symlink_to(target)
    for file in (folder / "store").glob("*/record.json"):
        record = json.loads(file.read_text())
        record["config"] = {text: text for text in STRINGS}
        record["metrics"] = {text: number for number, text in enumerate(STRINGS)}
        record["commit"] = ALL
        file.write_text(json.dumps(record))
    for log in (folder / "runs" / "tiny").glob("*.log"):
        log.write_text("\n".join(STRINGS))
    for number, text in enumerate(STRINGS):
        name = text.replace("/", "_").replace("\x00", "")[:60] + str(number)
        (folder / "store" / made_key(folder, "helper") / name).write_text(text)


def made_key(folder, step):
    return next((folder / "store").glob(f"{step}-*")).name


def test_there_are_fifty_strings():
    assert len(set(STRINGS)) >= 50


def test_nothing_that_a_text_says_is_run(made, tmp_path, monkeypatch):
    folder = tmp_path / "here"
    hostile_run(made, folder)
    monkeypatch.chdir(folder)
    last = history.last_run()
    studio = Studio(last, folder / "runs")
    session = scripted(
        last, ["<SEARCH_START>", ALL, "<SEARCH_END>"], [ALL, "<|im_end|>"], context=8192
    )
    session.tools = {"search": lambda argument: ALL}
    session.name = ALL
    studio.pool._loaded[last.steps["helper"].path] = LoadedModel(last.steps["helper"], session)
    with live(make_app(studio)) as address, visit(address, DESKTOP) as seen:
        page = seen.page
        seen.open("runs/helper")
        page.wait_for_selector(".log")
        seen.open("lineage/helper")
        page.wait_for_selector("svg.graph")
        for summary in page.locator("summary").all():
            summary.click()
        seen.open("chat/helper")
        page.fill("#message", ALL)
        page.keyboard.press("Enter")
        page.wait_for_selector(".tokens .supervised")
        assert STRINGS[0] in page.inner_text(".turn.result"), "it is there, as text"
        page.hover(".turn.result")
        seen.open("tokens")
        page.fill("textarea", ALL)
        page.wait_for_function("() => document.querySelectorAll('.token').length > 300")
        seen.open("dialogues")
        for area in page.locator("textarea").all():
            area.fill(ALL)
        page.click("text=Save")
        page.wait_for_selector("text=1 saved")
        for text in STRINGS:
            page.evaluate("address => { location.hash = address }", f"#/lineage/{text}")
            page.evaluate("address => { location.hash = address }", f"#/{text}")
        page.wait_for_timeout(500)
        assert page.evaluate("() => window.attacked") is None
        assert page.locator("main script, main iframe, main object, main img").count() == 0
        assert not [fault for fault in seen.faults if "dialog" in fault or "Refused" in fault]
