"""A dialogue written by its chat template, and the parts of the text that the assistant says.

Where the template marks them (``{% generation %}``), the marks decide. Otherwise the dialogue is
rendered turn by turn: the assistant says what its turn adds to the prompt before it, up to the
control token that ends the turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmstages.core.errors import StageError
from llmstages.text.special_tokens import SpecialTokens, special_tokens_of
from llmstages.text.training_template import marks_generation

Span = tuple[int, int]
Fields = dict[str, Any]  # one turn, in the fields that the template reads
OTHER_TEMPLATE = "choose a template by name (sft.template=chatml)"


class ChangedByLaterTurns(StageError):
    """Later turns change how an earlier answer is rendered, so one row cannot train both."""


def apply_template(
    tokenizer: Any,
    template: str,
    turns: Sequence[Fields],
    tools: list[Any] | None,
    *,
    open_turn: bool = False,
    return_spans: bool = False,
) -> tuple[str, list[Span]]:
    """(text, spans of the generation blocks), rendered as ``apply_chat_template`` does it.

    Raises StageError if the template cannot render the turns.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        rendered: Any = render_jinja_template(
            conversations=[list(turns)],
            tools=tools,
            chat_template=template,
            add_generation_prompt=open_turn,
            return_assistant_tokens_mask=return_spans,
            **tokenizer.special_tokens_map,
        )
    # The template is foreign code, so it may raise anything.
    except Exception as error:
        raise StageError(_cannot_render(turns, tools, error)) from error
    texts, spans = rendered
    return texts[0], list(spans[0]) if return_spans else []


def _cannot_render(turns: Sequence[Fields], tools: list[Any] | None, error: Exception) -> str:
    """What a template cannot do, and the ways out."""
    roles = ", ".join(turn["role"] for turn in turns)
    reason = f"the chat template cannot render a dialogue of the turns {roles or '(none)'}"
    if tools or any(turn["role"] == "tool" for turn in turns):
        reason += ", with tools"
    return (
        f"{reason}: {type(error).__name__}: {error}. Use dialogues that the template supports, or "
        "another template: one by name (sft.template=chatml), or one of the model's makers that "
        "knows these turns (sft.template_file=FILE.jinja)"
    )


def write_dialogue(
    tokenizer: Any, template: str, turns: Sequence[Fields], tools: list[Any] | None
) -> tuple[str, list[Span]]:
    """The text of a dialogue, and the spans of it that the assistant says.

    Raises:
        ChangedByLaterTurns: the answers cannot be trained in one row, but one by one they can.
        StageError: the template cannot render the turns, or an answer cannot be found.
    """
    if marks_generation(template):
        return apply_template(tokenizer, template, turns, tools, return_spans=True)

    text, _ = apply_template(tokenizer, template, turns, tools)
    spans = []
    for index, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        through_turn, span = _answer(tokenizer, template, turns[: index + 1], tools)
        if not text.startswith(through_turn[: span[1]]):
            raise ChangedByLaterTurns(
                "the chat template has no {% generation %} block, and later turns change what the "
                f"assistant says in message {index}, so its answers cannot be trained in one row. "
                "Put {% generation %} and {% endgeneration %} around what the assistant says, "
                f"including its end token, or {OTHER_TEMPLATE}"
            )
        spans.append(span)
    return text, spans


def write_last_answer(
    tokenizer: Any, template: str, turns: Sequence[Fields], tools: list[Any] | None
) -> tuple[str, list[Span]]:
    """The text of a dialogue that ends with an answer, and the span of this answer alone.

    The text before the answer is the prompt of generation, character for character.
    """
    text, span = _answer(tokenizer, template, turns, tools)
    return text, [span]


def write_prompt(
    tokenizer: Any, template: str, turns: Sequence[Fields], tools: list[Any] | None
) -> tuple[str, list[Span]]:
    """The text up to where the assistant is to speak; nothing of it is said by the assistant."""
    return apply_template(tokenizer, template, turns, tools, open_turn=True)


def _answer(
    tokenizer: Any, template: str, turns: Sequence[Fields], tools: list[Any] | None
) -> tuple[str, Span]:
    """The text up to the last turn, which is the assistant's, and the span that it says."""
    prompt, _ = apply_template(tokenizer, template, turns[:-1], tools, open_turn=True)
    text, _ = apply_template(tokenizer, template, turns, tools)
    if not text.startswith(prompt):
        raise StageError(
            "the prompt that the chat template writes before an answer is not the beginning of "
            f"the text that it writes for the answer (message {len(turns) - 1}), so what the model "
            "learns would never be asked of it. Correct the template's add_generation_prompt, or "
            f"{OTHER_TEMPLATE}"
        )
    end = _end_of_turn(text, len(prompt), special_tokens_of(tokenizer))
    return text, (len(prompt), end)


def _end_of_turn(text: str, start: int, special_tokens: SpecialTokens) -> int:
    """Where the turn that begins at ``start`` ends: after its last control token.

    A control token with more than white space after it is a part of what is said and ends nothing.
    """
    ends = [match.end() for match in special_tokens.pattern.finditer(text, start)]
    if ends and not text[ends[-1] :].strip():
        return ends[-1]
    return len(text)
