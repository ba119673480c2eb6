"""``llmstages chat``: the model and tools of the last run, streaming, live tool calls, a pipe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmstages.cli import chat_session
from llmstages.cli.commands import chat as command
from llmstages.cli.transcript import Transcript
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
    """A run with a base model, a chat model with tools, and one without. All of them babble."""
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
    texts = [f"The cat number {number} sat on the mat." for number in range(40)]
    for name in ("data", "dropped"):
        tables.save([{"id": "1", "url": "", "text": text} for text in texts], corpus / name)
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
            "max_position_embeddings": 128,
            "max_length": 128,
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
        "helper",
        "sft.chat",
        {**SMALL, "allow_failed_checks": ["row_length"]},
        model=base,
        dialogues=[tools],
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
def last(made, monkeypatch) -> history.PastRun:
    monkeypatch.chdir(made)
    return history.last_run()


class Script:
    """Stands for a model: it gives its replies through the streamer, as generate() would."""

    device = "cpu"
    generation_config = SimpleNamespace(eos_token_id=None)

    def __init__(self, *replies: list[int]) -> None:
        self.replies = list(replies)
        self.prompts: list[list[int]] = []

    def generate(self, input_ids, streamer, **settings):
        import torch

        self.prompts.append(input_ids[0].tolist())
        streamer.put(input_ids)
        for token in self.replies.pop(0):
            streamer.put(torch.tensor([token]))
        streamer.end()


def scripted(last, *replies, context=128, history=True):
    """A session with the tools of the run and a model that gives these replies.

    A reply is a list of texts, where the text of a control token stands for the token.
    """
    session = chat_session.open_session(last.steps["helper"], history)
    session.context = context
    marks = control_ids(session.tokenizer)
    scripts = []
    for texts in replies:
        ids = []
        for text in texts:
            if text in marks:
                ids.append(marks[text])
            else:
                ids += chat_format.encode_texts(session.tokenizer, [text])[0]
        scripts.append(ids)
    session.model = Script(*scripts)
    return session


def ask(session, text):
    """What is shown of the reply: kind -> text."""
    shown: dict[str, str] = {}

    def show(what, part):
        shown[what] = shown.get(what, "") + part

    session.reply(text, show)
    return shown


PIPE = """Where was X born?

