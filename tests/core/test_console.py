"""Progress says how long it takes, from the first advance on."""

from __future__ import annotations

import pytest

from llmstages.core import console


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set; seconds."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_time_left_is_known_from_the_first_advance(clock):
    pace = console._Pace(10)
    assert pace.left() == ""
    clock[0] += 20
    pace.advance(1)
    assert pace.left() == "3.0 min left"
    clock[0] += 20
    pace.advance(4)
    assert pace.left() == "40.0 s left"


def test_what_an_earlier_run_did_says_nothing_about_the_pace(clock):
    pace = console._Pace(10)
    pace.advance(8)  # a training that is continued
    assert pace.left() == ""
    clock[0] += 30
    pace.advance(1)
    assert pace.left() == "30.0 s left"


def test_without_a_total_nothing_is_left(clock):
    pace = console._Pace(None)
    clock[0] += 5
    pace.advance(3)
    assert pace.left() == ""


def test_plain_lines_come_now_and_then(clock, capsys):
    advance = console._Lines("sft", 4, console._print_to_stderr).advance
    clock[0] += 5
    advance(1, "loss 2.0")
    clock[0] += 15
    advance(1, "loss 1.5, 7.3 tok/s")
    assert capsys.readouterr().err == "  sft 2/4, 20.0 s left loss 1.5, 7.3 tok/s\n"
