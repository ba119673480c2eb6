"""Every check on templates that others made: what trains, and what is refused for a true reason."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llmstages.core.stage import Artifact
from llmstages.data.dialogues import Dialogue, one_per_answer, render_dialogues
from llmstages.text.messages import message
from llmstages.text.template_input import template_fields
from llmstages.text.training_template import has_training_form, training_template
from llmstages.train import template_checks, token_checks
from tests.text.real_templates import KINDS, names, tokenizer_for

SHARED = Path(os.environ.get("LLMSTAGES_SHARED", Path(__file__).parents[3] / "shared"))
NO_REASONING = "reasoning_left_out"  # the template writes no reasoning
NO_EMPTY_THINKING = "prompt_is_prefix_of_training_row"  # it opens <think> before every answer
# (template, kind of dialogue) -> the check that refuses it, or what the error says.
REFUSED = {
    **dict.fromkeys(
        [
            (name, "reasoning")
            for name in (
                "cohere cohere2 gemma gemma3 gemma4 gemma4_v2 gemma4_v3 gemma4_v4 idefics3 lfm2 "
                "lfm2_v2 llama3 llama3_1 llama3_2 llava_next phi3 phi3_5 qwen2_5 qwen2_5_vl "
                "qwen3_instruct_2507 qwen3_vl smolvlm deepseek_r1_distill deepseekv3"
            ).split()
        ],
        NO_REASONING,
    ),
    **dict.fromkeys(
        [
            (name, kind)
            for name in "nano super ultra 5_lightning".split()
            for kind in ("plain", "turns", "tools")
        ],
        NO_EMPTY_THINKING,
    ),
    **dict.fromkeys(
        [
            (name, kind)
            for name in ("deepseek_r1_distill", "deepseekv3")
            for kind in ("plain", "turns")
        ],
        NO_EMPTY_THINKING,
    ),
    ("qwen3_5_nothink", "reasoning"): NO_EMPTY_THINKING,  # its prompt closes <think> at once
    ("gemma", "turns"): "System role not supported",
}


def refusal(name: str, kind: str) -> str:
    """Why a template is expected to be refused; "" if it is not."""
    return REFUSED.get((name.replace("nemotron_3_", ""), kind), "")


def rows_and_checks(tokenizer, messages):
    dialogues, _ = one_per_answer([Dialogue("dialogues:0", messages)], tokenizer)
    rows = render_dialogues(tokenizer, dialogues)
    checks = token_checks.check_rows(rows, tokenizer)
    return dialogues, rows, checks + template_checks.check_dialogue_template(dialogues, tokenizer)


def failed(tokenizer, messages) -> str:
    """The ids of the checks that fail, or the error."""
    from llmstages.core.errors import StageError

    try:
        _, _, checks = rows_and_checks(tokenizer, messages)
    except StageError as error:
        return str(error)
    return ", ".join(check.id for check in checks if not check.passed)


def test_there_are_enough_templates():
    assert len(names()) >= 40
    assert {name for name, _ in REFUSED} <= {name.replace("nemotron_3_", "") for name in names()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", names())
def test_a_published_template_trains_or_is_refused_for_a_true_reason(name, kind):
    tokenizer = tokenizer_for(name)
    reason = failed(tokenizer, KINDS[kind])
    expected = refusal(name, kind)
    if expected:
        assert expected in reason
        return
    assert not reason
    if has_training_form(tokenizer):
        assert_as_trl(tokenizer, KINDS[kind])


def assert_as_trl(tokenizer, messages):
    """Tokens and mask are those of TRL's training form, by transformers' own code."""
    _, [row], _ = rows_and_checks(tokenizer, messages)
    template = training_template(tokenizer)
    turns, tools = template_fields(messages, template)
    theirs = tokenizer.apply_chat_template(
        turns,
        tools=tools,
        chat_template=template,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert row.ids == list(theirs["input_ids"])
    assert row.supervised == [bool(on) for on in theirs["assistant_masks"]]


def test_thinking_can_be_switched_off_as_the_refusal_says():
    import copy

    tokenizer = copy.deepcopy(tokenizer_for("nemotron_3_nano"))
    assert NO_EMPTY_THINKING in failed(tokenizer, KINDS["plain"])
    tokenizer.chat_template = "{%- set enable_thinking = false %}" + tokenizer.chat_template
    assert not failed(tokenizer, KINDS["plain"])


ENDS = {
    "phi3": "<|end|>",  # its template writes one more token at the end of a dialogue
    "cohere2": "<|END_OF_TURN_TOKEN|>",
    "gptoss": "<|return|>",
    "glm4moe": "<|user|>",
    "llama3_1": "<|eot_id|>",
    "qwen3": "<|im_end|>",
}


@pytest.mark.parametrize("name", ENDS)
def test_the_token_that_ends_a_turn(name):
    from llmstages.text import chat_format

    tokenizer = tokenizer_for(name)
    assert tokenizer.decode([chat_format.control_tokens(tokenizer).end]) == ENDS[name]


@pytest.mark.parametrize("name", ["qwen3", "qwen2_5", "llama3"])
def test_both_sides_of_a_pair_follow_the_prompt_of_generation(name, tmp_path):
    """Also in a dialogue of several turns, whose past Qwen3's template changes."""
    from llmstages.core.stage import Context
    from llmstages.train import preference_pairs
    from tests.tiny import saved, tiny_model

    tokenizer = tokenizer_for(name)
    folder = tmp_path / "model"
    tiny_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    *prompt, chosen = KINDS["turns"]
    row = {"prompt": prompt, "chosen": [chosen], "rejected": [message("assistant", "No.")]}
    source = saved(tmp_path / "pairs", "preferences", [row] * 4)
    model = Artifact("model", "model", folder, "")
    pairs = preference_pairs.prepare(
        model, source, 512, 0.25, Context("dpo", tmp_path, tmp_path, {})
    )
    for pair in [*pairs.train, *pairs.test]:
        size = len(pair["prompt_ids"])
        for side in ("chosen", "rejected"):
            assert pair[f"{side}_ids"][:size] == pair["prompt_ids"]
            assert not any(pair[f"{side}_rendered"].supervised[:size])
            assert pair[f"{side}_rendered"].supervised[size]
    assert not [check.id for check in pairs.checks if not check.passed]


