"""The filter of Toolformer: its arithmetic by hand, and losses of a model."""

from __future__ import annotations

import pytest

from llmstages.plugins.tools import usefulness
from llmstages.plugins.tools.proposals import Candidate
from llmstages.text.messages import message
from tests.tiny import tiny_model, tiny_tokenizer

TURNS = [message("user", "What is 3 * 47?"), message("assistant", "It is 141.")]


def test_weights_are_those_of_the_paper():
    # Section 4.1: max(0, 1 - 0.2 t), divided by their sum (3 for five tokens or more)
    expected = [1 / 3, 0.8 / 3, 0.6 / 3, 0.4 / 3, 0.2 / 3, 0, 0]
    assert usefulness.weights(7, 5) == pytest.approx(expected)
    assert usefulness.weights(2, 5) == pytest.approx([1 / 1.8, 0.8 / 1.8])
    assert usefulness.weights(4, 0) == [0.25] * 4


def test_a_loss_worked_out_by_hand():
    # (1 * 3 + 0.8 * 2 + 0.6 * 1 + 0.4 * 5 + 0.2 * 0) / 3 = 7.2 / 3; the last token is too far away
    assert usefulness.weighted_loss([3, 2, 1, 5, 0, 100], 5) == pytest.approx(2.4)
    assert usefulness.weighted_loss([3, 2, 1], 0) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "no_call, no_result, result, expected",
    [(2.0, 3.0, 0.5, 1.5), (3.0, 2.0, 0.5, 1.5), (1.0, 4.0, 2.0, -1.0)],
)
def test_the_gain_is_against_the_better_of_no_call_and_no_result(
    no_call, no_result, result, expected
):
    losses = {"no_call": no_call, "no_result": no_result, "result": result}
    assert usefulness.gain(losses) == pytest.approx(expected)


@pytest.mark.parametrize(
    "question, answer, result, told",
    [
        ("What is 3 * 47?", "3 * 47 = 141", "141", "141"),
        ("What is 30 * 47?", "30 * 47 = 1,410.", "1410", "1,410"),
        ("Where was Bo Li born?", "Bo Li was born in Ra.", "Bo Li was born in Ra.", "Ra"),
        ("Turn top around.", "It is POT", "pot", None),  # short and no name: says little
        ("Spell harvest backwards.", "It is tsevrah.", "tsevrah", "tsevrah"),
        ("Who are you?", "A baker.", "nothing found", None),
        ("Where was Bo Li born?", "In Xu.", "Bo Li was born in Ra.", None),
    ],
)
def test_where_an_answer_says_what_the_result_tells(question, answer, result, told):
    place = usefulness.first_told(question, answer, result)
    assert place == (None if told is None else answer.index(told))


def test_calls_are_shown_as_turns_or_before_the_question():
    call = Candidate(0, "calculator", "3 * 47", "rules", "141")
    shown = usefulness.variants(TURNS, call, "turn")
    assert shown["no_call"] == TURNS
    middle = [[turn["content"] for turn in shown[name][1:-1]] for name in ("no_result", "result")]
    assert middle == [["3 * 47", ""], ["3 * 47", "141"]]
    shown = usefulness.variants(TURNS, call, "prefix")
    questions = [shown[name][0]["content"] for name in usefulness.VARIANTS]
    assert questions == [
        "What is 3 * 47?",
        "[calculator(3 * 47) -> ]\nWhat is 3 * 47?",
        "[calculator(3 * 47) -> 141]\nWhat is 3 * 47?",
    ]
    assert all(turns[-1] == TURNS[-1] for turns in shown.values())


class FakeScorer:
    """Losses by hand: the answer is five tokens, of which the third begins the told word."""

    nats = {"no_call": [9, 9, 2, 1, 0], "no_result": [9, 9, 4, 1, 0], "result": [9, 9, 0.5, 0, 0]}

    def sequences(self, messages, candidate):
        if candidate.argument == "long":
            return None
        return [([0, 1, 2, 3, 4, 5], 1)] * 3

    def losses(self, rows, advance):
        advance(len(rows))
        return [self.nats[name] for name in usefulness.VARIANTS] * (len(rows) // 3)

    def first_token(self, ids, answer, character):
        assert ids == [1, 2, 3, 4, 5] and answer[character:].startswith("141")
        return 2


def test_losses_begin_where_the_result_tells_something():
    call = Candidate(0, "calculator", "3 * 47", "rules", "141")
    too_long = Candidate(0, "calculator", "long", "rules", "141")
    done = []
    usefulness.score([too_long, call], {0: TURNS}, FakeScorer(), 5, done.append)
    assert too_long.losses is None and "context" in too_long.reason
    # Three tokens: (1 * 2 + 0.8 * 1 + 0.6 * 0) / 2.4 without, (1 * 0.5) / 2.4 with the result
    assert call.losses == pytest.approx(
        {"no_call": 2.8 / 2.4, "no_result": 4.8 / 2.4, "result": 0.5 / 2.4}
    )
    assert call.reason == "" and sum(done) == 3
    assert usefulness.gain(call.losses) == pytest.approx(2.3 / 2.4)


@pytest.fixture(scope="module")
def scorer():
    tokenizer = tiny_tokenizer()
    return usefulness.Scorer(tiny_model(tokenizer), tokenizer, {}, "turn", 2)


def test_the_answer_and_its_end_are_scored_after_every_prompt(scorer):
    call = Candidate(0, "calculator", "3 * 47", "rules", "141")
    rows = scorer.sequences(TURNS, call)
    tokenizer = tiny_tokenizer()
    answers = {tuple(ids[first:]) for ids, first in rows}
    (answer,) = answers
    assert tokenizer.decode(answer).strip() == "It is 141.<|im_end|>"
    prompts = [tokenizer.decode(ids[:first]) for ids, first in rows]
    assert "<CALC_START>" not in prompts[0] and "3 * 47<CALC_END>" in prompts[1]
    assert "141" not in prompts[1] and "141<RESULT_END>" in prompts[2]
    start = scorer.first_token(answer, "It is 141.", 6)
    assert tokenizer.decode(answer[start:]).strip().startswith("1")
    assert "1" not in tokenizer.decode(answer[:start])
    assert scorer.first_token(answer, "It is 141.", None) == 0


def test_losses_are_those_of_the_model_and_equal_sequences_are_read_once(scorer):
    import torch

    call = Candidate(0, "calculator", "3 * 47", "rules", "141")
    rows = scorer.sequences(TURNS, call)
    before = scorer.passes
    nats = scorer.losses([*rows, *rows], lambda n: None)
    assert scorer.passes - before == 3 and nats[:3] == nats[3:]
    ids, first = rows[2]
    with torch.no_grad():
        scores = scorer._model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [-float(scores[place - 1, ids[place]]) for place in range(first, len(ids))]
    assert nats[2] == pytest.approx(expected, abs=1e-4)


def test_what_is_longer_than_the_context_is_not_scored(scorer):
    call = Candidate(0, "calculator", "3 * 47", "rules", "141 " * 200)
    assert scorer.sequences(TURNS, call) is None
