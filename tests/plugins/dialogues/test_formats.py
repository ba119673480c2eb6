"""Rows of every chat format become the same messages; what cannot be used says why."""

import json
from collections import Counter

import pytest

from llmstages.data.formats import InvalidRow, detect, dialogue, treat_reasoning
from llmstages.text.messages import message

ASKED, ANSWERED = message("user", "Why?"), message("assistant", "Because.")


@pytest.mark.parametrize(
    "form, row",
    [
        (
            "messages",
            {
                "messages": [
                    {"role": "user", "content": "Why?"},
                    {"role": "assistant", "content": "Because."},
                ]
            },
        ),
        (
            "messages",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "Why?"}]},
                    {"role": "assistant", "content": ["Because."]},
                ]
            },
        ),
        (
            "sharegpt",
            {
                "conversations": [
                    {"from": "human", "value": "Why?"},
                    {"from": "gpt", "value": "Because."},
                ]
            },
        ),
        (
            "messages",
            {
                "conversations": [
                    {"role": "user", "content": "Why?"},
                    {"role": "assistant", "content": "Because."},
                ]
            },
        ),
        ("alpaca", {"instruction": "Why?", "input": "", "output": "Because."}),
        ("prompt", {"prompt": "Why?", "completion": "Because."}),
        (
            "prompt",
            {
                "prompt": [{"role": "user", "content": "Why?"}],
                "completion": [{"role": "assistant", "content": "Because."}],
            },
        ),
        ("hh", {"text": "\n\nHuman: Why?\n\nAssistant: Because."}),
        (
            "hh",
            {
                "chosen": "\n\nHuman: Why?\n\nAssistant: Because.",
                "rejected": "\n\nHuman: Why?\n\nAssistant: No.",
            },
        ),
        ("question", {"question": "Why?", "answer": "Because."}),
        ("question", {"instruction": "Why?", "response": "Because."}),
    ],
)
def test_each_format(form, row):
    assert detect(row) == form
    assert dialogue(row) == [ASKED, ANSWERED] == dialogue(row, form)


def test_system_input_and_history():
    row = {
        "instruction": "Why?",
        "input": "It rains.",
        "output": "Because.",
        "system": "Be brief.",
        "history": [["Hi", "Hello"]],
    }
    assert dialogue(row) == [
        message("system", "Be brief."),
        message("user", "Hi"),
        message("assistant", "Hello"),
        message("user", "Why?\nIt rains."),
        ANSWERED,
    ]
    assert (
        dialogue(
            {
                "system": "Be brief.",
                "conversations": [
                    {"from": "human", "value": "Why?"},
                    {"from": "gpt", "value": "Because."},
                ],
            }
        )[0]["role"]
        == "system"
    )


CALL, RESULT = (
    message("assistant", '{"city": "Köln"}', "weather"),
    message("tool", "rain", "weather"),
)
ARGUMENT = {"name": "weather", "arguments": {"city": "Köln"}}


@pytest.mark.parametrize(
    "turns",
    [
        [
            {"from": "function_call", "value": json.dumps(ARGUMENT)},
            {"from": "observation", "value": "rain"},
        ],
        [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "7", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "7", "content": "rain"},
        ],
        [
            {"role": "assistant", "content": "", "tool_calls": [{"function": ARGUMENT}]},
            {"role": "tool", "name": "weather", "content": "rain"},
        ],
        [
            {"role": "assistant", "content": None, "function_call": ARGUMENT},
            {"role": "function", "content": "rain"},
        ],
        [
            {
                "role": "assistant",
                "content": [{"type": "tool_call", "value": json.dumps(ARGUMENT)}],
            },
            {"role": "tool", "content": [{"type": "text", "value": "rain"}]},
        ],
    ],
)
def test_tool_calls_in_every_spelling(turns):
    row = {
        "messages": [
            {"role": "user", "content": "Why?"},
            *turns,
            {"role": "assistant", "content": "Because."},
        ]
    }
    messages = dialogue(row)
    ids = [turn.pop("id", "") for turn in messages]
    assert messages == [ASKED, CALL, RESULT, ANSWERED]
    # The id of a call is kept, and so is that of its result where the data has it.
    assert ids[0] == ids[3] == ""
    assert ids[2] in ("", ids[1])


def test_results_find_their_calls_by_id_and_in_order():
    calls = [{"id": str(n), "function": {"name": f"tool{n}", "arguments": {}}} for n in range(3)]
    for extra, names in (({}, ["tool0", "tool1"]), ({"tool_call_id": "2"}, ["tool2", "tool2"])):
        results = [{"role": "tool", "content": "x", **extra}] * 2
        messages = dialogue(
            {
                "messages": [
                    {"role": "user", "content": "Why?"},
                    {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
                    *results,
                    {"role": "assistant", "content": "Because."},
                ]
            }
        )
        assert [turn["tool"] for turn in messages] == [
            "",
            "",
            "tool0",
            "tool1",
            "tool2",
            *names,
            "",
        ]


def test_results_without_ids_belong_to_the_calls_in_their_order():
    def dialogue_of(names, results):
        calls = [{"function": {"name": name, "arguments": {}}} for name in names]
        turns = [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "", "tool_calls": calls},
            *[{"role": "tool", "content": "x"}] * results,
            {"role": "assistant", "content": "Because."},
        ]
        return [turn["tool"] for turn in dialogue({"messages": turns}) if turn["role"] == "tool"]

    assert dialogue_of(["rain", "time"], 2) == ["rain", "time"]
    assert dialogue_of(["rain", "rain"], 2) == ["rain", "rain"]
    # A result in two parts.
    assert dialogue_of(["rain"], 2) == ["rain", "rain"]


