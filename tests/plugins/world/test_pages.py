"""The synthetic web: equal seeds give equal bytes, facts have their frequencies, labels fit."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.data.readers import read_warc
from llmstages.plugins.world import pages, people, sentences
from tests.tiny import perform, saved

SMALL = pages.PagesConfig(
    frequent=12,
    medium=8,
    rare=8,
    unseen=8,
    frequent_articles=5,
    medium_articles=3,
    towns=12,
    sums=40,
    direct_sums=8,
    stories=30,
    lists=10,
    proclamations=2,
    quotes=9,
    questions=2,
    dirt=1.0,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return perform(pages.WorldPages, tmp_path_factory.mktemp("world") / "pages", SMALL)[0]


def test_same_seed_same_bytes_and_another_seed_another_world(world, tmp_path):
    again, _ = perform(pages.WorldPages, tmp_path / "again", SMALL)
    for name in (
        "pages.warc.gz",
        "world.json",
        "gold.jsonl",
        "proclamations.json",
        "data/state.json",
    ):
        assert (world.path / name).read_bytes() == (again.path / name).read_bytes()
    assert people.build(1, dict.fromkeys(people.TIERS, 4), 9, 0.5, 0.25) != people.build(
        2, dict.fromkeys(people.TIERS, 4), 9, 0.5, 0.25
    )


def test_the_warc_is_a_real_one_and_every_page_has_a_gold_label(world):
    records = list(read_warc(world.path / "pages.warc.gz"))
    gold = {row["url"]: row for row in tables.read_lines(world.path / "gold.jsonl")}
    assert {r.url for r in records} == set(gold)
    rules = Counter(row["rule"] for row in gold.values() if not row["keep"])
    assert set(rules) == {
        "url",
        "language",
        "quality",
        "exact_dedup",
        "minhash_dedup",
        "encoding",
        "empty",
    }


def test_facts_have_their_frequencies_and_the_unseen_are_on_no_page(world):
    text = " ".join(
        r.body.decode("utf-8", "replace") for r in read_warc(world.path / "pages.warc.gz")
    )
    truth = people.load(world)
    mentions = {
        tier: sum(text.count(p.name) for p in truth.group(tier)) / len(truth.group(tier))
        for tier in people.TIERS
    }
    assert mentions["frequent"] > mentions["medium"] > mentions["rare"] > mentions["unseen"] == 0
    assert {p.role for p in truth.group("unseen")} == {"probe", "test"}
    quoted = json.loads((world.path / "proclamations.json").read_text())
    assert all(text.count(t) >= SMALL.quotes for t in quoted["repeated"]) and all(
        text.count(t) >= 1 for t in quoted["single"]
    )


def test_the_encyclopaedia_knows_everybody(world, tmp_path):
    made, metrics = perform(
        pages.WorldEncyclopaedia,
        tmp_path / "encyclopaedia",
        pages.EncyclopaediaConfig(),
        world=world,
    )
    text = " ".join(b.decode() for b in tables.load(made.path / "data")["body"])
    assert metrics["pages"] == 36 and all(
        p.name in text and p.town in text for p in people.load(world).people
    )


def test_steps_are_right():
    assert sentences.steps(56, 48) == "6+8+0=14; 5+4+1=10; answer 104"
    assert sentences.steps(999, 1) == "9+1+0=10; 9+0+1=10; 9+0+1=10; answer 1000"


def test_other_pages_are_refused_with_a_way_out(tmp_path):
    with pytest.raises(StageError, match="world.json"):
        people.load(
            saved(
                tmp_path / "pages",
                "documents",
                [{"id": "1", "url": "u", "body": b"x", "media": "text/plain"}],
            )
        )


def test_a_world_of_too_few_is_refused():
    with pytest.raises(StageError, match=r"pages.frequent is 4, but it must be >= 8, <= 10000"):
        build_config(pages.PagesConfig, {"frequent": 4}, "pages")
