"""Chat templates that would train something else are refused, and templates that fit pass."""

from __future__ import annotations

import copy
import json

import pytest

from llmstages.core.errors import StageError
from llmstages.data.dialogues import Dialogue
from llmstages.text import chat_format
from llmstages.text.messages import message
from llmstages.text.render import render
from llmstages.train.template_checks import check_dialogue_template, require_template
from tests.tiny import END, TALK, control_ids, perform, saved, tiny_tokenizer
from tests.train.sft_step import (
    ANSWER,
    QUESTION,
    SYSTEM,
    all_passed,
    by_id,
    prepare_sft,
    run_sft,
    sft_inputs,
)

HEADER = "{{ '<|im_start|>' + m.role + '<|im_sep|>' }}"
CONTENT = "{{ m.content + '<|im_end|>' }}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
TURNS = "{% for m in messages %}" + HEADER + CONTENT + "{% endfor %}"
IF_ASSISTANT = "{% if m.role == 'assistant' %}"
GENERATION = "{% generation %}" + CONTENT + "{% endgeneration %}"
MARKED = (
    "{{ bos_token }}{% for m in messages %}"
    + HEADER
    + IF_ASSISTANT
    + GENERATION
    + "{% else %}"
    + CONTENT
    + "{% endif %}{% endfor %}"
    + PROMPT
)

# the mistake -> (a chat template, what the error message contains)
MISTAKES = {
    "no BOS": (TURNS + PROMPT, "bos_count"),
    "two BOS": ("{{ bos_token + bos_token }}" + TURNS + PROMPT, "bos_count"),
    "no prompt for an answer": ("{{ bos_token }}" + TURNS, "headers_supervised"),
    "another prompt than in training": (
        "{{ bos_token }}" + TURNS + PROMPT.replace("assistant", "model"),
        "is not the beginning of the text",
    ),
    "the end of turn is not marked": (
        MARKED.replace(
            GENERATION,
            "{% generation %}{{ m.content }}{% endgeneration %}{{ '<|im_end|>' }}",
        ),
        "would never learn to stop",
    ),
    "no end of turn": (
        "{{ bos_token }}" + TURNS.replace(" + '<|im_end|>'", "") + PROMPT,
        "would never learn to stop",
    ),
    "the header is marked": (
        MARKED.replace(
            HEADER + IF_ASSISTANT + "{% generation %}",
            IF_ASSISTANT + "{% generation %}" + HEADER,
        ).replace("{% else %}", "{% else %}" + HEADER),
        "headers_supervised",
    ),
    "everything is marked": (
        MARKED.replace("{% generation %}", "")
        .replace("{% endgeneration %}", "")
        .replace("{% for", "{% generation %}{% for")
        .replace("{% endfor %}", "{% endfor %}{% endgeneration %}"),
        "headers_supervised",
    ),
    "only the last answer is shown": (
        MARKED.replace(
            "{% generation %}{{ m.content",
            "{% generation %}{{ (m.content if loop.last else '')",
        ),
        "messages_left_out",
    ),
    "system turns are left out": (
        MARKED.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"),
        "messages_left_out",
    ),
    "contents are cut": (
        MARKED.replace("{{ m.content +", "{{ m.content[:3] +"),
        "messages_left_out",
    ),
    "old answers change": (
        "{{ bos_token }}"
        + TURNS.replace("m.content", "(m.content if loop.last or m.role != 'assistant' else 'x')")
        + PROMPT,
        "messages_left_out",
    ),
    "it refuses a role": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn here') }}"
        "{% endif %}" + MARKED,
        "no system turn here",
    ),
    "it is not a template": (MARKED + "{% if %}", "cannot render"),
    "the separator could be text": (
        MARKED.replace("<|im_sep|>", " says "),
        "prompt_is_prefix_of_training_row",
    ),
}


@pytest.fixture
def template_file(tmp_path):
    """Writes a chat template and returns the path of its file."""

    def write(text):
        path = tmp_path / "ours.jinja"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("mistake", MISTAKES)
def test_templates_that_would_train_something_else(tmp_path, template_file, mistake):
    text, reason = MISTAKES[mistake]
    inputs = sft_inputs(tmp_path, [[SYSTEM, QUESTION, ANSWER, *TALK]] * 3)
    with pytest.raises(StageError, match=reason):
        run_sft(tmp_path, inputs, template_file=template_file(text))


@pytest.mark.parametrize("text", [MARKED, "{{ bos_token }}" + TURNS + PROMPT])
def test_a_correct_template_of_the_user(tmp_path, template_file, text):
    inputs = sft_inputs(tmp_path, [[SYSTEM, QUESTION, ANSWER]])
    prepared = prepare_sft(tmp_path, inputs, template_file=template_file(text))
    assert all_passed(prepared.checks)
    row = prepared.rows[0]
    supervised = [token for token, on in zip(row.ids, row.supervised, strict=True) if on]
    assert prepared.tokenizer.decode(supervised) == "Bo Li.<|im_end|>"


