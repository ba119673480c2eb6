"""``llmstages chat``: calls that a person allows, budgets, and transcripts to train on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llmstages.cli.commands import chat as command
from llmstages.cli.transcript import Transcript
from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.pipeline.api import run, step
from tests.scripted import ask, scripted

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
