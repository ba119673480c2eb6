"""OpenAssistant trees, nested and as one message per row; schemas of tools kept as text."""

import json
from collections import Counter

import pytest

from llmstages.data import tables
from llmstages.data.formats import InvalidRow, conversation, detect, dialogue
from llmstages.data.formats.schemas import schemas
from llmstages.plugins.dialogues.files import Files
from llmstages.text.messages import message
from tests.plugins.dialogues.test_files import run


def node(text, role, *replies, **fields):
    return {"text": text, "role": role, "replies": list(replies), **fields}


TREE = node(
    "Why?",
    "prompter",
    node("No.", "assistant", rank=1),
    node(
        "Because.",
        "assistant",
        node("Thanks.", "prompter"),
        node("And then?", "prompter", node("Then it ends.", "assistant", rank=None)),
        rank=0,
    ),
    node(
        "Buy this.",
        "assistant",
        node("Really?", "prompter"),
        rank=None,
        labels={"spam": {"value": 0.9, "count": 3}},
    ),
)
BEST = [
    message("user", "Why?"),
    message("assistant", "Because."),
    message("user", "And then?"),
    message("assistant", "Then it ends."),
]


def flat(tree, name, parent=None):
    """The rows of a tree as the Hub has them."""
    rows, own = [], f"{name}.{len(parent or '')}.{tree['text']}"
    rows.append(
        {
            "message_id": own,
            "parent_id": parent,
            "message_tree_id": name,
            "lang": "en",
            "rank": None,
            "deleted": False,
            "review_result": True,
            **{key: value for key, value in tree.items() if key not in ("replies", "labels")},
            "labels": {
                "name": list(tree.get("labels", {})),
                "value": [v["value"] for v in tree.get("labels", {}).values()],
            },
        }
    )
    return rows + [row for reply in tree["replies"] for row in flat(reply, name, own)]


def test_the_best_ranked_path_of_a_tree():
    row, left_out = (
        {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": TREE},
        Counter(),
    )
    assert detect(row) == "oasst"
    assert dialogue(row, left_out=left_out) == BEST == dialogue(row, "oasst")
    assert left_out == {
        "spam messages": 1,
        "messages below those": 1,
        "messages off the best ranked path": 2,
    }  # "No." and "Thanks."


@pytest.mark.parametrize(
    "rule, row",
    [
        ("deleted", {"prompt": {**TREE, "deleted": True}}),
        ("unreviewed", {"prompt": {**TREE, "review_result": None}}),
        ("rejected", {"prompt": {**TREE, "review_result": False}}),
        ("tree_state", {"prompt": TREE, "tree_state": "aborted_low_grade"}),
        ("no_answer", {"prompt": node("Why?", "prompter")}),
        ("no_answer", {"prompt": node("Why?", "prompter", node("x", "assistant", deleted=True))}),
        ("role", {"prompt": node("Why?", "narrator")}),
        ("empty_turn", {"prompt": node("Why?", "prompter", node(" ", "assistant"))}),
    ],
)
def test_unusable_trees_say_why(rule, row):
    with pytest.raises(InvalidRow) as caught:
        dialogue(row)
    assert caught.value.rule == rule


def test_rows_of_messages_are_gathered_to_trees_between_other_rows(tmp_path):
    rows = [
        *flat(TREE, "a"),
        {"question": "Why?", "answer": "Because."},
        *flat({**TREE, "deleted": True}, "b"),
        *flat(TREE, "c"),
        *flat(TREE, "a")[1:],
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    metrics, data, lines = run(Files, tmp_path / "out", path=str(tmp_path / "a.jsonl"))
    assert list(data["messages"]) == [
        BEST,
        [message("user", "Why?"), message("assistant", "Because.")],
        BEST,
    ]
    assert metrics["dropped_deleted"] == 1
    assert metrics["dropped_no_tree"] == 1
    assert metrics["dropped"] == 2
    dropped = tables.load(tmp_path / "out" / "dropped")
    assert dropped["id"][:] == ["a.jsonl:10", "a.jsonl:26"]
    assert "sort the rows by message_tree_id" in dropped["value"][1]
    assert metrics["parts_left_out"] == 8
    assert any("2 spam messages left out" in line for line in lines)


def test_hostile_trees_end(tmp_path):
    chain = [
        {
            "message_id": str(i),
            "parent_id": str(i - 1) if i else None,
            "text": f"turn {i}",
            "role": ("prompter", "assistant")[i % 2],
        }
        for i in range(5000)
    ]
    twice = [
        {"message_id": "same", "parent_id": None, "text": "Why?", "role": "prompter"},
        *[{"message_id": "same", "parent_id": "same", "text": "Because.", "role": "assistant"}] * 3,
    ]
    odd = [
        {"message_id": [], "parent_id": {}, "text": 1, "role": 2},
        {"prompt": {"replies": 7, "labels": {"name": [[]], "value": 3, "spam": 1}}},
        {
            "message_id": "x",
            "parent_id": None,
            "text": "Why?",
            "role": "prompter",
            "tree_state": "halted_by_moderator",
            "labels": {"name": ["spam"], "value": ["x"]},
        },
    ]
    (tmp_path / "a.jsonl").write_text(
        "\n".join(map(json.dumps, [*chain, {"prompt": 5, "replies": []}, *twice, *odd]))
    )
    metrics, data, _ = run(Files, tmp_path / "out", path=str(tmp_path / "a.jsonl"))
    assert len(data["messages"][0]) == 5000
    assert data["messages"][1][1]["content"] == "Because."
    assert metrics["dropped_format"] == 2
    assert metrics["dropped_role"] == metrics["dropped_tree_state"] == 1


RAIN = {
    "type": "function",
    "function": {
        "name": "rain",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "default": None}},
        },
    },
}
TIME = {"name": "zeit", "description": "für Köln", "parameters": {"zone": {"enum": [1, "a"]}}}


@pytest.mark.parametrize(
    "value, text",
    [
        (None, ""),
        ("", ""),
        (" ", ""),
        ([], ""),
        ("[]", ""),
        ([RAIN], json.dumps([RAIN])),
        (json.dumps([RAIN]), json.dumps([RAIN])),
        ([json.dumps(TIME)], json.dumps([TIME], ensure_ascii=False)),
        (TIME, json.dumps([TIME], ensure_ascii=False)),
    ],
)
def test_schemas_in_every_spelling(value, text):
    assert schemas(value) == text


@pytest.mark.parametrize(
    "value", ["{broken", [5], [{"description": "no name"}], "7", [{"name": "x", "y": float("nan")}]]
)
def test_what_is_no_schema_says_so(value):
    with pytest.raises(InvalidRow) as caught:
        conversation({"question": "Why?", "answer": "Because.", "tools": value})
    assert caught.value.rule == "tools"


def test_different_schemas_come_back_exactly_equal(tmp_path):
    asked = {"question": "Why?", "answer": "Because."}
    rows = [
        {**asked, "tools": [RAIN]},
        {**asked, "tools": json.dumps([TIME])},
        asked,
        {**asked, "tools": "[{"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    metrics, data, _ = run(Files, tmp_path / "out", path=str(tmp_path / "a.jsonl"))
    assert [text and json.loads(text) for text in data["tools"]] == [
        [RAIN],
        [TIME],
        "",
    ]
    assert metrics["dropped_tools"] == 1
    assert list(json.loads(data["tools"][0])[0]["function"]) == [
        "name",
        "parameters",
    ]  # in the order they were written in
    assert tables.load(tmp_path / "out" / "dropped")["id"][:] == ["a.jsonl:4"]
