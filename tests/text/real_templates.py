"""Chat templates that others made, each with a tokenizer that has its control tokens.

TRL carries some forty templates of published models. A small byte-level tokenizer gets the control
tokens that a template writes, so that nothing needs to be downloaded.
"""

from __future__ import annotations

import copy
import re
from functools import cache
from pathlib import Path

from llmstages.text.messages import message, with_tools
from tests.tiny import tiny_tokenizer

# What control tokens look like: <|im_start|>, <start_of_turn>, [INST], <｜User｜>, <|"|>.
CONTROL = re.compile(
    r"""<\|[^\s<>|]+\|?>|<[^\s<>|]*\|>|<｜[^<>]+?｜>|</?[a-z_]+[0-9]*>|\[/?[A-Z_]+\]"""
)
# HTML-like words in the text of a template that are no tokens of the model.
NOT_TOKENS = re.compile(r"</?(tools|function|parameter|arg_key|arg_value|args|name|value|b|i)>")
# Template -> (bos, eos), where they are variables in the template.
SPECIAL = {
    "cohere": ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
    "cohere2": ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
    "deepseek_r1_distill": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "deepseekv3": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "diffusion_gemma": ("<bos>", "<eos>"),
    "gemma": ("<bos>", "<eos>"),
    "gemma3": ("<bos>", "<eos>"),
    "gemma4": ("<bos>", "<eos>"),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
    "llama3_1": ("<|begin_of_text|>", "<|eot_id|>"),
    "llama3_2": ("<|begin_of_text|>", "<|eot_id|>"),
    "lfm2": ("<|startoftext|>", "<|im_end|>"),
    "gptoss": ("<|startoftext|>", "<|return|>"),
    "phi3": ("<s>", "<|endoftext|>"),
    "phi3_5": ("<s>", "<|endoftext|>"),
    "glm4moe": (None, "<|endoftext|>"),
    "smolvlm": ("<|im_start|>", "<end_of_utterance>"),
    "idefics3": ("<|begin_of_text|>", "<end_of_utterance>"),
}
DEFAULT_SPECIAL = (None, "<|im_end|>")

SCHEMAS = (
    '[{"type": "function", "function": {"name": "weather", "description": "tells the weather", '
    '"parameters": {"type": "object", "properties": {"city": {"type": "string", "description": '
    '"a city"}}, "required": ["city"]}}}]'
)
QUESTION = message("user", "Where is the fox?")
ANSWER = message("assistant", "Near the river.")
THOUGHT = {**message("assistant", "It is 46."), "reasoning_content": "12 and 34 make 46."}
KINDS = {
    "plain": [QUESTION, ANSWER],
    "turns": [
        message("system", "You are kind."),
        QUESTION,
        ANSWER,
        message("user", "And the dog?"),
        message("assistant", "Far away."),
    ],
    "tools": with_tools(
        [
            message("user", "How is the weather in Ra?"),
            message("assistant", '{"city": "Ra"}', "weather"),
            message("tool", '{"sky": "clear"}', "weather"),
            message("assistant", "The sky is clear."),
        ],
        SCHEMAS,
    ),
    "reasoning": [message("user", "What is 12 + 34?"), THOUGHT],
}


def folder() -> Path:
    """Where TRL keeps its chat templates."""
    import trl

    return Path(str(trl.__file__)).parent / "chat_templates"


@cache
def names() -> list[str]:
    """The templates of published models, without their training forms."""
    return sorted(
        file.stem for file in folder().glob("*.jinja") if not file.stem.endswith("_training")
    )


@cache
def tokenizer_for(name: str):
    """A byte-level tokenizer with the template and the control tokens that it writes."""
    text = (folder() / f"{name}.jinja").read_text(encoding="utf-8")
    tokenizer = copy.deepcopy(tiny_tokenizer())
    family = next((key for key in sorted(SPECIAL, key=len)[::-1] if name.startswith(key)), "")
    bos, eos = SPECIAL.get(family, DEFAULT_SPECIAL)
    found = [token for token in CONTROL.findall(text) if not NOT_TOKENS.fullmatch(token)]
    tokens = list(dict.fromkeys([*found, *[token for token in (bos, eos) if token]]))
    tokenizer.add_special_tokens({"extra_special_tokens": tokens})
    tokenizer.bos_token = bos
    tokenizer.eos_token = eos
    tokenizer.pad_token = eos
    tokenizer.chat_template = text
    return tokenizer
