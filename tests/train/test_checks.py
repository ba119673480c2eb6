"""Gates: each kind of mistake in masks, lengths and templates is refused before step 1, with row, cause and cure."""

from __future__ import annotations

import copy
import json

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data.dialogues import Dialogue, fit_length, render_dialogues
from llmstages.plugins.sft.chat import Chat, ChatConfig
from llmstages.text.messages import message
from llmstages.text.render import Rendered, render
from llmstages.train import checks
from tests.tiny import BOS, END, PAD, TALK, control_ids, perform, saved, saved_model, tiny_tokenizer

ASK, TELL, CALL, RESULT = (
    message("user", "Who?"),
    message("assistant", "Bo Li."),
    message("assistant", "Bo", "search"),
    message("tool", "Ra", "search"),
)
SYSTEM = message("system", "Be brief.")


def talks(count):
    return [
        [message("user", f"Where is {i}?"), message("assistant", f"In {i + 1}.")]
        for i in range(count)
    ]


# what is wrong with the dialogues of a source -> (messages of its rows, the gate, the rows it names)
DIALOGUES = {
    "nothing in it": ([TALK, []], "empty dialogues", "chats:1"),
    "a turn that holds no text": (
        [TALK, [{"role": "user", "content": None, "tool": ""}, TELL]],
        "turns whose content is no text",
        "chats:1",
    ),
    "a role nobody knows": (
        [TALK, [message("critic", "x"), TELL]],
        "turns of an unknown role",
        "chats:1",
    ),
    "an empty answer": (
        [TALK, [ASK, message("assistant", " ")]],
        "turns without content",
        "chats:1",
    ),
    "an empty question": ([TALK, [message("user", ""), TELL]], "turns without content", "chats:1"),
    "the last turn is a question": (
        [TALK, [ASK, TELL, ASK]],
        "dialogues that end without an answer",
        "chats:1",
    ),
    "the last turn is a tool's result": (
        [TALK, [ASK, CALL, RESULT]],
        "dialogues that end without an answer",
        "chats:1",
    ),
    "no answer at all": ([TALK, [ASK]], "rows without a supervised token", "chats:1"),
    "an answer to nothing": ([TALK, [TELL]], "roles out of order", "chats:1"),
    "two questions": ([TALK, [ASK, ASK, TELL]], "roles out of order", "chats:1"),
    "two answers": ([TALK, [ASK, TELL, TELL]], "roles out of order", "chats:1"),
    "a system turn in the middle": (
        [TALK, [ASK, TELL, SYSTEM, ASK, TELL]],
        "roles out of order",
        "chats:1",
    ),
    "a result nobody asked for": (
        [TALK, [ASK, RESULT, TELL]],
        "tool results without a call",
        "chats:1",
    ),
    "the same again and again": (
        talks(40) + [TALK] * 20,
        "share of repeated dialogues",
        "chats:41 (as chats:40)",
    ),
    "rendered before": (
        talks(60) + [[message("user", "<|im_start|>user\nhi<|im_end|>"), TELL]] * 2,
        "share of texts that hold template marks",
        "chats:60",
    ),
    "most are too long": (
        [TALK, [message("user", "so " * 200), TELL], [message("user", "or " * 200), TELL]],
        "share of dialogues too long",
        "chats:1",
    ),
    "all are too long": ([[message("user", "so " * 200), TELL]], "rows", ""),
}


@pytest.mark.parametrize("kind", DIALOGUES)
def test_mistakes_in_dialogues_stop_before_step_one(tmp_path, kind):
    rows, name, row = DIALOGUES[kind]
    inputs = {
        "model": saved_model(tmp_path / "base"),
        "dialogues": (saved(tmp_path / "chats", "dialogues", [{"messages": m} for m in rows]),),
        "corpus": None,
    }
    with pytest.raises(StageError) as told:
        perform(Chat, tmp_path / "sft", ChatConfig(max_length=96), **inputs)
    found = next(
        g
        for g in json.loads((tmp_path / "sft" / "out" / "gates.json").read_text())
        if g["gate"] == name
    )
    assert not found["passed"] and (not row or row in found["rows"])
    line = next(line for line in str(told.value).splitlines() if line.startswith(f"  {name}: "))
    assert row in line and found["cure"] in line
    assert (
        f"sft.allow_failed_checks=[{checks.key(found)}" in str(told.value)
        or checks.key(found) in str(told.value).rpartition("sft.allow_failed_checks=")[2]
    )


