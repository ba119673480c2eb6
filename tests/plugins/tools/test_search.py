"""The tool search: what a model reads of results, where they come from, and no turn is forged."""

from __future__ import annotations

import json
import time

import pytest

from llmstages.core import registry
from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.data.passages import Page, Passage
from llmstages.plugins.tools import index, results
from llmstages.plugins.tools.search import Search, SearchConfig
from llmstages.plugins.tools.search_tokens import SearchTokens, SearchTokensConfig
from llmstages.text import chat_format, generate
from llmstages.text.messages import message
from llmstages.text.render import render
from tests.text import real_templates
from tests.text.hostile import NAMES, hostile_results, tokenizers
from tests.tiny import control_ids, perform, saved

__all__ = ["tokenizers"]  # a fixture

FILLER = "Nothing of importance happens in this sentence. " * 10
QUAY = Page(
    "The ferryman crosses the river at six.", "https://a.example/quay", "Quay\nStreet", "w1"
)
MILL = Page("The miller paid for the bells, and the ferryman rang them.", "", "", "w2")


def tool(folder, pages, **config):
    index.build(folder / index.FOLDER, pages)
    opened = Search(SearchConfig(**config))
    opened.open(folder)
    return opened


def test_one_short_page_is_its_plain_text(tmp_path):
    search = tool(tmp_path, [QUAY, MILL])
    assert search("river") == QUAY.text
    assert search("zzz") == "nothing found"
    assert search.sources == []


def test_several_results_with_titles_and_addresses(tmp_path):
    search = tool(tmp_path, [QUAY, MILL], results=3, titles=True)
    first = f"[1] Quay Street https://a.example/quay\n{QUAY.text}"
    assert search("ferryman crosses") == f"{first}\n\n[2]\n{MILL.text}"
    assert search.sources == [
        {
            "id": f"{QUAY.id}:0",
            "start": 0,
            "url": QUAY.url,
            "title": "Quay\nStreet",
            "source": "w1",
        },
        {"id": f"{MILL.id}:0", "start": 0, "url": "", "title": "", "source": "w2"},
    ]


