"""What models of several families wrote, read back: recorded by hand in each family's syntax."""

from __future__ import annotations

import json

import pytest

from llmstages.text import generate
from llmstages.text.messages import message, with_tools
from llmstages.text.render import render_prompts
from llmstages.text.replies import parse_turn
from tests.text.real_templates import KINDS, QUESTION, names, tokenizer_for
from tests.tiny import tiny_tokenizer

CALL = '{"name": "weather", "arguments": {"city": "Ra"}}'
# family -> (template, what the model wrote, the messages that it means)
RA = message("assistant", '{"city": "Ra"}', "weather")
GENERATIONS = {
    "Qwen 2.5": (
        "qwen2_5",
        f"<tool_call>\n{CALL}\n</tool_call><|im_end|>",
        [RA],
    ),
    "Qwen 2.5, text and two calls": (
        "qwen2_5",
        f"Let me see.\n<tool_call>\n{CALL}\n</tool_call>\n"
        f"<tool_call>\n{CALL}\n</tool_call><|im_end|>",
        [message("assistant", "Let me see."), RA, RA],
    ),
    "Qwen 3 with thinking": (
        "qwen3",
        f"<think>\nWhich city?\n</think>\n\n<tool_call>\n{CALL}\n</tool_call><|im_end|>",
        [{**RA, "reasoning_content": "Which city?"}],
    ),
    "Qwen 3, an answer": (
        "qwen3",
        "<think>\nHm.\n</think>\n\nIt is clear.<|im_end|>",
        [{**message("assistant", "It is clear."), "reasoning_content": "Hm."}],
    ),
    "Qwen 3.5": (
        "qwen3_5_nothink",
        "<tool_call>\n<function=weather>\n<parameter=city>\nRa\n</parameter>\n</function>\n"
        "</tool_call><|im_end|>",
        [RA],
    ),
    "Llama 3.1": (
        "llama3_1",
        '{"name": "weather", "parameters": {"city": "Ra"}}<|eot_id|>',
        [RA],
    ),
    "Llama 3, a text in braces": (
        "llama3",
        '{"city": "Ra"}<|eot_id|>',
        [message("assistant", '{"city": "Ra"}')],
    ),
    "gpt-oss": (
        "gptoss",
        ' to=functions.weather<|channel|>commentary json<|message|>{"city": "Ra"}<|call|>',
        [RA],
    ),
    "gpt-oss, an answer": (
        "gptoss",
        "<|channel|>final<|message|>It is clear.<|return|>",
        [message("assistant", "It is clear.")],
    ),
    "GLM 4": (
        "glm4moe",
        "\n<think></think>\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Ra</arg_value>\n"
        "</tool_call><|user|>",
        [RA],
    ),
    "Gemma 4": (
        "gemma4",
        '<|tool_call>call:weather{city:<|"|>Ra<|"|>}<tool_call|><turn|>',
        [RA],
    ),
    "LFM 2.5": (
        "lfm2_2_5",
        "<|tool_call_start|>[weather(city='Ra')]<|tool_call_end|><|im_end|>",
        [RA],
    ),
    "Hermes in a template without tools": (
        "llama3",
        f"<tool_call>\n{CALL}\n</tool_call><|eot_id|>",
        [RA],
    ),
    "what is not a call stays text": (
        "llama3",
        "<tool_call>\nweather in Ra\n</tool_call><|eot_id|>",
        [message("assistant", "<tool_call>\nweather in Ra\n</tool_call>")],
    ),
}


@pytest.mark.parametrize("family", GENERATIONS)
def test_calls_are_read_back(family):
    name, text, expected = GENERATIONS[family]
    tokenizer = tokenizer_for(name)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    messages, ended = parse_turn(tokenizer, ids)
    assert ended or name == "gptoss"  # <|call|> ends a reply by the model's own config
    assert [dict(turn) for turn in messages] == [dict(turn) for turn in expected]


# Families whose syntax neither transformers nor TRL describes for reading.
UNREADABLE = ("diffusion_gemma", "muse_glimmer")


@pytest.mark.parametrize("name", names())
def test_what_a_template_writes_is_read_back(name):
    """The call and the answer of a dialogue, as the template itself writes them."""
    tokenizer = tokenizer_for(name)
    system, question, call, result, _ = KINDS["tools"]
    prompt, row = [
        rendered.ids
        for rendered in render_prompts(
            tokenizer, [[system, question], [system, question, call, result]]
        )
    ]
    if row[: len(prompt)] != prompt:
        pytest.skip("the template changes earlier turns")
    messages, _ = parse_turn(tokenizer, row[len(prompt) :])
    calls = [turn for turn in messages if turn["tool"]]
    if name in UNREADABLE:
        assert not calls, f"{name} can be read now"
        return
    assert [(turn["tool"], json.loads(turn["content"])) for turn in calls] == [
        ("weather", {"city": "Ra"})
    ]


def test_a_reply_that_ran_out_of_tokens_is_not_ended():
    tokenizer = tokenizer_for("qwen2_5")
    ids = tokenizer("It is <tool_call>", add_special_tokens=False)["input_ids"]
    [reply], ended = parse_turn(tokenizer, ids)
    assert not ended
    assert not reply["tool"]


class Weather:
    """Tells the weather of a city."""

    def __call__(self, argument):
        return f"clear in {argument}"


def test_tools_of_real_models_run(monkeypatch):
    """Schemas are in the prompt, calls are run, results come back, the answer ends the exchange."""
    tokenizer = tokenizer_for("qwen2_5")
    said = [f"<tool_call>\n{CALL}\n</tool_call><|im_end|>", "It is clear.<|im_end|>"]
    prompts = []

    def generated(model, tokenizer, rows, **options):
        prompts.append(tokenizer.decode(rows[0]))
        ids = tokenizer(said[len(prompts) - 1], add_special_tokens=False)["input_ids"]
        return [ids], [1.0]

    monkeypatch.setattr(generate, "generate", generated)
    [reply] = generate.reply(None, tokenizer, [[QUESTION]], {"weather": Weather()})
    assert reply.text == "It is clear."
    assert reply.ended
    assert [turn["tool"] for turn in reply.messages] == ["weather", "weather", ""]
    assert reply.messages[1]["content"] == "clear in Ra"
    assert "Tells the weather of a city." in prompts[0]
    assert "clear in Ra" in prompts[1]


def test_our_own_models_are_not_shown_schemas():
    messages = generate.with_schemas(tiny_tokenizer(), [QUESTION], {"weather": Weather()})
    assert messages == [QUESTION]
    given = with_tools([QUESTION], "[]x")
    assert generate.with_schemas(tokenizer_for("qwen2_5"), given, {"weather": Weather()}) == given
