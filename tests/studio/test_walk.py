"""A walk through the studio in headless Chromium: no error in the console, no serious fault."""

from __future__ import annotations

import json
import time

import pytest

from llmstages.data import tables
from llmstages.pipeline.store import Store
from llmstages.serve.pool import LoadedModel
from llmstages.studio.app import Studio, make_app
from tests.live import live
from tests.scripted import scripted

from .browser import DESKTOP, PHONE, needs_chromium, visit

pytestmark = needs_chromium

SEARCH = ["<SEARCH_START>", "fox", "<SEARCH_END>"]
ANSWER = ["The fox lives near the river.", "<|im_end|>"]


@pytest.fixture
def page(studio, last, request):
    """A desktop browser in a studio whose model `helper` searches and answers."""
    session = scripted(last, SEARCH, ANSWER, ANSWER, ANSWER, ANSWER, context=4096)
    path = last.steps["helper"].path
    studio.pool._loaded[path] = LoadedModel(last.steps["helper"], session)
    with live(make_app(studio)) as address, visit(address, DESKTOP) as seen:
        seen.last = last
        yield seen
        assert not seen.faults
        assert not seen.serious_faults()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_every_view_opens_without_a_fault(studio, viewport, color_scheme):
    with live(make_app(studio)) as address, visit(address, viewport, color_scheme) as seen:
        views = seen.page.eval_on_selector_all(
            "nav a", "links => links.map(link => link.getAttribute('href').slice(2))"
        )
        assert len(views) == 11
        for view in views:
            seen.open(view)
            seen.page.wait_for_load_state("networkidle")
            assert not seen.serious_faults(), view
            assert not seen.scrolls_sideways(), view
        assert not seen.faults


def test_a_chat_with_a_search_in_it(page):
    page.open("chat/helper")
    page.page.fill("#message", "Where does the fox live?")
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector(".tokens .supervised")
    talk = page.page.inner_text(".talk")
    assert "calls search" in talk and "result of search" in talk
    assert "The fox lives near the river." in talk
    assert page.page.locator(".token.control").count() >= 6
    page.page.click("text=Again")
    page.page.wait_for_function("() => !document.querySelector('[aria-busy]')")
    assert page.page.locator(".turn.user").count() == 1, "asked again, not twice"
    page.page.click("text=edit")
    assert page.page.input_value("#message") == "Where does the fox live?"
    assert page.page.locator(".turn").count() == 0


def test_tokens_of_two_tokenizers(page):
    page.open("tokens")
    page.page.fill("textarea", "Größe 12")
    page.page.check("input[value=helper]")
    page.page.wait_for_function("() => document.querySelectorAll('.columns section').length == 2")
    assert "tokens for 10 bytes" in page.page.inner_text(".columns")


def test_next_token_and_another_branch(page):
    page.open("next_token/base")
    page.page.click("text=Look")
    page.page.wait_for_selector(".candidates")
    before = page.page.locator(".token").count()
    chosen = page.page.locator(".candidates button").nth(2)
    chosen.click()
    page.page.wait_for_selector("text=Branches that were left")
    assert page.page.locator("main > div > div .token").count() == before + 1
    page.page.click("text=more tokens")
    page.page.wait_for_function(f"() => document.querySelectorAll('.token').length > {before + 1}")


def test_inside_and_a_forward_pass(page):
    page.open("inside/base")
    page.page.click("main button.primary")
    page.page.wait_for_selector("canvas")
    page.page.click("button.head >> nth=1")
    page.page.wait_for_selector("figcaption:has-text('head 1')")
    page.page.click("text=Walk through a forward pass")
    page.page.click("text=Begin")
    page.page.wait_for_selector("text=step 1 of")
    page.page.keyboard.press("ArrowRight")
    page.page.wait_for_selector("text=step 2 of")
    page.page.locator("input[type=range]").focus()
    page.page.keyboard.press("End")
    page.page.wait_for_selector("text=Softmax: what comes next")
    assert page.page.locator(".candidates li").count() == 10


def test_two_models_compared(page):
    page.open("compare")
    for name in ("base", "plain"):
        page.page.check(f"input[value={name}]")
    page.page.fill("textarea", "Hi")
    page.page.click("text=Ask all")
    page.page.wait_for_function(
        "() => [...document.querySelectorAll('.columns section')]"
        ".filter(cell => cell.innerText.includes('tokens in the last turn')).length == 2"
    )