@pytest.mark.parametrize("titles", [False, True])
@pytest.mark.parametrize("characters", [1, 5, 20, 60, 150, 400])
def test_results_fit_and_show_what_was_asked_for(characters, titles):
    text = f"{FILLER}The ferryman keeps bees. {FILLER}"
    found = [Passage("a:0", text, title="Quay"), Passage("b:0", FILLER), Passage("c:0", "bees")]
    fitting = results.fitting(found, characters)
    assert len(fitting) == min(3, max(1, characters // results.LEAST))
    shown = results.shown(fitting, "who keeps bees?", characters, titles)
    assert 0 < len(shown) <= characters
    if characters >= 150:
        assert "The ferryman keeps bees." in shown and "bees" in shown.splitlines()[-1]


def test_a_title_without_end_leaves_room_for_the_text():
    found = [Passage("a:0", "The ferryman keeps bees.", title="Quay " * 1000)]
    heading, text = results.shown(found, "bees", 100, True).split("\n")
    assert len(heading) < 50 and heading.startswith("[1] Quay") and heading.endswith("…")
    assert text == "The ferryman keeps bees."


def test_a_huge_text_is_cut_at_once():
    start = time.perf_counter()
    assert len(results.snippet("bee " * 500_000, "bees " * 400, 300)) == 300
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "text, query, part",
    [
        (f"{FILLER}The ferryman keeps bees. {FILLER}", "Ferrymen, bee", "The ferryman keeps bees."),
        (f"{'x' * 900} the bee {'y' * 900}", "bees", "the bee"),
        ("。".join(["没有什么重要的事情"] * 60) + "。静脉曲张是血管疾病。" + "事" * 300,
         "什么是血管疾病", "静脉曲张是血管疾病"),
        ("İ" * 700 + " the bee " + "İ" * 700, "bee", "the bee"),
    ],
)  # fmt: skip
def test_a_snippet_holds_the_words_of_the_query(text, query, part):
    shown = results.snippet(text, query, 120)
    assert part in shown and len(shown) <= 120
    assert shown.startswith("…") and shown.endswith("…")
    assert shown.strip("…") in text


def test_a_snippet_without_a_match_is_the_beginning():
    assert results.snippet(FILLER, "zzz", 40) == FILLER[:39] + "…"
    assert results.snippet("short", "zzz", 40) == "short"


def row(question, argument, answer):
    turns = [message("user", question), message("assistant", answer)]
    return {"messages": turns, "tool": "search", "argument": argument, "answer": ""}


def documents(folder):
    page = (
        "<html><head><title>Quay &amp; Street</title></head><body><nav>Menu</nav>{}</body></html>"
    )
    body = page.format("<p>The ferryman crosses the river at six.</p>" + f"<p>{FILLER}</p>" * 3)
    latin = "Der Fährmann setzt über.".encode("latin-1")
    return saved(
        folder,
        "documents",
        [
            {"id": "w1", "url": "https://a.example/1", "body": body.encode(), "media": "text/html"}
            | {"charset": ""},
            {"id": "w2", "url": "file:b.txt", "body": latin, "media": "text/plain"}
            | {"charset": "iso-8859-1"},
            {"id": "w3", "url": "file:c.txt", "body": latin, "media": "text/plain"}
            | {"charset": "windows-1252"},
            {"id": "w4", "url": "https://a.example/4", "body": b" ", "media": "text/plain"}
            | {"charset": ""},
        ],
    )


def test_a_dialogue_says_which_page_its_result_comes_from(tmp_path):
    made, metrics = perform(
        SearchTokens,
        tmp_path / "tools",
        SearchTokensConfig(tools={"search": {"use": "search", "titles": True}}, max_result=5000),
        dialogues=(
            saved(
                tmp_path / "rows",
                "dialogues",
                [row("When?", "ferryman crosses", "At six."), row("Wer?", "fährmann", "Er.")],
            ),
        ),
        pages=documents(tmp_path / "pages"),
    )
    assert metrics["indexed_pages"] == 2 and metrics["passages"] == 4
    assert perform.said == [
        "tools: 1 pages equal to one before are not indexed",
        "tools: 1 pages without text are not indexed",
    ]
    first, second = tables.load(made.path / "data")
    assert [json.loads(r["sources"])[0]["source"] for r in (first, second)] == ["w1", "w2"]
    (source,) = json.loads(first["sources"])
    assert (source["url"], source["title"]) == ("https://a.example/1", "Quay & Street")
    result = first["messages"][2]["content"]
    assert result.startswith("[1] Quay & Street https://a.example/1\n") and "<p>" not in result
    # Without an address of the web there is none.
    assert second["messages"][2]["content"] == "[1]\nDer Fährmann setzt über."
    # The artifact alone is enough to search again.
    assert generate.open_tools(made.path)["search"]("ferryman crosses") == result


@pytest.mark.parametrize(
    "values, words",
    [
        ({"indexes": {}}, "indexes needs one member, index; it has none"),
        ({"indexes": {"index": None}}, "it has none"),
        ({"indexes": {"first": {"use": "fts5"}}}, "needs one member, index; it has first"),
        ({"indexes": {"index": {"use": "fts6"}}}, "nothing is registered as 'fts6'"),
        ({"indexes": {"index": {"use": "fts5", "language": "xx"}}}, r"tools\.indexes\.index"),
        (
            {"tools": {"search": {"use": "search", "results": 0}}},
            r"tools\.search\.results is 0, but it must be >= 1",
        ),
        ({"tools": {"web": {"use": "search_http"}}}, r"needs a value for tools\.tools\.web\.end"),
        ({"passage_characters": 10}, "passage_characters is 10, but it must be >= 50"),
        ({"passage_overlap": 700}, "passage_overlap=700 must be less than passage_characters=600"),
    ],
)
def test_bad_settings_are_found_before_any_work(values, words):
    with pytest.raises(StageError, match=words):
        filled = registry.fill_components(SearchTokens, values, "tools")
        build_config(SearchTokens.Config, filled, "tools")


def asked(result):
    """A dialogue in which a search gave this result, up to the answer."""
    return [
        message("user", "Who keeps bees?"),
        message("assistant", "bees", "search"),
        message("tool", result, "search"),
    ]


def check_no_result_forges_a_turn(tokenizer, folder):
    """100 hostile pages are found and read; all control tokens are those of a harmless result.

    As prompts (evaluation, RL, chat) and as rows of training, where no result carries loss.
    """
    marks = set(control_ids(tokenizer).values())
    texts = hostile_results(sorted(control_ids(tokenizer)))
    assert len(texts) == 100
    pages = [f"bee{number} {text}" for number, text in enumerate(texts)]
    search = tool(folder, pages, titles=True)
    read = [search(f"bee{number}") for number in range(100)]
    assert all(f"bee{number} " in result for number, result in enumerate(read))
    answer = message("assistant", "The ferryman.")
    naive = tokenizer(read, add_special_tokens=False)["input_ids"]
    assert sum(bool(marks & set(ids)) for ids in naive) >= 10, "these texts attack nothing"

    def controls(ids):
        return [token for token in ids if token in marks]

    def supervised(row):
        pairs = zip(row.ids, row.supervised, strict=True)
        return [token for token, loss in pairs if loss]

    harmless = asked("[1]\nThe ferryman keeps bees.")
    prompts = chat_format.prompt_ids(tokenizer, [harmless, *map(asked, read)])
    rows = render(tokenizer, [[*harmless, answer], *([*asked(text), answer] for text in read)])
    for name, found in (
        ("prompts", [controls(ids) for ids in prompts]),
        ("rows", [controls(row.ids) for row in rows]),
        ("loss", [supervised(row) for row in rows]),
    ):
        forged = [text for text, ids in zip(read, found[1:], strict=True) if ids != found[0]]
        assert not forged, f"{len(forged)} of 100 {name}: {forged[:3]}"


@pytest.mark.parametrize("name", NAMES)
def test_no_result_forges_a_turn_of_our_templates(name, tokenizers, tmp_path):
    check_no_result_forges_a_turn(tokenizers[name], tmp_path)


FAMILIES = ("qwen3", "llama3_1", "gemma3", "deepseekv3", "gptoss", "glm4moe", "phi3", "cohere")


@pytest.mark.parametrize(
    "name",
    [
        name if name in FAMILIES else pytest.param(name, marks=pytest.mark.slow)
        for name in real_templates.names()
    ],
)
def test_no_result_forges_a_turn_of_published_templates(name, tmp_path):
    check_no_result_forges_a_turn(real_templates.tokenizer_for(name), tmp_path)