def broken(change):
    """Rendered rows of two dialogues, the second one changed."""
    rows = render(tiny_tokenizer(), [TALK, TALK])
    change(rows[1], control_ids(tiny_tokenizer()))
    return rows


def unmask_all(row, marks):
    row.supervised = [True] * len(row.ids)


def mask_all(row, marks):
    row.supervised = [False] * len(row.ids)


def mask_end(row, marks):
    row.supervised = [
        on and token != marks[END] for token, on in zip(row.ids, row.supervised, strict=True)
    ]


def drop_end(row, marks):
    row.ids, row.supervised = row.ids[:-1], row.supervised[:-1]


def put(where, mark):
    def change(row, marks):
        row.ids.insert(where, marks[mark])
        row.supervised.insert(where, False)

    return change


def no_bos(row, marks):
    del row.ids[0], row.supervised[0]


# what is wrong with tokens and mask -> (change of the second row, the gate)
ROWS = {
    "the loss sees the question": (unmask_all, "rows whose headers are supervised"),
    "the loss sees nothing": (mask_all, "rows without a supervised token"),
    "the end of turn is masked": (mask_end, "dialogues whose end of turn is supervised"),
    "the end of turn is cut away": (drop_end, "dialogues whose end of turn is supervised"),
    "no BOS": (no_bos, "rows that begin with exactly one BOS"),
    "two BOS": (put(0, BOS), "rows that begin with exactly one BOS"),
    "a BOS in the middle": (put(5, BOS), "rows that begin with exactly one BOS"),
    "padding in the middle": (put(5, PAD), "rows with padding inside"),
}


@pytest.mark.parametrize("kind", ROWS)
def test_mistakes_in_tokens_and_masks_are_found(kind):
    change, name = ROWS[kind]
    assert all(
        g["passed"] for g in checks.check_rows(broken(lambda row, marks: None), tiny_tokenizer())
    )
    found = {
        g["gate"]: g
        for g in checks.check_rows(broken(change), tiny_tokenizer(), ["first", "second"])
    }
    assert not found[name]["passed"] and found[name]["rows"] == ["second"]


def test_hardly_anything_supervised_and_rows_beyond_the_context():
    rows = [
        Rendered([*one.ids, *one.ids[1:2] * 400], [*one.supervised, *[False] * 400])
        for one in render(tiny_tokenizer(), [TALK])
    ]
    found = {
        g["gate"]: g
        for g in checks.check_rows(rows, tiny_tokenizer(), ["a"], least_supervised=0.1, context=128)
    }
    assert (
        not found["supervised share"]["passed"]
        and not found["longest row"]["passed"]
        and found["longest row"]["rows"] == ["a"]
    )


def changed(**changes):
    tokenizer = copy.deepcopy(tiny_tokenizer())
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def test_pad_that_ends_turns():
    found = {
        g["gate"]: g
        for g in checks.check_rows(render(tiny_tokenizer(), [TALK]), changed(pad_token=END))
    }
    assert not found["pad differs from end of turn"]["passed"]


