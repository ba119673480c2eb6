"""Tools are run: the index finds, results carry no loss."""

from __future__ import annotations

import pytest

from llmstages.data import tables
from llmstages.plugins.tools import index, search_tokens
from llmstages.plugins.tools.search_tokens import SearchTokens, SearchTokensConfig
from llmstages.text import generate, tool_runs
from llmstages.text.messages import message
from llmstages.text.render import render
from tests.tiny import perform, saved, tiny_tokenizer

TOOLS = {"search": {"use": "search"}, "calculator": {"use": "calculator"}}


def row(question, answer, tool, argument, value="", page=""):
    return {
        "messages": [message("user", question), message("assistant", answer)],
        "tool": tool,
        "argument": argument,
        "answer": value,
        "page": page,
    }


def test_calls_are_run_and_only_verified_ones_are_taught(tmp_path):
    pages = saved(
        tmp_path / "pages",
        "documents",
        [{"id": "1", "url": "u", "body": b"Bo Li was born in Ra.", "media": "text/plain"}],
    )
    rows = [
        row("Where was Bo Li born?", "Bo Li was born in Ra.", "search", "Bo Li", "Ra"),
        row(
            "Where was Al Du born?",
            "Al Du was born in Su.",
            "search",
            "Al Du",
            "Su",
            "Al Du was born in Su.",
        ),
        row("Where was Bo Li born?", "In Xu.", "search", "Bo Li", "Xu"),
        row("What is 12+30?", "answer 42", "calculator", "12+30", "42"),
        row("?", "?", "oracle", "x"),
    ]
    made, metrics = perform(
        SearchTokens,
        tmp_path / "tools",
        SearchTokensConfig(tools=TOOLS),
        dialogues=(saved(tmp_path / "rows", "dialogues", rows),),
        pages=pages,
    )
    kept = [r["messages"] for r in tables.load(made.path / "data")]
    assert (
        metrics == {"dialogues": 3, "dropped": 2, "indexed_pages": 2, "passages": 2}
        and len(perform.said) == 2
    )
    assert [m["content"] for m in kept[2]] == ["What is 12+30?", "12+30", "42", "answer 42"]
    done = render(tiny_tokenizer(), [kept[0]])[0]
    masked = tiny_tokenizer().decode(
        [t for t, on in zip(done.ids, done.supervised, strict=True) if not on]
    )
    assert "<RESULT_START> Bo Li was born in Ra.<RESULT_END>" in masked
    opened = generate.open_tools(made.path)
    assert (
        opened["search"]("Li") == "Bo Li was born in Ra."
        and opened["search"]("zzz") == "nothing found"
    )
    assert opened["search"]('" OR * NEAR( --') == "nothing found"


PAGES = (
    "\u9759\u8109\u66f2\u5f20\u662f\u4e00\u79cd\u8840\u7ba1\u75be\u75c5\u3002",
    "\u6e21\u3057\u8239\u306e\u8239\u982d\u306f\u6bce\u671d\u5ddd\u3092\u6e21\u308b\u3002",
    "\ub9c8\uc744\uc758 \uc885\ud0d1\uc740 \uc624\ub798\ub418\uc5c8\ub2e4.",
    "\u0e17\u0e32\u0e07\u0e23\u0e16\u0e44\u0e1f\u0e16\u0e39\u0e01\u0e1b\u0e34\u0e14",
    "The ferryman crosses the river. gen-itgc\u540e\u4e94",
    "Der F\u00e4hrmann setzt \u00fcber.",
    # Hindi, with vowel signs, and the letters of two of its words without them
    "\u0928\u0926\u0940 \u0915\u0947 \u0915\u093f\u0928\u093e\u0930\u0947",
    "\u0928\u0926 \u0915 \u0915\u0928",
    "DIE GROSSE STRASSE",
    "\u0643\u0650\u062a\u0627\u0628 \u062c\u062f\u064a\u062f",  # Arabic, with a vowel point
)


