"""Inputs of the field that somebody chose who knew only the kind of the fault, not its fix."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from llmstages.core.digest import data_files
from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.data.formats import InvalidRow
from llmstages.data.formats.choices import choice_of
from llmstages.data.formats.dialogues import conversation
from llmstages.data.function_components import FunctionFilter, class_of
from llmstages.data.splits import comparable
from llmstages.plugins.dialogues.files import Files as Dialogues
from llmstages.plugins.problems.files import Files as Problems


def read(stage, folder, path, **options):
    """(rows, metrics, lines) of a step that reads a file."""
    folder.mkdir()
    said: list[str] = []
    ctx = Context("step", folder, folder, {}, say=said.append)
    metrics = stage().run(stage.Config(path=str(path), **options), ctx)
    return list(tables.load(folder / "data")), metrics, said


def contents(rows) -> list[str]:
    return [turn["content"] for row in rows for turn in row["messages"]]


# Kind 1: meaning in keys.


@pytest.mark.parametrize("mark", ["label", "kto_tag", "desirable"])
def test_an_answer_that_is_not_wanted_is_not_trained(mark):
    row = {"prompt": "Which gas?", "completion": "Go away.", mark: False}
    with pytest.raises(InvalidRow, match=f"{mark} is false"):
        conversation(row)
    assert conversation({**row, mark: True})["messages"]


def test_the_null_of_arrow_is_no_property_of_a_tool():
    schema = {
        "name": "clock",
        "parameters": {
            "properties": {"city": {"type": "string", "default": None}, "zone": None},
            "enum": None,
        },
    }
    row = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}
    made = json.loads(conversation({**row, "tools": [schema]})["tools"])
    assert made == [
        {
            "name": "clock",
            "parameters": {"properties": {"city": {"type": "string", "default": None}}},
        }
    ]


# Kind 3: a step that did nothing.


@pytest.mark.parametrize("returned", ["a text", None, str.strip, 1])
def test_a_filter_that_answers_neither_true_nor_false_is_refused(returned):
    cls = class_of(FunctionFilter, lambda document: returned)
    with pytest.raises(StageError, match="True .keep. or False"):
        list(cls(cls.Config()).rules(None))


def test_one_answer_to_nearly_all_problems_is_said(tmp_path):
    path = tmp_path / "hidden.jsonl"
    rows = [{"question": f"Question {number}?", "answer": -1} for number in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, _, said = read(Problems, tmp_path / "out", path)
    assert any("'-1' is the answer to 12 of 12 problems" in line for line in said)


# Kind 4: the same question on both sides.


@pytest.mark.parametrize(
    "copy",
    [
        "how many  legs?",
        "How many legs?\r\n",
        "\ufeffHow many legs?",
        "How ma\u00adny legs?",
        "How\u00a0many legs?",
        "HOW MANY LEGS?",
        "How many\tlegs?\u200b",
    ],
)
def test_copies_of_a_question_are_one_question(copy):
    assert comparable(copy) == comparable("How many legs?")


def test_labels_of_choices_come_before_letters():
    choices = {"text": ["cow", "dog", "hen"], "label": ["C", "A", "B"]}
    found = choice_of({"question": "Which has wings?", "choices": choices, "answerKey": "B"})
    assert found is not None and found.text == "hen"
    numbered = {"text": ["4", "1", "3"], "label": ["1", "2", "3"]}
    found = choice_of({"question": "?", "choices": numbered, "answerKey": "3"})
    assert found is not None and found.text == "3"


# Kind 5: encodings.


def test_the_separator_line_of_excel_is_no_row_of_names(tmp_path):
    path = tmp_path / "export.csv"
    text = 'sep=;\r\nquestion;answer\r\nWas?;"2,50 €; mit Milch"\r\n'
    path.write_bytes(text.encode("cp1252"))
    rows, _, said = read(Dialogues, tmp_path / "out", path)
    assert contents(rows) == ["Was?", "2,50 €; mit Milch"]
    assert any("Windows-1252" in line for line in said)


def test_a_text_of_an_old_mac_is_read_as_such(tmp_path):
    path = tmp_path / "mac.csv"
    path.write_bytes(
        "question,answer\rWie heißt die Bäckerei?,Müller & Söhne\r".encode("mac-roman")
    )
    rows, _, _ = read(Dialogues, tmp_path / "out", path)
    assert contents(rows) == ["Wie heißt die Bäckerei?", "Müller & Söhne"]


def test_null_characters_that_are_left_out_are_counted(tmp_path):
    path = tmp_path / "null.jsonl"
    path.write_text(json.dumps({"question": "Why?", "answer": "be\0fore\0"}) + "\n")
    rows, _, said = read(Dialogues, tmp_path / "out", path)
    assert contents(rows) == ["Why?", "before"]
    assert any(line.startswith("2 NUL characters left out") for line in said)


# Kind 6: folders, cells and containers.


def test_leftovers_of_other_programs_are_no_data(tmp_path):
    names = [
        "part-00000.json",
        "_SUCCESS",
        "_temporary/0/part-00003.json",
        "__MACOSX/._x.json",
        "part-00000.json~",
        "#part-00000.json#",
        ".part-00000.json.crc",
    ]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert [path.name for path in data_files(tmp_path)] == ["part-00000.json"]


TURNS = [{"role": "user", "content": 'It\'s "so"?'}, {"role": "assistant", "content": "True.\n2"}]


def test_cells_as_python_writes_them_are_read():
    row = {"messages": repr([*TURNS[:1], {**TURNS[1], "weight": 1.0}]), "tools": "None"}
    assert [t["content"] for t in conversation(row)["messages"]] == ['It\'s "so"?', "True.\n2"]
    with_nan = repr(TURNS).replace("'True.", "'nan").replace("}]", ", 'name': nan}]")
    assert conversation({"messages": with_nan})["messages"][1]["content"].startswith("nan")


def test_cells_as_numpy_writes_them_are_refused_by_name():
    cell = repr(TURNS).replace("}, {", "}\n {")
    with pytest.raises(InvalidRow, match="messages holds turns as text"):
        conversation({"messages": cell})


ROWS = [{"question": f"{number} + 1?", "answer": str(number + 1)} for number in range(3)]


@pytest.mark.parametrize(
    "container",
    [
        {
            "question": {"0": "0 + 1?", "1": "1 + 1?", "2": "2 + 1?"},
            "answer": {"0": "1", "1": "2", "2": "3"},
        },
        {
            "columns": ["question", "answer"],
            "index": [0, 1, 2],
            "data": [list(r.values()) for r in ROWS],
        },
        {
            "features": [],
            "rows": [{"row_idx": 0, "row": row, "truncated_cells": []} for row in ROWS],
        },
    ],
)
def test_json_of_pandas_and_of_the_data_server(tmp_path, container):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(container))
    rows, metrics, _ = read(Problems, tmp_path / "out", path)
    assert [row["answer"] for row in rows] == ["1", "2", "3"] and not metrics["dropped"]


def test_a_cell_that_the_server_cut_off_costs_its_row(tmp_path):
    path = tmp_path / "rows.json"
    listed = [
        {"row": row, "truncated_cells": ["answer"] if not at else []} for at, row in enumerate(ROWS)
    ]
    path.write_text(json.dumps({"rows": listed}))
    rows, metrics, said = read(Problems, tmp_path / "out", path)
    assert len(rows) == 2 and metrics["dropped_truncated"] == 1
    assert any("cut its cells off: answer" in line for line in said)


def test_squad_keeps_its_context(tmp_path):
    path = tmp_path / "squad.json"
    questions = [
        {"question": "When?", "id": "1", "answers": [{"text": "1535"}, {"text": "in 1535"}]},
        {"question": "Who?", "id": "2", "answers": [], "is_impossible": True},
    ]
    paragraphs = [{"context": "Lima was founded in 1535.", "qas": questions}]
    path.write_text(json.dumps({"data": [{"title": "Lima", "paragraphs": paragraphs}]}))
    rows, metrics, _ = read(Problems, tmp_path / "out", path)
    assert rows[0]["prompt"][-1]["content"].startswith("Lima was founded")
    assert rows[0]["answer"] == "1535" and rows[0]["aliases"] == ["in 1535"]
    assert Counter(metrics)["dropped_no_answer"] == 1


# Kind 8: words of the command line.


@pytest.mark.parametrize("word", ["${oc.env:HOME}", "${ oc.env:HOME,x}", "a ${env:HOME}"])
def test_the_environment_does_not_end_in_a_record(word):
    from llmstages.pipeline.compose import compose

    with pytest.raises(StageError, match="read from the environment"):
        compose(["recipe=story", f"identity.name={word}"])


def test_null_says_what_it_means():
    from llmstages.pipeline.compose import compose

    with pytest.raises(StageError, match="means that dialogues.path has no value"):
        compose(["recipe=tune", "model.path=x", "dialogues.path=null"])


# Kind 9: an adapter of another machine.


def test_an_adapter_whose_base_is_elsewhere_is_refused_by_plan(tmp_path):
    from llmstages.plugins.model.files import Files

    config = {"base_model_name_or_path": "/home/alice/models/base", "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(StageError, match=r"/home/alice/models/base.*model\.base=FOLDER"):
        Files().validate(Files.Config(path=str(tmp_path)), "model")
