"""report.html: one page that shows the run, chapter by chapter, and claims.json.

claims.json lists what was to be shown, what was measured, and whether the target holds. The page
stands alone (no script, no font, nothing fetched), so that it opens offline, on a phone and in ten
years. What web pages and models wrote is hostile text: the templates escape everything, and a
content policy in the page forbids scripts and requests. Charts are small SVGs (plots.py); layout
and bars are CSS. The stage knows no recipe: its chapters and notes are configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.plugins.report import outline
from llmstages.plugins.report.claims import measure_all, parse_claim

# The tasks of evaluate=memorization, which every recipe can use.
TASK_NOTES = {
    "recitation by copies": "The first words of a passage of the corpus, which the model has to "
    "continue word for word. The more copies a text has, the better it is memorized.",
    "names by mentions": "The words of the corpus before a name, by how often the name is "
    "mentioned in the whole corpus.",
    "pattern from examples": "“word : thing ;” lists of common words: the same word, the word with "
    "a capital, the second of two. Only the examples show which.",
    "copied text": "Written freely, from nothing: the share of texts in which a long run of tokens "
    "stands in the corpus exactly so.",
}


@dataclass(frozen=True)
class HTMLConfig:
    title: str = option("From raw pages to a chat model", "heading of the page")
    claims: Mapping[str, Any] = option(
        help="what should be shown: name -> {value: 'STEP:METRIC - STEP:METRIC', "
        "target: '>= 0.9', about: in plain words, chapter: optional id}",
        factory=dict,
    )
    numbers: Mapping[str, Any] = option(
        help="what is only reported: name -> {value, about, chapter}", factory=dict
    )
    chapters: Mapping[str, Any] = option(
        help="id -> {title, text, steps: [STEP], show: [SECTION], task}, in order; "
        "general chapters if empty. Sections: " + ", ".join(outline.SECTION_NAMES),
        factory=dict,
    )
    task_notes: Mapping[str, str] = option(
        help="task of an evaluation -> a sentence about it, shown where base models answer it",
        factory=lambda: dict(TASK_NOTES),
    )
    group_order: tuple[str, ...] = option(
        (),
        "groups of questions in the order in which they are shown; others follow, by number "
        "or name",
    )
    max_examples: int = option(2, "dropped pages shown for each rule", ge=0)
    max_prompts: int = option(12, "prompts in the comparison of all models", ge=0)

    def __post_init__(self) -> None:
        # Mistakes in these texts are found by `llmstages plan`, not at the end of a long run.
        for name, spec in self.claims.items():
            parse_claim(name, spec, targeted=True, group="claims")
        for name, spec in self.numbers.items():
            parse_claim(name, spec, targeted=False, group="numbers")
        ids = [spec.id for spec in outline.parse_chapters(self.chapters)]
        outline.check_claim_chapters("claims", self.claims, ids)
        outline.check_claim_chapters("numbers", self.numbers, ids)


class HTML:
    """The report of everything before it."""

    Config = HTMLConfig
    inputs: ClassVar[Mapping[str, str]] = {"steps": "*"}
    output: ClassVar[str] = "report"
    version: ClassVar[str] = "6"

    def run(self, config: HTMLConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables
        from llmstages.plugins.report import chapters, page
        from llmstages.plugins.report.paired import PairedAnswers
        from llmstages.plugins.report.steps import Chain

        chain = Chain(ctx.many("steps"), config.group_order)
        metrics = {step.name: step.metrics for step in chain.steps}
        paired = PairedAnswers(chain).compare
        claims = measure_all(config.claims, metrics, targeted=True, group="claims", paired=paired)
        numbers = measure_all(
            config.numbers, metrics, targeted=False, group="numbers", paired=paired
        )
        for claim in claims:
            if claim.missing:
                missing = ", ".join(claim.missing)
                ctx.say(f"{ctx.step}: the claim {claim.name!r} was not measured: {missing}")
        # The page is for people; programs read the claims here.
        tables.write_json(ctx.out / "claims.json", [claim.row() for claim in claims])

        story = chapters.build(
            chain,
            outline.parse_chapters(config.chapters),
            claims,
            numbers,
            config.task_notes,
            config.max_examples,
            config.max_prompts,
        )
        text = page.render(config.title, claims, story, chain)
        (ctx.out / "index.html").write_text(text, encoding="utf-8")
        return {
            "claims": len(claims),
            "met": sum(claim.met for claim in claims),
            "certain": sum(claim.certain for claim in claims),
            "steps": len(chain.steps),
            "page_bytes": len(text.encode()),
        }
