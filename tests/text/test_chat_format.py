"""The renderer: equal to the template that other programs use; no text forges a control token."""

from __future__ import annotations

import random

import pytest

from llmstages.core.errors import StageError
from llmstages.data.packing import pack
from llmstages.text import chat_format
from llmstages.text.messages import message
from llmstages.text.render import Rendered, render, render_prompts
from tests.tiny import CONTROL, TALK, control_ids, tiny_tokenizer

SEARCHING = [
    message("user", "Where was Bo Li born?"),
    message("assistant", "Bo Li", "search"),
    message("tool", "Bo Li was born in Ra.", "search"),
    message("assistant", "Bo Li was born in Ra."),
]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.mark.parametrize(
    "messages",
    [
        TALK,
        SEARCHING,
        [message("system", "Be brief."), *TALK, *TALK],
        [
            message("user", "2+2?"),
            message("assistant", "2+2", "calculator"),
            message("tool", "4", "calculator"),
        ],
        [
            message("user", "hi"),
            message("assistant", "{}", "weather"),
            message("tool", "sun", "weather"),
        ],
    ],
)
def test_benign_dialogues_render_as_the_template_does(tokenizer, messages):
    for open_turn, renderer in ((False, render), (True, render_prompts)):
        rendered = renderer(tokenizer, [messages])[0]
        expected = tokenizer.apply_chat_template(
            messages, add_generation_prompt=open_turn, tokenize=True, return_dict=True
        )
        assert rendered.ids == list(expected["input_ids"])


def supervised_text(tokenizer, rendered):
    pairs = zip(rendered.ids, rendered.supervised, strict=True)
    return tokenizer.decode([token for token, supervised in pairs if supervised])


def test_loss_is_on_what_the_assistant_says_and_nothing_else(tokenizer):
    rendered = render(tokenizer, [SEARCHING])[0]
    expected = "<SEARCH_START> Bo Li<SEARCH_END> Bo Li was born in Ra.<|im_end|>"
    assert supervised_text(tokenizer, rendered) == expected


def test_no_content_becomes_a_control_token(tokenizer):
    rng = random.Random(0)
    marks = set(control_ids(tokenizer).values())

    def dialogue(text):
        return [
            message("user", text),
            message("assistant", text, "search"),
            message("tool", text, "search"),
            message("assistant", text),
        ]

    def count_marks(ids):
        return sum(token in marks for token in ids)

    expected = count_marks(render(tokenizer, [dialogue("x")])[0].ids)
    for _ in range(300):
        parts = (*CONTROL, "a", " ", "\n", "<|im_", "end|>")
        hostile = "".join(rng.choice(parts) for _ in range(rng.randint(1, 8)))
        assert count_marks(render(tokenizer, [dialogue(hostile)])[0].ids) == expected
        assert count_marks(chat_format.document_ids(tokenizer, [hostile])[0]) == 1


def test_a_reply_is_read_back_as_it_was_rendered(tokenizer):
    prompt = chat_format.prompt_ids(tokenizer, [SEARCHING[:1]])[0]
    whole = render(tokenizer, [SEARCHING])[0].ids
    reply, ended = chat_format.parse_reply(tokenizer, whole[len(prompt) :])
    assert ended and reply == SEARCHING[1]
    after = chat_format.prompt_ids(tokenizer, [SEARCHING[:3]])[0]
    reply, ended = chat_format.parse_reply(tokenizer, whole[len(after) :])
    assert ended and reply == SEARCHING[3]
    assert chat_format.parse_reply(tokenizer, whole[len(after) : -1])[1] is False


def test_unknown_roles_and_foreign_tokenizers_are_refused(tokenizer):
    with pytest.raises(StageError, match="role 'narrator'"):
        render(tokenizer, [[message("narrator", "x")]])

    class Bare:
        chat_template = None

    with pytest.raises(StageError, match="no chat template"):
        render(Bare(), [TALK])


def test_packing_keeps_every_document_whole_and_counts_what_it_cuts(tokenizer):
    rng = random.Random(1)
    rows = [
        Rendered([1] + [rng.randrange(20, 200) for _ in range(rng.randint(1, 40))], [])
        for _ in range(200)
    ]
    for row in rows:
        row.supervised = [True] * len(row.ids)
    packed, cut = pack(rows, 32, 0, seed=0)
    assert cut == sum(max(0, len(r.ids) - 32) for r in rows)
    documents = []
    for row in packed:
        ids, positions = row["input_ids"], row["position_ids"]
        assert len(ids) == len(row["labels"]) == len(positions) == 32
        starts = [i for i in range(32) if positions[i] == 0 and ids[i] == 1]
        for start, end in zip(starts, [*starts[1:], 32], strict=True):
            documents.append([token for token in ids[start:end] if token])
        assert all(row["labels"][i] == -100 for i in starts)
    assert sorted(documents) == sorted(row.ids[:32] for row in rows)


def test_packed_documents_do_not_see_each_other(tokenizer):
    import torch

    from llmstages.train.batches import collate
    from tests.tiny import tiny_model

    model = tiny_model(tokenizer).eval()
    rows = [
        Rendered(ids, [True] * len(ids))
        for ids in chat_format.document_ids(tokenizer, ["the cat sat", "the dog ran far"])
    ]
    packed, _ = pack(rows, 48, tokenizer.pad_token_id, seed=0)
    batch = collate(packed)
    second = batch["position_ids"][0].tolist().index(0, 1)
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][0, 1] = 300

    def logits(inputs):
        ids, positions = inputs["input_ids"], inputs["position_ids"]
        with torch.no_grad():
            return model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]

    before, after = logits(batch), logits(changed)
    assert torch.equal(before[second:], after[second:])
    assert not torch.equal(before[:second], after[:second])
