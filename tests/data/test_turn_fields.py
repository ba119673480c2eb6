"""Fields of turns that change what is trained: honored, counted by name, or refused."""

from __future__ import annotations

import copy
import json
from collections import Counter

import pytest

from llmstages.core.stage import Context
from llmstages.data import dialogues, overlong, tables
from llmstages.data.dialogues import Dialogue, one_per_answer, render_dialogues
from llmstages.data.formats import InvalidRow, conversation, dialogue, preference, problem
from llmstages.data.readers.examples import convert_dialogues, write
from llmstages.text.messages import message
from llmstages.text.render import render
from llmstages.text.templates import install
from tests.tiny import tiny_tokenizer

USER = {"role": "user", "content": "How high is it?"}
DRAFT = {"role": "assistant", "content": "A million steps."}
AGAIN = {"role": "user", "content": "Are you sure?"}
ANSWER = {"role": "assistant", "content": "No: ninety steps."}


def chat(**marks) -> dict:
    return {"messages": [USER, {**DRAFT, **marks}, AGAIN, ANSWER]}


@pytest.mark.parametrize(
    "marks",
    [
        {"weight": 0},
        {"weight": 0.0},
        {"loss": False},
        {"train": False},
        {"training": "false"},
        {"trainable": 0},
        {"loss_mask": 0},
        {"train_on_turn": False},
    ],
)
def test_an_answer_may_be_marked_as_not_to_be_trained_on(marks):
    left_out = Counter()
    turns = dialogue(chat(**marks), "", left_out)
    assert [turn.get("loss") for turn in turns] == [None, False, None, None]
    assert not left_out


@pytest.mark.parametrize("marks", [{"weight": 1}, {"loss": True}, {"train": None}, {"weight": ""}])
def test_marks_that_say_nothing_new_leave_no_trace(marks):
    left_out = Counter()
    assert dialogue(chat(**marks), "", left_out) == dialogue(chat())
    assert not left_out


@pytest.mark.parametrize(
    "rule, marks",
    [
        ("loss_mark", {"weight": 0.5}),
        ("loss_mark", {"weight": "low"}),
        ("loss_mark", {"weight": 0, "train": True}),
        ("loss_mark", {"mask": 1}),
        ("loss_mark", {"train_detail": [{"begin_offset": 0, "end_offset": 3, "train": False}]}),
        ("media", {"images": ["a.png"]}),
        ("media", {"audio": {"id": "x"}}),
        ("media", {"video": "x.mp4"}),
    ],
)
def test_what_cannot_be_honored_is_refused(rule, marks):
    with pytest.raises(InvalidRow) as caught:
        dialogue(chat(**marks))
    assert caught.value.rule == rule
    assert next(iter(marks)) in str(caught.value)


@pytest.mark.parametrize(
    "row, counted",
    [
        (chat(sentiment="glad"), "fields 'sentiment' of turns"),
        (chat(annotations=[{"url": "x"}]), "fields 'annotations' of turns"),
        ({"messages": [{**USER, "weight": 1}, ANSWER]}, "loss on turns of the user"),
        ({"messages": [{**USER, "thinking": "hm"}, ANSWER]}, "reasoning of the user"),
        ({"messages": [{"role": "system", "content": " "}, USER, ANSWER]}, "empty system turns"),
    ],
)
def test_what_is_not_used_is_counted_by_name(row, counted):
    left_out = Counter()
    dialogue(row, "", left_out)
    assert left_out == {counted: 1}


@pytest.mark.parametrize("field", ["sentiment", "images", "annotations", "mask"])
def test_empty_fields_that_arrow_adds_are_no_fields(field):
    for empty in (None, "", [], {}):
        left_out = Counter()
        assert dialogue(chat(**{field: empty}), "", left_out) == dialogue(chat())
        assert not left_out


