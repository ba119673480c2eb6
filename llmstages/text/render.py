"""Dialogues -> token ids and the supervised mask, by any chat template.

No text of a user, page or tool becomes a control token. The template is rendered by transformers'
own code. Contents that could form a control token are protected before and restored afterwards
(stand_ins.py). Then only the control tokens that stand in the rendered text become control tokens.
The text between two of them is encoded as one string in which there can be none
(special_tokens.py), which gives the ids that transformers gives for benign texts. (Encoding
everything as one string is the flaw described in transformers#29279.)

The loss is on what the assistant says (answer_spans.py). Training rows are rendered with the
training form of the template where there is one (training_template.py), prompts with the template
itself. Left out: templates that remove characters from the middle of contents, and could make a
control token of what is left; tokens that span two control tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from llmstages.core.errors import StageError
from llmstages.text import encode
from llmstages.text.answer_spans import (
    ChangedByLaterTurns,
    Span,
    apply_template,
    write_dialogue,
    write_last_answer,
    write_prompt,
)
from llmstages.text.messages import Message
from llmstages.text.special_tokens import Offsets, SpecialTokens, special_tokens_of
from llmstages.text.stand_ins import StandIns
from llmstages.text.template_input import template_fields
from llmstages.text.templates import ROLES, template_of
from llmstages.text.training_template import marks_generation, training_template

__all__ = [
    "Rendered",
    "changed_by_later_turns",
    "render",
    "render_answers",
    "render_prompts",
    "rendered_text",
]
Stretch = tuple[tuple[str, bool], ...]  # text between control tokens: (part, supervised)


@dataclass
class Rendered:
    """Token ids of one dialogue and, for each, whether the loss sees it."""

    ids: list[int] = field(default_factory=list)
    supervised: list[bool] = field(default_factory=list)


class _ControlToken(NamedTuple):
    id: int
    supervised: bool


# (tokenizer, template, turns, tools) -> (text, spans of it that the assistant says)
_Write = Callable[[Any, str, list[dict[str, Any]], list[Any] | None], tuple[str, list[Span]]]


def render(tokenizer: Any, dialogues: Sequence[Sequence[Message]]) -> list[Rendered]:
    """Training rows: each dialogue whole, with loss on all answers of the assistant.

    Raises:
        ChangedByLaterTurns: the template changes earlier answers when turns follow
            (answer_spans.py); ``render_answers`` can render these dialogues, answer by answer.
        StageError: the tokenizer has no chat template, a role is unknown, or the template cannot
            render a dialogue.
    """
    return _render(tokenizer, training_template(tokenizer), dialogues, write_dialogue)


def render_answers(tokenizer: Any, dialogues: Sequence[Sequence[Message]]) -> list[Rendered]:
    """Rows of dialogues that end with an answer, with loss on this answer alone.

    Everything before the answer is exactly the prompt of generation. Raises as ``render``.
    """
    return _render(tokenizer, template_of(tokenizer), dialogues, write_last_answer)


def render_prompts(tokenizer: Any, dialogues: Sequence[Sequence[Message]]) -> list[Rendered]:
    """Prompts of generation: each dialogue up to where the assistant is to speak, without loss.

    Raises as ``render``.
    """
    return _render(tokenizer, template_of(tokenizer), dialogues, write_prompt)


def rendered_text(tokenizer: Any, messages: Sequence[Message], template: str) -> str:
    """The text that a template writes, contents unprotected: to compare, not to encode."""
    turns, tools = template_fields(messages, template)
    text, _ = apply_template(tokenizer, template, turns, tools)
    return text


def changed_by_later_turns(tokenizer: Any, messages: Sequence[Message]) -> bool:
    """Whether ``render`` would raise ChangedByLaterTurns for a dialogue; nothing is encoded."""
    template = training_template(tokenizer)
    if not template or marks_generation(template):
        return False
    turns, tools = template_fields(messages, template)
    try:
        write_dialogue(tokenizer, template, turns, tools)
    except ChangedByLaterTurns:
        return True
    except StageError:
        return False  # render() says what is wrong
    return False


def _render(
    tokenizer: Any, template: str, dialogues: Sequence[Sequence[Message]], write: _Write
) -> list[Rendered]:
    """Token ids and mask of many dialogues, as ``write`` writes them with ``template``."""
    if not template:
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
        _require_known_roles(messages)
        turns, tools = template_fields(messages, template)
        stand_ins = StandIns(special_tokens, template, [turns, tools])
        protected = stand_ins.protect(turns), stand_ins.protect(tools)
        text, spans = write(tokenizer, template, *protected)
        plans.append(stretches.collect(_split(text, spans, special_tokens, stand_ins)))
    encoded = stretches.encode()
    return [_assemble(plan, encoded) for plan in plans]


def _require_known_roles(messages: Sequence[Message]) -> None:
    for index, message in enumerate(messages):
        if message["role"] not in ROLES:
            raise StageError(
                f"message {index} has the role {message['role']!r}; "
                f"known roles are {', '.join(ROLES)}"
            )


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
        spans = []
        position = 0
        for part, supervised in stretch:
            part_end = position + len(part)
            if supervised:
                spans.append((position, part_end))
            position = part_end
        ids, offsets = self._special_tokens.encode_with_offsets(text)
        borders = [start for start, _ in spans if start and text[start].isspace()]
        shared = [b for b in borders if any(start < b < end for start, end in offsets)]
        if shared:
            ids, offsets = self._encode_cut(text, shared, (ids, offsets))
        mask = [_overlaps(start, end, spans) for start, end in offsets]
        return Rendered(ids, mask)

    def _encode_cut(
        self, text: str, borders: Sequence[int], whole: tuple[list[int], Offsets]
    ) -> tuple[list[int], Offsets]:
        """Encode what is before and after each border for itself.

        An answer that begins with blanks would share a token with the blanks or the line end of
        the prompt. In generation the prompt is encoded alone, so that token could not be learned.
        ``whole`` is returned where the tokenizer would then read another text, since it writes
        a blank before each.
        """
        ids: list[int] = []
        offsets: Offsets = []
        for start, end in pairwise([0, *borders, len(text)]):
            part_ids, part_offsets = self._special_tokens.encode_with_offsets(text[start:end])
            ids += part_ids
            offsets += [(first + start, last + start) for first, last in part_offsets]
        reads_the_same = self._tokenizer.decode(ids) == self._tokenizer.decode(whole[0])
        return (ids, offsets) if reads_the_same else whole


def _overlaps(start: int, end: int, spans: Sequence[Span]) -> bool:
    return any(start < span_end and end > span_start for span_start, span_end in spans)
