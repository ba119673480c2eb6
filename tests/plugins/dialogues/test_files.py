"""dialogues.files and dialogues.hub as stages."""

import json
import random
from pathlib import Path

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.plugins.dialogues.files import Files
from llmstages.plugins.dialogues.hub import Hub
from llmstages.text.messages import message

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def run(stage, out, **values):
    out.mkdir()
    log = []
    metrics = stage().run(
        stage.Config(**values), Context("dialogues", out, out, {}, say=log.append)
    )
    return metrics, tables.load(out / "data"), log


def test_good_rows_are_kept_and_bad_ones_numbered(tmp_path):
    rows = [
        {"question": "Why?", "answer": "Because."},
        {"question": "Why?"},
        "text",
        {"prompt": "\ud800?", "completion": "Yes." * 50},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    metrics, data, log = run(Files, tmp_path / "out", path=str(tmp_path / "a.jsonl"))
    assert [turns[0]["content"] for turns in data["messages"]] == ["Why?", "\ufffd?"]
    assert metrics["examples"] == 2
    dropped = tables.load(tmp_path / "out" / "dropped")
    assert dropped["id"][:] == ["a.jsonl:2", "a.jsonl:3"]
    assert metrics["dropped_format"] == 2
    assert "2 rows dropped: format (first: a.jsonl:2" in log[0]
    metrics, data, _ = run(
        Files, tmp_path / "short", path=str(tmp_path / "a.jsonl"), max_characters=100
    )
    assert len(data) == 1
    assert metrics["dropped_too_long"] == 1
    assert len(run(Files, tmp_path / "one", path=str(tmp_path / "a.jsonl"), limit=1)[1]) == 1


def test_a_format_can_be_named_and_nothing_usable_is_an_error(tmp_path):
    (tmp_path / "a.json").write_text(
        json.dumps(
            [
                {
                    "question": "Why?",
                    "answer": "Because.",
                    "text": "\n\nHuman: Hi\n\nAssistant: Hello",
                }
            ]
        )
    )
    assert (
        run(Files, tmp_path / "out", path=str(tmp_path), format="hh")[1]["messages"][0][0][
            "content"
        ]
        == "Hi"
    )
    with pytest.raises(StageError, match=r"no usable example \(1 rows dropped; first: a.json:1"):
        run(Files, tmp_path / "none", path=str(tmp_path / "a.json"), format="messages")


def good(i):
    """A row in one of five formats, and its messages."""
    question, answer = f"Why {i}? naïve\n\n  Ж", f"Because {i}.\t end "
    rows = (
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        },
        {"instruction": question, "input": "", "output": answer},
        {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]},
        {"prompt": question, "completion": answer},
        {"question": question, "answer": answer},
    )
    return rows[i % 5], [message("user", question), message("assistant", answer)]


BAD = {
    "format": [{"text": "no format"}, {"instruction": [3], "output": "x"}, {"messages": [5]}],
    "role": [{"messages": [{"role": "critic", "content": "x"}]}],
    "no_answer": [{"messages": [{"role": "user", "content": "x"}]}],
    "no_question": [{"messages": [{"role": "assistant", "content": "x"}]}],
    "empty_turn": [{"question": "x", "answer": "  "}, {"instruction": "", "output": "x"}],
    "tool": [
        {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]},
        {
            "conversations": [
                {"from": "human", "value": "x"},
                {"from": "function_call", "value": "{broken"},
            ]
        },
    ],
    "media": [
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "image": "x"}]},
                {"role": "assistant", "content": "y"},
            ]
        }
    ],
}


def test_300_bad_rows_in_3000_each_with_a_reason(tmp_path):
    kinds = [(rule, row) for rule, rows in BAD.items() for row in rows]
    rows, expected, reasons = [], [], {}
    for i in range(3000):
        if i % 10 == 3:
            rule, row = kinds[i // 10 % len(kinds)]
            rows.append(row)
            reasons[f"a.jsonl:{i + 1}"] = rule
        else:
            row, messages = good(i)
            rows.append(row)
            expected.append(messages)
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8"
    )
    metrics, data, log = run(Files, tmp_path / "out", path=str(tmp_path / "a.jsonl"))
    dropped = tables.load(tmp_path / "out" / "dropped")
    assert dict(zip(dropped["id"], dropped["rule"], strict=True)) == reasons
    assert len(reasons) == 300
    assert list(data["messages"]) == expected
    assert metrics["examples"] == 2700
    assert all(dropped["excerpt"])
    assert sorted(
        line.split("dropped: ")[1].split()[0] for line in log if "dropped: " in line
    ) == sorted(BAD)


def test_hub(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *args, **kwargs: iter([{"question": "Why?", "answer": "Because."}] * 5),
    )
    _, data, log = run(Hub, tmp_path / "out", data_set="x/y", limit=3)
    assert len(data) == 3
    assert "stopped after 3" in log[0]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the development data")
@pytest.mark.parametrize(
    "name, examples",
    [
        ("llamafactory/alpaca_en_demo.json", 999),
        ("llamafactory/glaive_toolcall_en_demo.json", 300),
        ("llamafactory/reason_tool_use_demo_50.jsonl", 50),
        ("llamafactory/identity.json", 91),
        ("hh/pairs.jsonl", 1154),
    ],
)
def test_real_files(tmp_path, name, examples):
    assert run(Files, tmp_path / "out", path=str(SHARED / name))[0]["examples"] == examples


def test_a_share_is_kept_out_of_training_without_twins(tmp_path):
    from llmstages.core.stage import Artifact
    from llmstages.data import dialogues

    rows = [{"question": f"What is {n % 15}?", "answer": f"{n}"} for n in range(60)]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    metrics, table, _ = run(
        Files, tmp_path / "out", path=str(tmp_path / "chats.jsonl"), test_fraction=0.1
    )
    tests = [row["messages"][0]["content"] for row in table if row["split"] == "test"]
    trained = {row["messages"][0]["content"] for row in table if row["split"] == "train"}
    assert metrics["test"] == len(tests) == 4  # one question of four rows; two would be eight
    assert not trained & set(tests)
    source = Artifact("chats", "dialogues", tmp_path / "out", "")
    assert len(dialogues.load([source], {}, random.Random(0))) == 56
    assert len(dialogues.load_test([source])) == 4


def test_one_of_a_few_rows_is_kept_out(tmp_path):
    rows = [{"question": f"What is {n}?", "answer": f"{n}"} for n in range(3)]
    (tmp_path / "chats.json").write_text(json.dumps(rows))
    metrics, _, _ = run(
        Files, tmp_path / "out", path=str(tmp_path / "chats.json"), test_fraction=0.1
    )
    assert metrics["test"] == 1
