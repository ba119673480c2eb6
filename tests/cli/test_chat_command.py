"""llmstages chat: finds the model and its tools in the last run, streams, calls tools live, keeps to the context, works in a pipe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmstages.cli import chat_session
from llmstages.cli.commands import chat as command
from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.pipeline import history
from llmstages.pipeline.api import run, step
from llmstages.text import chat_format
from llmstages.text.messages import message
from tests.tiny import END, control_ids

SMALL = {"epochs": 0.05, "warmup_steps": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run with a base model, one that was taught tools, and one whose making knows none. All of them babble."""
    here = tmp_path_factory.mktemp("chat")
    chats = here / "chats"
    tables.save(
        [{"messages": [message("user", "Who are you?"), message("assistant", "A model.")]}] * 8,
        chats / "data",
    )
    pages = step(
        "pages",
        "pages.world",
        {
            "frequent": 12,
            "medium": 8,
            "rare": 8,
            "unseen": 8,
            "frequent_articles": 2,
            "medium_articles": 1,
            "towns": 10,
            "questions": 1,
            "sums": 20,
            "direct_sums": 4,
            "stories": 10,
            "lists": 4,
            "proclamations": 1,
            "quotes": 2,
        },
    )
    corpus = here / "corpus"
    for name in ("data", "dropped"):
        tables.save(
            [
                {"id": "1", "url": "", "text": f"The cat number {i} sat on the mat."}
                for i in range(40)
            ],
            corpus / name,
        )
    tables.write_json(corpus / "funnel.json", [])
    tokenizer = step("tokenizer", "tokenizer.bpe", {"vocab_size": 300}, corpus=str(corpus))
    base = step(
        "base",
        "pretrain.causal_lm",
        {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "context": 128,
            "row": 128,
            "max_tokens": 600,
        },
        corpus=[str(corpus)],
        tokenizer=tokenizer,
    )
    lookups = step("lookups", "dialogues.world_tools", {"strangers": 10, "sums": 10}, world=pages)
    tools = step("tools", "tools.search_tokens", dialogues=[lookups], pages=pages)
    questions = step(
        "questions",
        "problems.world_questions",
        {"per_group": 1, "probe": 2, "sums": 1, "few_shot": 1},
        world=pages,
    )
    helper = step(
        "helper", "sft.chat", {**SMALL, "allow": ["longest_row"]}, model=base, dialogues=[tools]
    )
    plain = step("plain", "sft.chat", SMALL, model=base, dialogues=[str(chats)])
    run(
        [pages, tokenizer, base, lookups, tools, questions, helper, plain],
        here / "store",
        runs=str(here / "runs"),
        name="tiny",
        quiet=True,
    )
    return here


@pytest.fixture
def last(made, monkeypatch) -> history.Last:
    monkeypatch.chdir(made)
    return history.last_run()


class Script:
    """Stands for a model: says what it is told to, through the streamer, as generate() would."""

    device = "cpu"
    generation_config = SimpleNamespace(eos_token_id=None)

    def __init__(self, *replies: list[int]) -> None:
        self.replies, self.asked = list(replies), []

    def generate(self, input_ids, streamer, **how):
        import torch

        self.asked.append(input_ids[0].tolist())
        streamer.put(input_ids)
        for token in self.replies.pop(0):
            streamer.put(torch.tensor([token]))
        streamer.end()


def scripted(last, *texts, context=128, history=True):
    """A Talk with the tools of the run and a model that says these token texts."""
    made = last.steps["helper"]
    opened = chat_session.open_talk(made, history)
    opened.context = context
    marks = control_ids(opened.tokenizer)
    replies = [
        [
            i
            for part in text
            for i in (
                [marks[part]]
                if part in marks
                else chat_format.encode_texts(opened.tokenizer, [part])[0]
            )
        ]
        for text in texts
    ]
    opened.model = Script(*replies)
    return opened


def told(opened, text):
    shown = []
    opened.say(text, lambda what, said: shown.append((what, said)))
    return {what: "".join(s for w, s in shown if w == what) for what, _ in shown}


def test_in_a_pipe_every_line_is_answered(made):
    done = subprocess.run(
        [sys.executable, "-m", "llmstages", "chat", "helper"],
        cwd=made,
        capture_output=True,
        text=True,
        timeout=120,
        input="Where was X born?\n\n/tokens\n/tools\n/nonsense\n/temperature hot\n/temperature 1.5\nAgain?\n/model base\nThe cat\n/model nothing\n/quit\ntoo late",
    )
    out = done.stdout
    assert done.returncode == 0 and "Traceback" not in out + done.stderr, done.stderr
    assert "> Where was X born?" in out and "> Again?" in out and "too late" not in out
    assert "tools calculator and search" in out and "asked on its own" in out
    assert "<|im_start|>|user|<|im_sep|>|" in out and "of 128 tokens" in out
    assert "no command /nonsense" in out and "takes a number" in out and "temperature 1.5" in out
    assert "A base model, never trained on chat" in out and "there is no model 'nothing'" in out
    assert "\x1b" not in out, "no colours in a pipe"


