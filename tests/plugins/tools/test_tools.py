"""Tools are run: the index finds, the calculator calculates, results carry no loss."""

from __future__ import annotations

import pytest

from llmstages.data import tables
from llmstages.plugins.tools import search_tokens
from llmstages.plugins.tools.calculator import Calculator, CalculatorConfig
from llmstages.plugins.tools.search_tokens import SearchTokens, SearchTokensConfig
from llmstages.text import generate
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
    assert metrics == {"dialogues": 3, "dropped": 2, "indexed_pages": 2} and len(perform.said) == 2
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


@pytest.mark.parametrize(
    "expression, value", [("123+456", "579"), ("7/2", "3.5"), ("-3*4", "-12"), ("10 % 4", "2")]
)
def test_the_calculator_calculates(expression, value):
    assert Calculator(CalculatorConfig())(expression) == value


@pytest.mark.parametrize(
    "evil", ["__import__('os')", "9**9**9**9", "1/0", "a", "(" * 50, "1" * 100, "[1]*9", "'a'*9"]
)
def test_the_calculator_does_nothing_else(evil):
    assert Calculator(CalculatorConfig())(evil).startswith("error")


def test_a_failing_or_unknown_tool_is_a_result():
    def broken(argument):
        raise RuntimeError("no network")

    assert generate.call_tool({"search": broken}, "search", "x") == "error: no network"
    assert generate.call_tool({}, "weather", "x") == "error: there is no tool weather"


def test_queries_are_guessed_from_names():
    assert search_tokens.guess_query([message("user", "Where was Bo Li born?")]) == "Bo Li"
    assert (
        search_tokens.guess_query([message("user", "describe making crepes")])
        == "describe making crepes"
    )
