"""Decontamination: what counts as shared, where the texts come from, and that each hit is named."""

import json
import random

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.data.filtering import Drop
from llmstages.text.messages import message

from .test_filters import PROSE, documents, make, measured

QUESTION = (
    "How many apples does Anna have when she buys three more apples and then gives two of them "
    "to Tom?"
)
ANSWER = "She has exactly seven apples."
LONG = (
    "First she had six apples, then she bought three more of them, and in the end she gave two "
    "to Tom."
)


def artifact(folder, rows):
    folder.mkdir()
    tables.save(rows, folder / "data")
    return folder


def problems(tmp_path, *pairs):
    rows = [
        {
            "prompt": [message("system", "Think."), message("user", q)],
            "answer": a,
            "task": "t",
            "group": "g",
            "meta": "",
        }
        for q, a in pairs
    ]
    return artifact(tmp_path / "questions-0123456789ab", rows)


def judge(texts, folders=(), **fields):
    filter = make("decontaminate", **fields)
    filter.open(folders)
    return filter.judge(documents(texts))


def test_an_answer_after_its_question_is_found(tmp_path):
    folder = problems(tmp_path, ("Something else altogether?", "No."), (QUESTION, ANSWER))
    copied, asked, changed, other, none = judge(
        [
            f"A page. {QUESTION.upper()}\n\nShe has -- exactly SEVEN apples! And so on.",
            QUESTION,
            f"{QUESTION.replace('two of them', 'some')} {ANSWER}",
            PROSE,
            "",
        ],
        [folder],
        questions=False,
    )
    assert (
        copied == Drop("", copied.value, "<= 0 runs of 12 words of an evaluation")
        and asked is changed is other is none is None
    )
    assert (
        copied.value
        == "questions:1: THREE MORE APPLES AND THEN GIVES TWO OF THEM TO TOM She (and 4 more)"
    )


def test_what_is_looked_for_is_a_choice(tmp_path):
    folder = problems(tmp_path, (QUESTION, LONG))
    texts = {"answer": LONG, "overlap": f"{QUESTION[-60:]} {LONG[:30]}", "question": QUESTION}

    def found(**fields):
        return [
            name
            for name, verdict in zip(texts, judge(texts.values(), [folder], **fields), strict=True)
            if verdict
        ]

    assert found() == list(texts) and found(questions=False) == ["answer", "overlap"]
    assert found(overlaps=False, questions=False) == ["answer"] and found(
        answers=False, questions=False
    ) == ["overlap"]
    assert judge([" ".join(LONG.split()[:12])], [folder])[0] and judge(
        [" ".join(LONG.split()[:11])], [folder]
    ) == [None]


def test_texts_of_dialogues_and_preferences(tmp_path):
    turns = [
        message("user", "Hello?"),
        message("assistant", "Hello, how can I help?"),
        message("user", QUESTION),
        message("assistant", LONG),
    ]
    one = artifact(tmp_path / "chats", [{"messages": turns}])
    two = artifact(
        tmp_path / "pairs",
        [
            {
                "prompt": [message("user", "Hi")],
                "chosen": [message("assistant", PROSE)],
                "rejected": [],
            }
        ],
    )
    verdicts = judge([LONG, PROSE, "Nothing of it at all."], [one, two])
    assert [v and v.value.split(": ")[0] for v in verdicts] == ["chats:0", "pairs:0", None]


def test_texts_of_files(tmp_path):
    (tmp_path / "a.txt").write_text(f"short\n\n{PROSE}\n")
    (tmp_path / "b.jsonl").write_text(
        json.dumps({"question": QUESTION, "answer": LONG})
        + "\n"
        + json.dumps({"text": PROSE})
        + "\n"
    )
    assert judge([PROSE], path=str(tmp_path / "a.txt"))[0].value.startswith(
        "a.txt:2: The old miller went"
    )
    assert [
        v.value.split(": ")[0] for v in judge([LONG, PROSE], path=str(tmp_path / "b.jsonl"))
    ] == ["b.jsonl:0", "b.jsonl:1"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "found no run of 12 words in the 0 texts"),
        ("too short\n", "found no run of 12 words in the 1 texts"),
    ],
)
def test_nothing_to_look_for_is_an_error(tmp_path, content, message):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(StageError, match=message):
        judge(["a"], path=str(tmp_path / "a.txt"))
    with pytest.raises(StageError, match="wire the steps that evaluate"):
        judge(["a"])
    with pytest.raises(StageError, match="there is no such file"):
        judge(["a"], path=str(tmp_path / "missing.txt"))
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{bad\n')
    with pytest.raises(StageError, match="line 2 is not JSON"):
        judge(["a"], path=str(tmp_path / "b.jsonl"))


def test_the_number_of_hits_is_measured(tmp_path):
    (tmp_path / "a.txt").write_text(PROSE)
    filter = make("decontaminate", path=str(tmp_path / "a.txt"))
    values = [
        checks[0].value
        for checks in filter.measure(documents([PROSE, " ".join(PROSE.split()[:14]), QUESTION]))
    ]
    assert values == [len(PROSE.split()) - 11, 3, 0]
    assert measured("decontaminate", PROSE, path=str(tmp_path / "a.txt"))[""].broken


def test_hits_are_those_of_plain_code(tmp_path):
    """Texts of few different words, in which many n-grams nearly agree."""
    rng = random.Random(5)
    n = 5

    def text(count):
        return " ".join(rng.choices(["red", "green", "blue", "grey"], k=count))

    def grams(text):
        words = text.split()
        return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

    wanted = [text(30) for _ in range(20)]
    texts = [text(200) for _ in range(50)]
    (tmp_path / "a.txt").write_text("\n".join(wanted))
    wanted_grams = {gram for text in wanted for gram in grams(text)}
    expected = [sum(gram in wanted_grams for gram in grams(text)) for text in texts]
    filter = make("decontaminate", path=str(tmp_path / "a.txt"), ngram=n)
    assert [checks[0].value for checks in filter.measure(documents(texts))] == expected and sum(
        expected
    ) > 100