def test_a_row_without_any_answer_to_train_on_is_dropped():
    with pytest.raises(InvalidRow, match="every answer is marked"):
        dialogue({"messages": [USER, {**ANSWER, "weight": 0}]})


@pytest.mark.parametrize("row", [chat(), {"question": "What is it?", "answer": "A tower."}])
def test_media_beside_the_text_are_refused(row):
    for name in ("images", "image", "audios", "videos"):
        with pytest.raises(InvalidRow, match=f"the row has {name}"):
            dialogue({**row, name: ["x"]})


def test_the_refusal_of_openai_is_the_answer():
    turns = dialogue(
        {"messages": [USER, {"role": "assistant", "content": None, "refusal": "I will not."}]}
    )
    assert turns[-1]["content"] == "I will not."


@pytest.mark.parametrize("template", ["chatml", "llama3", "unmarked"])
def test_marked_answers_carry_no_loss(template):
    tokenizer = copy.deepcopy(tiny_tokenizer())
    if template == "unmarked":
        tokenizer.chat_template = (
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
            "{% if add_generation_prompt %}<assistant>{% endif %}"
        )
        tokenizer.add_special_tokens({"eos_token": "</s>"})
    else:
        install(tokenizer, template, "")
    marked = Dialogue("d:0", dialogue(chat(weight=0)))
    (row,) = render_dialogues(tokenizer, [marked])
    (whole,) = render(tokenizer, [dialogue(chat())])
    assert row.ids == whole.ids
    supervised = [token for token, on in zip(row.ids, row.supervised, strict=True) if on]
    assert "ninety" in tokenizer.decode(supervised)
    assert "million" not in tokenizer.decode(supervised)
    # All that changes is the first answer.
    (alone,) = render(tokenizer, [dialogue(chat())[:2]])
    assert sum(whole.supervised) - sum(row.supervised) == sum(alone.supervised)


def test_marks_survive_the_table_and_the_split_of_long_dialogues(tmp_path):
    ctx = Context("dialogues", tmp_path, tmp_path, {})
    rows = [("0", chat(weight=0)), ("1", chat())]
    write(convert_dialogues(rows, "detect", ctx), ctx, "x")
    first, second = [row["messages"] for row in tables.load(tmp_path / "data")]
    assert [turn.get("loss") for turn in first] == [None, False, None, None]
    tokenizer = copy.deepcopy(tiny_tokenizer())
    install(tokenizer, "chatml", "")
    longest = max(len(row.ids) for row in render(tokenizer, [first[:2], first[2:]]))
    sources = [Dialogue("d:0", first), Dialogue("d:1", second)]
    kept, _, _ = overlong.fit_length(sources, tokenizer, longest + 1, "split", ctx)
    assert [part.name for part in kept] == ["d:0/1", "d:1/1", "d:1/2"]
    assert kept[0].messages[-1]["content"] == ANSWER["content"]


def test_templates_that_change_their_past_train_unmarked_answers_alone(monkeypatch):
    monkeypatch.setattr(dialogues, "changed_by_later_turns", lambda *_: True)
    prepared, divided = one_per_answer([Dialogue("d:0", dialogue(chat(loss=False)))], None)
    assert [part.name for part in prepared] == ["d:0/2"]
    assert divided == ["d:0"]


def test_pairs_count_the_marks_that_they_cannot_use():
    left_out = Counter()
    pair = preference(
        {"chosen": [USER, {**DRAFT, "weight": 0}, AGAIN, ANSWER], "rejected": [USER, DRAFT]},
        left_out,
    )
    assert left_out == {"loss marks of turns": 1}
    assert all("loss" not in turn for turn in (*pair["chosen"], *pair["rejected"]))


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({"city": "Ra", "unit": None}, {"city": "Ra"}),
        ({"query": {"text": "x", "filter": None}, "n": 3}, {"query": {"text": "x"}, "n": 3}),
        ({"items": [{"a": 1, "b": None}, {"a": None, "b": 2}]}, {"items": [{"a": 1}, {"b": 2}]}),
        ({"only": None}, {}),
        # Text is as its author wrote it.
        ('{"city": "Ra", "unit": null}', {"city": "Ra", "unit": None}),
    ],
)
def test_nulls_that_arrow_adds_to_arguments_are_left_out(arguments, expected):
    call = {"type": "function", "function": {"name": "find", "arguments": arguments}}
    turns = [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]
    assert json.loads(dialogue({"messages": turns})[-1]["content"]) == expected


