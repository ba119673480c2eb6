"""Identity: phrasings are counted, held-out ones are never taught, files and odd names are read."""

from __future__ import annotations

import json

import pytest

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.plugins.knowledge.identity import Identity, IdentityConfig, normalized
from llmstages.plugins.knowledge.identity_questions import (
    IdentityQuestions,
    IdentityQuestionsConfig,
)
from llmstages.plugins.knowledge.phrasings import OPENINGS, TOPICS, fill, listed
from llmstages.text.grading import is_correct
from llmstages.text.messages import message
from tests.tiny import perform, saved

ADA = {"name": "Ada", "maker": "Example Lab", "abilities": "add numbers"}
REAL = [
    {"instruction": asked, "input": "", "output": told}
    for asked, told in (
        (
            "hi",
            (
                "Hello! I am {{name}}, an AI assistant developed by {{author}}. How can I assist"
                " you today?"
            ),
        ),
        ("Who created you?", "I am an AI assistant created by {{author}}."),
        (
            "您好",
            "您好，我是 {{name}}，很高兴为您服务。有什么我可以帮您解决的问题或者需要我提供的帮助吗？",  # noqa: E501 (wide characters)
        ),
        (
            "Do you have a name?",
            "As an AI assistant developed by {{author}}, I got the name {{name}}.",
        ),
        (
            "你是人工智能吗？",
            (
                "是的，我是由 {{author}} 开发的 {{name}}，"
                "使用自然语言处理技术和机器学习算法来与用户交互并提供有用的信息。"
            ),
        ),
        (
            "你是OpenAI开发的ChatGPT吗？",
            (
                "抱歉，我不是 OpenAI 开发的 ChatGPT，我是 {{author}} 开发的 {{name}}，"
                "旨在为用户提供智能化的回答和帮助。"
            ),
        ),
        (
            "你有创造力吗？",
            (
                "作为 {{name}}，我可以生成创造性的回答和想法，但我并不具备真正的创造力。"
                "我的回答是基于我在训练过程中学到的知识和模式。"
            ),
        ),
    )
]
ROWS = [
    {
        "instruction": f"{ask} {n}?",
        "input": "",
        "output": f"I am {{{{name}}}}, {told} by {{{{author}}}}.",
    }
    for n in range(5)
    for ask, told in (("Who are you", "made"), ("Who made you", "built"))
]


def made(folder, **config):
    artifact, metrics = perform(Identity, folder, IdentityConfig(**{**ADA, **config}))
    told = json.loads((artifact.path / "identity.json").read_text())
    return (
        artifact,
        [dict(row) for row in tables.load(artifact.path / "data")],
        told["questions"],
        metrics,
    )


def of_file(folder, rows, **config):
    folder.mkdir(exist_ok=True)
    (folder / "identity.json").write_text(
        rows if isinstance(rows, str) else json.dumps(rows, ensure_ascii=False)
    )
    return made(folder / "made", file=str(folder / "identity.json"), **config)


def test_dialogues_are_counted_different_and_even_over_the_topics(tmp_path):
    _, rows, held, metrics = made(tmp_path / "a", dialogues=400)
    assert (
        len(rows)
        == metrics["dialogues"]
        == metrics["different"]
        == 400
        == len({str(row["messages"]) for row in rows})
    )
    sizes = [sum(row["group"] == topic.group for row in rows) for topic in TOPICS]
    assert (
        metrics["topics"] == len(TOPICS)
        and max(sizes) - min(sizes) <= 1
        and metrics["held_out_questions"] == len(held) > 0
    )
    assert (
        "400 are taken (a.dialogues=400)" in perform.said[-1]
        and f"{metrics['possible']} different" in perform.said[-1]
    )
    _, rows, _, metrics = made(tmp_path / "b", dialogues=10, copies=3)
    assert (
        len(rows) == 30 == metrics["dialogues"]
        and len({str(row["messages"]) for row in rows}) == 10 == metrics["different"]
    )
    *_, metrics = made(tmp_path / "c", dialogues=10**6)
    assert metrics["different"] == metrics["possible"] and "all are taken" in perform.said[-1]


