"""Chat templates by name: each makes the tokens of transformers' own call, replies are read back, tokenizers get what they lack."""

from __future__ import annotations

import json

import pytest

from llmstages.core.errors import StageError
from llmstages.plugins.tokenizer.bpe import BPE, BPEConfig, build
from llmstages.plugins.tokenizer.pretrained import Pretrained, PretrainedConfig
from llmstages.text import chat_format, templates
from llmstages.text.messages import message
from llmstages.text.render import render
from tests.tiny import ROLES, TALK, TEXTS, perform, saved, tiny_tokenizer

CALLING = [
    message("user", "Where was Bo Li born?"),
    message("assistant", "Bo Li", "search"),
    message("tool", "Bo Li was born in Ra.", "search"),
    message("assistant", "sun in Ra", "weather"),
    message("tool", "yes", "weather"),
    message("assistant", "Bo Li was born in Ra."),
]
SAID = {
    "chatml": "<|im_start|>user<|im_sep|> Hi<|im_end|><|im_start|>assistant<|im_sep|> Ho<|im_end|>",
    "llama3": "<|start_header_id|>user<|end_header_id|>\n\n Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n Ho<|eot_id|>",
    "zephyr": "<|user|>\n Hi</s>\n<|assistant|>\n Ho</s>\n",
    "plain": "User: Hi<|end|>\nAssistant: Ho<|end|>\n",
}


def tokenizer_in(name, leading_space=True):
    return build(
        [*TEXTS, *ROLES * 50], BPEConfig(vocab_size=400, template=name, leading_space=leading_space)
    )


@pytest.mark.parametrize("name", templates.NAMED)
def test_what_a_named_template_writes(name):
    tokenizer = tokenizer_in(name)
    ids = render(tokenizer, [[message("user", "Hi"), message("assistant", "Ho")]])[0].ids
    assert tokenizer.decode(ids) == templates.NAMED[name].bos + SAID[name]
    known = chat_format.control(tokenizer)
    assert (known.bos, known.pad, known.end) == tuple(
        tokenizer.convert_tokens_to_ids(
            [templates.NAMED[name].bos, templates.NAMED[name].pad, templates.NAMED[name].end]
        )
    )
    assert known.heads == set(
        tokenizer.convert_tokens_to_ids(list(templates.NAMED[name].marks))
    ) - ({tokenizer.convert_tokens_to_ids("<|system|>")} if name == "zephyr" else set())
    assert set(known.calls) == set(templates.CALLS)


@pytest.mark.parametrize("leading_space", [True, False])
@pytest.mark.parametrize("name", templates.NAMED)
def test_replies_are_read_back_as_they_were_rendered(name, leading_space):
    tokenizer = tokenizer_in(name, leading_space)
    whole = render(tokenizer, [CALLING])[0]
    for at, m in enumerate(CALLING):
        if m["role"] != "assistant":
            continue
        prompt = chat_format.prompt_ids(tokenizer, [CALLING[:at]])[0]
        assert whole.ids[: len(prompt)] == prompt and whole.supervised[len(prompt)]
        assert chat_format.parse_reply(tokenizer, whole.ids[len(prompt) :]) == (m, True)
        stops = set(chat_format.stop_ids(tokenizer))
        end = next(
            i for i, token in enumerate(whole.ids[len(prompt) :], len(prompt)) if token in stops
        )
        assert all(whole.supervised[len(prompt) : end + 1]) and not any(
            whole.supervised[end + 1 : end + 2]
        )