TURNS = "{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endfor %}"
MARKED = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
# what is wrong with a chat template -> (the template, what the message names)
TEMPLATES = {
    "no BOS": (TURNS + PROMPT, "rows that begin with exactly one BOS"),
    "two BOS": (
        "{{ bos_token + bos_token }}" + TURNS + PROMPT,
        "rows that begin with exactly one BOS",
    ),
    "no prompt for an answer": ("{{ bos_token }}" + TURNS, "rows whose headers are supervised"),
    "another prompt than in training": (
        "{{ bos_token }}" + TURNS + PROMPT.replace("assistant", "model"),
        "prompt before it is not its beginning",
    ),
    "the end of turn is not marked": (
        MARKED.replace(
            "{{ m.content + '<|im_end|>' }}{% endgeneration %}",
            "{{ m.content }}{% endgeneration %}{{ '<|im_end|>' }}",
        ),
        "would never learn to stop",
    ),
    "no end of turn": (
        "{{ bos_token }}" + TURNS.replace(" + '<|im_end|>'", "") + PROMPT,
        "would never learn to stop",
    ),
    "the header is marked": (
        MARKED.replace(
            "{{ '<|im_start|>' + m.role + '<|im_sep|>' }}{% if m.role == 'assistant' %}{% generation %}",
            "{% if m.role == 'assistant' %}{% generation %}{{ '<|im_start|>' + m.role + '<|im_sep|>' }}",
        ).replace("{% else %}", "{% else %}{{ '<|im_start|>' + m.role + '<|im_sep|>' }}"),
        "rows whose headers are supervised",
    ),
    "everything is marked": (
        MARKED.replace("{% generation %}", "")
        .replace("{% endgeneration %}", "")
        .replace("{% for", "{% generation %}{% for")
        .replace("{% endfor %}", "{% endfor %}{% endgeneration %}"),
        "rows whose headers are supervised",
    ),
    "only the last answer is shown": (
        MARKED.replace(
            "m.role == 'assistant' %}{% generation %}{{ m.content",
            "m.role == 'assistant' %}{% generation %}{{ (m.content if loop.last else '')",
        ),
        "dialogues of which the template leaves something out",
    ),
    "system turns are left out": (
        MARKED.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"),
        "dialogues of which the template leaves something out",
    ),
    "contents are cut": (
        MARKED.replace("{{ m.content +", "{{ m.content[:3] +"),
        "dialogues of which the template leaves something out",
    ),
    "old answers change": (
        "{{ bos_token }}"
        + TURNS.replace("m.content", "(m.content if loop.last or m.role != 'assistant' else 'x')")
        + PROMPT,
        "later turns change it",
    ),
    "it refuses a role": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn here') }}{% endif %}"
        + MARKED,
        "no system turn here",
    ),
    "it is no template": (MARKED + "{% if %}", "cannot render"),
    "the separator could be a text": (
        MARKED.replace("<|im_sep|>", " says "),
        "prompts that differ from training",
    ),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_chat_templates_that_would_train_something_else(tmp_path, kind):
    text, why = TEMPLATES[kind]
    rows = [{"messages": [SYSTEM, ASK, TELL, *TALK]}] * 3
    inputs = {
        "model": saved_model(tmp_path / "base"),
        "dialogues": (saved(tmp_path / "chats", "dialogues", rows),),
        "corpus": None,
    }
    (tmp_path / "ours.jinja").write_text(text)
    with pytest.raises(StageError, match=why):
        perform(
            Chat,
            tmp_path / "sft",
            ChatConfig(max_length=96, template_file=str(tmp_path / "ours.jinja")),
            **inputs,
        )


def test_a_template_of_ones_own_that_is_right(tmp_path):
    for number, text in enumerate((MARKED, "{{ bos_token }}" + TURNS + PROMPT)):
        inputs = {
            "model": saved_model(tmp_path / f"base{number}"),
            "dialogues": (
                saved(tmp_path / "chats", "dialogues", [{"messages": [SYSTEM, ASK, TELL]}]),
            ),
            "corpus": None,
        }
        (tmp_path / "ours.jinja").write_text(text)
        prepared = Chat().prepare(
            ChatConfig(max_length=96, template_file=str(tmp_path / "ours.jinja")),
            Context("sft", tmp_path, tmp_path, inputs),
        )
        assert all(g["passed"] for g in prepared.gates)
        told = [
            token
            for token, on in zip(prepared.rows[0].ids, prepared.rows[0].supervised, strict=True)
            if on
        ]
        assert prepared.tokenizer.decode(told) == "Bo Li.<|im_end|>"


def test_a_template_whose_prompt_ends_with_the_question(tmp_path):
    """As Mistral's: there is no header before an answer, so the prompt is the dialogue so far."""
    from llmstages.train.checks import require_template

    mistral = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + '<|im_end|>' }}{% else %}{{ '<|im_start|> ' + m.content + ' <|im_sep|>' }}"
        "{% endif %}{% endfor %}"
    )
    tokenizer = changed(chat_template=mistral)
    assert all(
        g["passed"]
        for g in checks.check_dialogue_template(
            [Dialogue("chats:0", [ASK, TELL, *TALK])], tokenizer
        )
    )
    require_template(tokenizer, "tokenizer")


