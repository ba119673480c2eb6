"""Messages -> token ids and the supervised mask, by any chat template, with no text of a user, page or tool as a control token.

The template is rendered by transformers' own code. A content that could read as a control token, or complete one with its
neighbours, is replaced by an unguessable placeholder first (blanks around it stay, templates look at them). Only marks that
stand outside of placeholders become control tokens; what lies between two marks is encoded as one string with special
tokens switched off, which is what transformers does for benign texts (the flaw of one string for all: transformers#29279).
The loss is on what stands in ``{% generation %}``. A template without it is asked turn by turn: what an assistant's turn adds
to the prompt before it, up to its last control token.
Left out: contents with marks in templates that look into contents see the placeholder; tokens that span two marks.
"""

from __future__ import annotations

import json
import re
import secrets
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmstages import encoding
from llmstages.stage import StageError
from llmstages.templates import ROLES

Message = Mapping[str, Any]
Span = tuple[int, int]
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")       # as transformers looks for it
OURS = re.compile(r"""\[['"]tool['"]\]|\.tool\b""")          # the template reads our field "tool", not "tool_calls"


@dataclass
class Rendered:
    """Token ids of one dialogue and, for each, whether the loss sees it."""

    ids: list[int] = field(default_factory=list)
    supervised: list[bool] = field(default_factory=list)


class Marks:
    """The texts that a tokenizer turns into control tokens: ids, and what could be part of one."""

    def __init__(self, tokenizer: Any) -> None:
        known = tokenizer.added_tokens_decoder  # id -> AddedToken
        self.of = {str(token): (id, token.lstrip, token.rstrip) for id, token in known.items() if token.special or encoding.structural(str(token))}
        texts = sorted(self.of, key=len, reverse=True)
        self.found = re.compile("|".join(map(re.escape, texts)) or r"(?!)")
        self.longest = max(map(len, texts), default=0)
        self.heads = {t[:n] for t in texts for n in range(1, len(t))}
        self.tails = {t[n:] for t in texts for n in range(1, len(t))}

    def suspicious(self, text: str) -> bool:
        """Whether a text holds a mark, or a part of one that neighbours could complete."""
        if self.found.search(text):
            return True
        near = range(1, min(len(text), self.longest) + 1)
        return any(text[-n:] in self.heads or text[:n] in self.tails for n in near) or (len(text) < self.longest and any(text in t for t in self.of))


_marks: weakref.WeakKeyDictionary[Any, tuple[int, Marks]] = weakref.WeakKeyDictionary()  # an attribute would be pickled


def marks(tokenizer: Any) -> Marks:
    """The marks of a tokenizer, remembered while no token is added."""
    known = _marks.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        known = _marks[tokenizer] = len(tokenizer), Marks(tokenizer)
    return known[1]


def render(tokenizer: Any, dialogues: Sequence[Sequence[Message]], open_turn: bool = False) -> list[Rendered]:
    """Render many dialogues. open_turn=True ends each ready for the assistant to speak: the prompt of generation."""
    if not tokenizer.chat_template:
        raise StageError("the tokenizer has no chat template, so dialogues cannot be rendered. tokenizer=bpe and tokenizer=pretrained give it one; "
                         "for a model of others set it in SFT: sft.template=chatml")
    known, plans, texts = marks(tokenizer), [], _Texts(tokenizer)
    for messages in dialogues:
        hidden = _Hidden(known)
        for index, m in enumerate(messages):
            if m["role"] not in ROLES:
                raise StageError(f"message {index} has the role {m['role']!r}; known roles are {', '.join(ROLES)}")
        read, tools = as_template_reads(messages, tokenizer.chat_template)
        text, spans = _write(tokenizer, hidden.messages(read), hidden.all_of(tools), open_turn)
        plans.append([texts.add(part) if isinstance(part, list) else part for part in _parts(text, spans, known, hidden)])
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


def text(tokenizer: Any, messages: Sequence[Message], open_turn: bool = False) -> str:
    """What the template writes, contents and all."""
    return _jinja(tokenizer, *as_template_reads(messages, tokenizer.chat_template), open_turn)[0]


def as_template_reads(messages: Sequence[Message], template: str) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """(messages, tools) in the fields a template reads. Templates of others take calls as ``tool_calls``, and the schemas of tools
    (JSON text, in the field ``tools`` of the system turn) as ``tools``; ours have a system turn that ends with them."""
    if OURS.search(template):
        return [{"role": m["role"], "content": "\n".join(part for part in (str(m["content"]), m.get("tools")) if part), "tool": m.get("tool") or ""} for m in messages], None
    out: list[dict[str, Any]] = []
    tools = next((json.loads(m["tools"]) for m in messages if m.get("tools")), None)
    for m in messages:
        if m.get("tools") and not m["content"]:
            continue
        if m["role"] == "assistant" and m.get("tool"):
            called = {"type": "function", "function": {"name": m["tool"], "arguments": _arguments(str(m["content"]))}}
            out.append({"role": "assistant", "content": "", "tool_calls": [called]})
        else:
            out.append({"role": m["role"], "content": str(m["content"]), **({"name": m.get("tool") or ""} if m["role"] == "tool" else {})})
    return out, tools