def test_two_calls_of_one_tool_with_ids_have_two_results():
    calls = [{"id": str(n), "function": {"name": "rain", "arguments": {}}} for n in range(2)]
    turns = [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        *[{"role": "tool", "content": "x"}] * 2,
        {"role": "assistant", "content": "Because."},
    ]
    assert [turn["tool"] for turn in dialogue({"messages": turns})] == ["", *["rain"] * 4, ""]


def test_what_is_left_out_of_a_usable_row_is_counted():
    left_out = Counter()
    messages = dialogue(
        {
            "messages": [
                {"role": "user", "content": "Why?"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "reasoning", "value": "hm"},
                        {"type": "text", "text": "Because."},
                    ],
                },
                {"role": "user", "content": "Thanks"},
            ]
        },
        left_out=left_out,
    )
    assert messages == [ASKED, {**ANSWERED, "reasoning_content": "hm"}]
    assert left_out == {"turns after the last answer": 1}


THOUGHT = {**ANSWERED, "reasoning_content": "hm"}
TAGGED = {**ANSWERED, "content": "<think>\nhm\n</think>\n\nBecause."}


@pytest.mark.parametrize(
    "choice, turn, expected, count",
    [
        ("keep", THOUGHT, THOUGHT, 0),
        ("keep", TAGGED, TAGGED, 0),
        ("split", TAGGED, THOUGHT, 0),
        ("split", {**TAGGED, "content": "<think></think>Because."}, ANSWERED, 0),
        ("split", {**TAGGED, "content": "<think>hm"}, {**TAGGED, "content": "<think>hm"}, 0),
        ("inline", THOUGHT, TAGGED, 0),
        ("drop", THOUGHT, ANSWERED, 1),
        ("drop", TAGGED, ANSWERED, 1),
        ("drop", ANSWERED, ANSWERED, 0),
    ],
)
def test_reasoning_is_kept_or_dropped_with_a_count(choice, turn, expected, count):
    left_out = Counter()
    assert treat_reasoning([ASKED, turn], choice, left_out) == [ASKED, expected]
    assert left_out.total() == count


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_has_several_names(name):
    turns = [{"role": "user", "content": "Why?"}, {**ANSWERED, name: " hm "}]
    assert dialogue({"messages": turns}) == [ASKED, THOUGHT]


@pytest.mark.parametrize(
    "rule, row",
    [
        ("format", {"text": "only text"}),
        ("format", {}),
        ("format", {"messages": ["Why?"]}),
        ("format", {"instruction": ["Why?"], "output": "x"}),
        ("role", {"messages": [{"role": "narrator", "content": "x"}]}),
        ("no_answer", {"messages": [{"role": "user", "content": "Why?"}]}),
        ("no_answer", {"messages": []}),
        ("no_question", {"conversations": [{"from": "gpt", "value": "Because."}]}),
        ("empty_turn", {"question": " ", "answer": "Because."}),
        ("empty_turn", {"instruction": "Why?", "input": "", "output": ""}),
        (
            "tool",
            {"messages": [{"role": "user", "content": "Why?"}, {"role": "tool", "content": "x"}]},
        ),
        (
            "tool",
            {
                "conversations": [
                    {"from": "human", "value": "Why?"},
                    {"from": "function_call", "value": "not json"},
                ]
            },
        ),
        ("tool", {"messages": [{"role": "function_call", "content": "[" * 100_000}]}),
        ("tool", {"messages": [{"role": "assistant", "content": "", "tool_calls": 5}]}),
        ("media", {"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}),
        ("format", {"messages": [{"role": "user", "content": [["nested"]]}]}),
        ("format", {"messages": [{"role": "user", "content": [None]}]}),
        ("format", {"instruction": "Why?", "output": "x", "history": 5}),
        ("format", {"instruction": "Why?", "output": "x", "history": [["Hi"]]}),
        ("format", {"instruction": "Why?", "output": "x", "system": ["x"]}),
    ],
)
def test_unusable_rows_say_why(rule, row):
    with pytest.raises(InvalidRow) as caught:
        dialogue(row)
    assert caught.value.rule == rule
    assert str(caught.value)


def test_hh_answers_in_several_paragraphs_are_one_turn():
    assert (
        dialogue({"text": "\n\nHuman: Why?\n\nAssistant: One.\n\nAssistant: Two."})[1]["content"]
        == "One.\n\nTwo."
    )
