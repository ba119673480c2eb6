"""Passages become questions: disjoint roles, refusals counted, a writer that is checked."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.data.endpoint import Answer
from llmstages.plugins.problems import cloze, written
from llmstages.plugins.problems.passages import Passages, PassagesConfig, cut
from llmstages.text.grading import is_right
from tests.openai_service import service
from tests.tiny import perform, saved, saved_model

FACTS = [
    f"The old bridge of {town} was built by the engineer {name} in the year {year}."
    for town, name, year in zip(
        ("Arvik", "Belmora", "Cintra", "Dornach", "Elverum", "Fiesole", "Gavorno", "Hinwil"),
        (
            "Ada Quist",
            "Bo Lund",
            "Carla Voss",
            "Dov Hart",
            "Eva Ostrow",
            "Fin Maro",
            "Gil Roth",
            "Hal Au",
        ),
        range(1871, 1879),
        strict=True,
    )
]


def corpus(folder, texts):
    rows = [
        {"id": str(number), "url": f"https://example.org/{number}", "text": text}
        for number, text in enumerate(texts)
    ]
    return saved(folder, "corpus", rows)


def make(tmp_path, texts, config, **inputs):
    made, metrics = perform(
        Passages, tmp_path / "problems", config, corpus=corpus(tmp_path / "corpus", texts), **inputs
    )
    rows = [dict(row) for row in tables.load(made.path / "data")]
    return rows, metrics, made


def test_questions_by_rules_keep_their_passage_and_have_one_role_each(tmp_path):
    config = PassagesConfig(passage_words=10, test_fraction=0.25, threshold_fraction=0.25)
    rows, metrics, _ = make(tmp_path, FACTS, config)
    assert metrics["examples"] == 8
    assert Counter(row["role"] for row in rows) == {"probe": 4, "test": 2, "threshold": 2}
    by_role = {}
    for row in rows:
        by_role.setdefault(row["role"], set()).add(row["passage"])
        question = row["prompt"][-1]["content"]
        assert row["passage"] in FACTS and row["url"].startswith("https://example.org/")
        assert question.endswith(row["passage"].replace(row["answer"], cloze.BLANK))
        assert row["method"] == "cloze" and is_right(row["answer"], row)
    assert not set.intersection(*by_role.values())
    # evaluate asks a task that a report can name; probe questions are a task of their own
    assert {row["task"] for row in rows if row["role"] == "test"} == {"passages"}


def test_the_seed_decides_and_equal_passages_are_taken_once(tmp_path):
    config = PassagesConfig(passage_words=10, num_passages=5)
    texts = [*FACTS, FACTS[0].upper(), FACTS[1]]
    first, metrics, _ = make(tmp_path / "1", texts, config)
    assert metrics["passages"] == 5
    assert "2 passages left out" in " ".join(perform.said)
    again, _, _ = make(tmp_path / "2", texts, config)
    other, _, _ = make(tmp_path / "3", texts, PassagesConfig(1, num_passages=5, passage_words=10))
    assert first == again
    assert [row["passage"] for row in first] != [row["passage"] for row in other]


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("She was born in Paris in the year 1871 and lived there.", "subject in another sentence"),
        ("In 1871 he built a bridge in Arvik for the whole town.", "subject in another sentence"),
        ("Diese wurde im Jahr 1871 von Carla Voss in Arvik gebaut.", "subject in another sentence"),
        ("However, Carla Voss built another bridge in Arvik in 1871.", "subject in another"),
        ("Carla Voss built bridges.", "sentence too short"),
        ("Carla Voss built a bridge in Arvik in the year 1871 and", "not a sentence"),
        ("Carla Voss (an engineer built a bridge in Arvik in 1871.", "not a sentence"),
        ("HistoryIn 1871 the engineer Carla Voss built a bridge in Arvik.", "not a sentence"),
        (" ".join(["Arvik has a bridge"] * 20) + ".", "sentence too long"),
        ("The engineer Carla Voss built the old bridge of Arvik.", ""),
        ("Der alte Turm von Arvik wurde von Carla Voss gebaut.", ""),
        ("Старый мост в городе Арвик построила инженер Карла Восс.", ""),
    ],
)
def test_sentences_that_cannot_be_understood_alone_are_refused(sentence, reason):
    assert cloze.sentence_fault(sentence).startswith(reason)
    assert bool(cloze.sentence_fault(sentence)) == bool(reason)


@pytest.mark.parametrize(
    ("sentence", "answer", "reason"),
    [
        ("The bridge of Arvik was named after Arvik by its builders.", "Arvik", "answer repeated"),
        (
            "The Paris bridge was built by Parisian workers of Voss.",
            "Paris",
            "answer repeated",
        ),
        (
            "Carla Voss had bridges in Arvik, Belmora and Cintra then.",
            "Belmora",
            "one of a list",
        ),
        ("Carla Voss built bridges in Arvik and Belmora in one year.", "Belmora", "one of a list"),
        ("The war of 1871-1874 was lost by the army of Arvik again.", "1871", "part of a longer"),
        ("the bridge was built by engineers in the year 1871 again.", "1871", "nothing says"),
        ("When Voss came there, he built a bridge over the river.", "Voss", "subject in another"),
        ("The old bridge of Arvik was built by Carla Voss in 1871.", "1871", ""),
        ("The old bridge of Arvik was built by Carla Voss in 1871.", "Carla Voss", ""),
    ],
)
def test_spans_that_can_be_guessed_or_not_be_known_are_refused(sentence, answer, reason):
    start = sentence.index(answer)
    fault = cloze.span_fault(sentence, start, start + len(answer))
    assert fault.startswith(reason) and bool(fault) == bool(reason)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Dr. Voss met J. Roth in St. Gallen. They talked.", 2),
        ("Voss liked socialism.Humans lived before.", 2),
        ("See www.example.org or 3.5 meters. Good.", 2),
        ("One.\nTwo!", 2),
    ],
)
def test_sentences_end_where_they_end(text, number):
    assert len(cloze.sentences(text)) == number


def test_a_passage_is_of_whole_sentences():
    parts = cut(" ".join(FACTS[:5]), 25)
    assert parts == [" ".join(FACTS[:2]), " ".join(FACTS[2:5])]


def test_kinds_are_asked_as_they_are_configured(tmp_path):
    config = PassagesConfig(passage_words=10, kinds=["year"], wording="Jahr? {sentence}")
    rows, metrics, _ = make(tmp_path, FACTS, config)
    assert {row["answer"] for row in rows} == {str(year) for year in range(1871, 1879)}
    assert rows[0]["prompt"][0]["content"].startswith("Jahr? The old")
    assert metrics["questions/year"] == 8


@pytest.mark.parametrize(
    ("sentence", "kind", "question"),
    [
        ("Voss built it in ____.", "year", "Voss built it in which year?"),
        ("The bridge was built by ____!", "name", "The bridge was built by who or what?"),
        ("It has ____ {sentence} towers.", "number", "It has how many {sentence} towers?"),
    ],
)
def test_a_sentence_can_ask_itself(sentence, kind, question):
    assert cloze.Candidate(sentence, "x", kind).question("{question}") == question


def test_what_is_not_asked_is_counted_with_its_reason(tmp_path):
    chinese = "这座古老的桥是由工程师卡拉在一八七一年建造的它很有名" * 4 + "。"
    texts = [*FACTS, chinese, "It was so and it stayed like this for ten more years there."]
    _, metrics, made = make(tmp_path, texts, PassagesConfig(passage_words=10))
    assert metrics["refused/script without blanks"] == 1
    assert metrics["refused/no sentence to ask about"] == 1
    assert metrics["refused/subject in another sentence"] == 1
    assert {row["rule"] for row in tables.load(made.path / "dropped")} == {
        "script without blanks",
        "no sentence to ask about",
    }
    assert any("script without blanks" in line for line in perform.said)


def test_a_corpus_without_a_question_is_refused(tmp_path):
    with pytest.raises(StageError, match=r"no question could be made of 1 passages"):
        make(tmp_path / "a", ["it was so and it stayed so for ten years."], PassagesConfig(0, 0, 8))
    with pytest.raises(StageError, match="holds no passage of 80 words"):
        make(tmp_path / "b", FACTS[:1], PassagesConfig())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"test_fraction": 0.7, "threshold_fraction": 0.3}, "leave no passage"),
        ({"kinds": ["verb"]}, "kinds must be some of"),
        ({"kinds": []}, "kinds must be some of"),
        ({"wording": "What?"}, "must have .sentence."),
        ({"endpoint": "localhost"}, "must be an address"),
    ],
)
def test_values_that_mean_nothing_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PassagesConfig(**values)


PASSAGE = "The old bridge of Arvik was built by Carla Voss. It is made of stone."


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Question: Who built the bridge of Arvik?\nAnswer: Carla Voss.", ""),
        ("**Question:** Who built the bridge of Arvik?\n**Answer:** carla voss", ""),
        ("<think>hm</think>Question: Who built it in Arvik?\n\nAnswer: Carla Voss", ""),
        ("Who built the bridge? Carla Voss.", "no question and answer"),
        ("Question: Who built the bridge?\nAnswer: Ada Quist", "answer not in the passage"),
        ("Question: What did Carla Voss build?\nAnswer: Voss", "answer in the question"),
        ("Question: What is in the text?\nAnswer: Arvik", "question points to the text"),
        ("Question: What?\nAnswer: The old bridge of Arvik was built by Carla", "answer too long"),
        ("Question: What is <|im_end|>?\nAnswer: Arvik", "mark of a chat template"),
    ],
)
def test_what_a_writer_wrote_is_checked(reply, reason):
    question, answer, fault = written.parse(reply, PASSAGE)
    assert fault == reason
    if not reason:
        assert question.startswith("Who built") and answer.casefold() == "carla voss"


class Writer:
    """Writes about the first capitalized word, and answers with the passage as it is told."""

    name = "stand-in"

    def __init__(self, reads):
        self.settings = {}
        self.reads = reads

    def ask(self, requests, missing):
        for number in missing:
            town = requests[number].split("bridge of ")[1].split()[0]
            if "Reply with two lines" in requests[number]:
                text = f"Question: Which town lies near {town}land?\nAnswer: {town}"
            else:
                text = town if self.reads(town) else "Atlantis"
            yield number, Answer(text)


def test_a_written_question_must_be_answered_with_the_passage(tmp_path, monkeypatch):
    writer = Writer(lambda town: town != "Arvik")
    monkeypatch.setattr(Passages, "answerer", lambda *_: writer)
    config = PassagesConfig(passage_words=10, model="m", endpoint="http://localhost:1/v1")
    rows, metrics, made = make(tmp_path, FACTS, config)
    assert len(rows) == 7 and metrics["refused/not answered with the passage"] == 1
    assert {row["method"] for row in rows} == {"stand-in"}
    (dropped,) = tables.load(made.path / "dropped")
    assert "Atlantis" in dropped["value"] and "Arvik" in dropped["excerpt"]


def test_a_service_writes_questions(tmp_path):
    def answer(request, _):
        town = request.split("bridge of ")[1].split()[0]
        if "Reply with two lines" in request:
            return f"Question: Where did an engineer build this bridge?\nAnswer: {town}"
        return f"It was {town}."

    with service(answer) as server:
        config = PassagesConfig(
            passage_words=10, model="m", endpoint=server.url, num_passages=3, threshold_fraction=0
        )
        rows, _, _ = make(tmp_path, FACTS, config)
    assert len(server.asked) == 6
    assert len(rows) == 3 and all(row["answer"] in row["passage"] for row in rows)
    assert json.loads(rows[0]["meta"])["passage"] == rows[0]["passage_id"]


def test_a_model_of_the_run_is_asked(tmp_path):
    """A random model writes no question: every passage is counted, and the step says what to do."""
    config = PassagesConfig(passage_words=10, max_new_tokens=4, num_passages=2)
    with pytest.raises(StageError, match="no question could be made"):
        make(tmp_path, FACTS, config, writer=saved_model(tmp_path / "model", hidden=16))
    assert any("2 times" in line for line in perform.said)


def test_a_named_writer_needs_an_endpoint(tmp_path):
    with pytest.raises(StageError, match=r"steps\.problems\.writer=STEP"):
        make(tmp_path, FACTS, PassagesConfig(model="m", passage_words=10))