def _arguments(text: str) -> dict[str, Any]:
    """The argument of a call as the object that templates write out."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    return value if isinstance(value, dict) else {"input": text}


class _Hidden:
    """The contents of one dialogue that stay out of the template's sight, and the placeholders that stand for them."""

    def __init__(self, known: Marks) -> None:
        self.known, self.texts, self.key = known, list[str](), ""

    def messages(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{name: value if name == "role" else self.all_of(value) for name, value in m.items()} for m in messages]

    def all_of(self, value: Any) -> Any:
        """The value with all its texts, however deep."""
        if isinstance(value, str):
            return self._hide(encoding.whole(value))
        if isinstance(value, dict):
            return {name if name.isidentifier() else self._hide(name): self.all_of(one) for name, one in value.items()}
        return [self.all_of(one) for one in value] if isinstance(value, list) else value

    def _hide(self, text: str) -> str:
        inner = text.strip()
        if not inner or not self.known.suspicious(text):
            return text
        self.key = self.key or secrets.token_hex(8)
        self.texts.append(inner)
        at = text.index(inner)
        return f"{text[:at]}\ue000{self.key}:{len(self.texts) - 1}\ue001{text[at + len(inner):]}"


def _write(tokenizer: Any, messages: Sequence[dict[str, Any]], tools: list[Any] | None, open_turn: bool) -> tuple[str, list[Span]]:
    """The template's text, and the spans of it that the assistant says."""
    if GENERATION.search(tokenizer.chat_template):
        return _jinja(tokenizer, messages, tools, open_turn, spans=True)
    text, _ = _jinja(tokenizer, messages, tools, open_turn)
    found, known = [], marks(tokenizer)
    for i, m in enumerate(messages):
        if m["role"] != "assistant":
            continue
        before, upto = _jinja(tokenizer, messages[:i], tools, True)[0], _jinja(tokenizer, messages[: i + 1], tools, False)[0]
        ends = [one.end() for one in known.found.finditer(upto, len(before))]
        end = ends[-1] if ends else len(upto)
        if not upto.startswith(before) or not text.startswith(upto[:end]):
            raise StageError(f"the chat template has no {{% generation %}} marks, and what the assistant says in message {i} cannot be told from its text: the "
                             "prompt before it is not its beginning, or later turns change it. Put {% generation %} and {% endgeneration %} around what "
                             "the assistant says, its end token included, or choose a template by name (sft.template=chatml)")
        found.append((len(before), end))
    return text, found


def _jinja(tokenizer: Any, messages: Sequence[dict[str, Any]], tools: list[Any] | None, open_turn: bool, spans: bool = False) -> tuple[str, list[Span]]:
    """transformers' own rendering, as in ``apply_chat_template``."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, found = render_jinja_template(conversations=[list(messages)], tools=tools, chat_template=tokenizer.chat_template, add_generation_prompt=open_turn,
                                             return_assistant_tokens_mask=spans, **tokenizer.special_tokens_map)
    except (TemplateError, TypeError) as error:
        roles = ", ".join(m["role"] for m in messages)
        raise StageError(f"the chat template cannot render a dialogue of the turns {roles or '(none)'}: {error}. "
                         "Give it dialogues it knows, or another template (sft.template=chatml)") from error
    return texts[0], list(found[0]) if spans else []


def _parts(text: str, spans: Sequence[Span], known: Marks, hidden: _Hidden) -> Iterator[Any]:
    """Control tokens as (id, supervised), and the texts between them as lists of (string, supervised)."""
    edges = iter(sorted({edge for span in spans for edge in span}))
    edge, inside, stretch, strip = next(edges, None), 0, list[tuple[str, bool]](), False
    starts, ends = {start for start, end in spans if end > start}, {end for start, end in spans if end > start}

    def reach(at: int) -> None:
        nonlocal edge, inside
        while edge is not None and edge <= at:
            inside += (edge in starts) - (edge in ends)
            edge = next(edges, None)

    def literal(a: int, b: int) -> None:
        while a < b:
            reach(a)
            to = min(b, edge) if edge is not None else b
            stretch.append((text[a:to], inside > 0))
            a = to

    pattern = re.compile(f"{known.found.pattern}|\ue000{hidden.key}:(\\d+)\ue001") if hidden.texts else known.found
    at = 0
    for one in pattern.finditer(text):
        literal(at, one.start())
        reach(one.start())
        at = one.end()
        if hidden.texts and one.group(1) is not None:
            stretch.append((hidden.texts[int(one.group(1))], inside > 0))
            continue
        id, left, right = known.of[one.group()]
        yield from _stretch(stretch, strip, left)
        stretch, strip = [], right
        yield id, inside > 0
    literal(at, len(text))
    yield from _stretch(stretch, strip, False)


def _stretch(stretch: Sequence[tuple[str, bool]], left: bool, right: bool) -> Iterator[list[tuple[str, bool]]]:
    """What lies between two marks, without the blanks that a mark beside it swallows."""
    text, at, out = "".join(part for part, _ in stretch), 0, []
    first, last = len(text) - len(text.lstrip()) if left else 0, len(text.rstrip()) if right else len(text)
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
        whole = list(dict.fromkeys(text for text, on in zip(joined, flags, strict=True) if len(on) == 1))
        ids = dict(zip(whole, encoding.encode(self.tokenizer, whole), strict=True))
        self.done = [(ids[text], [on.pop()] * len(ids[text])) if len(on) == 1 else self._mixed(text, stretch)
                     for stretch, text, on in zip(self.number, joined, flags, strict=True)]

    def _mixed(self, text: str, stretch: Sequence[tuple[str, bool]]) -> tuple[list[int], list[bool]]:
        """A text that is said only in part: a token is supervised where it overlaps what is said, as in transformers' own masks."""
        ids, places = encoding.with_places(self.tokenizer, text)
        on = [said for part, said in stretch for _ in part]
        return ids, [any(on[a:b]) for a, b in places]
