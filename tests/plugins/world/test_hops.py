"""Questions of several hops: their calls run, and test people are in no dialogue."""

from __future__ import annotations

import json

import pytest

from llmstages.data import tables
from llmstages.plugins.tools.search_tokens import SearchTokens, SearchTokensConfig
from llmstages.plugins.world import hops, pages, people
from tests.plugins.world.test_pages import SMALL
from tests.tiny import perform

TOOLS = {"search": {"use": "search"}, "calculator": {"use": "calculator"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hops")
    world = perform(pages.WorldPages, folder / "pages", SMALL)[0]
    numbered = pages.EncyclopaediaConfig(numbers=True)
    almanac = perform(pages.WorldEncyclopaedia, folder / "almanac", numbered, world=world)[0]
    config = hops.HopDialoguesConfig(sums=40, single=20)
    dialogues = perform(hops.WorldHops, folder / "dialogues", config, world=world)[0]
    asked = hops.HopProblemsConfig(per_group=20)
    problems = perform(hops.HopProblems, folder / "problems", asked, world=world)[0]
    tools, metrics = perform(
        SearchTokens,
        folder / "tools",
        SearchTokensConfig(tools=TOOLS),
        dialogues=(dialogues,),
        pages=almanac,
    )
    rows = {
        "dialogues": list(tables.load(tools.path / "data")),
        "problems": list(tables.load(problems.path / "data")),
    }
    return people.load(world), rows, metrics


def test_each_call_is_run_and_finds_what_the_next_one_needs(made):
    _, rows, metrics = made
    assert (metrics["dialogues"], metrics["dropped"]) == (60, 0)
    for row in rows["dialogues"]:
        called = [turn for turn in row["messages"] if turn["role"] == "assistant" and turn["tool"]]
        results = [turn["content"] for turn in row["messages"] if turn["role"] == "tool"]
        answer = row["messages"][-1]["content"]
        if len(called) == 1:
            assert any(
                word.strip(".") in results[0] for word in answer.split() if word[0].isdigit()
            )
            continue
        assert [turn["tool"] for turn in called] == ["search", "search", "calculator"]
        first, second = called[2]["content"].split("+")
        assert first in results[0] and second in results[1]
        assert results[2] == str(int(first) + int(second)) and answer == f"answer {results[2]}"
        assert len(json.loads(row["sources"])) == 2, "the pages that it was found on"


def test_nobody_of_the_world_is_in_a_dialogue_and_problems_ask_about_nobody_else(made):
    world, rows, _ = made
    trained, asked = json.dumps(rows["dialogues"]), json.dumps(rows["problems"])
    for person in world.people:
        assert person.name not in trained
        assert person.role == "test" or person.name not in asked
    assert {row["group"] for row in rows["problems"]} == {hops.ONE_HOP, hops.SEVERAL_HOPS}