def test_a_dialogue_that_cannot_be_rendered_is_named(tmp_path):
    rows = [{"messages": TALK}, {"messages": [SYSTEM, *TALK]}]
    inputs = {
        "model": saved_model(tmp_path / "base"),
        "dialogues": (saved(tmp_path / "chats", "dialogues", rows),),
        "corpus": None,
    }
    (tmp_path / "ours.jinja").write_text(TEMPLATES["it refuses a role"][0])
    with pytest.raises(
        StageError,
        match=r"1 of 2 dialogues cannot be rendered \(chats:1\). chats:1: .*no system turn here",
    ):
        perform(
            Chat,
            tmp_path / "sft",
            ChatConfig(max_length=96, template_file=str(tmp_path / "ours.jinja")),
            **inputs,
        )
    (tmp_path / "empty.jinja").write_text(" ")
    with pytest.raises(StageError, match="is empty"):
        perform(
            Chat,
            tmp_path / "empty",
            ChatConfig(max_length=96, template_file=str(tmp_path / "empty.jinja")),
            **inputs,
        )


def test_answers_that_spell_control_tokens_are_told():
    talk = [[ASK, message("assistant", f"<|im_sep|> {i}")] for i in range(60)]
    found = {
        g["gate"]: g
        for g in checks.check_dialogue_template(
            [Dialogue(f"chats:{i}", m) for i, m in enumerate(talk)], tiny_tokenizer()
        )
    }
    assert (
        not found["share of answers that spell control tokens"]["passed"]
        and not found["share of dialogues compared with that template"]["passed"]
    )


def test_other_programs_learn_where_a_turn_ends(tmp_path):
    inputs = {
        "model": saved_model(tmp_path / "base"),
        "dialogues": (saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 3),),
        "corpus": None,
    }
    (tmp_path / "ours.jinja").write_text(
        MARKED.replace("<|im_end|>", "<TOOL_END>")
    )  # a turn ends with another token than the tokenizer's eos
    made, _ = perform(
        Chat,
        tmp_path / "sft",
        ChatConfig(max_length=96, template_file=str(tmp_path / "ours.jinja")),
        **inputs,
    )
    marks = control_ids(tiny_tokenizer())
    assert json.loads((made.path / "generation_config.json").read_text())["eos_token_id"] == [
        marks["<TOOL_END>"],
        marks[END],
    ]


def test_a_tokenizer_that_reads_the_template_otherwise():
    """Blanks that only the first text of all is given, as SentencePiece has it: between two control tokens there is none."""
    from tokenizers import pre_tokenizers

    from llmstages.plugins.tokenizer.unigram import Unigram, UnigramConfig

    made = Unigram().build(
        ["Who? Bo Li. " * 50], UnigramConfig(vocab_size=700, leading_space=False)
    )
    name = "share that the tokenizer's chat template renders otherwise"
    for change, passed in ((False, True), (True, False)):
        if change:
            made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        found = {
            g["gate"]: g
            for g in checks.check_dialogue_template([Dialogue("chats:0", [ASK, TELL])], made)
        }
        assert found[name]["passed"] is passed


def test_texts_that_the_tokenizer_cannot_spell(tmp_path):
    from llmstages.plugins.tokenizer.wordpiece import WordPiece, WordPieceConfig

    corpus = saved(
        tmp_path / "corpus",
        "corpus",
        [{"id": str(i), "url": "u", "text": "a plain text in small letters"} for i in range(20)],
    )
    made, _ = perform(
        WordPiece,
        tmp_path / "tokenizer",
        WordPieceConfig(vocab_size=120, alphabet=40),
        corpus=corpus,
    )
    from llmstages.train.trainer import load_tokenizer

    found = {
        g["gate"]: g
        for g in checks.check_dialogue_template(
            [Dialogue("chats:0", [message("user", "Ж?"), TELL])], load_tokenizer(made.path)
        )
    }
    assert not found["share of texts lost in the tokenizer"]["passed"]


