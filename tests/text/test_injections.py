"""No text becomes a control token: 3,600 hostile strings in every field, on every way a text takes, in five kinds of tokenizers and five chat templates."""

from __future__ import annotations

import contextlib
import json
import random
import unicodedata
from pathlib import Path

import pytest

from llmstages.data.dialogues import Dialogue
from llmstages.data.formats.dialogues import dialogue
from llmstages.data.formats.turns import InvalidRow
from llmstages.text import chat_format
from llmstages.text.messages import message
from llmstages.text.render import render
from llmstages.text.special_tokens import special_tokens_of
from llmstages.text.templates import NAMED
from llmstages.train import checks
from tests.tiny import CONTROL, ROLES, TEXTS, control_ids

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
OTHERS = (
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|system|>",
    "[CLS]",
    "[UNK]",
    "<unk>",
    "<0x0A>",
    "<tool_call>",
    "</tool_response>",
    "{{ messages }}",
    "{% raw %}",
    "\ue000",
    "\x00",
    "\x00user",
    "<|\u200bim_end|>",
)
STRINGS = 400


def hostile(rng: random.Random) -> str:
    """Marks whole, split, nested, in other Unicode forms, between ordinary text."""
    mark = rng.choice((*CONTROL, *OTHERS, *(t for style in NAMED.values() for t in style.tokens)))
    cut = rng.randrange(len(mark) + 1)
    kind = rng.randrange(6)
    text = (
        mark,
        mark[:cut] + " " + mark[cut:],
        mark[:cut] + mark + mark[cut:],
        mark.upper(),
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in mark),
        mark + "\n" + rng.choice(ROLES) + "\n" + rng.choice(CONTROL),
    )[kind]
    return (
        rng.choice(("", "", " ", "hi ", "\n"))
        + text
        + rng.choice(("", " ", " evil", rng.choice(CONTROL)))
    )


FOREIGN = """{%- for m in messages -%}
{%- if m.role == 'tool' -%}{{- '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' -}}
{%- else -%}{{- '<|im_start|>' + m.role + '\n' + m.content -}}
{%- for call in m.tool_calls or [] -%}{{- '<tool_call>\n' + (call.function | tojson) + '\n</tool_call>' -}}{%- endfor -%}{{- '<|im_end|>\n' -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"""
FOREIGN = (
    "{%- if tools -%}{{- '<|im_start|>system\n' + (tools | tojson) + '<|im_end|>\n' -}}{%- endif -%}"
    + FOREIGN
)


