"""Replies that are made at once: fair, none lost, each with its own random numbers."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from llmstages.pipeline import history
from llmstages.serve import replies
from llmstages.serve.pool import ModelPool
from llmstages.serve.replies import ReplySettings, reply_events
from llmstages.serve.turns import Busy, Turns

QUESTION = [{"role": "user", "content": "Where does the fox live?"}]


@pytest.fixture(scope="module")
def pool(made):
    patch = pytest.MonkeyPatch()
    patch.chdir(made)
    yield ModelPool(history.last_run())
    patch.undo()


def test_turns_go_round():
    turns = Turns()
    order: list[str] = []
    started = threading.Barrier(3)

    def work(name):
        with turns.one_reply() as reply:
            reply.leave()
            started.wait()
            reply.take()
            for _ in range(5):
                order.append(name)
                time.sleep(0.01)  # the others come to wait
                reply.next_token()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for start in range(0, 12, 3):
        assert set(order[start : start + 3]) == set("abc"), order


def test_more_replies_than_the_limit_are_refused():
    turns = Turns(most=1)
    with turns.one_reply(), pytest.raises(Busy, match="ask again later"), turns.one_reply():
        pass
    with turns.one_reply():
        pass  # the place is free again


def test_others_compute_while_tools_run():
    turns = Turns()
    tools_run, others_are_done = threading.Event(), threading.Event()
    order: list[str] = []

    def call_tools(name):
        with turns.one_reply() as reply:
            with reply.elsewhere():
                order.append(name)
                tools_run.set()
                assert others_are_done.wait(5)
                order.append(name)
            assert reply.has_turn

    callers = [threading.Thread(target=call_tools, args=(name,)) for name in "ab"]
    for thread in callers:
        thread.start()
    assert tools_run.wait(5)
    with turns.one_reply() as reply:
        reply.next_token()
    others_are_done.set()
    for thread in callers:
        thread.join(timeout=5)
    assert order in (list("aabb"), list("bbaa")), "tools of two conversations at once"


def test_tools_that_fail_give_the_turn_back():
    turns = Turns()
    with pytest.raises(ValueError), turns.one_reply() as reply, reply.elsewhere():
        raise ValueError
    with turns.one_reply() as reply, reply.elsewhere():
        pass


def test_an_error_gives_the_turn_away():
    turns = Turns()
    with pytest.raises(ValueError), turns.one_reply():
        raise ValueError
    with turns.one_reply() as reply:
        assert reply.has_turn


def test_a_seed_gives_the_same_numbers_whoever_else_is_served():
    turns = Turns()

    def numbers(seed, beside):
        drawn = []
        with turns.one_reply(seed) as reply:
            for _ in range(4):
                drawn.append(torch.rand(1).item())
                reply.leave()
                if beside:
                    with turns.one_reply(99):
                        torch.rand(7)
                reply.take()
        return drawn

    assert numbers(1, beside=False) == numbers(1, beside=True) != numbers(2, beside=True)


def test_50_chats_at_once_are_fair_and_none_is_lost(pool):
    settings = ReplySettings(temperature=1.0, max_new_tokens=24, seed=7)
    loaded = pool.get("plain")
    alone = list(reply_events(loaded, QUESTION, settings))[-1]
    began = time.monotonic()
    firsts: list[float] = []
    ends: list[float] = []
    answers: list[list[int]] = []
    lock = threading.Lock()

    def chat():
        first = 0.0
        for event in reply_events(loaded, QUESTION, settings):
            first = first or time.monotonic() - began
            last = event
        with lock:
            firsts.append(first)
            ends.append(time.monotonic() - began)
            answers.append(last["tokens"])

    threads = [threading.Thread(target=chat) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(answers) == 50
    assert all(tokens == alone["tokens"] for tokens in answers), "the seed decides, not the crowd"
    # With a queue the last first token would come when 49 replies are done.
    assert max(firsts) < 0.6 * max(ends), (max(firsts), max(ends))


def test_memory_does_not_grow_with_the_number_of_chats(pool):
    import gc

    loaded = pool.get("plain")

    def chats(number):
        for _ in range(number):
            for _ in reply_events(loaded, QUESTION, ReplySettings(max_new_tokens=8)):
                pass
        gc.collect()
        return sum(torch.is_tensor(thing) for thing in gc.get_objects())

    assert chats(20) <= chats(2) + 5
    assert not replies.TURNS._waiting and replies.TURNS._inside == 0


def test_a_listener_who_goes_ends_the_generation(pool):
    loaded = pool.get("plain")
    events = reply_events(loaded, QUESTION, ReplySettings(temperature=1.0, max_new_tokens=200))
    next(events)
    events.close()
    deadline = time.monotonic() + 2
    while replies.TURNS._inside and time.monotonic() < deadline:
        time.sleep(0.01)
    assert replies.TURNS._inside == 0, "it goes on although nobody listens"