NAN, INFINITY = float("nan"), float("inf")


def read(*rows):
    ctx = Context("dialogues", None, None, {})
    return convert_dialogues([(str(at), row) for at, row in enumerate(rows)], "detect", ctx)


@pytest.mark.parametrize("missing", [NAN, INFINITY, -INFINITY, None])
def test_missing_values_are_no_words(missing):
    alpaca = {"instruction": "Why?", "input": missing, "output": "So."}
    question = {"question": "Why?", "answer": missing}
    turns = {"messages": [USER, {"role": "assistant", "content": missing}]}
    named = {"prompt": missing, "question": "Why?", "answer": "So."}
    result = read(alpaca, question, turns, named)
    assert len(result.kept) == 2
    assert all("nan" not in str(row).lower() for row in result.kept)
    assert len(result.dropped) == 2


@pytest.mark.parametrize(
    "value, text", [(5, "5"), (5.0, "5.0"), (2.5, "2.5"), (True, "true"), (False, "false")]
)
def test_numbers_and_booleans_are_texts_in_every_format(value, text):
    rows = (
        {"instruction": "Why?", "output": value},
        {"prompt": "Why?", "completion": value},
        {"question": "Why?", "answer": value},
    )
    for row in rows:
        assert dialogue(row)[-1]["content"] == text
    pair = preference({"prompt": "Why?", "chosen": value, "rejected": "no"})
    assert pair["chosen"][0]["content"] == text


def test_cells_may_hold_turns_as_json_text():
    cell = json.dumps([USER, ANSWER])
    sharegpt = json.dumps([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}])
    assert dialogue({"messages": cell})[-1]["content"] == ANSWER["content"]
    assert dialogue({"conversations": sharegpt})[-1]["content"] == "Ho"
    assert conversation({"prompt": json.dumps([USER]), "completion": "x"})["messages"] == [
        *dialogue({"messages": [USER, ANSWER]})[:1],
        {"role": "assistant", "content": "x", "tool": ""},
    ]
    other = json.dumps([USER, DRAFT])
    pair = preference({"chosen": cell, "rejected": other})
    assert pair["chosen"][0]["content"] == ANSWER["content"]
    question = problem({"question": json.dumps([USER]), "answer": "90"})
    assert question["prompt"][0]["content"] == USER["content"]


@pytest.mark.parametrize("text", ['{"a": 1}', "[1, 2]", "[not json", '["user"]', "{}", "[]"])
def test_json_that_is_no_turn_stays_a_text(text):
    assert dialogue({"question": text, "answer": text})[-1]["content"] == text


def test_what_llmstages_wrote_is_read_as_it_was():
    """An exported dialogues artifact, or a transcript of a chat."""
    turns = [
        message("user", "What is 2+3, and who is Rik?"),
        message("assistant", "Let me see."),
        message("assistant", "2+3", "calculator"),
        message("assistant", "Rik", "search"),
        message("tool", "5", "calculator"),
        message("tool", "Rik is a baker.", "search"),
        message("assistant", "5, and a baker."),
    ]
    assert dialogue({"messages": turns}) == turns
    # The key means nothing in the turn of somebody else.
    asked = {"role": "user", "content": "2+3", "tool": "calculator"}
    read = dialogue({"messages": [asked, message("assistant", "5")]})
    assert read[0] == message("user", "2+3")