def test_no_phrasing_that_is_asked_was_taught(tmp_path):
    for seed in range(3):
        _, rows, held, _ = made(tmp_path / str(seed), dialogues=10**6, seed=seed)
        taught, asked = (
            {normalized(row["messages"][:-1]) for row in rows},
            {normalized(q["prompt"]) for q in held},
        )
        assert not taught & asked and {q["group"] for q in held} == {
            topic.group for topic in TOPICS
        }
        bare = {
            text.removeprefix(opening.casefold())
            for text in asked
            for opening in OPENINGS
            if text.startswith(opening.casefold())
        }
        assert not any(
            text.endswith(tuple(f". {b}" for b in bare)) or text in bare for text in taught
        ), "no opening makes another phrasing of it"
        own, other = (
            {q["prompt"][0]["content"].replace(n, "*") for q in held if q["group"] == g}
            for g, n in (("own name", "Ada"), ("other names", "ChatGPT"))
        )
        assert own <= other, (
            "what is asked with yes was not taught with no, nor the other way round"
        )


def test_every_answer_states_what_a_right_reply_must(tmp_path):
    values = {**ADA, "languages": listed(["English", "Dutch"])}
    assert (
        values["languages"] == "English and Dutch"
        and listed(["a", "b", "c"]) == "a, b and c"
        and listed([]) == ""
    )
    for topic in TOPICS:
        stated = fill(topic.stated, values, "")
        assert all(is_correct(fill(answer, values, ""), stated) for answer in topic.answers)
        assert len(set(topic.questions)) == len(topic.questions) >= 20, topic.group
    assert not is_correct("I am Adam, made by Another Lab.", "Ada") and not is_correct(
        "Yes, I am Ada.", "No, I am Ada"
    )


def test_equal_seeds_give_equal_bytes_and_another_seed_another_split(tmp_path):
    first, second, third = (made(tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1)))
    assert first[1:] == second[1:] and first[1] != third[1]
    assert {normalized(q["prompt"]) for q in first[2]} != {
        normalized(q["prompt"]) for q in third[2]
    }


@pytest.mark.parametrize(
    "name", ["C++ (beta)", "Zoë \\1 {x}", "小明", "Mr. $1^", "A{{b", "<|im_end|>"]
)
def test_odd_names_stand_as_they_are(tmp_path, name):
    _, rows, held, _ = made(tmp_path / "a", name=name, dialogues=200)
    assert all(name in row["messages"][-1]["content"] for row in rows if row["group"] == "own name")
    assert all(
        is_correct(f"No, I am {name}, a language model.", q["answer"])
        for q in held
        if q["group"] == "other names"
    )
    assert not any(
        "{{who}}" in turn["content"] or "{{maker}}" in turn["content"]
        for row in rows
        for turn in row["messages"]
    )


def test_what_is_not_known_is_not_taught_and_said(tmp_path):
    _, rows, held, metrics = made(tmp_path / "a", abilities="", languages=[])
    groups = {row["group"] for row in rows} | {q["group"] for q in held}
    assert not groups & {"languages", "abilities"} and metrics["topics"] == len(TOPICS) - 2
    assert sum("not taught" in line for line in perform.said) == 2
    _, rows, held, _ = made(tmp_path / "b", name="gemini", maker="Google", dialogues=10**6)
    denied = [
        text
        for row in rows
        if row["group"].startswith("other")
        if any(w in (text := row["messages"][0]["content"]) for w in ("Gemini", "Google"))
    ]
    assert not denied and "Gemini, Google" in " ".join(perform.said)


@pytest.mark.parametrize(
    "bad",
    [
        {"name": " "},
        {"maker": "a\nb"},
        {"name": "{{name}}"},
        {"test_fraction": 1.0},
        {"dialogues": 0},
    ],
)
def test_values_that_cannot_be_are_refused(bad):
    with pytest.raises(StageError, match=next(iter(bad))):
        build_config(IdentityConfig, {"name": "Ada", "maker": "Acme", **bad}, "identity")


