"""The one renderer: equal to the template other programs use, and no text can forge a control token."""

from __future__ import annotations

import random

import pytest

from llmstages.core.errors import StageError
from llmstages.data.packing import pack
from llmstages.text import chat_format
from llmstages.text.messages import message
from llmstages.text.render import Rendered, render
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
    for open_turn in (False, True):
        ours = render(tokenizer, [messages], open_turn)[0].ids
        theirs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=open_turn, tokenize=True, return_dict=True
        )["input_ids"]
        assert ours == list(theirs)


def test_loss_is_on_what_the_assistant_says_and_nothing_else(tokenizer):
    done = render(tokenizer, [SEARCHING])[0]
    supervised = tokenizer.decode(
        [t for t, on in zip(done.ids, done.supervised, strict=True) if on]
    )
    assert supervised == "<SEARCH_START> Bo Li<SEARCH_END> Bo Li was born in Ra.<|im_end|>"


def test_no_content_becomes_a_control_token(tokenizer):
    rng = random.Random(0)
    clean = {
        role: render(
            tokenizer,
            [
                [
                    message("user", "x"),
                    message("assistant", "x", "search"),
                    message("tool", "x", "search"),
                    message("assistant", "x"),
                ]
            ],
        )[0].ids
        for role in ("any",)
    }["any"]
    marks = set(control_ids(tokenizer).values())
    expected = sum(t in marks for t in clean)
    for _ in range(300):
        evil = "".join(
            rng.choice((*CONTROL, "a", " ", "\n", "<|im_", "end|>"))
            for _ in range(rng.randint(1, 8))
        )
        messages = [
            message("user", evil),
            message("assistant", evil, "search"),
            message("tool", evil, "search"),
            message("assistant", evil),
        ]
        assert sum(t in marks for t in render(tokenizer, [messages])[0].ids) == expected
        assert sum(t in marks for t in chat_format.document_ids(tokenizer, [evil])[0]) == 1


def test_a_reply_is_read_back_as_it_was_rendered(tokenizer):
    prompt = chat_format.prompt_ids(tokenizer, [SEARCHING[:1]])[0]
    whole = render(tokenizer, [SEARCHING])[0].ids
    said, ended = chat_format.parse_reply(tokenizer, whole[len(prompt) :])
    assert ended and said == SEARCHING[1]
    after = chat_format.prompt_ids(tokenizer, [SEARCHING[:3]])[0]
    said, ended = chat_format.parse_reply(tokenizer, whole[len(after) :])
    assert ended and said == SEARCHING[3]
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
    found = []
    for row in packed:
        assert len(row["input_ids"]) == len(row["labels"]) == len(row["position_ids"]) == 32
        starts = [
            i
            for i, (t, p) in enumerate(zip(row["input_ids"], row["position_ids"], strict=True))
            if p == 0 and t == 1
        ]
        for a, b in zip(starts, [*starts[1:], 32], strict=True):
            found.append([t for t in row["input_ids"][a:b] if t])
        assert all(row["labels"][i] == -100 for i in starts)
    assert sorted(found) == sorted(r.ids[:32] for r in rows)


def test_packed_documents_do_not_see_each_other(tokenizer):
    import torch

    from llmstages.train.trainer import collate
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
    with torch.no_grad():
        a, b = (
            model(input_ids=x["input_ids"], position_ids=x["position_ids"], use_cache=False).logits[
                0
            ]
            for x in (batch, changed)
        )
    assert torch.equal(a[second:], b[second:])
    assert not torch.equal(a[:second], b[:second])