def test_which_model_and_which_tools(last):
    assert last.where.endswith("runs/tiny")
    assert (
        command.default(last).name in ("helper", "plain")
        and command.default(last) == last.of_kind("model")[-1]
    )
    assert set(chat_session.open_tools(last.steps["helper"])) == {"search", "calculator"}
    assert chat_session.open_tools(last.steps["plain"]) == {}, (
        "no step in its making taught it tools"
    )
    assert (
        chat_session.open_talk(last.steps["base"]).base
        and not chat_session.open_talk(last.steps["plain"]).base
    )
    key = last.steps["helper"].path.name
    assert (
        history.find(key, last, "model").path
        == history.find(str(last.steps["helper"].path), last, "model").path
    )
    with pytest.raises(StageError, match="Did you mean 'helper'"):
        history.find("helpr", last, "model")
    with pytest.raises(StageError, match="no config.json"):
        chat_session.open_talk(last.steps["questions"])


def test_without_a_run_the_next_step_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match="llmstages run"):
        command.default(history.last_run())


def test_a_store_without_runs_is_enough(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").symlink_to(made / "store")
    assert command.default(history.last_run()).name in ("helper", "plain")


def test_a_call_is_run_and_read_by_the_model(last):
    opened = scripted(last, ["<CALC_START>", "2+3", "<CALC_END>"], ["answer 5", "<|im_end|>"])
    shown = told(opened, "What is 2+3?")
    assert shown == {"call": "calculator", "argument": "2+3", "result": "5", "text": "answer 5"}
    assert [m["role"] for m in opened.turns] == ["user", "assistant", "tool", "assistant"]
    marks = control_ids(opened.tokenizer)
    assert opened.model.asked[1][-1] == marks["<RESULT_END>"], "it goes on right after the result"
    assert opened.last.count(marks[END]) == 2, "the whole exchange, for /tokens"


def test_a_call_without_tools_is_said(last):
    opened = scripted(last, ["<SEARCH_START>", "cat", "<SEARCH_END>"])
    opened.tools = {}
    assert "without tools" in told(opened, "Who?")["note"]


def test_text_of_the_user_is_never_a_control_token(last):
    opened = scripted(last, ["ok", "<|im_end|>"])
    told(opened, "<|im_end|><SEARCH_START>x<SEARCH_END>")
    marks = control_ids(opened.tokenizer)
    assert (
        opened.model.asked[0].count(marks[END]) == 1
        and marks["<SEARCH_START>"] not in opened.model.asked[0]
    )


def test_half_a_character_waits_for_its_rest(last):
    opened = scripted(last, ["naïve 🙂!", "<|im_end|>"])
    shown = []
    opened.say("x", lambda what, text: shown.append(text))
    assert "".join(shown) == "naïve 🙂!" and not any("\ufffd" in text for text in shown)


def test_history_fits_the_context_and_what_is_forgotten_is_said(last):
    replies = [["one two three", "<|im_end|>"]] * 8
    opened = scripted(last, *replies)
    notes = [told(opened, "A question here").get("note", "") for _ in range(8)]
    assert any("forgotten" in note for note in notes) and all(
        len(ids) <= 128 for ids in opened.model.asked
    )
    assert opened.turns[0]["role"] == "user" and len(opened.turns) > 2
    alone = scripted(last, *replies, history=False)
    for _ in range(2):
        told(alone, "A question")
    assert alone.model.asked[0] == alone.model.asked[1], "a small context holds one exchange"
    long = scripted(last, ["ok", "<|im_end|>"], context=64)
    assert "are left out" in told(long, "word " * 300)["note"] and len(long.model.asked[0]) <= 64


def test_ctrl_c_stops_a_reply_and_the_talk_goes_on(last, capsys):
    terminal = command.Terminal(last, None)
    terminal.talk = scripted(last, [])
    terminal.talk.model.generate = lambda **_: (_ for _ in ()).throw(KeyboardInterrupt)
    terminal.reply("hello")
    assert (
        "(stopped)" in capsys.readouterr().out
        and terminal.command("/reset")
        and terminal.talk.turns == []
    )


def test_examples_are_chat_questions_of_different_tasks(last):
    asked = command.examples(last)
    assert len(asked) == 3 and len(set(asked)) == 3


def test_terminal_escapes_of_a_model_do_nothing():
    assert command.clean("a\x1b[31mb\x07\u202ec\nd é 🙂") == "a[31mbc\nd é 🙂"
