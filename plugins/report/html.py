"""report.html: one page that tells the run as a story, and claims.json, which says what was to hold and whether it did.

The page stands alone (no script, no font, nothing fetched), so that it opens offline, on a phone and in ten years. What
pages and models wrote is hostile text: templates escape everything, and a content policy in the page forbids scripts
and requests even if something slipped through. Charts are small SVGs (plots.py), layout and bars are CSS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option


@dataclass(frozen=True)
class HTMLConfig:
    title: str = option("From raw pages to a chat model", "heading of the page")
    claims: dict[str, Any] = option(
        help="what was to be shown: name -> {value: 'STEP:METRIC - STEP:METRIC', target: '>= 0.9', about: in plain words, "
        "chapter: optional id}",
        factory=dict,
    )
    numbers: dict[str, Any] = option(
        help="what is only reported: name -> {value, about}", factory=dict
    )
    max_examples: int = option(2, "dropped pages shown for each rule")
    max_prompts: int = option(12, "prompts in the comparison of all models")


class HTML:
    """The report of everything before it."""

    Config = HTMLConfig
    inputs: ClassVar[Mapping[str, str]] = {"steps": "*"}
    output: ClassVar[str] = "report"
    version: ClassVar[str] = "2"

    def run(self, config: HTMLConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables
        from llmstages.plugins.report import chapters, claims, page
        from llmstages.plugins.report.steps import Chain

        chain = Chain(ctx.many("steps"))
        metrics = {step.name: step.metrics for step in chain.steps}
        claimed = claims.read_all(config.claims, metrics, targeted=True, group="claims")
        numbers = claims.read_all(config.numbers, metrics, targeted=False, group="numbers")
        for claim in claimed:
            if claim.missing:
                ctx.say(
                    f"{ctx.step}: the claim {claim.name!r} was not measured: {', '.join(claim.missing)}"
                )
        tables.write_json(ctx.out / "claims.json", [claim.row() for claim in claimed])
        story = chapters.build(chain, claimed, numbers, config.max_examples, config.max_prompts)
        text = page.render(config.title, claimed, story, chain)
        (ctx.out / "index.html").write_text(text, encoding="utf-8")
        return {
            "claims": len(claimed),
            "met": sum(c.met for c in claimed),
            "steps": len(chain.steps),
            "page_bytes": len(text.encode()),
        }
