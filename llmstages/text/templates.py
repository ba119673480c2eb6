"""Chat templates: the named ones, and how a tokenizer gets one.

A named template is one Jinja text (dialogue.jinja) after a line that sets its style, so all of them carry tool calls and mark
what the assistant says with ``{% generation %}``. The control tokens of a style are registered as special tokens. Templates
of others (a tokenizer's own, a file) are taken as they are: rendering.py renders any of them, gates.py holds them to account.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError

ROLES = ("system", "user", "assistant", "tool")
RESULT = ("<RESULT_START>", "<RESULT_END>")
CALLS = {
    "search": ("<SEARCH_START>", "<SEARCH_END>"),
    "calculator": ("<CALC_START>", "<CALC_END>"),
    "code": ("<CODE_START>", "<CODE_END>"),
    "": ("<TOOL_START>", "<TOOL_END>"),
}
TOOLS = (*RESULT, *(mark for pair in CALLS.values() for mark in pair))
OWN = "own"


@dataclass(frozen=True)
class Style:
    """A named template. head: what begins a turn, with {role} in it; end ends it; after follows the end and carries no loss.

    marks: the control tokens in ``head``. trim: contents are stripped of blanks around them. space: each begins with one.
    """

    pad: str
    bos: str
    marks: tuple[str, ...]
    end: str
    head: str
    after: str = ""
    trim: bool = False
    space: bool = False

    @property
    def tokens(self) -> tuple[str, ...]:
        """All control tokens, those of tools included."""
        return (self.pad, self.bos, *self.marks, self.end, *TOOLS)

    def text(self, leading_space: bool) -> str:
        """As Jinja; leading_space: the tokenizer encodes every text with one leading space (chat.encode_texts)."""
        heads = {role: self.head.format(role=role, Role=role.capitalize()) for role in ROLES[:3]}
        style = {
            "bos": self.bos,
            "heads": heads,
            "end": self.end,
            "after": self.after,
            "trim": self.trim,
            "space": self.space or leading_space,
            "result": RESULT,
            "calls": CALLS,
        }
        return "{%- set style = " + json.dumps(style) + " -%}\n" + _dialogue()


@cache
def _dialogue() -> str:
    return (Path(__file__).parent / "dialogue.jinja").read_text(encoding="utf-8").strip()


NAMED = {
    "chatml": Style(
        "<|pad|>",
        "<|endoftext|>",
        ("<|im_start|>", "<|im_sep|>"),
        "<|im_end|>",
        "<|im_start|>{role}<|im_sep|>",
    ),
    "llama3": Style(
        "<|finetune_right_pad_id|>",
        "<|begin_of_text|>",
        ("<|start_header_id|>", "<|end_header_id|>"),
        "<|eot_id|>",
        "<|start_header_id|>{role}<|end_header_id|>\n\n",
        trim=True,
    ),
    "zephyr": Style(
        "<pad>",
        "<s>",
        ("<|system|>", "<|user|>", "<|assistant|>"),
        "</s>",
        "<|{role}|>\n",
        after="\n",
        trim=True,
    ),
    "plain": Style(
        "<|pad|>", "<|endoftext|>", (), "<|end|>", "{Role}:", after="\n", trim=True, space=True
    ),
}
DEFAULT = "chatml"


def tokens(name: str) -> tuple[str, ...]:
    """The control tokens of a named template."""
    return NAMED[name].tokens


def template_of(tokenizer: Any) -> str:
    """The chat template; of several by name the one called default."""
    found = tokenizer.chat_template
    return (
        (found.get("default") or next(iter(found.values()), ""))
        if isinstance(found, dict)
        else found or ""
    )


def read(path: str, where: str) -> str:
    """The text of a Jinja file. where: the option that named it."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StageError(f"{where}={path} cannot be read: {error}") from error
    if not text.strip():
        raise StageError(f"{where}={path} is empty; it must hold a chat template in Jinja")
    return text


def install(tokenizer: Any, name: str = DEFAULT, text: str = "") -> list[str]:
    """Give a tokenizer a chat template and the control tokens it lacks; returns those it lacked.

    name: one of NAMED, or "own": the tokens and the template that it brought along. text: Jinja of one's own, instead of the template.
    """
    before = set(tokenizer.get_vocab())
    if name == OWN:
        if not text and not template_of(tokenizer):
            raise StageError(
                f"the tokenizer brings no chat template along; choose one of {', '.join(NAMED)}, or give a Jinja file"
            )
        if tokenizer.pad_token in (
            None,
            tokenizer.eos_token,
        ):  # else the end of a turn would carry no loss
            tokenizer.add_special_tokens({"pad_token": NAMED[DEFAULT].pad})
        tokenizer.chat_template = text or template_of(tokenizer)
    else:
        style = NAMED[name]
        own = {"bos_token": style.bos, "eos_token": style.end, "pad_token": style.pad}
        tokenizer.add_special_tokens(
            {**own, "extra_special_tokens": [t for t in style.tokens if t not in own.values()]}
        )
        tokenizer.chat_template = text or style.text(
            bool(tokenizer.init_kwargs.get("leading_space"))
        )
    return sorted(set(tokenizer.get_vocab()) - before, key=tokenizer.convert_tokens_to_ids)
