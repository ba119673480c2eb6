"""Dialogues -> token ids and the supervised mask, by any chat template.

No text of a user, page or tool becomes a control token. The template is rendered by transformers'
own code. Contents that could form a control token are protected before and restored afterwards
(stand_ins.py). Then only the control tokens that stand in the rendered text become control tokens.
The text between two of them is encoded as one string in which there can be none
(special_tokens.py), which gives the ids that transformers gives for benign texts. (Encoding
everything as one string is the flaw described in transformers#29279.)

The loss is on what stands in ``{% generation %}``. A template without it is rendered turn by turn:
supervised is what an assistant's turn adds to the prompt before it, up to the control token that
ends it. Left out: templates that remove characters from the middle of contents, and could make a
control token of what is left; tokens that span two control tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from llmstages.core.errors import StageError
from llmstages.text import encode
from llmstages.text.messages import Message
from llmstages.text.special_tokens import SpecialTokens, special_tokens_of
from llmstages.text.stand_ins import StandIns
from llmstages.text.template_input import reads_tool_field, template_fields
from llmstages.text.templates import ROLES, template_of

__all__ = [
    "Rendered",
    "marks_generation",
    "reads_tool_field",
    "render",
    "rendered_text",
    "template_fields",
]
Span = tuple[int, int]
Stretch = tuple[tuple[str, bool], ...]  # text between control tokens: (part, supervised)
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # as transformers looks for it


@dataclass
class Rendered:
    """Token ids of one dialogue and, for each, whether the loss sees it."""

    ids: list[int] = field(default_factory=list)
    supervised: list[bool] = field(default_factory=list)


class _ControlToken(NamedTuple):
    id: int
    supervised: bool


def render(
    tokenizer: Any, dialogues: Sequence[Sequence[Message]], open_turn: bool = False
) -> list[Rendered]:
    """Render many dialogues.

    open_turn: end each where the assistant is to speak, which makes it a prompt for generation.
    Raises StageError where the tokenizer has no chat template, a role is unknown, or the template
    cannot render a dialogue.
    """
    if not template_of(tokenizer):
        raise StageError(
            "the tokenizer has no chat template, so dialogues cannot be rendered. "
            "tokenizer=bpe and tokenizer=pretrained give it one; for a model from elsewhere, "
            "set it in SFT: sft.template=chatml"
        )
    # Texts are collected first and encoded together: a batch is much faster than single texts.
    special_tokens = special_tokens_of(tokenizer)
    stretches = _Stretches(tokenizer, special_tokens)
    plans = []
    for messages in dialogues:
        parts = _control_tokens_and_stretches(tokenizer, special_tokens, messages, open_turn)
        plans.append(stretches.collect(parts))
    encoded = stretches.encode()
    return [_assemble(plan, encoded) for plan in plans]


@cache
def marks_generation(template: str) -> bool:
    """Whether the template marks what the assistant says (``{% generation %}``)."""
    return bool(_GENERATION.search(template))


def rendered_text(tokenizer: Any, messages: Sequence[Message], open_turn: bool = False) -> str:
    """The text that the template writes, contents unprotected: to compare, not to encode."""
    fields, tools = template_fields(messages, template_of(tokenizer))
    text, _ = _apply_template(tokenizer, fields, tools, open_turn)
    return text


def _control_tokens_and_stretches(
    tokenizer: Any, special_tokens: SpecialTokens, messages: Sequence[Message], open_turn: bool
) -> Iterator[_ControlToken | Stretch]:
    """The rendered dialogue as control tokens and the texts between them, in order."""
    for index, message in enumerate(messages):
        if message["role"] not in ROLES:
            raise StageError(
                f"message {index} has the role {message['role']!r}; "
                f"known roles are {', '.join(ROLES)}"
            )
    template = template_of(tokenizer)
    fields, tools = template_fields(messages, template)
    stand_ins = StandIns(special_tokens, template, [fields, tools])
    text, spans = _render_with_spans(
        tokenizer, special_tokens, stand_ins.protect(fields), stand_ins.protect(tools), open_turn
    )
    return _split(text, spans, special_tokens, stand_ins)


def _assemble(plan: Sequence[_ControlToken | int], encoded: Sequence[Rendered]) -> Rendered:
    rendered = Rendered()
    for part in plan:
        if isinstance(part, _ControlToken):
            rendered.ids.append(part.id)
            rendered.supervised.append(part.supervised)
        else:
            rendered.ids += encoded[part].ids
            rendered.supervised += encoded[part].supervised
    return rendered


def _render_with_spans(
    tokenizer: Any,
    special_tokens: SpecialTokens,
    messages: Sequence[dict[str, Any]],
    tools: list[Any] | None,
    open_turn: bool,
) -> tuple[str, list[Span]]:
    """The text of the template, and the spans of it that the assistant says."""
    if marks_generation(template_of(tokenizer)):
        return _apply_template(tokenizer, messages, tools, open_turn, return_spans=True)

    text, _ = _apply_template(tokenizer, messages, tools, open_turn)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt, _ = _apply_template(tokenizer, messages[:index], tools, True)
        through_turn, _ = _apply_template(tokenizer, messages[: index + 1], tools, False)
        end = _end_of_turn(through_turn, len(prompt), special_tokens)
        if not through_turn.startswith(prompt) or not text.startswith(through_turn[:end]):
            raise StageError(
                "the chat template has no {% generation %} block, and what the assistant says in "
                f"message {index} cannot be found in its text: the prompt before it is not its "
                "beginning, or later turns change it. Put {% generation %} and {% endgeneration %} "
                "around what the assistant says, including its end token, or choose a template by "
                "name (sft.template=chatml)"
            )
        spans.append((len(prompt), end))
    return text, spans


def _end_of_turn(text: str, start: int, special_tokens: SpecialTokens) -> int:
    """Where the turn that begins at ``start`` ends: after its last control token.

    A control token with more than white space after it is a part of what is said and ends nothing.
    """
    ends = [match.end() for match in special_tokens.pattern.finditer(text, start)]
    if ends and not text[ends[-1] :].strip():
        return ends[-1]
    return len(text)


def _apply_template(
    tokenizer: Any,
    messages: Sequence[dict[str, Any]],
    tools: list[Any] | None,
    open_turn: bool,
    return_spans: bool = False,
) -> tuple[str, list[Span]]:
    """(text, spans of the generation blocks), rendered as ``apply_chat_template`` does it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        rendered: Any = render_jinja_template(
            conversations=[list(messages)],
            tools=tools,
            chat_template=template_of(tokenizer),
            add_generation_prompt=open_turn,
            return_assistant_tokens_mask=return_spans,
            **tokenizer.special_tokens_map,
        )
    # The template is foreign code, so it may raise anything.
    except Exception as error:
        roles = ", ".join(message["role"] for message in messages)
        raise StageError(
            f"the chat template cannot render a dialogue of the turns {roles or '(none)'}: "
            f"{type(error).__name__}: {error}. Use dialogues that the template supports, or "
            "another template (sft.template=chatml)"
        ) from error
    texts, spans = rendered
    return texts[0], list(spans[0]) if return_spans else []


