"""Checks of a chat template with its tokenizer: do training and use see the same tokens?

They compare the rows trained on with the prompts of generation, with ``apply_chat_template`` of
transformers, and with the texts themselves, on an evenly spread sample of the dialogues. What a
check is stands in checks.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llmstages.core.errors import StageError
from llmstages.data.dialogues import Dialogue, before_last_answer, render_dialogues
from llmstages.text import chat_format, encode
from llmstages.text.messages import Message, message
from llmstages.text.render import Rendered, render, rendered_text
from llmstages.text.special_tokens import special_tokens_of
from llmstages.text.template_input import reads_tool_field, template_fields
from llmstages.text.templates import template_of
from llmstages.text.training_template import (
    has_training_form,
    marks_generation,
    training_template,
)
from llmstages.train.checks import Check, check_none, check_share, check_value, describe

TEXT_LOST = "text_lost_in_tokenizer"
SAMPLE_SIZE = 100  # about so many dialogues are compared
MIN_DIALOGUES = 50  # below it, the share of answers with control tokens is not checked
MAX_CONTROL_SHARE = 0.01
MAX_LOST_SHARE = 0.1
OTHER_TEMPLATE = "choose a template by name (chatml, llama3, zephyr, plain)"


def check_dialogue_template(dialogues: Sequence[Dialogue], tokenizer: Any) -> list[Check]:
    """All checks of the template and tokenizer; none if there is no dialogue in a template."""
    templated = [dialogue for dialogue in dialogues if not dialogue.plain and dialogue.messages]
    # Every n-th dialogue, so that each source has its share.
    sample = templated[:: max(1, len(templated) // SAMPLE_SIZE)]
    if not sample:
        return []
    rows = render_dialogues(tokenizer, sample)
    return [
        _check_prompts(sample, rows, tokenizer),
        *_check_against_transformers(sample, rows, tokenizer),
        _check_control_tokens_in_answers(sample, tokenizer),
        _check_nothing_left_out(sample, tokenizer),
        _check_reasoning(sample, tokenizer),
        _check_round_trip(sample, tokenizer),
    ]


def require_template(tokenizer: Any, where: str) -> None:
    """Render two dialogues and check the result.

    Raises:
        StageError: if training and use would see different tokens, or no turn would end. ``where``
            begins the message.
    """
    question = message("user", "Where is it?\n\n- here")
    answer = message("assistant", "In 12 places.\n\nNot far.")
    # The second answer begins with blank lines: some tokenizers join them with the header.
    second_turns = [message("user", "And"), message("assistant", "\n\nThere.")]
    probes = [
        Dialogue("probe 0", [question, answer]),
        Dialogue("probe 1", [question, answer, *second_turns]),
    ]
    failed = []
    for check in check_dialogue_template(probes, tokenizer):
        # A tokenizer that lowercases, for example, is still usable with the template.
        if not check.passed and check.id != TEXT_LOST:
            failed.append(check)
    if failed:
        reasons = "; ".join(f"{describe(check)}: {check.fix}" for check in failed)
        raise StageError(f"{where}: this chat template does not fit this tokenizer: {reasons}")


def apply_chat_template(
    tokenizer: Any, messages: Sequence[Message], template: str = "", prompt: bool = False
) -> tuple[list[int], list[int]]:
    """Token ids and loss mask by ``apply_chat_template`` of transformers, as other programs do.

    Args:
        tokenizer: the tokenizer.
        messages: one dialogue.
        template: the chat template; "" for the tokenizer's own.
        prompt: whether to add the beginning of an answer.

    Returns:
        The ids, and for each id 1 if the assistant says it, else 0. The mask is empty if the
        template does not mark what the assistant says.
    """
    template = template or template_of(tokenizer)
    masked = marks_generation(template)
    fields, tools = template_fields(messages, template)
    encoded = tokenizer.apply_chat_template(
        fields,
        tools=tools,
        chat_template=template,
        tokenize=True,
        return_dict=True,
        add_generation_prompt=prompt,
        return_assistant_tokens_mask=masked,
    )
    mask = list(encoded["assistant_masks"]) if masked else []
    return list(encoded["input_ids"]), mask


def template_of_row(dialogue: Dialogue, tokenizer: Any) -> str:
    """The template that a dialogue is rendered with: a single answer as at inference."""
    return template_of(tokenizer) if dialogue.one_answer else training_template(tokenizer)


def same_tokens(row: Rendered, ids: Sequence[int], mask: Sequence[int]) -> bool:
    """Whether a rendered row has these ids and, unless ``mask`` is empty, this loss mask."""
    if row.ids != ids:
        return False
    return not mask or row.supervised == [bool(carries_loss) for carries_loss in mask]


def _check_prompts(sample: Sequence[Dialogue], rows: Sequence[Rendered], tokenizer: Any) -> Check:
    answered = [
        (dialogue, row)
        for dialogue, row in zip(sample, rows, strict=True)
        if dialogue.messages[-1]["role"] == "assistant"
    ]
    prompts = chat_format.prompt_ids(
        tokenizer, [before_last_answer(dialogue.messages) for dialogue, _ in answered]
    )
    different = []
    for (dialogue, row), prompt in zip(answered, prompts, strict=True):
        if _begins_with_prompt(row, prompt):
            continue
        # A training form keeps what the template drops from earlier turns: the first turn decides.
        if has_training_form(tokenizer) and _first_answer_fits(dialogue.messages, tokenizer):
            continue
        different.append(dialogue.name)
    return check_none(
        "prompt_is_prefix_of_training_row",
        "dialogues whose prompt is not the beginning of the training row",
        different,
        "the prompt of generation must be the beginning of the row trained on, up to the first "
        "token under loss. An answer that begins with blanks and has turns after it may share a "
        "token with what stands before it: take the blanks out. If the template opens <think> "
        "before every answer, these need reasoning, or thinking must be off: begin the template "
        "with {%- set enable_thinking = false %} (sft.template_file). Otherwise fix its "
        f"add_generation_prompt, or {OTHER_TEMPLATE}",
    )


def _begins_with_prompt(row: Rendered, prompt: Sequence[int]) -> bool:
    """Whether the first token after the prompt is the first one that the model learns to write."""
    return row.ids[: len(prompt)] == prompt and any(row.supervised[len(prompt) :][:1])


def _first_answer_fits(messages: Sequence[Message], tokenizer: Any) -> bool:
    roles = [turn["role"] for turn in messages]
    end = roles.index("assistant") + 1
    prompt = chat_format.prompt_ids(tokenizer, [messages[: end - 1]])[0]
    return _begins_with_prompt(render(tokenizer, [messages[:end]])[0], prompt)


def _check_against_transformers(
    sample: Sequence[Dialogue], rows: Sequence[Rendered], tokenizer: Any
) -> list[Check]:
    """Compare with apply_chat_template, which would make control tokens of texts that spell them.

    Only dialogues that spell no control token can be compared.
    """
    spelling = {
        dialogue.name for dialogue in sample if _spells_control_token(dialogue.messages, tokenizer)
    }
    compared = 0
    different = []
    for dialogue, row in zip(sample, rows, strict=True):
        if dialogue.name in spelling:
            continue
        compared += 1
        template = template_of_row(dialogue, tokenizer)
        ids, mask = apply_chat_template(tokenizer, dialogue.messages, template)
        # The mask of transformers is for all answers.
        if same_tokens(row, ids, [] if dialogue.one_answer else mask):
            continue
        # Answers that begin with blanks are encoded apart from the prompt (text/render.py).
        if _begins_with_blanks(dialogue.messages) and _reads_the_same(row.ids, ids, tokenizer):
            continue
        different.append(dialogue.name)
    return [
        check_share(
            "differs_from_apply_chat_template",
            "share of dialogues that apply_chat_template renders differently",
            different,
            len(sample),
            limit=0.0,
            fix="programs that load the model would show it other tokens than it learned, or "
            f"another mask: {OTHER_TEMPLATE}",
        ),
        check_value(
            "compared_with_apply_chat_template",
            "share of dialogues that could be compared with apply_chat_template",
            value=compared / len(sample),
            limit=0.0,
            passed=compared > 0,
            fix="every text spells a control token, so nothing could be compared with what other "
            "programs would render: look at the rows",
            rows=sorted(spelling),
        ),
    ]


def _begins_with_blanks(messages: Sequence[Message]) -> bool:
    answers = [str(turn["content"]) for turn in messages if turn["role"] == "assistant"]
    return any(answer[:1].isspace() for answer in answers)


def _reads_the_same(ids: Sequence[int], others: Sequence[int], tokenizer: Any) -> bool:
    return tokenizer.decode(ids) == tokenizer.decode(others)


def _spells_control_token(messages: Sequence[Message], tokenizer: Any) -> bool:
    spelled = special_tokens_of(tokenizer).any_case_pattern
    for turn in messages:
        for field in ("content", "tool", "tools"):
            if spelled.search(str(turn.get(field) or "")):
                return True
    return False


def _check_control_tokens_in_answers(sample: Sequence[Dialogue], tokenizer: Any) -> Check:
    spelled = special_tokens_of(tokenizer).pattern
    spelling = []
    for dialogue in sample:
        answers = [turn for turn in dialogue.messages if turn["role"] == "assistant"]
        if any(spelled.search(str(turn["content"])) for turn in answers):
            spelling.append(dialogue.name)
    return check_share(
        "control_tokens_in_answers",
        "share of dialogues with an answer that spells control tokens",
        spelling,
        len(sample),
        limit=MAX_CONTROL_SHARE,
        min_total=MIN_DIALOGUES,
        fix="they are trained as ordinary text, never as the tokens themselves: if the model is "
        "to write such tokens (<think>), it will not learn it from these rows; "
        "dialogues.reasoning=split makes a field of reasoning in <think> tags, which the "
        "template then writes",
    )


def _check_nothing_left_out(sample: Sequence[Dialogue], tokenizer: Any) -> Check:
    incomplete = []
    for dialogue in sample:
        template = template_of_row(dialogue, tokenizer)
        text = rendered_text(tokenizer, dialogue.messages, template)
        if not _contains_in_order(text, dialogue.messages, reads_tool_field(template)):
            incomplete.append(dialogue.name)
    return check_none(
        "messages_left_out",
        "dialogues from which the template leaves something out",
        incomplete,
        "the template drops or changes turns (a system turn? old answers?): choose another "
        "template, or take these turns out of the data",
    )


def _contains_in_order(text: str, messages: Sequence[Message], own_calls: bool) -> bool:
    """Whether the text contains what everybody said, in order, as it is or as JSON.

    Of a call it is the argument in our own templates, elsewhere the name of the tool: the argument
    may be written in another way.
    """
    position = 0
    for turn in messages:
        is_call = turn["role"] == "assistant" and turn.get("tool")
        content = turn["tool"] if is_call and not own_calls else turn["content"]
        end = _end_of_content(text, str(content), position)
        if end is None:
            return False
        position = end
    return True


def _end_of_content(text: str, content: str, start: int) -> int | None:
    """Where the content ends in ``text``, searched from ``start`` on; None if it is not there."""
    content = encode.replace_surrogates(content).strip()
    # Templates write contents of tools as JSON, with or without escapes for other scripts.
    for form in (
        content,
        json.dumps(content, ensure_ascii=False)[1:-1],
        json.dumps(content)[1:-1],
    ):
        found = text.find(form, start)
        if found >= 0:
            return found + len(form)
    return None


def _check_reasoning(sample: Sequence[Dialogue], tokenizer: Any) -> Check:
    """Reasoning of the answers under loss that the template does not write."""
    incomplete = []
    for dialogue in sample:
        answers = [turn for turn in dialogue.messages if turn["role"] == "assistant"]
        if dialogue.one_answer:
            answers = answers[-1:]
        thoughts = [str(turn.get("reasoning_content") or "").strip() for turn in answers]
        if not any(thoughts):
            continue
        template = template_of_row(dialogue, tokenizer)
        text = rendered_text(tokenizer, dialogue.messages, template)
        if not all(thought in text for thought in thoughts):
            incomplete.append(dialogue.name)
    return check_none(
        "reasoning_left_out",
        "dialogues whose reasoning the template leaves out",
        incomplete,
        "the model would learn to answer without it: take it out yourself "
        "(dialogues.reasoning=drop), write it into the answers (dialogues.reasoning=inline), or "
        "choose a template that has reasoning",
    )


def _check_round_trip(sample: Sequence[Dialogue], tokenizer: Any) -> Check:
    names = [dialogue.name for dialogue in sample for _ in dialogue.messages]
    texts = [str(turn["content"]) for dialogue in sample for turn in dialogue.messages]
    # Outer white space is ignored: many templates strip it, and many tokenizers add it.
    encoded = chat_format.encode_texts(tokenizer, texts)
    lost = {
        name
        for name, text, ids in zip(names, texts, encoded, strict=True)
        if chat_format.decode(tokenizer, ids).strip() != text.strip()
    }
    return check_share(
        TEXT_LOST,
        "share of dialogues with a text that the tokenizer does not give back",
        sorted(lost),
        len(sample),
        limit=MAX_LOST_SHARE,
        fix="the tokenizer cannot spell these texts (unknown characters, case): choose a "
        "byte-level one (tokenizer=bpe)",
    )