@pytest.mark.parametrize("name", templates.NAMED)
def test_an_exported_tokenizer_says_the_same(tmp_path, name):
    """What another program sees: the saved folder, loaded by transformers, and the bare tokenizers library on the text of the template."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    tokenizer_in(name).save_pretrained(tmp_path)
    loaded, bare = (
        AutoTokenizer.from_pretrained(tmp_path),
        Tokenizer.from_file(str(tmp_path / "tokenizer.json")),
    )
    for messages in (TALK, CALLING, [message("system", "Be brief."), *TALK, *TALK]):
        ours = render(tokenizer_in(name), [messages])[0]
        made = loaded.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        assert ours.ids == list(made["input_ids"]) and ours.supervised == [
            bool(on) for on in made["assistant_masks"]
        ]
        assert (
            ours.ids
            == bare.encode(
                loaded.apply_chat_template(messages, tokenize=False), add_special_tokens=False
            ).ids
        )
        assert chat_format.prompt_ids(loaded, [messages[:-1]])[0] == list(
            loaded.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
        )


def test_a_template_whose_header_melts_into_the_answer_is_refused_where_the_tokenizer_is_made(
    tmp_path,
):
    """Two newlines are one token at the end of a prompt, and two before a word, in GPT-2's pattern: training and use would differ."""
    corpus = saved(
        tmp_path / "corpus",
        "corpus",
        [
            {"id": str(i), "url": "u", "text": text + "\n\n \n\n"}
            for i, text in enumerate(TEXTS * 3)
        ],
    )
    with pytest.raises(
        StageError, match="does not fit this tokenizer.*prompts that differ from training"
    ):
        perform(
            BPE,
            tmp_path / "bad",
            BPEConfig(vocab_size=400, template="llama3", leading_space=False),
            corpus=corpus,
        )
    for number, fits in enumerate(
        (
            BPEConfig(vocab_size=400, template="llama3"),
            BPEConfig(vocab_size=400, template="llama3", leading_space=False, pattern="llama3"),
        )
    ):
        perform(BPE, tmp_path / f"good{number}", fits, corpus=corpus)


def test_a_tokenizer_of_others_keeps_its_own_template_or_gets_another(tmp_path):
    from transformers import AutoTokenizer

    theirs = build([*TEXTS, *ROLES * 50], BPEConfig(vocab_size=400))
    theirs.chat_template = "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    theirs.save_pretrained(tmp_path / "theirs")
    kept, metrics = perform(
        Pretrained,
        tmp_path / "kept",
        PretrainedConfig(folder=str(tmp_path / "theirs"), template="own"),
    )
    assert (
        metrics["added"] == 0
        and AutoTokenizer.from_pretrained(kept.path).chat_template == theirs.chat_template
    )
    given, metrics = perform(
        Pretrained,
        tmp_path / "given",
        PretrainedConfig(folder=str(tmp_path / "theirs"), template="zephyr"),
    )
    tokenizer = AutoTokenizer.from_pretrained(given.path)
    assert (
        metrics["added"] == 6
        and tokenizer.decode(chat_format.prompt_ids(tokenizer, [TALK[:1]])[0])
        == "<s><|user|>\n Where does the fox live?</s>\n<|assistant|>\n"
    )
    theirs.chat_template = None
    theirs.save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(
        StageError,
        match="brings no chat template along; choose one of chatml, llama3, zephyr, plain",
    ):
        perform(
            Pretrained,
            tmp_path / "none",
            PretrainedConfig(folder=str(tmp_path / "bare"), template="own"),
        )


def test_a_pad_that_ends_turns_is_replaced():
    tokenizer = tokenizer_in("chatml")
    tokenizer.pad_token = tokenizer.eos_token
    templates.install(tokenizer, templates.OWN)
    assert tokenizer.pad_token == "<|pad|>"


def test_the_text_is_jinja_that_people_can_read_and_edit(tmp_path):
    text = templates.NAMED["chatml"].text(leading_space=False)
    first, _, body = text.partition("\n")
    style = json.loads(first.removeprefix("{%- set style = ").removesuffix(" -%}"))
    assert style["heads"]["user"] == "<|im_start|>user<|im_sep|>" and "{%- generation -%}" in body
    (tmp_path / "mine.jinja").write_text(text.replace("<|im_sep|>", "\\n"))
    tokenizer = tiny_tokenizer()
    made = build(
        [*TEXTS, *ROLES * 50], BPEConfig(vocab_size=400, template_file=str(tmp_path / "mine.jinja"))
    )
    assert (
        made.decode(chat_format.prompt_ids(made, [TALK[:1]])[0]).endswith(
            "<|im_end|><|im_start|>assistant\n"
        )
        and made.chat_template != tokenizer.chat_template
    )