def _split(
    text: str, spans: Sequence[Span], special_tokens: SpecialTokens, stand_ins: StandIns
) -> Iterator[_ControlToken | Stretch]:
    """Control tokens and, where there is text between two of them, that text as a stretch."""
    # One flag per character, because the spans may lie inside each other.
    supervised = bytearray(len(text) + 1)
    for start, end in spans:
        supervised[start:end] = b"\1" * (end - start)

    position = 0
    strip_left = False
    for match in special_tokens.pattern.finditer(text):
        token_id, lstrip, rstrip = special_tokens.ids[match.group()]
        parts = _parts(text, position, match.start(), supervised, stand_ins)
        stretch = _strip(parts, strip_left, lstrip)
        if stretch:
            yield stretch
        yield _ControlToken(token_id, bool(supervised[match.start()]))
        position = match.end()
        strip_left = rstrip
    parts = _parts(text, position, len(text), supervised, stand_ins)
    stretch = _strip(parts, strip_left, False)
    if stretch:
        yield stretch


def _parts(
    text: str, start: int, end: int, supervised: bytearray, stand_ins: StandIns
) -> list[tuple[str, bool]]:
    """text[start:end] with its original characters, cut where the supervision changes."""
    parts = []
    while start < end:
        flag = supervised[start]
        change = supervised.find(1 - flag, start, end)
        part_end = end if change < 0 else change
        parts.append((stand_ins.restore(text[start:part_end]), bool(flag)))
        start = part_end
    return parts


def _strip(parts: Sequence[tuple[str, bool]], left: bool, right: bool) -> Stretch:
    """The parts without the white space that control tokens beside them absorb."""
    text = "".join(part for part, _ in parts)
    first = len(text) - len(text.lstrip()) if left else 0
    last = len(text.rstrip()) if right else len(text)
    kept = []
    position = 0
    for part, supervised in parts:
        kept_part = part[max(first - position, 0) : max(last - position, 0)]
        position += len(part)
        if kept_part:
            kept.append((kept_part, supervised))
    return tuple(kept)


class _Stretches:
    """The different stretches of many dialogues. Each is encoded once, however often it occurs."""

    def __init__(self, tokenizer: Any, special_tokens: SpecialTokens) -> None:
        self._tokenizer = tokenizer
        self._special_tokens = special_tokens
        self._numbers: dict[Stretch, int] = {}

    def collect(self, parts: Iterable[_ControlToken | Stretch]) -> list[_ControlToken | int]:
        """The parts of a dialogue, each stretch as its place in what ``encode`` returns."""
        plan: list[_ControlToken | int] = []
        for part in parts:
            if isinstance(part, _ControlToken):
                plan.append(part)
            else:
                plan.append(self._numbers.setdefault(part, len(self._numbers)))
        return plan

    def encode(self) -> list[Rendered]:
        """Token ids and mask of each stretch, in order of the first occurrence."""
        # Most texts are in one part. They need no offsets, so they can be encoded as a batch.
        texts = dict.fromkeys(stretch[0][0] for stretch in self._numbers if len(stretch) == 1)
        ids_of = dict(zip(texts, encode.encode(self._tokenizer, list(texts)), strict=True))
        encoded = []
        for stretch in self._numbers:
            if len(stretch) == 1:
                text, supervised = stretch[0]
                ids = ids_of[text]
                encoded.append(Rendered(ids, [supervised] * len(ids)))
            else:
                encoded.append(self._encode_mixed(stretch))
        return encoded

    def _encode_mixed(self, stretch: Stretch) -> Rendered:
        """Encode a text that is supervised in part.

        A token is supervised where it overlaps a supervised part, as in transformers' own masks.
        """
        text = "".join(part for part, _ in stretch)
        ids, offsets = self._special_tokens.encode_with_offsets(text)
        spans = []
        position = 0
        for part, supervised in stretch:
            part_end = position + len(part)
            if supervised:
                spans.append((position, part_end))
            position = part_end
        mask = [_overlaps(start, end, spans) for start, end in offsets]
        return Rendered(ids, mask)


def _overlaps(start: int, end: int, spans: Sequence[Span]) -> bool:
    return any(start < span_end and end > span_start for span_start, span_end in spans)
