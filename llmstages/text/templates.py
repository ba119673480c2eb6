"""Chat templates: the named ones, and how a tokenizer gets one.

A named template is one Jinja text (dialogue.jinja) after a line that sets its style. So all of them
support tool calls, and rows are rendered with marks around what the assistant says. The control
tokens of a style are registered as special tokens. Templates from elsewhere (a tokenizer's own, a
file) are used as they are: render.py renders any of them, and the checks before training find out
whether they fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from llmstages.core import registry
from llmstages.core.errors import StageError
from llmstages.text.generation_tags import strip_generation

ROLES = ("system", "user", "assistant", "tool")
RESULT = ("<RESULT_START>", "<RESULT_END>")
ANY_TOOL = ("<TOOL_START>", "<TOOL_END>")  # around calls of tools without marks of their own
DEFAULT_TOOLS = ("search", "calculator", "python")  # tools whose calls get marks of their own
OWN = "own"
Marks = tuple[str, str]  # the control tokens before and after a call
STYLE_LINE = re.compile(r"\{%- set style = (\{.*\}) -%\}")


def marks_of(tool: str) -> Marks:
    """The control tokens around the calls of a tool.

    A registered tool may bring them along in its attribute ``marks``.
    """
    if tool in registry.entries("tools"):
        marks = getattr(registry.load_checked("tools", tool), "marks", None)
        if marks:
            return tuple(marks)
    return f"<{tool.upper()}_START>", f"<{tool.upper()}_END>"


def call_marks(tools: Sequence[str] = DEFAULT_TOOLS) -> dict[str, Marks]:
    """Tool -> the control tokens around its calls; "" stands for every other tool."""
    return {**{tool: marks_of(tool) for tool in tools}, "": ANY_TOOL}


@cache
def calls_in(template: str) -> Mapping[str, Marks]:
    """Tool -> the control tokens around its calls, as a template names them.

    Templates from elsewhere have none of their own: the usual ones are assumed.
    """
    match = STYLE_LINE.match(template)
    if not match:
        return call_marks()
    return {tool: (first, last) for tool, (first, last) in json.loads(match[1])["calls"].items()}


@dataclass(frozen=True)
class Style:
    """A named template.

    head: begins a turn; it contains {role} or {Role}. end: ends it. after: follows the end and is
    not supervised. marks: the control tokens in ``head``. trim: white space around contents is
    removed. space: each content begins with a space.
    """

    pad: str
    bos: str
    marks: tuple[str, ...]
    end: str
    head: str
    after: str = ""
    trim: bool = False
    space: bool = False

    def tokens(self, tools: Sequence[str] = DEFAULT_TOOLS) -> tuple[str, ...]:
        """All control tokens, including those around the calls of tools."""
        calls = [token for pair in call_marks(tools).values() for token in pair]
        return (self.pad, self.bos, *self.marks, self.end, *RESULT, *calls)

    def text(self, leading_space: bool, tools: Sequence[str] = DEFAULT_TOOLS) -> str:
        """The template as Jinja.

        leading_space: the tokenizer encodes every text with one leading space
        (chat_format.encode_texts). tools: those whose calls have marks of their own.
        """
        # The turns of the fourth role, tool, stand inside those of the assistant.
        heads = {role: self.head.format(role=role, Role=role.capitalize()) for role in ROLES[:3]}
        style = {
            "bos": self.bos,
            "heads": heads,
            "end": self.end,
            "after": self.after,
            "trim": self.trim,
            "space": self.space or leading_space,
            "result": RESULT,
            "calls": call_marks(tools),
        }
        return "{%- set style = " + json.dumps(style) + " -%}\n" + _plain_jinja()


@cache
def _dialogue_jinja() -> str:
    return (Path(__file__).parent / "dialogue.jinja").read_text(encoding="utf-8").strip()


@cache
def _plain_jinja() -> str:
    """The same without the marks that transformers alone can read: what is saved."""
    return strip_generation(_dialogue_jinja())


def marked_form(template: str) -> str:
    """A saved named template with marks around what the assistant says; others stay as they are."""
    if not template.endswith(_plain_jinja()):
        return template
    return template.removesuffix(_plain_jinja()) + _dialogue_jinja()


NAMED = {
    "chatml": Style(
        pad="<|pad|>",
        bos="<|endoftext|>",
        marks=("<|im_start|>", "<|im_sep|>"),
        end="<|im_end|>",
        head="<|im_start|>{role}<|im_sep|>",
    ),
    "llama3": Style(
        pad="<|finetune_right_pad_id|>",
        bos="<|begin_of_text|>",
        marks=("<|start_header_id|>", "<|end_header_id|>"),
        end="<|eot_id|>",
        head="<|start_header_id|>{role}<|end_header_id|>\n\n",
        trim=True,
    ),
    "zephyr": Style(
        pad="<pad>",
        bos="<s>",
        marks=("<|system|>", "<|user|>", "<|assistant|>"),
        end="</s>",
        head="<|{role}|>\n",
        after="\n",
        trim=True,
    ),
    "plain": Style(
        pad="<|pad|>",
        bos="<|endoftext|>",
        marks=(),
        end="<|end|>",
        head="{Role}:",
        after="\n",
        trim=True,
        space=True,
    ),
}
DEFAULT = "chatml"


def tokens(name: str, tools: Sequence[str] = DEFAULT_TOOLS) -> tuple[str, ...]:
    """The control tokens of a named template."""
    return NAMED[name].tokens(tools)


def template_of(tokenizer: Any) -> str:
    """The chat template of a tokenizer, "" for none; of several by name, the default one."""
    template = tokenizer.chat_template
    if not isinstance(template, dict):
        return template or ""
    if template.get("default"):
        return template["default"]
    return next(iter(template.values()), "")


def read(path: str, where: str) -> str:
    """The text of a Jinja file. where: the option that names it, for messages of StageError."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StageError(f"{where}={path} cannot be read: {error}") from error
    if not text.strip():
        raise StageError(f"{where}={path} is empty; it must contain a chat template in Jinja")
    return text