@pytest.mark.parametrize(
    "name", ["smollm2", "qwen3", "llama3_1", pytest.param("gemma3", marks=pytest.mark.slow)]
)
def test_tokenizers_of_real_models(name):
    folder = SHARED / "data" / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}: the templates of TRL are tested with a small tokenizer instead")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for kind, messages in KINDS.items():
        expected = NO_REASONING if kind == "reasoning" and name != "qwen3" else ""
        assert failed(tokenizer, messages) == expected, kind


def test_a_template_that_forgets_is_trained_answer_by_answer():
    """Qwen3's template drops the thinking of earlier answers; TRL's training form is not found."""
    import copy

    tokenizer = copy.deepcopy(tokenizer_for("qwen3"))
    tokenizer.chat_template += "\n"
    dialogues, rows, _ = rows_and_checks(tokenizer, KINDS["turns"])
    assert [dialogue.name for dialogue in dialogues] == ["dialogues:0/1", "dialogues:0/2"]
    texts = [
        tokenizer.decode([id for id, on in zip(row.ids, row.supervised, strict=True) if on])
        for row in rows
    ]
    assert [text.split("</think>")[1].strip() for text in texts] == [
        "Near the river.<|im_end|>",
        "Far away.<|im_end|>",
    ]


@pytest.mark.parametrize("name", ["qwen2_5", "llama3_1", "gptoss", "glm4moe", "gemma3"])
@pytest.mark.parametrize(
    "properties, parameter",
    [({"code": {"type": "string"}}, "code"), ({"a": {}, "b": {}}, "input"), ({}, "input")],
)
def test_a_plain_argument_is_the_value_of_the_one_parameter(name, properties, parameter):
    """Rows hold the bare argument, so that they fit our own templates as well."""
    parameters = {"type": "object", "properties": properties}
    schema = {"name": "runner", "description": "runs", "parameters": parameters}
    turns = [
        {"role": "system", "content": "", "tools": json.dumps([schema])},
        message("user", "How much?"),
        message("assistant", "1 + 1", "runner"),
        message("tool", "2", "runner"),
        message("assistant", "Two."),
    ]
    fields, _ = template_fields(turns, tokenizer_for(name).chat_template)
    assert f"'{parameter}': '1 + 1'" in str(fields) or f'"{parameter}": "1 + 1"' in str(fields)
    own = json.dumps({"other": "1 + 1"})
    turns[2] = message("assistant", own, "runner")
    fields, _ = template_fields(turns, tokenizer_for(name).chat_template)
    assert "'other': '1 + 1'" in str(fields) or '"other": "1 + 1"' in str(fields)
