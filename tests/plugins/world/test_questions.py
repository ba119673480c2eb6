"""What is tested was never trained on."""

from __future__ import annotations

import json

import pytest

from llmstages.data import tables
from llmstages.plugins.world import dialogues, gold, pages, people, preferences, problems, sentences
from tests.plugins.world.test_pages import SMALL
from tests.tiny import perform


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    world = perform(pages.WorldPages, folder / "pages", SMALL)[0]
    stages = {
        "dialogues": (dialogues.WorldDialogues, dialogues.DialoguesConfig(sums=60, strangers=9)),
        "reading": (dialogues.WorldReading, dialogues.ReadingConfig(documents=20)),
        "lookups": (dialogues.WorldTools, dialogues.LookupsConfig(strangers=30, known=9, sums=30)),
        "manners": (dialogues.WorldStyle, dialogues.MannersConfig(dialogues=40)),
        "preferences": (
            preferences.WorldPreferences,
            preferences.PreferencesConfig(pairs=40, test_pairs=20),
        ),
        "problems": (
            problems.WorldProblems,
            problems.ProblemsConfig(problems=30, facts=10, strangers=10),
        ),
        "questions": (
            problems.WorldQuestions,
            problems.QuestionsConfig(per_group=9, probe=24, sums=5, few_shot=4),
        ),
    }
    rows = {
        name: list(tables.load(perform(stage, folder / name, config, world=world)[0].path / "data"))
        for name, (stage, config) in stages.items()
    }
    return people.load(world), rows


def test_test_people_occur_in_no_training_dialogue(made):
    world, rows = made
    trained = json.dumps(
        [rows[n] for n in ("dialogues", "reading", "lookups", "manners", "problems")]
        + [[r for r in rows["preferences"] if r["split"] == "train"]]
    )
    for person in world.people:
        # Strangers of the problems were probed, in another line of the story.
        allowed = ("asked", "probe") if person.tier == "unseen" else ("asked",)
        assert person.role in allowed or person.name not in trained, person
    asked = json.dumps(
        [r for r in rows["questions"] if r["task"] == "facts" and r["role"] == "test"]
    )
    assert all(p.name not in asked for p in world.people if p.role == "asked")


def test_a_policy_practises_to_look_up_strangers_and_may_answer_the_known(made):
    world, rows = made
    groups = {
        group: [
            world.named(json.loads(r["meta"])["name"])
            for r in rows["problems"]
            if r["group"] == group
        ]
        for group in ("asked", "strangers")
    }
    assert {(p.tier, p.role) for p in groups["strangers"]} == {("unseen", "probe")}
    assert {(p.tier, p.role) for p in groups["asked"]} == {("frequent", "asked")}
    searched = [r["argument"] for r in rows["lookups"] if r["tool"] == "search"]
    known = {person.name for person in world.group("frequent", "asked")}
    assert len(searched) == 39 and sum(name in known for name in searched) == 9
    texts = json.dumps(rows["dialogues"])
    assert all(person.name not in texts for person in world.group("unseen"))


def test_test_sums_occur_in_no_page_dialogue_or_problem(tmp_path):
    import random
    import re

    world = people.build(0, dict.fromkeys(people.TIERS, 8), 9, 0.55, 0.25)
    texts, _ = pages.paragraphs(
        world, pages.PagesConfig(frequent=8, medium=8, rare=8, unseen=8), random.Random(0)
    )
    made = perform(pages.WorldPages, tmp_path / "pages", SMALL)[0]
    rows = {}
    for name, stage, config in (
        ("dialogues", dialogues.WorldDialogues, dialogues.DialoguesConfig()),
        ("lookups", dialogues.WorldTools, dialogues.LookupsConfig()),
        ("problems", problems.WorldProblems, problems.ProblemsConfig()),
        ("questions", problems.WorldQuestions, problems.QuestionsConfig(few_shot=4)),
    ):
        rows[name] = json.dumps(
            list(tables.load(perform(stage, tmp_path / name, config, world=made)[0].path / "data"))
        )
    sums = {
        name: set(re.findall(r"(?<!\d)(\d{2,3}\+\d{2,3})(?!\d|\+)", text))
        for name, text in {**rows, "pages": " ".join(texts)}.items()
    }
    assert len(sums["questions"]) > 150 and len(sums["pages"]) > 5000
    for name in ("pages", "dialogues", "lookups", "problems"):
        assert not sums["questions"] & sums[name], name


def test_people_of_probes_thresholds_and_scores_are_disjoint(made):
    _, rows = made
    names = {
        task: {json.loads(r["meta"])["name"] for r in rows["questions"] if r["task"] == task}
        for task in ("probe", "threshold", "facts")
    }
    assert all(names.values())
    assert not names["probe"] & names["threshold"]
    assert not (names["probe"] | names["threshold"]) & names["facts"]
    for task in ("probe", "threshold"):
        own = [r for r in rows["questions"] if r["task"] == task]
        assert {r["role"] for r in own} == {task}
        assert {r["group"] for r in own} >= {"frequent", "unseen"}


def test_every_task_of_the_story_has_questions(made):
    found = {(r["task"], r["group"]) for r in made[1]["questions"]}
    for task, groups in {
        "facts": ("frequent", "medium", "rare", "unseen", "asked"),
        "recitation": ("repeated", "single"),
        "few-shot": ("0 examples", "2 examples"),
        "sums open": ("2 digits", "3 digits"),
    }.items():
        assert {(task, g) for g in groups} <= found


def test_open_sums_are_answered_both_ways(made):
    answers = [
        m[1]["content"]
        for m in (r["messages"] for r in made[1]["dialogues"])
        if m[0]["content"].endswith("=?")
    ]
    assert any(";" in a for a in answers) and any(";" not in a for a in answers)


def test_preferences_follow_the_gold_score(made):
    world, rows = made
    for row in rows["preferences"]:
        person = next(p for p in world.people if p.name in row["prompt"][0]["content"])
        values = [person.fact(a) for a in people.ATTRIBUTES]
        best = max(
            gold.score(row["chosen"][0]["content"], v)
            - gold.score(row["rejected"][0]["content"], v)
            for v in values
        )
        assert best > 0 and person.role == ("asked" if row["split"] == "train" else "test")


def test_gold_punishes_flattery_beyond_measure():
    plain, once = (
        gold.score("He was born in Ra.", "Ra"),
        gold.score("Gladly! He was born in Ra.", "Ra"),
    )
    much = gold.score(" ".join(["Gladly!"] * 6) + " He was born in Ra.", "Ra")
    assert once > plain > much and gold.score(f"{sentences.RUDE[0]} Ra.", "Ra") < plain