def install(
    tokenizer: Any,
    name: str = DEFAULT,
    text: str = "",
    tools: Sequence[str] = DEFAULT_TOOLS,
) -> list[str]:
    """Give a tokenizer a chat template and the control tokens that it lacks; returns these tokens.

    name: one of NAMED, or "own" for the tokens and the template that the tokenizer already has.
    text: Jinja to use instead of the named template. tools: those whose calls get control tokens
    of their own. Raises StageError where "own" is chosen and
    there is no template.
    """
    before = set(tokenizer.get_vocab())
    if name == OWN:
        _keep_own(tokenizer, text)
    else:
        _install_style(tokenizer, NAMED[name], text, tools)
    added = set(tokenizer.get_vocab()) - before
    return sorted(added, key=tokenizer.convert_tokens_to_ids)


def _keep_own(tokenizer: Any, text: str) -> None:
    template = text or template_of(tokenizer)
    if not template:
        raise StageError(
            "the tokenizer has no chat template of its own; "
            f"choose one of {', '.join(NAMED)}, or give a Jinja file"
        )
    if tokenizer.pad_token is None:
        # The loss mask never follows from the padding, so the end of turns may serve as well.
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = template


def _install_style(tokenizer: Any, style: Style, text: str, tools: Sequence[str]) -> None:
    special = {"bos_token": style.bos, "eos_token": style.end, "pad_token": style.pad}
    extra = [token for token in style.tokens(tools) if token not in special.values()]
    # The tokenizer of a foreign model keeps the special tokens that it has.
    tokenizer.add_special_tokens(
        {**special, "extra_special_tokens": extra}, replace_extra_special_tokens=False
    )
    leading_space = bool(tokenizer.init_kwargs.get("leading_space"))
    tokenizer.chat_template = text or style.text(leading_space, tools)
