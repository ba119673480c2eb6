"""Chat templates by name.

Each gives the tokens of transformers' own call; replies are read back; tokenizers get what they
lack.
"""

from __future__ import annotations

import copy
import json

import pytest

from llmstages.core.errors import StageError
from llmstages.plugins.tokenizer.bpe import BPE, BPEConfig, build
from llmstages.plugins.tokenizer.pretrained import Pretrained, PretrainedConfig
from llmstages.text import chat_format, templates
from llmstages.text.messages import message
from llmstages.text.render import render
from llmstages.text.training_template import marks_generation
from tests.tiny import ROLES, TALK, TEXTS, perform, saved, tiny_tokenizer

CALLING = [
    message("user", "Where was Bo Li born?"),
    message("assistant", "Bo Li", "search"),
    message("tool", "Bo Li was born in Ra.", "search"),
    message("assistant", "sun in Ra", "weather"),
    message("tool", "yes", "weather"),
    message("assistant", "Bo Li was born in Ra."),
]
WRITTEN = {
    "chatml": "<|im_start|>user<|im_sep|> Hi<|im_end|><|im_start|>assistant<|im_sep|> Ho<|im_end|>",
    "llama3": (
        "<|start_header_id|>user<|end_header_id|>\n\n Hi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n Ho<|eot_id|>"
    ),
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
    style = templates.NAMED[name]
    ids = render(tokenizer, [[message("user", "Hi"), message("assistant", "Ho")]])[0].ids
    assert tokenizer.decode(ids) == style.bos + WRITTEN[name]
    control = chat_format.control_tokens(tokenizer)
    expected = tokenizer.convert_tokens_to_ids([style.bos, style.pad, style.end])
    assert [control.bos, control.pad, control.end] == expected
    # Zephyr has a token for each role; the dialogue that is rendered has no system turn.
    heads = set(style.marks) - {"<|system|>"}
    assert control.heads == set(tokenizer.convert_tokens_to_ids(list(heads)))
    assert set(control.calls) == set(templates.call_marks())


@pytest.mark.parametrize("leading_space", [True, False])
@pytest.mark.parametrize("name", templates.NAMED)
def test_replies_are_read_back_as_they_were_rendered(name, leading_space):
    tokenizer = tokenizer_in(name, leading_space)
    whole = render(tokenizer, [CALLING])[0]
    stops = set(chat_format.stop_ids(tokenizer))
    for index, turn in enumerate(CALLING):
        if turn["role"] != "assistant":
            continue
        prompt = chat_format.prompt_ids(tokenizer, [CALLING[:index]])[0]
        start = len(prompt)
        assert whole.ids[:start] == prompt and whole.supervised[start]
        assert chat_format.parse_reply(tokenizer, whole.ids[start:]) == (turn, True)
        end = next(i for i in range(start, len(whole.ids)) if whole.ids[i] in stops)
        assert all(whole.supervised[start : end + 1])
        assert not any(whole.supervised[end + 1 : end + 2])


@pytest.mark.parametrize("name", templates.NAMED)
def test_an_exported_tokenizer_says_the_same(tmp_path, name):
    """What another program sees, by transformers and by the bare tokenizers library.

    Both load the saved folder. The bare library encodes the text of the template.
    """
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    tokenizer = tokenizer_in(name)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    bare = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    # llama.cpp and others know Jinja without the tags of transformers.
    ImmutableSandboxedEnvironment().parse(loaded.chat_template)
    marked = templates.marked_form(loaded.chat_template)
    assert marks_generation(marked)
    for messages in (TALK, CALLING, [message("system", "Be brief."), *TALK, *TALK]):
        ours = render(tokenizer, [messages])[0]
        theirs = loaded.apply_chat_template(
            messages,
            chat_template=marked,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        assert ours.ids == list(theirs["input_ids"])
        assert ours.supervised == [bool(on) for on in theirs["assistant_masks"]]
        text = loaded.apply_chat_template(messages, tokenize=False)
        assert ours.ids == bare.encode(text, add_special_tokens=False).ids
        prompt = loaded.apply_chat_template(
            messages[:-1], add_generation_prompt=True, return_dict=True
        )
        assert chat_format.prompt_ids(loaded, [messages[:-1]])[0] == list(prompt["input_ids"])


def test_a_template_whose_header_melts_into_the_answer_is_refused_where_the_tokenizer_is_made(
    tmp_path,
):
    """In GPT-2's pattern, two newlines are one token at the end of a prompt, two before a word.

    So training and use would differ.
    """
    rows = [
        {"id": str(i), "url": "u", "text": text + "\n\n \n\n"} for i, text in enumerate(TEXTS * 3)
    ]
    corpus = saved(tmp_path / "corpus", "corpus", rows)
    unfit = BPEConfig(vocab_size=400, template="llama3", leading_space=False)
    with pytest.raises(
        StageError, match="does not fit this tokenizer.*prompt_is_prefix_of_training_row"
    ):
        perform(BPE, tmp_path / "bad", unfit, corpus=corpus)
    spaced = BPEConfig(vocab_size=400, template="llama3")
    perform(BPE, tmp_path / "spaced", spaced, corpus=corpus)
    split = BPEConfig(vocab_size=400, template="llama3", leading_space=False, pattern="llama3")
    perform(BPE, tmp_path / "split", split, corpus=corpus)


def test_a_tokenizer_of_others_keeps_its_own_template_or_gets_another(tmp_path):
    from transformers import AutoTokenizer

    def pretrained(name, folder, template):
        config = PretrainedConfig(folder=str(folder), template=template)
        artifact, metrics = perform(Pretrained, tmp_path / name, config)
        return AutoTokenizer.from_pretrained(artifact.path), metrics["added"]

    theirs = build([*TEXTS, *ROLES * 50], BPEConfig(vocab_size=400))
    theirs.chat_template = (
        "{{ bos_token }}"
        "{% for m in messages %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    theirs.save_pretrained(tmp_path / "theirs")
    kept, added = pretrained("kept", tmp_path / "theirs", "own")
    assert added == 0
    assert kept.chat_template == theirs.chat_template
    given, added = pretrained("given", tmp_path / "theirs", "zephyr")
    assert added == 6
    prompt = given.decode(chat_format.prompt_ids(given, [TALK[:1]])[0])
    assert prompt == "<s><|user|>\n Where does the fox live?</s>\n<|assistant|>\n"

    theirs.chat_template = None
    theirs.save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(
        StageError,
        match="has no chat template of its own; choose one of chatml, llama3, zephyr, plain",
    ):
        pretrained("none", tmp_path / "bare", "own")


def test_a_tokenizer_keeps_its_padding_and_gets_one_without_a_new_token():
    tokenizer = tokenizer_in("chatml")
    size = len(tokenizer)
    for pad in (tokenizer.eos_token, None):
        tokenizer.pad_token = pad
        templates.install(tokenizer, templates.OWN)
        assert tokenizer.pad_token == tokenizer.eos_token
    assert len(tokenizer) == size


def test_the_text_is_jinja_that_people_can_read_and_edit(tmp_path):
    text = templates.NAMED["chatml"].text(leading_space=False)
    first, _, body = text.partition("\n")
    style = json.loads(first.removeprefix("{%- set style = ").removesuffix(" -%}"))
    assert style["heads"]["user"] == "<|im_start|>user<|im_sep|>"
    assert not marks_generation(body)

    mine = tmp_path / "mine.jinja"
    mine.write_text(text.replace("<|im_sep|>", "\\n"))
    tokenizer = build([*TEXTS, *ROLES * 50], BPEConfig(vocab_size=400, template_file=str(mine)))
    prompt = tokenizer.decode(chat_format.prompt_ids(tokenizer, [TALK[:1]])[0])
    assert prompt.endswith("<|im_end|><|im_start|>assistant\n")
    assert tokenizer.chat_template != tiny_tokenizer().chat_template


def test_a_tool_brings_its_own_marks(install):
    """The marks of a third party's tool become control tokens; calls render and replies parse."""

    install(
        "weather_tools",
        "[llmstages.tools]\nweather = weather_tools:Weather\n",
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\nclass Config: pass\n"
        "class Weather:\n    Config, version, marks = Config, '1', ('<WX>', '</WX>')\n"
        "    def __init__(self, config): pass\n    def open(self, folder): pass\n"
        "    def __call__(self, argument): return 'sun'\n",
    )
    assert templates.call_marks(("weather", "sonar")) == {
        "weather": ("<WX>", "</WX>"),
        "sonar": ("<SONAR_START>", "<SONAR_END>"),
        "": templates.ANY_TOOL,
    }
    tokenizer = copy.deepcopy(tiny_tokenizer())
    added = templates.install(tokenizer, "chatml", tools=("weather",))
    assert added == ["<WX>", "</WX>"]
    ids = render(
        tokenizer, [[message("user", "Sun?"), message("assistant", "Ra", tool="weather")]]
    )[0].ids
    assert tokenizer.decode(ids).endswith("<WX> Ra</WX>") or "<WX>" in tokenizer.decode(ids)
    said = ids[ids.index(tokenizer.convert_tokens_to_ids("<WX>")) :]
    reply, ended = chat_format.parse_reply(tokenizer, said)
    assert (reply["tool"], reply["content"].strip(), ended) == ("weather", "Ra", True)


def test_a_foreign_tokenizer_keeps_the_special_tokens_that_it_has():
    tokenizer = copy.deepcopy(tiny_tokenizer())
    own = ["<|fim_prefix|>", "<|repo_name|>"]
    tokenizer.add_special_tokens({"extra_special_tokens": own})
    templates.install(tokenizer, "llama3")
    assert {*own, "<|eot_id|>"} <= set(tokenizer.all_special_tokens)
    ids = tokenizer.convert_tokens_to_ids(own)
    assert tokenizer.decode(ids, skip_special_tokens=True) == ""
