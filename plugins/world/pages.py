"""pages.world: the synthetic web as a gzipped WARC; pages.world_encyclopaedia: for the search.

Paragraphs (articles, questions with answers, sums, stories, lists, proclamations) are shuffled
into almanac pages under navigation and cookie notices; dirt.py adds what a crawl really brings.
Every page has a gold label in gold.jsonl, so the corpus stage is measured. A proclamation is
quoted in many otherwise different pages: document dedup keeps it, line dedup would remove it,
which is the switch of the recitation experiment.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.plugins.world import dirt, people, sentences
from llmstages.plugins.world.people import World


@dataclass(frozen=True)
class PagesConfig:
    seed: int = option(0, "seed of people, facts and pages")
    frequent: int = option(300, "people with many articles", ge=8, le=10_000)
    medium: int = option(150, "people with some articles", ge=8, le=10_000)
    rare: int = option(150, "people with hardly any", ge=8, le=10_000)
    unseen: int = option(
        200,
        "people no page mentions; only the encyclopaedia of the search tool does",
        ge=8,
        le=10_000,
    )
    frequent_articles: int = option(30, "articles about each frequent person", ge=0)
    medium_articles: int = option(10, "articles about each medium person", ge=0)
    rare_articles: int = option(2, "articles about each rare person", ge=0)
    towns: int = option(300, "different birth towns", ge=2)
    asked: float = option(
        0.55, "share of each tier that question pages and chat training ask about", ge=0, le=1
    )
    probe: float = option(
        0.25,
        "share of each tier kept for knowledge probing; the rest is the test group",
        ge=0,
        le=1,
    )
    questions: int = option(
        4,
        "printed questions with answers for each fact of an asked frequent person (half for"
        " medium)",
        ge=0,
    )
    sums: int = option(8000, "column additions written out step by step", ge=0)
    direct_sums: int = option(2000, "paragraphs of six bare sums", ge=0)
    stories: int = option(1300, "animal stories", ge=0)
    lists: int = option(2000, "lists `Name : value`, from which few-shot learning comes", ge=0)
    proclamations: int = option(
        8,
        "proclamations that are quoted again and again, and as many controls that occur once",
        ge=0,
    )
    quotes: int = option(60, "pages that quote each repeated proclamation", ge=0)
    paragraphs: int = option(14, "paragraphs on a page", ge=1)
    dirt: float = option(
        0.25,
        "dirty pages for each clean one: spam, copies, foreign languages, broken and empty pages",
        ge=0,
    )


def paragraphs(
    world: World, config: PagesConfig, rng: random.Random
) -> tuple[list[str], dict[str, list[str]]]:
    """All clean paragraphs in random order, and the proclamations: "repeated" and "single"."""
    out: list[str] = []
    articles = {
        "frequent": config.frequent_articles,
        "medium": config.medium_articles,
        "rare": config.rare_articles,
    }
    for person in world.people:
        out += [sentences.article(person, rng) for _ in range(articles.get(person.tier, 0))]
        if person.role == "asked" and person.tier in ("frequent", "medium"):
            times = config.questions if person.tier == "frequent" else max(1, config.questions // 2)
            for attribute in people.ATTRIBUTES * times:
                asked, answer = sentences.question(person, attribute, rng)
                out.append(f"Question: {asked} Answer: {answer}")
    for _ in range(config.sums):
        a, b = sentences.pair(rng, rng.choice((2, 2, 3)))
        out.append(f"{a}+{b}: {sentences.steps(a, b)}")
    for _ in range(config.direct_sums):
        pairs = [sentences.pair(rng, length) for length in rng.choices((2, 2, 3), k=6)]
        out.append(" ; ".join(f"{a}+{b}={a + b}" for a, b in pairs))
    out += [sentences.story(rng) for _ in range(config.stories)]
    out += [sentences.listing(world, rng) for _ in range(config.lists)]
    quoted = [sentences.proclamation(rng) for _ in range(2 * config.proclamations)]
    repeated, single = quoted[: config.proclamations], quoted[config.proclamations :]
    out += repeated * config.quotes + single
    rng.shuffle(out)
    return out, {"repeated": repeated, "single": single}


class WorldPages:
    """Generate the world and crawl it.

    It writes pages.warc.gz, gold.jsonl, world.json, and the records as read back from the WARC.
    """

    Config = PagesConfig
    smoke: ClassVar[Mapping[str, Any]] = {
        "frequent": 20,
        "medium": 10,
        "rare": 10,
        "unseen": 16,
        "frequent_articles": 8,
        "medium_articles": 4,
        "towns": 20,
        "questions": 2,
        "sums": 150,
        "direct_sums": 40,
        "stories": 40,
        "lists": 40,
        "proclamations": 2,
        "quotes": 8,
    }
    inputs: ClassVar[Mapping[str, str]] = {}
    output: ClassVar[str] = "documents"
    version: ClassVar[str] = "2"

    def run(self, config: PagesConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables
        from llmstages.data.readers import Rejected, read_warc

        rng = random.Random(f"pages {config.seed}")
        counts = {tier: getattr(config, tier) for tier in people.TIERS}
        world = people.build(config.seed, counts, config.towns, config.asked, config.probe)
        world.save(ctx.out / "world.json")
        texts, quoted = paragraphs(world, config, rng)
        tables.write_json(ctx.out / "proclamations.json", quoted)
        clean = [texts[i : i + config.paragraphs] for i in range(0, len(texts), config.paragraphs)]
        pages = dirt.crawl(clean, config.dirt, rng)
        tables.write_lines(ctx.out / "gold.jsonl", [page.gold() for page in pages])
        dirt.write_warc(ctx.out / "pages.warc.gz", pages)
        rows = []
        for record in read_warc(ctx.out / "pages.warc.gz"):
            if isinstance(record, Rejected):
                raise RuntimeError(f"the WARC just written cannot be read back: {record}")
            rows.append(
                {"id": record.id, "url": record.url, "body": record.body, "media": record.media}
            )
        tables.save(rows, ctx.out / "data")
        kept = sum(page.keep for page in pages)
        return {
            "pages": len(rows),
            "clean_pages": kept,
            "dirty_pages": len(rows) - kept,
            "people": len(world.people),
            "paragraphs": len(texts),
        }


@dataclass(frozen=True)
class EncyclopaediaConfig:
    seed: int = option(0, "seed of the wording")
    numbers: bool = option(False, "each article states the number of its person too")


class WorldEncyclopaedia:
    """One short article for every person, the unseen ones too: what a search tool can find."""

    Config = EncyclopaediaConfig
    inputs: ClassVar[Mapping[str, str]] = {"world": "documents"}
    output: ClassVar[str] = "documents"
    version: ClassVar[str] = "1"

    def run(self, config: EncyclopaediaConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        world = people.load(ctx.one("world"))
        rng = random.Random(f"encyclopaedia {config.seed}")
        stated = (*people.ATTRIBUTES, "number") if config.numbers else people.ATTRIBUTES
        rows = [
            {
                "id": f"encyclopaedia:{i}",
                "url": f"https://encyclopaedia.example/{p.name.replace(' ', '_')}",
                "body": sentences.article(p, rng, stated).encode(),
                "media": "text/plain",
            }
            for i, p in enumerate(world.people)
        ]
        tables.save(rows, ctx.out / "data")
        return {"pages": len(rows)}
