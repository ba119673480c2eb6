"""The tool ``python``: honest programs, and programs that attack the host, in every interpreter."""

import contextlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmstages.core import registry
from llmstages.core.errors import StageError
from llmstages.plugins.tools import python as python_tool
from llmstages.plugins.tools.interpreters import Limits, cpython
from llmstages.plugins.tools.interpreters.cpython import CPython
from llmstages.plugins.tools.interpreters.monty import Monty
from llmstages.plugins.tools.python import NOTHING
from llmstages.text import tool_runs
from llmstages.text.messages import message

from .attacks import ATTACKS, LEAKED

SECONDS = 0.2
MAX_OUTPUT = 300
LONGEST = 5.0  # seconds of wall time on a busy machine
WAYS = ("monty", "bubblewrap", "landlock")


def interpreter(way, **limits):
    """An interpreter, or a skipped test where this machine cannot confine one in that way."""
    limits = Limits(**{"seconds": SECONDS, "max_output": MAX_OUTPUT, **limits})
    if way == "monty":
        return Monty(limits)
    made = CPython(limits, [way])
    try:
        made.start()
    except StageError as error:
        pytest.skip(str(error))
    return made


@pytest.fixture(scope="module", params=WAYS)
def confined(request):
    made = interpreter(request.param)
    made.run("1")  # its worker, if it keeps one, is running from here on
    yield made
    made.stop()


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A host with something to lose: a file, a variable, a socket."""
    folder = tmp_path_factory.mktemp("host")
    secret = folder / "secret"
    secret.write_text(f"# {LEAKED}")
    os.environ["HOST_VARIABLE"] = LEAKED
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield secret, folder / "target", server
    del os.environ["HOST_VARIABLE"]


def children():
    """Names of the processes below this one."""
    own = str(os.getpid())
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().partition(" (")[2].rpartition(") ")
        except OSError:
            continue
        if rest.split()[1] == own and rest[0] != "Z":
            found.append(name)
    return sorted(found)


def filled_in(program, secret, target, server):
    """An attack with the names of what this host has."""
    names = {
        "SECRET": str(secret),
        "TARGET": str(target),
        "PORT": str(server.getsockname()[1]),
        "PARENT": str(os.getpid()),
    }
    for name, value in names.items():
        program = program.replace(name, value)
    return program


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_gets_through(name, confined, host):
    secret, target, server = host
    before = children()
    start = time.monotonic()
    outcome = confined.run(filled_in(ATTACKS[name], *host))
    assert time.monotonic() - start < LONGEST
    assert LEAKED not in outcome.printed + outcome.value + outcome.error
    assert len(outcome.printed) <= MAX_OUTPUT
    assert secret.read_text() == f"# {LEAKED}" and not os.path.lexists(target)
    with pytest.raises(BlockingIOError):
        server.accept()
    assert confined.run("6 * 7").value == "42", "the next program runs"
    deadline = time.monotonic() + LONGEST
    while len(children()) > len(before) and time.monotonic() < deadline:
        time.sleep(0.05)  # a worker that was replaced ends
    assert len(children()) <= len(before), "nothing is left running"


@pytest.mark.parametrize(
    "name", ["files: open", "files: write", "files: getenv", "network: connect"]
)
def test_the_same_attacks_succeed_where_nothing_confines_them(name, host):
    secret, target, server = host
    program = filled_in(ATTACKS[name], *host)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    connected = False
    with contextlib.suppress(BlockingIOError):
        server.accept()[0].close()
        connected = True
    assert LEAKED in ran.stdout or target.exists() or connected
    target.unlink(missing_ok=True)


HONEST = {
    '"strawberry".count("r")': "3",
    "9.11 > 9.9": "False",
    "max(9.11, 9.9)": "9.9",
    '"lollipop"[::-1]': "popillol",
    "print('a')\nprint('b')": "a\nb",
    "print('a')\n'b'": "a\nb",
    "x = 5": NOTHING,
    "None": NOTHING,
    "sum(int(d) for d in str(2**100))": "115",
    "import math\nmath.comb(10, 3)": "120",
    "def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nf(15)": "610",
    "'é' * 3 + '中'": "ééé中",
    "[1, 'a', (2.5, None)]": "[1, 'a', (2.5, None)]",
    "": NOTHING,
}


def test_honest_programs_give_the_same_in_every_interpreter(confined):
    for program, expected in HONEST.items():
        outcome = confined.run(program)
        assert python_tool.result_text(outcome, 100) == expected, program


@pytest.mark.parametrize("error", ["1 / 0", "f(", "x", "int('a')", "raise ValueError('no')"])
def test_errors_of_a_program_are_its_result(error, confined):
    text = python_tool.result_text(confined.run(f"print('before')\n{error}"), 200)
    assert text.startswith("error: ") and "Error" in text
    assert ("printed before: before" in text) == (error != "f(")


def test_only_with_keep_state_a_program_sees_the_names_of_earlier_ones(confined):
    told = confined.run("print(x)\nx + y", ["x = 1\nprint('shown before')", "y = 2", "1 / 0"])
    assert (told.printed, told.value) == ("1\n", "3")
    forgets, keeps = tool(), tool(keep_state=True)
    forgets.interpreter = keeps.interpreter = confined
    assert "NameError" in forgets.call_after("x", ["x = 1"])
    assert keeps.call_after("x", ["x = 1"]) == "1"
    program = "import random\nrandom.random()"
    assert confined.run(program).value == confined.run(program).value, "reproducible"


def tool(**options):
    return registry.load_component("tools", {"use": "python", **options})


def test_calls_of_a_conversation_are_handed_to_the_tool():
    turns = [
        message("user", "x?"),
        message("assistant", "x = 20", "python"),
        message("tool", NOTHING, "python"),
        message("assistant", "elsewhere", "search"),
    ]
    tools = {"python": tool(keep_state=True)}
    assert tool_runs.call_tool(tools, "python", "x + 1", turns) == "21"
    assert tool_runs.call_tool(tools, "python", json.dumps({"code": "x + 2"}), turns) == "22"
    assert "NameError" in tool_runs.call_tool(tools, "python", "x")
    assert tools["python"].schema["function"]["name"] == "python"


def test_limits_are_the_tools_own():
    assert tool(max_characters=5)("1 + 1 + 1").startswith("error: the program has more than 5")
    assert tool(max_output=4)("'x' * 100") == "xxxx"
    with pytest.raises(StageError, match="engine"):
        tool(engine="jupyter")


def test_where_nothing_confines_a_program_it_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(cpython.shutil, "which", lambda name: None)
    with pytest.raises(StageError, match="cannot be protected.*bubblewrap: not installed"):
        CPython(Limits(), ["bubblewrap"]).run("1")
    # A child without its layers: the trial must see each hole.
    source = cpython.CHILD.read_text()
    child = tmp_path / "confined.py"
    child.write_text(source.replace("        confine(job)\n", "        pass\n"))
    monkeypatch.setattr(cpython, "CHILD", child)
    with pytest.raises(StageError) as refused:
        CPython(Limits(), ["landlock"]).run("1")
    for hole in ("reads a file", "writes a file", "connects", "signals its parent"):
        assert hole in str(refused.value)
    child.write_text(source.replace('Landlock")', "Landlock\")\n    raise OSError('too old')"))
    with pytest.raises(StageError, match="landlock: too old"):
        CPython(Limits(), ["landlock"]).run("1")


def test_monty_is_refused_in_a_process_that_was_forked_after_its_use():
    made = tool()
    assert made("1 + 1") == "2"

    def in_child(answers):
        try:
            answers.put(tool_runs.call_tool({"python": made}, "python", "1 + 1"))
        except StageError as error:
            answers.put(str(error))

    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    process = fork.Process(target=in_child, args=(answers,))
    process.start()
    assert "before this process was forked" in answers.get(timeout=30)
    process.join()
    assert made("2 + 2") == "4"
