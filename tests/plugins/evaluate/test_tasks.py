"""Evaluation counts replies, sets its threshold on probe questions only, and runs tools."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.plugins.evaluate.answers import Answers, AnswersConfig
from llmstages.plugins.evaluate.tasks import Tasks, TasksConfig
from llmstages.text import generate
from llmstages.text.messages import message
from tests.tiny import perform, saved, saved_model, tiny_model, tiny_tokenizer


def question(task, group, text, answer, role="test", style="chat", **meta):
    return {
        "task": task,
        "group": group,
        "prompt": [message("user", text)],
        "answer": answer,
        "role": role,
        "style": style,
        "meta": json.dumps(meta),
    }


def test_marks_and_threshold(monkeypatch, tmp_path):
    said = {
        "p1": ("Ra", 0.9),
        "p2": ("Ra", 0.5),
        "p3": ("Su", 0.95),
        "t1": ("Ra", 0.4),
        "t2": ("I do not know.", 1.0),
        "t3": ("Su", 0.2),
    }

    def oracle(model, tokenizer, prompts, tools=None, **_):
        return [
            generate.Reply(
                [message("assistant", said[p[0]["content"]][0])], True, said[p[0]["content"]][1]
            )
            for p in prompts
        ]

    monkeypatch.setattr(generate, "reply", oracle)
    own = [question("threshold", "g", t, "Ra", "threshold") for t in ("p1", "p2", "p3")]
    questions = own + [question("facts", "g", t, "Ra") for t in ("t1", "t2", "t3")]
    scores, answers, facts = Answers(AnswersConfig(kept_share=1.0)).score(
        None, tiny_tokenizer(), questions, None, lambda n: None
    )
    # The least sure of the right answers; the test questions have no part in it.
    assert facts["threshold"] == 0.5
    assert "threshold" not in scores, "what the threshold is set on is no score"
    group = scores["facts"]["g"]
    assert (group["right"], group["refused"], group["wrong"]) == pytest.approx((1 / 3,) * 3)
    assert (
        group["sure_right"] == group["sure_wrong"] == 0.0 and group["n"] == 3 and len(answers) == 6
    )


def test_all_models_get_the_same_questions_and_tools_run(tmp_path):
    rows = [
        question("facts", "unseen", "Where was Bo Li born?", "Ra", name="Bo Li"),
        question("cloze", "all", "the cat sat on the", "mat.", style="plain"),
        question("sums", "all", "1+1=?", "2", role="train"),
    ]
    tools = tmp_path / "tools"
    tools.mkdir()
    from llmstages.plugins.tools import index

    index.build(tools / index.FOLDER, ["Bo Li was born in Ra."])
    tables.write_json(tools / "tools.json", {"search": {"use": "search"}})
    from llmstages.core.stage import Artifact

    one, two = saved_model(tmp_path / "one"), saved_model(tmp_path / "two")
    answers = {"use": "answers", "max_new_tokens": 8, "page_groups": {"facts": ["unseen"]}}
    config = TasksConfig(evaluators={"answers": answers}, models_per_task={"cloze": ["one"]})
    made, metrics = perform(
        Tasks,
        tmp_path / "scores",
        config,
        models=(one, two),
        questions=saved(tmp_path / "q", "problems", rows),
        tools=Artifact("tools", "dialogues", tools, "t"),
    )
    scores = json.loads((made.path / "scores.json").read_text())
    assert (
        set(scores["facts"]["unseen"]) == {"one", "two"}
        and set(scores["cloze"]["all"]) == {"one"}
        and "sums" not in scores
    )
    assert "page_right" in scores["facts"]["unseen"]["one"] and metrics["questions"] == 2
    rows = tables.read_lines(made.path / "answers.jsonl")
    facts = {row["model"]: row["answer"] for row in rows if row["task"] == "facts"}
    assert facts["one"] == facts["two"]


def test_two_evaluators_of_one_task_do_not_overwrite_each_other(tmp_path, monkeypatch):
    def count(model, tokenizer, prompts, tools=None, advance=None, **options):
        if advance:
            advance(len(prompts))
        text = "word " * options["max_new_tokens"]
        return [generate.Reply([message("assistant", text)], True) for _ in prompts]

    monkeypatch.setattr(generate, "reply", count)
    rows = [
        question("facts", "all", "Where was Bo Li born?", "Ra"),
        question("sums", "a", "1", "2"),
    ]
    artifact = saved(tmp_path / "q", "problems", rows)
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    work.mkdir()
    said, bars = [], []

    @contextmanager
    def progress(description, total):
        bars.append([total, 0])
        yield lambda n=1, note="": bars[-1].__setitem__(1, bars[-1][1] + n)

    ctx = Context(
        "evaluate",
        out,
        work,
        {"models": (saved_model(tmp_path / "m"),), "questions": artifact},
        progress=progress,
        say=said.append,
    )
    evaluators = {
        "short": {"use": "answers", "max_new_tokens": 2},
        "long": {"use": "answers", "max_new_tokens": 9},
    }
    metrics = Tasks().run(TasksConfig(evaluators=evaluators), ctx)
    scores = json.loads((out / "scores.json").read_text())
    assert set(scores) == {"facts", "sums", "long: facts", "long: sums"}
    assert scores["facts"]["all"]["m"]["tokens"] == metrics["facts/all/m/tokens"] == 2
    assert scores["long: facts"]["all"]["m"]["tokens"] == metrics["long: facts/all/m/tokens"] == 9
    assert "m/threshold" in metrics and "m/long: threshold" in metrics
    tasks = [row["task"] for row in tables.read_lines(out / "answers.jsonl")]
    assert tasks == ["facts", "sums", "long: facts", "long: sums"]
    assert sum("'short' and 'long' both have a task 'facts'" in line for line in said) == 1
    assert bars == [[4, 4]], "each evaluator asks each question once"


def test_a_page_cannot_be_given_without_a_name_to_search_for(tmp_path):
    config = AnswersConfig(max_new_tokens=2, page_groups={"facts": ["all"]})
    tools = {"search": lambda argument: "a page"}
    model, tokenizer = tiny_model(tiny_tokenizer()), tiny_tokenizer()
    questions = [question("facts", "all", "Where?", "Ra")]
    with pytest.raises(StageError, match="'all' of 'facts'.*'Where\\?' has no `name`"):
        Answers(config).score(model, tokenizer, questions, tools, lambda n: None)


def test_every_share_has_its_interval_and_the_commonest_answer(tmp_path, monkeypatch):
    from llmstages.data.intervals import wilson

    def oracle(model, tokenizer, prompts, tools=None, advance=None, **options):
        return [generate.Reply([message("assistant", "harp")], True) for _ in prompts]

    monkeypatch.setattr(generate, "reply", oracle)
    wanted = ["harp", "harp", "harp", "tuba", "bell"]
    rows = [question("facts", "all", f"What? {i}", answer) for i, answer in enumerate(wanted)]
    made, metrics = perform(
        Tasks,
        tmp_path / "scores",
        TasksConfig(evaluators={"answers": {"use": "answers"}}),
        models=(saved_model(tmp_path / "m"),),
        questions=saved(tmp_path / "q", "problems", rows),
        tools=None,
    )
    values = json.loads((made.path / "scores.json").read_text())["facts"]["all"]["m"]
    rows = tables.read_lines(made.path / "answers.jsonl")
    assert [row["right"] for row in rows] == [True] * 3 + [False] * 2
    assert values["right"] == values["commonest"] == 0.6, "no better than one constant answer"
    assert (values["right_low"], values["right_high"]) == pytest.approx(wilson(3, 5))
    assert (values["ended_low"], values["n"]) == (pytest.approx(wilson(5, 5)[0]), 5)
    assert "tokens_low" not in values, "it is not a share"
    assert metrics["facts/all/m/right_low"] == values["right_low"]
    assert metrics["facts/all/m/commonest"] == 0.6
    assert metrics["facts/all/m/ended_low"] == values["ended_low"]


@pytest.mark.parametrize(
    ("rows", "evaluators", "has_model", "reason"),
    [
        (["train"], ["answers"], True, "q holds no question to ask.*q.test_fraction"),
        (["test"], [], True, "evaluators is empty"),
        (["test"], ["answers"], False, "has no model to ask"),
    ],
)
def test_an_evaluation_of_nothing_fails_before_a_model_is_loaded(
    tmp_path, monkeypatch, rows, evaluators, has_model, reason
):
    def refuse(*_):
        raise AssertionError("a model was loaded")

    models = (saved_model(tmp_path / "m"),) if has_model else ()
    monkeypatch.setattr("llmstages.train.inference.load_for_inference", refuse)
    with pytest.raises(StageError, match=reason):
        perform(
            Tasks,
            tmp_path / "scores",
            TasksConfig(evaluators={name: {"use": name} for name in evaluators}),
            models=models,
            questions=saved(
                tmp_path / "q",
                "problems",
                [question("sums", "all", "1", "2", role) for role in rows],
            ),
            tools=None,
        )
