"""Messages -> token ids and the supervised mask, by any chat template, with no text of a user, page or tool as a control token.

The template is rendered by transformers' own code. Where a content could read as a control token, or complete one with its
neighbours, a character of it is changed for a stand-in that occurs nowhere else, and changed back when the text is encoded. Only
marks that stand in the rendered text become control tokens; what lies between two of them is encoded as one string in which
none can (protected.py), which is what transformers does for benign texts (the flaw of one string for all: transformers#29279).
The loss is on what stands in ``{% generation %}``. A template without it is asked turn by turn: what an assistant's turn adds
to the prompt before it, up to the control token that ends it.
Left out: templates that cut pieces out of contents, and so could make a mark of what is left; tokens that span two marks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from llmstages.core.errors import StageError
from llmstages.text import encode
from llmstages.text.messages import Message
from llmstages.text.special_tokens import Marks, special_tokens_of
from llmstages.text.templates import CALLS, ROLES, template_of

Span = tuple[int, int]
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # as transformers looks for it
_OURS = re.compile(
    r"""\w\[['"]tool['"]\]|\w\.tool\b"""
)  # the template reads our field "tool", not "tool_calls"
FIELDS = {
    "type",
    "function",
    "name",
    "description",
    "parameters",
    "properties",
    "required",
    "arguments",
    "items",
    "enum",
    "default",
    "input",
    "strict",
    "role",
    "content",
    "tool",
    "tool_calls",
}  # keys that templates look for: they are never changed


@dataclass
class Rendered:
    """Token ids of one dialogue and, for each, whether the loss sees it."""

    ids: list[int] = field(default_factory=list)
    supervised: list[bool] = field(default_factory=list)


def render(
    tokenizer: Any, dialogues: Sequence[Sequence[Message]], open_turn: bool = False
) -> list[Rendered]:
    """Render many dialogues. open_turn=True ends each ready for the assistant to speak: the prompt of generation."""
    template = template_of(tokenizer)
    if not template:
        raise StageError(
            "the tokenizer has no chat template, so dialogues cannot be rendered. tokenizer=bpe and tokenizer=pretrained give it one; "
            "for a model of others set it in SFT: sft.template=chatml"
        )
    known, plans, texts = special_tokens_of(tokenizer), [], _Texts(tokenizer)
    for messages in dialogues:
        for index, m in enumerate(messages):
            if m["role"] not in ROLES:
                raise StageError(
                    f"message {index} has the role {m['role']!r}; known roles are {', '.join(ROLES)}"
                )
        read, tools = template_fields(messages, template)
        hidden = _Hidden(known, template, [read, tools])
        text, spans = _write(tokenizer, hidden.of(read), hidden.of(tools), open_turn)
        plans.append(
            [
                texts.add(part) if isinstance(part, list) else part
                for part in _parts(text, spans, known, hidden)
            ]
        )
    texts.encode()
    out = []
    for plan in plans:
        done = Rendered()
        for part in plan:
            ids, on = texts.done[part] if isinstance(part, int) else ([part[0]], [part[1]])
            done.ids += ids
            done.supervised += on
        out.append(done)
    return out


@cache
def marks_generation(template: str) -> bool:
    """Whether the template marks what the assistant says (``{% generation %}``)."""
    return bool(_GENERATION.search(template))


@cache
def reads_tool_field(template: str) -> bool:
    """Whether the template reads calls and results as ours do, from the field ``tool``."""
    return bool(_OURS.search(template))


def rendered_text(tokenizer: Any, messages: Sequence[Message], open_turn: bool = False) -> str:
    """What the template writes, contents and all."""
    return _jinja(tokenizer, *template_fields(messages, template_of(tokenizer)), open_turn)[0]


def template_fields(
    messages: Sequence[Message], template: str
) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """(messages, tools) in the fields a template reads. Templates of others take calls as ``tool_calls``, and the schemas of tools
    (JSON text, in the field ``tools`` of the system turn) as ``tools``; ours have a system turn that ends with them."""
    messages = [{name: _clean(value) for name, value in m.items()} for m in messages]
    if reads_tool_field(template):
        return [
            {
                "role": m["role"],
                "content": "\n".join(part for part in (str(m["content"]), m.get("tools")) if part),
                "tool": m.get("tool") or "",
            }
            for m in messages
        ], None
    out: list[dict[str, Any]] = []
    tools = next((_schemas(m["tools"]) for m in messages if m.get("tools")), None)
    for m in messages:
        if m["role"] == "system" and m.get("tools") and not m["content"]:
            continue
        if m["role"] == "assistant" and m.get("tool"):
            called = {
                "type": "function",
                "function": {"name": m["tool"], "arguments": _arguments(str(m["content"]))},
            }
            out.append({"role": "assistant", "content": "", "tool_calls": [called]})
        else:
            out.append(
                {
                    "role": m["role"],
                    "content": str(m["content"]),
                    **({"name": m.get("tool") or ""} if m["role"] == "tool" else {}),
                }
            )
    return out, tools


def _arguments(text: str) -> dict[str, Any]:
    """The argument of a call as the object that templates write out."""
    try:
        value = _clean(json.loads(text))
    except (ValueError, RecursionError):
        value = text
    return value if isinstance(value, dict) else {"input": text}


def _schemas(text: str) -> list[Any]:
    """The schemas of tools, which are kept as JSON text."""
    try:
        value = _clean(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise StageError(
            f"the schemas of a dialogue's tools are no JSON ({error}): {text[:60]}"
        ) from error
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise StageError(f"the schemas of a dialogue's tools are no list of objects: {text[:60]}")
    return value


def _clean(value: Any) -> Any:
    """The value with texts that can be written (no lone surrogates), however deep."""
    if isinstance(value, str):
        return encode.replace_surrogates(value)
    if isinstance(value, dict):
        return {_clean(name): _clean(one) for name, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, list) else value


class _Hidden:
    """The characters of one dialogue that stay out of the template's sight, and the stand-ins for them."""

    def __init__(self, known: Marks, template: str, said: Any) -> None:
        self.known, self.ours, self.said, self.template = (
            known,
            bool(reads_tool_field(template)),
            said,
            template,
        )
        self.stands: dict[str, str] = {}  # character -> its stand-in
        self.free: Iterator[str] | None = None

    def of(self, value: Any, key: str = "") -> Any:
        """The value with all its texts made harmless, however deep. key: the field it stands in."""
        if isinstance(value, str):
            return (
                value
                if key == "role" or (key == "tool" and self.ours and value in CALLS)
                else self._hide(value)
            )
        if isinstance(value, dict):
            return {
                name if name in FIELDS else self._hide(name): self.of(one, name)
                for name, one in value.items()
            }
        return [self.of(one) for one in value] if isinstance(value, list) else value

    def _hide(self, text: str) -> str:
        """The text without the first character of each mark, and with other ends where they could be parts of one."""
        inner = text.strip()
        places = {one.start() for one in self.known.inside.finditer(text)}
        tail, head = self.known.edges(inner)
        begin = text.find(inner[:1]) if tail or head else 0
        places |= {
            place for place, wrong in ((begin, tail), (begin + len(inner) - 1, head)) if wrong
        }
        if not places:
            return text
        return "".join(self._stand_in(c) if i in places else c for i, c in enumerate(text))

    def _stand_in(self, character: str) -> str:
        if character not in self.stands:
            if self.free is None:
                taken = (
                    set(json.dumps(self.said, ensure_ascii=False))
                    | set(self.template)
                    | {c for mark in self.known.ids for c in mark}
                )
                self.free = (
                    chr(code)
                    for code in (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE))
                    if chr(code) not in taken
                )
            self.stands[character] = next(self.free)
        return self.stands[character]

    def back(self, text: str) -> str:
        """A piece of the rendered text as it is meant."""
        for character, stand in self.stands.items():
            text = text.replace(stand, character)
            if "ensure_ascii" in self.template:
                text = text.replace(f"\\u{ord(stand):04x}", character)
        return text


def _write(
    tokenizer: Any, messages: Sequence[dict[str, Any]], tools: list[Any] | None, open_turn: bool
) -> tuple[str, list[Span]]:
    """The template's text, and the spans of it that the assistant says."""
    if marks_generation(template_of(tokenizer)):
        return _jinja(tokenizer, messages, tools, open_turn, spans=True)
    text, _ = _jinja(tokenizer, messages, tools, open_turn)
    found, known = [], special_tokens_of(tokenizer)
    for i, m in enumerate(messages):
        if m["role"] != "assistant":
            continue
        before, upto = (
            _jinja(tokenizer, messages[:i], tools, True)[0],
            _jinja(tokenizer, messages[: i + 1], tools, False)[0],
        )
        ends = [one.end() for one in known.found.finditer(upto, len(before))]
        end = (
            ends[-1] if ends and not upto[ends[-1] :].strip() else len(upto)
        )  # a mark before the end of what is said ends nothing
        if not upto.startswith(before) or not text.startswith(upto[:end]):
            raise StageError(
                f"the chat template has no {{% generation %}} marks, and what the assistant says in message {i} cannot be told from its text: the "
                "prompt before it is not its beginning, or later turns change it. Put {% generation %} and {% endgeneration %} around what "
                "the assistant says, its end token included, or choose a template by name (sft.template=chatml)"
            )
        found.append((len(before), end))
    return text, found


def _jinja(
    tokenizer: Any,
    messages: Sequence[dict[str, Any]],
    tools: list[Any] | None,
    open_turn: bool,
    spans: bool = False,
) -> tuple[str, list[Span]]:
    """transformers' own rendering, as in ``apply_chat_template``."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, found = render_jinja_template(
            conversations=[list(messages)],
            tools=tools,
            chat_template=template_of(tokenizer),
            add_generation_prompt=open_turn,
            return_assistant_tokens_mask=spans,
            **tokenizer.special_tokens_map,
        )
    except (
        Exception
    ) as error:  # the template is foreign code: whatever it raises is its answer to this dialogue
        roles = ", ".join(m["role"] for m in messages)
        raise StageError(
            f"the chat template cannot render a dialogue of the turns {roles or '(none)'}: {type(error).__name__}: {error}. "
            "Give it dialogues it knows, or another template (sft.template=chatml)"
        ) from error
    return texts[0], list(found[0]) if spans else []


def _parts(text: str, spans: Sequence[Span], known: Marks, hidden: _Hidden) -> Iterator[Any]:
    """Control tokens as (id, supervised), and the texts between them as lists of (string, supervised)."""
    said = bytearray(len(text) + 1)  # spans may lie in each other
    for start, end in spans:
        said[start:end] = b"\1" * (end - start)
    stretch, strip, at = list[tuple[str, bool]](), False, 0

    def literal(a: int, b: int) -> None:
        while a < b:
            to = said.find(not said[a], a, b)
            to = b if to < 0 else to
            stretch.append((hidden.back(text[a:to]), bool(said[a])))
            a = to

    for one in known.found.finditer(text):
        literal(at, one.start())
        at = one.end()
        id, left, right = known.ids[one.group()]
        yield from _stretch(stretch, strip, left)
        stretch, strip = [], right
        yield id, bool(said[one.start()])
    literal(at, len(text))
    yield from _stretch(stretch, strip, False)


def _stretch(
    stretch: Sequence[tuple[str, bool]], left: bool, right: bool
) -> Iterator[list[tuple[str, bool]]]:
    """What lies between two marks, without the blanks that a mark beside it swallows."""
    text, at, out = "".join(part for part, _ in stretch), 0, []
    first, last = (
        len(text) - len(text.lstrip()) if left else 0,
        len(text.rstrip()) if right else len(text),
    )
    for part, on in stretch:
        kept = part[max(first - at, 0) : max(last - at, 0)]
        at += len(part)
        if kept:
            out.append((kept, on))
    if out:
        yield out


class _Texts:
    """The texts between marks, each encoded once however often it occurs."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.number = tokenizer, dict[tuple[tuple[str, bool], ...], int]()
        self.done: list[tuple[list[int], list[bool]]] = []

    def add(self, stretch: Sequence[tuple[str, bool]]) -> int:
        return self.number.setdefault(tuple(stretch), len(self.number))

    def encode(self) -> None:
        joined = ["".join(text for text, _ in stretch) for stretch in self.number]
        flags = [{on for _, on in stretch} for stretch in self.number]
        whole = list(
            dict.fromkeys(text for text, on in zip(joined, flags, strict=True) if len(on) == 1)
        )
        ids = dict(zip(whole, encode.encode(self.tokenizer, whole), strict=True))
        self.done = [
            (ids[text], [on.pop()] * len(ids[text])) if len(on) == 1 else self._mixed(text, stretch)
            for stretch, text, on in zip(self.number, joined, flags, strict=True)
        ]

    def _mixed(
        self, text: str, stretch: Sequence[tuple[str, bool]]
    ) -> tuple[list[int], list[bool]]:
        """A text that is said only in part: a token is supervised where it overlaps what is said, as in transformers' own masks."""
        ids, places = special_tokens_of(self.tokenizer).places(text)
        spans, at = [], 0
        for part, said in stretch:
            spans += [(at, at + len(part))] if said else []
            at += len(part)
        return ids, [any(a < end and b > start for start, end in spans) for a, b in places]