def test_a_template_whose_prompt_ends_with_the_question():
    """As Mistral's: there is no header before an answer, so the prompt is the dialogue so far."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}"
        + IF_ASSISTANT
        + "{{ ' ' + m.content + '<|im_end|>' }}{% else %}"
        + "{{ '<|im_start|> ' + m.content + ' <|im_sep|>' }}{% endif %}{% endfor %}"
    )
    dialogue = Dialogue("chats:0", [QUESTION, ANSWER, *TALK])
    assert all_passed(check_dialogue_template([dialogue], tokenizer))
    require_template(tokenizer, "tokenizer")


LINES = "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
LINES += "{{ '<|im_end|>\\n' }}{% endfor %}"
LINES += "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"


@pytest.mark.parametrize("begin", ["\n", "\n\n", " ", "\t", ""])
def test_an_answer_that_begins_with_blanks_shares_no_token_with_its_prompt(begin):
    """In generation the prompt is encoded alone, so a token of both could not be learned."""
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build

    tokenizer = build(["user\n\n\nassistant\n\n\n Who? Bo Li.\n \n\t" * 50], BPEConfig(330))
    tokenizer.chat_template = LINES
    assert len(tokenizer("\n\n", add_special_tokens=False)["input_ids"]) == 1
    dialogue = Dialogue("chats:0", [QUESTION, message("assistant", f"{begin}Bo Li.")])
    checks = check_dialogue_template([dialogue], tokenizer)
    assert all_passed(checks), [check for check in checks if not check.passed]
    row = render(tokenizer, [dialogue.messages])[0]
    (prompt,) = chat_format.prompt_ids(tokenizer, [[QUESTION]])
    assert row.ids[: len(prompt)] == prompt
    supervised = [token for token, on in zip(row.ids, row.supervised, strict=True) if on]
    assert tokenizer.decode(supervised).startswith(f"{begin}Bo Li.<|im_end|>")


def test_a_template_that_does_not_fit_the_tokenizer_is_refused():
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = MISTAKES["contents are cut"][0]
    reason = r"tokenizer: this chat template does not fit.*messages_left_out .*probe 0, probe 1"
    with pytest.raises(StageError, match=reason):
        require_template(tokenizer, "tokenizer")


def test_a_dialogue_that_cannot_be_rendered_is_named(tmp_path, template_file):
    inputs = sft_inputs(tmp_path, [TALK, [SYSTEM, *TALK]])
    path = template_file(MISTAKES["it refuses a role"][0])
    reason = r"1 of 2 dialogues cannot be rendered \(chats:1\). chats:1: .*no system turn here"
    with pytest.raises(StageError, match=reason):
        run_sft(tmp_path, inputs, template_file=path)
    with pytest.raises(StageError, match="is empty"):
        run_sft(tmp_path / "empty", inputs, template_file=template_file(" "))


def test_answers_that_spell_control_tokens_are_reported():
    dialogues = [
        Dialogue(f"chats:{i}", [QUESTION, message("assistant", f"<|im_sep|> {i}")])
        for i in range(60)
    ]
    checks = by_id(check_dialogue_template(dialogues, tiny_tokenizer()))
    assert not checks["control_tokens_in_answers"].passed
    assert not checks["compared_with_apply_chat_template"].passed


def test_other_programs_learn_where_a_turn_ends(tmp_path, template_file):
    # a turn ends with another token than the tokenizer's eos
    path = template_file(MARKED.replace("<|im_end|>", "<TOOL_END>"))
    made = run_sft(tmp_path, sft_inputs(tmp_path, [TALK] * 3), template_file=path)
    marks = control_ids(tiny_tokenizer())
    generation = json.loads((made.path / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [marks["<TOOL_END>"], marks[END]]


@pytest.mark.parametrize("prepend_to_first", [False, True])
def test_a_tokenizer_that_reads_the_template_differently(prepend_to_first):
    """As SentencePiece: a blank before the first text of all, and none between control tokens."""
    from tokenizers import pre_tokenizers

    from llmstages.plugins.tokenizer.unigram import Unigram, UnigramConfig

    config = UnigramConfig(vocab_size=700, leading_space=False)
    tokenizer = Unigram().build(["Who? Bo Li. " * 50], config)
    if prepend_to_first:
        metaspace = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.backend_tokenizer.pre_tokenizer = metaspace
    dialogue = Dialogue("chats:0", [QUESTION, ANSWER])
    checks = by_id(check_dialogue_template([dialogue], tokenizer))
    assert checks["differs_from_apply_chat_template"].passed is not prepend_to_first


def test_texts_that_the_tokenizer_cannot_spell(tmp_path):
    from llmstages.plugins.tokenizer.wordpiece import WordPiece, WordPieceConfig
    from llmstages.train.trainer import load_tokenizer

    text = "a plain text in small letters"
    rows = [{"id": str(i), "url": "u", "text": text} for i in range(20)]
    corpus = saved(tmp_path / "corpus", "corpus", rows)
    config = WordPieceConfig(vocab_size=120, alphabet=40)
    made, _ = perform(WordPiece, tmp_path / "tokenizer", config, corpus=corpus)
    dialogue = Dialogue("chats:0", [message("user", "Ж?"), ANSWER])
    checks = by_id(check_dialogue_template([dialogue], load_tokenizer(made.path)))
    assert not checks["text_lost_in_tokenizer"].passed