/tokens
/tools
/nonsense
/temperature hot
/temperature 1.5
Again?
/model base
The cat
/model nothing
/quit
too late"""


def test_in_a_pipe_every_line_is_answered(made):
    done = subprocess.run(
        [sys.executable, "-m", "llmstages", "chat", "helper"],
        cwd=made,
        capture_output=True,
        text=True,
        timeout=120,
        input=PIPE,
    )
    out = done.stdout
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in out + done.stderr
    for text in (
        "> Where was X born?",
        "> Again?",
        "tools calculator and search",
        "asked on its own",
        "<|im_start|>|user|<|im_sep|>|",
        "of 128 tokens",
        "no command /nonsense",
        "takes a number",
        "temperature 1.5",
        "A base model, never trained on chat",
        "there is no model 'nothing'",
    ):
        assert text in out
    assert "too late" not in out
    assert "\x1b" not in out, "no colors in a pipe"


def test_which_model_and_which_tools(last):
    assert last.where.endswith("runs/tiny")
    assert command.default_model(last) == last.of_kind("model")[-1]
    assert command.default_model(last).name in ("helper", "plain")
    assert set(chat_session.open_tools(last.steps["helper"])) == {"search", "calculator"}
    assert chat_session.open_tools(last.steps["plain"]) == {}, "nothing in its lineage has tools"
    helper = last.steps["helper"].path
    assert history.find(helper.name, last, "model").path == helper
    assert history.find(str(helper), last, "model").path == helper
    with pytest.raises(StageError, match="Did you mean 'helper'"):
        history.find("helpr", last, "model")
    with pytest.raises(StageError, match="no config.json"):
        chat_session.open_session(last.steps["questions"])


def test_a_base_model_is_known_by_its_training(last, tmp_path):
    """All three tokenizers have the chat template."""
    base, plain = last.steps["base"], last.steps["plain"]
    assert chat_session.is_base_model(base)
    assert chat_session.open_session(base).is_base
    assert not chat_session.is_base_model(last.steps["helper"])
    assert not chat_session.is_base_model(plain)
    assert not chat_session.open_session(plain).is_base
    # A model from elsewhere left no record and no checks: its chat template decides.
    foreign = tmp_path / "foreign"
    shutil.copytree(base.path, foreign, ignore=shutil.ignore_patterns("*.json*", "*.jsonl"))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base.path / name, foreign)
    assert not chat_session.is_base_model(history.read_artifact(foreign))
    for file in foreign.glob("chat_template*"):
        file.unlink()
    settings = json.loads((foreign / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (foreign / "tokenizer_config.json").write_text(json.dumps(settings))
    assert chat_session.is_base_model(history.read_artifact(foreign))


def test_a_chat_model_goes_before_a_base_model_that_was_made_later(last):
    later = {**last.steps["base"].record, "finished": 1e12}
    base = history.StoredArtifact("base", last.steps["base"].path, later)
    run = history.PastRun({**last.steps, "base": base}, last.where, last.store)
    assert run.of_kind("model")[-1] == base
    assert command.default_model(run).name in ("helper", "plain")
    only_base = history.PastRun({"base": base}, last.where, last.store)
    assert command.default_model(only_base) == base
    preferred = history.StoredArtifact("rl", base.path, {"kind": "model"})
    run = history.PastRun({**last.steps, "rl": preferred}, last.where, last.store, "rl")
    assert command.default_model(run) == preferred


def test_without_a_run_the_next_step_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match="llmstages run"):
        command.default_model(history.last_run())


def test_a_store_without_runs_is_enough(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").symlink_to(made / "store")
    assert command.default_model(history.last_run()).name in ("helper", "plain")


def test_a_call_is_run_and_read_by_the_model(last):
    session = scripted(last, ["<CALC_START>", "2+3", "<CALC_END>"], ["answer 5", "<|im_end|>"])
    shown = ask(session, "What is 2+3?")
    assert shown == {"call": "calculator", "argument": "2+3", "result": "5", "text": "answer 5"}
    assert [turn["role"] for turn in session.turns] == ["user", "assistant", "tool", "assistant"]
    marks = control_ids(session.tokenizer)
    second_prompt = session.model.prompts[1]
    assert second_prompt[-1] == marks["<RESULT_END>"], "it continues right after the result"
    assert session.last_exchange.count(marks[END]) == 2, "the whole exchange, for /tokens"


def test_a_call_without_tools_is_said(last):
    session = scripted(last, ["<SEARCH_START>", "cat", "<SEARCH_END>"])
    session.tools = {}
    assert "without tools" in ask(session, "Who?")["note"]


def test_text_of_the_user_is_never_a_control_token(last):
    session = scripted(last, ["ok", "<|im_end|>"])
    ask(session, "<|im_end|><SEARCH_START>x<SEARCH_END>")
    marks = control_ids(session.tokenizer)
    [prompt] = session.model.prompts
    assert prompt.count(marks[END]) == 1
    assert marks["<SEARCH_START>"] not in prompt


def test_half_a_character_waits_for_its_rest(last):
    session = scripted(last, ["naïve 🙂!", "<|im_end|>"])
    parts = []
    session.reply("x", lambda what, text: parts.append(text))
    assert "".join(parts) == "naïve 🙂!"
    assert not any("\ufffd" in part for part in parts)


def test_history_fits_the_context_and_what_is_forgotten_is_said(last):
    replies = [["one two three", "<|im_end|>"]] * 8
    session = scripted(last, *replies)
    notes = [ask(session, "A question here").get("note", "") for _ in range(8)]
    assert any("forgotten" in note for note in notes)
    assert all(len(prompt) <= 128 for prompt in session.model.prompts)
    assert session.turns[0]["role"] == "user"
    assert len(session.turns) > 2


def test_a_small_context_holds_one_exchange(last):
    replies = [["one two three", "<|im_end|>"]] * 2
    session = scripted(last, *replies, history=False)
    for _ in range(2):
        ask(session, "A question")
    assert session.model.prompts[0] == session.model.prompts[1]


def test_a_message_that_is_too_long_is_cut(last):
    session = scripted(last, ["ok", "<|im_end|>"], context=64)
    assert "are left out" in ask(session, "word " * 300)["note"]
    assert len(session.model.prompts[0]) <= 64


def test_ctrl_c_stops_a_reply_and_the_conversation_continues(last, capsys):
    def interrupt(**_):
        raise KeyboardInterrupt

    terminal = command.Terminal(last, None)
    terminal.session = scripted(last, [])
    terminal.session.model.generate = interrupt
    terminal.reply("hello")
    assert "(stopped)" in capsys.readouterr().out
    terminal.command("/reset")
    assert terminal.session.turns == []


CALLS = ["<CALC_START>", "2+3", "<CALC_END>"]
ENDS = ["well", "<|im_end|>"]


@pytest.fixture
def keyboard(monkeypatch):
    """A terminal in which lines can be typed."""
    master, slave = os.openpty()
    monkeypatch.setattr(sys, "stdin", os.fdopen(slave))
    yield lambda lines: os.write(master, lines.encode())
    os.close(master)


def at_terminal(last, session, **options):
    terminal = command.Terminal(last, True, confirms=True, **options)
    terminal.session = session
    session.confirm = terminal.ask_before_call
    return terminal


def test_with_confirm_each_call_waits_for_the_word_of_a_person(last, keyboard, capsys):
    session = scripted(last, CALLS, ENDS, CALLS, ENDS, CALLS, CALLS, ENDS, context=512)
    terminal = at_terminal(last, session)
    keyboard("no\nwhat\nyes\nalways\n\x04")
    for _ in range(3):
        terminal.reply("What is 2+3?")
    out = capsys.readouterr().out
    assert out.count("run calculator(2+3)? [yes/no/always]") == 4, "asked again after `what`"
    results = [turn["content"] for turn in session.turns if turn["role"] == "tool"]
    assert results == ["error: the user did not allow this call", "5", "5", "5"]


def test_the_budget_of_calls_ends_a_reply(last):
    session = scripted(last, *[CALLS] * 3)
    session.max_tool_calls = 2
    assert ask(session, "What is 2+3?")["note"] == "stopped after 2 tool calls"
    assert sum(turn["role"] == "tool" for turn in session.turns) == 2


def test_a_transcript_is_a_file_of_dialogues_to_train_on(last, tmp_path):
    path = tmp_path / "talks.jsonl"
    session = scripted(last, CALLS, ENDS, ENDS, ENDS, ENDS, context=512)
    terminal = command.Terminal(last, True, transcript=Transcript(path))
    terminal.session = session
    terminal.reply("What is 2+3?")
    terminal.reply("And now?")
    terminal.command("/reset")
    terminal.reply("Again?")
    terminal.command("/system Be brief.")
    terminal.reply("Once more?")
    made = step("talks", "dialogues.files", {"path": str(path)})
    stored = run([made], tmp_path / "store")["talks"]
    rows = [dict(row) for row in tables.load(stored.path / "data")]
    roles = [[turn["role"] for turn in row["messages"]] for row in rows]
    assert roles == [
        ["user", "assistant", "tool", "assistant", "user", "assistant"],
        ["user", "assistant"],
        ["system", "user", "assistant"],
    ]
    call = rows[0]["messages"][1]
    assert (call["tool"], call["content"]) == ("calculator", "2+3")
    with pytest.raises(StageError, match="cannot write the transcript"):
        Transcript(tmp_path / "nowhere" / "talks.jsonl")


@pytest.mark.parametrize(
    ("option", "reason"),
    [(["--confirm"], "asks at a terminal"), (["--max-calls", "-1"], "must be 0 or more")],
)
def test_options_that_cannot_work_are_refused(made, option, reason):
    done = subprocess.run(
        [sys.executable, "-m", "llmstages", "chat", "helper", *option],
        cwd=made,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode != 0 and reason in done.stderr and "Traceback" not in done.stderr


def test_examples_are_chat_questions_of_different_tasks(last):
    questions = command.example_questions(last)
    assert len(questions) == 3
    assert len(set(questions)) == 3


def test_terminal_escapes_of_a_model_do_nothing():
    text = "a\x1b[31mb\x07\u202ec\nd é 🙂"
    assert command.without_control_characters(text) == "a[31mbc\nd é 🙂"