def test_more_tokens_than_embeddings(tmp_path):
    model = saved_model(tmp_path / "base")
    assert checks.check_model(model.path, tiny_tokenizer())[0]["passed"]
    more = copy.deepcopy(tiny_tokenizer())
    more.add_tokens(["<new>"])
    assert not checks.check_model(model.path, more)[0]["passed"]


def test_a_gate_is_allowed_by_name_and_the_record_says_so(tmp_path):
    rows = saved(
        tmp_path / "chats", "dialogues", [{"messages": TALK}, {"messages": [ASK, TELL, TELL]}]
    )
    inputs = {"model": saved_model(tmp_path / "base"), "dialogues": (rows,), "corpus": None}
    perform(
        Chat,
        tmp_path / "sft",
        ChatConfig(max_length=96, allow_failed_checks=["roles_out_of_order"]),
        **inputs,
    )
    assert any(
        "roles out of order: 1 (limit 0) (chats:1); allowed by sft.allow" in line
        for line in perform.said
    )
    found = {
        g["gate"]: g for g in json.loads((tmp_path / "sft" / "out" / "gates.json").read_text())
    }
    assert found["roles out of order"]["allowed"] and not found["roles out of order"]["passed"]
    with pytest.raises(StageError, match="Did you mean 'roles_out_of_order'"):
        perform(
            Chat,
            tmp_path / "again",
            ChatConfig(max_length=96, allow_failed_checks=["roles_out_of_orde"]),
            **inputs,
        )


def test_a_row_drawn_twice_by_its_weight_is_no_repetition(tmp_path):
    rows = saved(tmp_path / "chats", "dialogues", [{"messages": m} for m in talks(60)])
    inputs = {"model": saved_model(tmp_path / "base"), "dialogues": (rows,), "corpus": None}
    prepared = Chat().prepare(
        ChatConfig(max_length=96, mixture_weights={"chats": 3.0}),
        Context("sft", tmp_path, tmp_path, inputs),
    )
    assert len(prepared.rows) == 180 and all(g["passed"] for g in prepared.gates)


def test_what_is_too_long_is_dropped_split_truncated_or_refused():
    tokenizer, said = tiny_tokenizer(), []
    ctx = Context("sft", None, None, {}, say=said.append)
    long = Dialogue(
        "chats:0",
        [
            SYSTEM,
            *(
                m
                for i in range(6)
                for m in (message("user", f"Where is {i}?"), message("assistant", f"In {i}."))
            ),
        ],
    )
    huge = Dialogue("chats:1", [message("user", "so " * 300), TELL])
    short = Dialogue("chats:2", TALK)
    kept, rows, left = fit_length([long, huge, short], tokenizer, 64, "drop", ctx)
    assert (
        kept == [short]
        and left == ["chats:0", "chats:1"]
        and "2 of 3 dialogues are longer than max_length=64 tokens (chats:0, chats:1): dropped"
        in said[-1]
    )
    kept, rows, left = fit_length([long, huge, short], tokenizer, 64, "split", ctx)
    assert (
        left == ["chats:1"]
        and kept[-1] == short
        and all(len(row.ids) <= 64 for row in rows)
        and len(kept) > 2
    )
    parts = kept[:-1]
    assert [d.name for d in parts] == [f"chats:0/{i + 1}" for i in range(len(parts))] and all(
        d.messages[0] == SYSTEM for d in parts
    )
    assert [m for d in parts for m in d.messages[1:]] == long.messages[1:]
    assert [r.ids for r in rows] == [r.ids for r in render_dialogues(tokenizer, kept)]
    kept, rows, left = fit_length([long, huge], tokenizer, 64, "truncate", ctx)
    whole = render_dialogues(tokenizer, [long, huge])
    assert (
        not left
        and [r.ids for r in rows] == [r.ids[:64] for r in whole]
        and "cut at their end" in said[-1]
    )
    with pytest.raises(
        StageError, match=r"1 of 2 dialogues .*chats:1.*overlong=drop, split or truncate"
    ):
        fit_length([short, huge], tokenizer, 64, "error", ctx)