def test_a_vote_by_the_keyboard_is_stored(page, studio):
    page.open("vote")
    page.page.click("summary")
    page.page.uncheck("input[value=base]")
    page.page.fill("textarea", "Where does the fox live?")
    page.page.click("text=Two answers")
    page.page.wait_for_selector("text=A tie (0)")
    assert "helper" not in page.page.inner_text(".columns")
    page.page.locator("h1").click()
    page.page.keyboard.press("1")
    page.page.wait_for_selector("text=Your vote is stored")
    (row,) = [json.loads(line) for line in (studio.notes / "votes.jsonl").open()]
    assert {row["model_chosen"], row["model_rejected"]} == {"helper", "plain"}
    assert "1 votes" in page.page.inner_text("main")


def test_an_answer_is_traced_and_its_lineage_opened(page, last):
    rows = tables.load(last.steps["tools"].path / "data")
    texts = [turn["content"] for row in rows for turn in row["messages"]]
    said = max(texts, key=len)
    page.open("trace/helper")
    page.page.fill("textarea", f"It says: {said}")
    page.page.click("main button.primary")
    page.page.wait_for_selector("mark")
    assert "in tools" in page.page.inner_text("main")
    page.open("lineage/helper")
    page.page.wait_for_selector("svg.graph")
    page.page.locator("svg .node", has_text="lookups").click()
    page.page.wait_for_selector("h2:has-text('lookups')")
    page.page.click("text=First rows")
    assert "messages" in page.page.inner_text(".panel")


def test_a_dialogue_is_written_with_a_draft(page, studio):
    page.open("dialogues")
    page.page.locator("textarea").nth(0).fill("Where does the fox live?")
    page.page.select_option("select >> nth=0", "helper")
    page.page.click("text=Draft the answer")
    page.page.wait_for_function(
        "() => document.querySelectorAll('textarea')[1].value.includes('river')"
    )
    page.page.select_option("select >> nth=1", "5")
    page.page.click("text=Save")
    page.page.wait_for_selector("text=1 saved")
    (row,) = [json.loads(line) for line in (studio.notes / "dialogues.jsonl").open()]
    assert row["rating"] == 5 and "river" in row["messages"][1]["content"]


def test_a_running_step_is_watched_until_it_ends(last, tmp_path):
    """Progress, curve and lines move without a reload, and the focus stays where it was."""
    folder = tmp_path / "runs" / "now"
    folder.mkdir(parents=True)
    store = Store(tmp_path / "store")
    keys = {"sft": "sft-1", "rl": "rl-1"}
    facts = {"overrides": [], "started": time.time(), "keys": keys}
    (folder / "run.json").write_text(json.dumps(facts))
    log = folder / "sft.log"
    line = "2026-11-27 05:0{0}:00   sft {0}/9, 5 s left loss 2.{0}\n"
    log.write_text(line.format(1) + line.format(2))
    past = type(last)({}, str(folder), store.path)
    with (
        live(make_app(Studio(past, tmp_path / "runs"))) as address,
        visit(address, DESKTOP) as seen,
    ):
        seen.open("runs")
        with store.making("sft-1", lambda line: None):
            seen.page.wait_for_selector("progress[value='2']")
            seen.page.click("text=sft")
            seen.page.wait_for_selector(".curve")
            assert "waiting" in seen.page.inner_text("main")
            link = seen.page.locator("table a", has_text="rl")
            link.focus()
            with log.open("a") as file:
                file.write("2026-11-27 05:03:00   sft 3/9, 4 s left loss 1.5\n")
            seen.page.wait_for_selector("progress[value='3']")
            assert link.evaluate("node => node === document.activeElement")
            assert "loss 1.5" in seen.page.inner_text(".log")
            assert not seen.serious_faults()
        assert not seen.faults


def test_keys_open_views(page):
    page.open("runs")
    for key, title in (("c", "Chat"), ("l", "Lineage"), ("n", "Next token")):
        page.page.locator("h1").click()
        page.page.keyboard.press(key)
        page.page.wait_for_selector(f"h1:has-text('{title}')")
        assert page.page.inner_text("nav [aria-current=page]") == title
