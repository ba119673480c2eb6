"""Modules of dialogues.synthesize: model steps, waiting, JSON among words, repeated questions."""

from __future__ import annotations

import json
import re
import threading
from itertools import pairwise

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.data.answer_cache import AnswerCache
from llmstages.data.endpoint import Endpoint
from llmstages.plugins.dialogues.prompts import first_json, parse_scores
from llmstages.plugins.dialogues.repeats import find_repeats
from llmstages.train.model_step import TOO_LONG, ModelStep
from tests.openai_service import service
from tests.tiny import saved_model, tiny_model, tiny_tokenizer


def test_an_interrupted_model_step_gives_the_same_answers(tmp_path):
    """The tiny model writes nonsense without an end: the same, interrupted or not."""
    context = Context("dialogues", tmp_path, tmp_path, {})
    asked = [f"Where is {name}?" for name in ("Ansel", "Brome", "Cull", "Dorn", "Esk")]
    tiny = ModelStep(
        saved_model(tmp_path / "model"),
        context,
        {"temperature": 1.0, "max_tokens": 4, "seed": 0},
        batch=2,
    )
    whole = list(tiny.ask(asked, range(5)))
    again = list(tiny.ask(asked, [3, 4]))
    answers = [answer for _, answer in whole]
    assert [number for number, _ in whole] == [0, 1, 2, 3, 4]
    assert again == whole[2:]
    assert len({answer.text for answer in answers}) > 1
    assert AnswerCache(context, []).ask(tiny, asked, asked, "asking") == answers
    assert all(answer.rule in ("cut", "") for answer in answers)


def test_as_long_is_waited_as_the_service_asks_for(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    waits: list[float] = []

    class Clock(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)

    trouble = {
        1: (429, {"Retry-After": "7"}),
        2: 500,
        3: (503, {"Retry-After": "999"}),
        4: (429, {"Retry-After": "tomorrow"}),
    }
    with service(lambda asked, number: trouble.get(number, "Yes.")) as server:
        endpoint = Endpoint("d", server.url, "m", {}, "NO_SUCH_KEY", 1, 5.0, 4, 0.5, 5, Clock())
        answers = list(endpoint.ask(["Why?"], [0]))
    assert answers[0][1].text == "Yes." and waits == [7.0, 1.0, 60.0, 4.0]


def test_a_model_of_others_is_asked_in_its_own_template(tmp_path):
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    model = tiny_model(tiny_tokenizer())
    ours = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    ours["added_tokens"] = [token for token in ours["added_tokens"] if token["id"] < 2]
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(ours)),
        eos_token=ours["added_tokens"][0]["content"],
    )
    folder = tmp_path / "theirs"
    model.save_pretrained(folder)
    theirs.save_pretrained(folder)
    artifact = Artifact("hub", "model", folder, "hub")
    settings = {"temperature": 1.0, "max_tokens": 4, "seed": 0}
    context = Context("d", tmp_path, tmp_path, {})
    with pytest.raises(StageError, match="its tokenizer has no chat template"):
        ModelStep(artifact, context, settings, 4)
    theirs.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )
    theirs.save_pretrained(folder)
    requests = ["Where is Ansel?", "Why? " * 200, "Why?"]
    step = ModelStep(artifact, context, settings, 4)
    first, second, third = (answer for _, answer in step.ask(requests, range(3)))
    assert second == TOO_LONG
    assert all(answer.text or answer.rule == "cut" for answer in (first, third))


@pytest.mark.parametrize(
    "text, value",
    [
        ('{"a": 1}', {"a": 1}),
        ('```json\n[{"a": 1}]\n```', [{"a": 1}]),
        ('So {this}: {"a": "}"} ok', {"a": "}"}),
        ('<think>{"b": 2}</think>As [1] says {}: {"a": 1}', {"a": 1}),
    ],
)
def test_json_is_found_among_words(text, value):
    assert first_json(text) == value


def test_scores_from_fences():
    assert parse_scores('```json\n{"helpful": 1, "truthful": "2", "harmless": 3}\n```') == {
        "helpful": 1,
        "truthful": 2,
        "harmless": 3,
    }


def test_similarity_is_that_of_all_pairs():
    texts = [" ".join(f"w{i * j % 7}" for j in range(4 + i % 5)) for i in range(60)]
    texts += ["", "?", "!"]
    sets = []
    for text in texts:
        words = re.findall(r"\w+", text) or [text]
        sets.append(frozenset([*words, *(f"{a} {b}" for a, b in pairwise(words))]))
    for similar in (0.3, 0.5, 0.7, 0.8, 1.0):
        kept, expected = [], {}
        for i, one in enumerate(sets):
            best = max(
                ((len(one & sets[j]) / len(one | sets[j]), -j) for j in kept), default=(0, 0)
            )
            if best[0] >= similar:
                expected[i] = (-best[1], best[0])
            else:
                kept.append(i)
        assert find_repeats(texts, similar) == expected
