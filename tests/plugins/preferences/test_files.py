"""preferences.files: every layout of a pair becomes prompt, chosen, rejected."""

import json
from pathlib import Path

import pytest

from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.data.formats import InvalidRow, preference
from llmstages.plugins.preferences.files import Files
from llmstages.text.messages import message

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
PAIR = {
    "prompt": [message("user", "Why?")],
    "chosen": [message("assistant", "Because.")],
    "rejected": [message("assistant", "No.")],
}
WHY, BECAUSE, NO = (
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Because."},
    {"role": "assistant", "content": "No."},
)


@pytest.mark.parametrize(
    "row",
    [
        {
            "chosen": "\n\nHuman: Why?\n\nAssistant: Because.",
            "rejected": "\n\nHuman: Why?\n\nAssistant: No.",
        },
        {
            "conversations": [{"from": "human", "value": "Why?"}],
            "chosen": {"from": "gpt", "value": "Because."},
            "rejected": {"from": "gpt", "value": "No."},
        },
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        {"question": "Why?", "chosen": "Because.", "rejected": "No."},
        {"prompt": [WHY], "chosen": [BECAUSE], "rejected": [NO]},
        {"chosen": [WHY, BECAUSE], "rejected": [WHY, NO]},
        {"prompt": "Why?", "chosen": [WHY, BECAUSE], "rejected": [WHY, NO]},
    ],
)
def test_layouts(row):
    assert preference(row) == PAIR


def test_the_prompt_is_what_both_begin_with():
    first = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant: "
    pair = preference({"chosen": first + "Because.", "rejected": first + "No."})
    assert [m["content"] for m in pair["prompt"]] == ["Hi", "Hello", "Why?"]
    assert pair["chosen"] == PAIR["chosen"]
    assert (
        preference(
            {"system": "Be brief.", "question": "Why?", "chosen": "Because.", "rejected": "No."}
        )["prompt"][0]["role"]
        == "system"
    )
    assert (
        preference({"instruction": "Why?", "input": "It rains.", "chosen": "a", "rejected": "b"})[
            "prompt"
        ][0]["content"]
        == "Why?\nIt rains."
    )


@pytest.mark.parametrize(
    "rule, row",
    [
        ("format", {"chosen": "x"}),
        ("equal", {"prompt": "Why?", "chosen": "No.", "rejected": "No."}),
        (
            "no_question",
            {"chosen": [WHY, NO], "rejected": [{"role": "user", "content": "When?"}, NO]},
        ),
        ("no_question", {"chosen": "a", "rejected": "b"}),
        ("empty_turn", {"prompt": "Why?", "chosen": "", "rejected": "No."}),
    ],
)
def test_unusable_pairs_say_why(rule, row):
    with pytest.raises(InvalidRow) as caught:
        preference(row)
    assert caught.value.rule == rule


def test_stage(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "\n".join(
            map(
                json.dumps,
                [{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}, {"prompt": "Why?"}],
            )
        )
    )
    (tmp_path / "out").mkdir()
    metrics = Files().run(
        Files.Config(path=str(tmp_path / "a.jsonl")),
        Context("preferences", tmp_path / "out", tmp_path, {}),
    )
    assert tables.load(tmp_path / "out" / "data")[0] == PAIR
    assert metrics["dropped_format"] == 1


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the development data")
@pytest.mark.parametrize(
    "name, examples", [("hh/pairs.jsonl", 1154), ("llamafactory/dpo_en_demo.json", 300)]
)
def test_real_files(tmp_path, name, examples):
    metrics = Files().run(
        Files.Config(path=str(SHARED / name)), Context("preferences", tmp_path, tmp_path, {})
    )
    assert metrics["examples"] == examples