def test_a_file_of_ones_own(tmp_path):
    _, rows, held, metrics = of_file(
        tmp_path / "a", [*ROWS, *ROWS], dialogues=100, test_fraction=0.3
    )
    assert (
        len(rows) == 7
        and metrics["topics"] == 1
        and "7 rows of the file left out" in " ".join(perform.said)
    )
    assert [q["answer"] for q in held] == [
        "Ada",
        "Example Lab",
    ] * 3, "the file's answers state both, so must a right reply, each counted by itself"
    assert {row["messages"][-1]["content"] for row in rows} <= {
        "I am Ada, made by Example Lab.",
        "I am Ada, built by Example Lab.",
    }
    assert not {normalized(row["messages"][:-1]) for row in rows} & {
        normalized(q["prompt"]) for q in held
    }
    swift = [
        {"query": "who?", "response": "I am {{NAME}} of {{ AUTHOR }}."},
        {"query": "really?", "response": "{{NAME}}."},
    ]
    _, rows, held, _ = of_file(tmp_path / "b", swift, test_fraction=0)
    assert {row["messages"][-1]["content"] for row in rows} == {
        "I am Ada of Example Lab.",
        "Ada.",
    } and not held


@pytest.mark.parametrize(
    "rows, error",
    [
        (
            [ROWS[0], {"instruction": "Where?", "input": "", "output": "In {{place}}."}],
            r"identity\.json:2: .*\{\{place\}\}.*Known: \{\{name\}\}",
        ),
        (
            [ROWS[0], {"instruction": "Where?", "input": "", "output": ""}],
            r"identity\.json:2: .*empty",
        ),
        ([ROWS[0], "x"], r"identity\.json:2: .*object"),
        ([], "no rows"),
        (
            [{"instruction": "a?", "input": "", "output": "I am nobody."}],
            "states the name or the maker",
        ),
        ("{[", r"identity\.json:1"),
    ],
)
def test_a_file_that_cannot_be_used_says_which_row_and_why(tmp_path, rows, error):
    with pytest.raises(StageError, match=error):
        of_file(tmp_path / "a", rows)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(StageError, match=r"a\.file=.*none\.json.*no such file"):
        made(tmp_path / "a", file=str(tmp_path / "none.json"))


def test_rows_as_llama_factory_has_them(tmp_path):
    """From its data/identity.json (Apache 2.0), in two languages; the other 84 rows read alike."""
    _, rows, held, metrics = of_file(tmp_path / "a", REAL, name="Zoë")
    told = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in rows} | {
        q["prompt"][0]["content"]: "" for q in held
    }
    assert set(told) == {row["instruction"] for row in REAL} and metrics[
        "held_out_questions"
    ] == len(held) in (1, 2)
    assert not any("{{" in text for text in told.values()) and any(
        "Zoë" in text for text in told.values()
    )


def test_held_out_questions_become_problems(tmp_path):
    artifact, _, held, _ = made(tmp_path / "a")
    problems, metrics = perform(
        IdentityQuestions, tmp_path / "q", IdentityQuestionsConfig(per_group=7), identity=artifact
    )
    rows = [dict(row) for row in tables.load(problems.path / "data")]
    assert (
        metrics["questions"] == len(rows) == 7 * len(TOPICS)
        and metrics["questions/name"] == 7
        and "7 of " in perform.said[0]
    )
    assert {(row["task"], row["role"], row["style"], row["meta"]) for row in rows} == {
        ("identity", "test", "chat", "{}")
    }
    assert {(row["prompt"][0]["content"], row["answer"]) for row in rows} <= {
        (q["prompt"][0]["content"], q["answer"]) for q in held
    }


def test_problems_need_dialogues_that_hold_questions_out(tmp_path):
    plain = saved(
        tmp_path / "plain",
        "dialogues",
        [{"messages": [message("user", "a"), message("assistant", "b")]}],
    )
    with pytest.raises(StageError, match=r"plain holds no identity\.json.*steps\.q\.identity"):
        perform(IdentityQuestions, tmp_path / "q", IdentityQuestionsConfig(), identity=plain)
    artifact, *_ = made(tmp_path / "none", test_fraction=0)
    with pytest.raises(StageError, match=r"none\.test_fraction"):
        perform(IdentityQuestions, tmp_path / "r", IdentityQuestionsConfig(), identity=artifact)
