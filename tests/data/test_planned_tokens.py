"""Tokens of files before anything is made: as many as rendering gives later."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from llmstages.core.stage import Context
from llmstages.data import planned_tokens
from llmstages.data.readers.examples import convert_dialogues, write
from llmstages.text.render import render
from llmstages.text.templates import install
from tests.tiny import saved_model, tiny_tokenizer

TURNS = [("What is a fox?", "An animal."), ("Und was ist ein Hund?", "Auch ein Tier, sehr treu.")]


def write_chats(file: Path, count: int = 30) -> str:
    rows = [dict(zip(("prompt", "completion"), TURNS[i % 2], strict=True)) for i in range(count)]
    file.write_text(json.dumps(rows))
    return str(file)


def read(rows, ctx):
    return convert_dialogues(rows, "detect", ctx)


@pytest.mark.parametrize("template", ["chatml", "llama3"])
def test_the_average_is_that_of_rendering(template, tmp_path):
    tokenizer = copy.deepcopy(tiny_tokenizer())
    install(tokenizer, template, "")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    facts = planned_tokens.facts_of_files(write_chats(tmp_path / "chats.json"), read)
    assert facts["examples"] == 30
    counted = planned_tokens.count_tokens(facts, str(tmp_path / "tokenizer"), 1000)
    rendered = render(tokenizer, [row["messages"] for row in facts["sample"]])
    wanted = sum(len(row.ids) for row in rendered) / len(rendered)
    assert counted == (pytest.approx(wanted, rel=0.02), 1.0)


def test_a_table_gives_what_its_file_gives(tmp_path):
    folder = saved_model(tmp_path / "model").path
    facts = planned_tokens.facts_of_files(write_chats(tmp_path / "chats.json"), read)
    out = tmp_path / "made"
    out.mkdir()
    ctx = Context("dialogues", out, tmp_path, {})
    rows = [(str(number), dict(row)) for number, row in enumerate(_plain(facts["sample"]))]
    write(read(rows, ctx), ctx, "x")
    of_table = planned_tokens.count_tokens({"table": str(out / "data")}, str(folder), 1000)
    assert of_table == planned_tokens.count_tokens(facts, str(folder), 1000)


def _plain(sample):
    return [{"messages": row["messages"]} for row in sample]


def test_pairs_that_are_too_long_are_not_counted(tmp_path):
    folder = str(saved_model(tmp_path / "model").path)
    prompt = [{"role": "user", "content": "Hi", "tool": ""}]

    def pair(length: int) -> dict:
        sides = {
            side: [{"role": "assistant", "content": word * length, "tool": ""}]
            for side, word in (("chosen", "yes "), ("rejected", "no "))
        }
        return {"prompt": prompt, **sides}

    source = {"name": "pairs", "examples": 40, "sample": [pair(2), pair(2), pair(400), pair(2)]}
    pairs, tokens, because = planned_tokens.count_pairs(source, folder, 100, 0.1)
    assert pairs == 40 * 0.75 * 0.9
    assert tokens < 100
    assert because.startswith("27 pairs")


@pytest.mark.parametrize("damage", ["no tokenizer", "no template", "broken template", "no file"])
def test_what_cannot_be_counted_is_unknown_and_no_error(damage, tmp_path):
    tokenizer = copy.deepcopy(tiny_tokenizer())
    folder = tmp_path / "tokenizer"
    tokenizer.save_pretrained(folder)
    path = write_chats(tmp_path / "chats.json")
    if damage == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    if damage == "no template":
        (folder / "chat_template.jinja").unlink()
    if damage == "broken template":
        (folder / "chat_template.jinja").write_text("{% for %}")
    if damage == "no file":
        path = str(tmp_path / "nowhere.json")
    facts = planned_tokens.facts_of_files(path, read)
    assert planned_tokens.count_tokens(facts, str(folder), 1000) is None