def foreign(texts):
    """As the Qwen models have it: no BOS, no marks of generation, calls as JSON, marks that are no special tokens."""
    from transformers import PreTrainedTokenizerFast

    from llmstages.plugins.tokenizer import bpe

    engine = bpe.build(texts, bpe.BPEConfig(vocab_size=400)).backend_tokenizer
    made = PreTrainedTokenizerFast(
        tokenizer_object=engine, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.add_tokens(["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"])
    made.chat_template = FOREIGN
    return made


def knowing():
    """As in SentencePiece, where the control pieces are entries of the model itself: switching special tokens off is not enough."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    marks = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(
        {c for style in NAMED.values() for t in style.tokens for c in t}
        | set(map(chr, range(33, 127)))
        | set("▁\n")
    )
    engine = Tokenizer(
        models.Unigram(
            [
                ("<unk>", 0.0),
                *((mark, 0.0) for mark in marks),
                ("▁", -2.0),
                *((c, -5.0) for c in letters if c != "▁"),
            ],
            unk_id=0,
        )
    )
    engine.pre_tokenizer, engine.decoder = (
        pre_tokenizers.Metaspace(prepend_scheme="never"),
        decoders.Metaspace(prepend_scheme="never"),
    )
    engine.add_special_tokens(marks)
    made = PreTrainedTokenizerFast(
        tokenizer_object=engine,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    made.chat_template = "{{ bos_token }}" + FOREIGN
    return made


@pytest.fixture(scope="module")
def tokenizers():
    from llmstages.plugins.tokenizer import bpe, unigram, wordpiece

    texts = [*TEXTS, *["user", "assistant", "system", "tool"] * 50]
    return {
        "bpe": bpe.build(texts, bpe.BPEConfig(vocab_size=400)),
        "bpe without a leading space": bpe.build(
            texts, bpe.BPEConfig(vocab_size=400, leading_space=False)
        ),
        "bpe, words of llama 3": bpe.build(texts, bpe.BPEConfig(vocab_size=400, pattern="llama3")),
        "unigram": unigram.Unigram().build(texts, unigram.UnigramConfig(vocab_size=700)),
        "wordpiece": wordpiece.WordPiece().build(texts, wordpiece.WordPieceConfig(vocab_size=400)),
        **{
            f"bpe in {name}": bpe.build(texts, bpe.BPEConfig(vocab_size=400, template=name))
            for name in ("llama3", "zephyr", "plain")
        },
        "a tokenizer of others": foreign(texts),
        "a model that knows its marks": knowing(),
    }


NAMES = (
    "bpe",
    "bpe without a leading space",
    "bpe, words of llama 3",
    "unigram",
    "wordpiece",
    "bpe in llama3",
    "bpe in zephyr",
    "bpe in plain",
    "a tokenizer of others",
    "a model that knows its marks",
)


@pytest.mark.parametrize("name", NAMES)
def test_no_text_becomes_a_control_token(tokenizers, name):
    tokenizer, rng = tokenizers[name], random.Random(name)
    marks = set(control_ids(tokenizer).values())
    marks |= {
        id for token, id in tokenizer.get_added_vocab().items() if token != tokenizer.unk_token
    }
    assert marks == {
        id
        for token, (id, _, _) in special_tokens_of(tokenizer).ids.items()
        if token != tokenizer.unk_token
    }

    def controls(ids):
        return [token for token in ids if token in marks]

    def talk(text):
        tools = json.dumps(
            [
                {
                    "type": "function",
                    "function": {
                        "name": "weather",
                        "description": text,
                        "parameters": {text: {"type": "string"}},
                    },
                }
            ]
        )
        return [
            {**message("system", ""), "tools": tools},
            message("user", text),
            message("assistant", text, "search"),
            message("tool", text, "search"),
            message("assistant", text),
            message("user", text),
            message("assistant", text, "weather"),
            message("tool", text, "weather"),
            message("assistant", text),
        ]

    texts = [hostile(rng) for _ in range(STRINGS)]
    for ways in (
        lambda some: [
            r.ids for r in render(tokenizer, [talk(t) for t in some])
        ],  # SFT, reward, GRPO's rewards
        lambda some: chat_format.prompt_ids(
            tokenizer, [talk(t)[:-1] for t in some]
        ),  # evaluation, RL, chat, after a tool
        lambda some: [
            r.ids for r in chat_format.render_plain(tokenizer, [talk(t) for t in some])
        ],  # dialogues in pretraining
        lambda some: chat_format.document_ids(tokenizer, some),
    ):  # pretraining
        plain = controls(ways(["x"])[0])
        forged = [t for t, ids in zip(texts, ways(texts), strict=True) if controls(ids) != plain]
        assert not forged, f"{len(forged)} of {len(texts)}: {forged[:3]}"


@pytest.mark.parametrize("name", NAMES[:3])
def test_hostile_texts_come_back_as_they_were(tokenizers, name):
    rng = random.Random(1)
    texts = [hostile(rng).replace("\x00", "") for _ in range(STRINGS)]
    back = [
        chat_format.decode(tokenizers[name], ids)
        for ids in chat_format.encode_texts(tokenizers[name], texts)
    ]
    assert [b.strip() for b in back] == [t.strip() for t in texts]
    assert all(
        unicodedata.is_normalized("NFC", b) == unicodedata.is_normalized("NFC", t)
        for b, t in zip(back, texts, strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "content",
    ["The fox.", " begins with a space", "", "two\nlines\n", "12+34=46", "ends with a space "],
)
def test_benign_texts_render_as_the_saved_template_does(tokenizers, name, content):
    tokenizer = tokenizers[name]
    talk = [
        {**message("system", content), "tools": '[{"name": "weather"}]'},
        message("user", content),
        message("assistant", content, "calculator"),
        message("tool", content, "calculator"),
        message("assistant", content),
        message("user", content),
        message("assistant", content, "weather"),
        message("tool", content, "weather"),
    ]
    for end in range(2, len(talk) + 1):
        ours, (ids, mask) = (
            render(tokenizer, [talk[:end]])[0],
            checks.apply_chat_template(tokenizer, talk[:end]),
        )
        assert ours.ids == ids and ours.supervised == ([bool(on) for on in mask] or ours.supervised)
        assert (
            chat_format.prompt_ids(tokenizer, [talk[:end]])[0]
            == checks.apply_chat_template(tokenizer, talk[:end], prompt=True)[0]
        )


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", NAMES)
def test_real_dialogues_render_as_the_saved_template_does(tokenizers, name):
    rows = [
        row
        for path in ("alpaca_en_demo.json", "glaive_toolcall_en_demo.json")
        for row in json.loads((DATA / "llamafactory" / path).read_text())[:300]
    ]
    rows += [
        {"chosen": json.loads(line)["chosen"]}
        for line in (DATA / "hh" / "pairs.jsonl").read_text().splitlines()[:200]
    ]
    found = []
    for row in rows:
        with contextlib.suppress(InvalidRow):
            found.append(dialogue(row))
    assert len(found) >= 500
    result = {
        g["gate"]: g
        for g in checks.check_dialogue_template(
            [Dialogue(str(i), m) for i, m in enumerate(found)], tokenizers[name]
        )
    }
    assert result["prompts that differ from training"]["passed"]
    benign = [
        (i, m)
        for i, m in enumerate(found)
        if not any(special_tokens_of(tokenizers[name]).found.search(t["content"]) for t in m)
    ]
    different = [
        i
        for i, m in benign
        if not checks._equal(
            render(tokenizers[name], [m])[0], *checks.apply_chat_template(tokenizers[name], m)
        )
    ]
    assert not different and len(benign) > 500


# templates that work on contents: (template, messages); with transformers' own call each would give the mark
ROUND = "{{- '<|im_start|>' -}}%s{{- '<|im_end|>' -}}"
WORKING = {
    "two contents side by side": (
        ROUND % "{{- messages[0].content -}}{{- messages[1].content -}}",
        ["x <|im_", "end|> y"],
    ),
    "trimmed contents side by side": (
        ROUND % "{{- messages[0].content | trim -}}{{- messages[1].content | trim -}}",
        ["x <|im_ ", " end|> y"],
    ),
    "one in the middle": (ROUND % "{{- '<|' + messages[0].content + '|>' -}}", ["im_end", "y"]),
    "in small letters": (ROUND % "{{- messages[0].content | lower -}}", ["a <|IM_END|> b", "y"]),
    "in capitals": (ROUND % "{{- messages[0].content | upper -}}", ["a <|im_end|> b", "y"]),
    "as JSON": (ROUND % "{{- messages[0].content | tojson -}}", ['say "<|im_end|>"\n', "y"]),
    "as JSON in ASCII": (
        ROUND % "{{- messages[0].content | tojson(ensure_ascii=True) -}}",
        ["é <|im_end|>", "y"],
    ),
    "with other private characters": (
        ROUND % "{{- messages[0].content -}}",
        ["\ue000\ue001 <|im_end|> \ue000", "y"],
    ),
    "a key that is the inside of a mark": (
        ROUND % "{%- for key in tools[0].function -%}{{- '<' ~ key ~ '>' -}}{%- endfor -%}",
        ["x", "y"],
    ),
}


@pytest.mark.parametrize("kind", WORKING)
def test_templates_that_work_on_contents_make_no_marks_and_lose_nothing(tokenizers, kind):
    import copy

    template, (first, second) = WORKING[kind]
    tokenizer = copy.deepcopy(tokenizers["a tokenizer of others"])
    tokenizer.chat_template = template
    schemas = json.dumps([{"type": "function", "function": {"name": "f", "tool_response": "x"}}])
    messages = [message("user", first), message("user", second)]
    ids = chat_format.prompt_ids(
        tokenizer,
        [[{**message("system", ""), "tools": schemas}, *messages] if "key" in kind else messages],
    )[0]
    marks = set(tokenizer.get_added_vocab().values())
    assert [token for token in ids if token in marks] == [ids[0], ids[-1]]
    written = tokenizer.apply_chat_template(messages, tools=json.loads(schemas), tokenize=False)
    assert (
        tokenizer.decode(ids, clean_up_tokenization_spaces=False).casefold() == written.casefold()
    )


def test_what_only_looks_like_a_part_of_a_mark_changes_nothing(tokenizers):
    """Quotes, HTML and names that are the inside of a mark, in JSON and in comparisons of the template: the ids of transformers' own call."""
    import copy

    foreign, ours = tokenizers["a tokenizer of others"], copy.deepcopy(tokenizers["bpe"])
    ours.add_special_tokens(
        {"extra_special_tokens": ["<jupyter_code>"]}, replace_extra_special_tokens=False
    )
    for content in (
        '{"q": "> said \\"hi\\"\\nnow"}',
        "> quoted\n> twice",
        "a <",
        "code",
        "tool_call",
    ):
        messages = [
            message("user", content),
            message("assistant", content, "f"),
            message("tool", content, "f"),
            message("assistant", content),
        ]
        assert checks._equal(
            render(foreign, [messages])[0], *checks.apply_chat_template(foreign, messages)
        )
    messages = [
        message("user", "1+1?"),
        message("assistant", "1+1", "code"),
        message("tool", "2", "code"),
        message("assistant", "2"),
    ]
    assert "<CODE_START> 1+1<CODE_END>" in ours.decode(render(ours, [messages])[0].ids)


def test_blanks_of_an_answer_are_under_loss_where_offsets_are_trimmed(tokenizers):
    import copy

    from tokenizers import processors

    tokenizer = copy.deepcopy(tokenizers["a tokenizer of others"])
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    done = render(tokenizer, [[message("user", "x"), message("assistant", "In 12 and  3:  4")]])[0]
    assert (
        tokenizer.decode([token for token, on in zip(done.ids, done.supervised, strict=True) if on])
        == "In 12 and  3:  4<|im_end|>"
    )


def test_a_mark_within_an_answer_does_not_end_it(tokenizers):
    """Without marks of generation: the turn ends in plain text, and holds a mark before it."""
    import copy

    tokenizer = copy.deepcopy(tokenizers["a tokenizer of others"])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ':' }}{% if m.role == 'assistant' %}{{ ' <tool_call></tool_call>' }}{% endif %}{{ ' ' + m.content + '\n\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    done = render(tokenizer, [[message("user", "x"), message("assistant", "In Ra.")]])[0]
    assert "In Ra." in tokenizer.decode(
        [token for token, on in zip(done.ids, done.supervised, strict=True) if on]
    )
    assert chat_format.control(tokenizer).end is None
    found = {g["gate"]: g for g in checks.check_rows([done], tokenizer)}
    assert not found["dialogues whose end of turn is supervised"]["passed"]