@pytest.mark.parametrize(
    "query, page",
    [
        ("\u8840\u7ba1\u75be\u75c5", 0),
        # A whole question, of which the page holds a part.
        ("\u9759\u8109\u66f2\u5f20\u662f\u4ec0\u4e48\uff1f", 0),
        ("\u8239\u982d", 1),
        ("\u982d", 1),
        ("\uc885\ud0d1", 2),
        ("\u0e23\u0e16\u0e44\u0e1f", 3),
        ("ferryman", 4),
        ("itgc", 4),
        ("f\u00e4hrmann", 5),
        ("fa\u0308hrmann", 5),  # in two signs
        ("FAHRMANN", 5),
        ("\u0928\u0926\u0940", 6),
        ("\u0928\u0926", 7),
        ("gro\u00dfe", 8),
        ("\u0643\u062a\u0627\u0628", 9),
        ("\u91d1\u5c5e", None),
        ("?!", None),
    ],
)
def test_search_finds_words_in_every_script(query, page, tmp_path):
    index.build(tmp_path / index.FOLDER, PAGES)
    found = index.Index(tmp_path / index.FOLDER).find(query, 1)
    assert found == ([] if page is None else [PAGES[page]])


def test_the_query_is_that_of_the_question_that_is_answered(tmp_path):
    pages = saved(
        tmp_path / "pages",
        "corpus",
        [
            {"id": "1", "url": "u", "text": "Ayla Brandt of Velmar builds clocks."},
            {"id": "2", "url": "u", "text": "Odo Keller of Velmar was born in Tarnhof."},
            {"id": "3", "url": "u", "text": PAGES[0]},
        ],
    )
    two_questions = [
        message("user", "Who is Ayla Brandt?"),
        message("assistant", "Ayla Brandt builds clocks."),
        message("user", "And where was Odo Keller born?"),
        message("assistant", "Odo Keller was born in Tarnhof."),
    ]
    calls_itself = [
        message("user", "What does Odo Keller keep?"),
        message("assistant", "{}", "registry"),
        message("tool", "bees", "registry"),
        message("assistant", "Odo Keller keeps bees."),
    ]
    called_before = [*calls_itself, *two_questions[2:]]
    chinese = [
        message("user", "\u9759\u8109\u66f2\u5f20\u662f\u4ec0\u4e48\uff1f"),
        message("assistant", "\u9759\u8109\u66f2\u5f20\u662f\u8840\u7ba1\u75be\u75c5\u3002"),
    ]
    schemas = '[{"name": "registry"}]'
    dialogues = (two_questions, calls_itself, called_before, chinese)
    rows = [{"messages": turns, "tools": schemas} for turns in dialogues]
    made, metrics = perform(
        SearchTokens,
        tmp_path / "tools",
        SearchTokensConfig(tools=TOOLS),
        dialogues=(saved(tmp_path / "rows", "dialogues", rows),),
        pages=pages,
    )
    assert metrics["dialogues"] == 4
    kept = list(tables.load(made.path / "data"))
    assert {row["tools"] for row in kept} == {schemas}
    calls = [
        [turn["content"] for turn in row["messages"] if turn["role"] == "tool"] for row in kept
    ]
    tarnhof = "Odo Keller of Velmar was born in Tarnhof."
    assert calls == [[tarnhof], ["bees"], ["bees", tarnhof], [PAGES[0]]]
    assert "1 of 4 dialogues call a tool already: kept" in perform.said[0]


def test_a_failing_or_unknown_tool_is_a_result():
    def broken(argument):
        raise RuntimeError("no network")

    assert tool_runs.call_tool({"search": broken}, "search", "x") == "error: no network"
    assert tool_runs.call_tool({}, "weather", "x") == "error: there is no tool weather"


def test_queries_are_guessed_from_names():
    assert search_tokens.guess_query([message("user", "Where was Bo Li born?")]) == "Bo Li"
    assert (
        search_tokens.guess_query([message("user", "describe making crepes")])
        == "describe making crepes"
    )
