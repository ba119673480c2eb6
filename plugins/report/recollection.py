"""Working memory against vague recollection: one question, three ways to its answer, as one chart.

A model answers from its parameters, with the right page in its context, or with a search that it
makes itself (evaluator ``answers``, option ``page_groups``). The models of a row are those that
answered in that way.
"""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from llmstages.plugins.report import profile
from llmstages.plugins.report.scores import TaskScores, evaluations, in_recipe_order
from llmstages.plugins.report.steps import Chain

MEMORY, PAGE, SEARCH = "from memory", "with the page", "with a search"
SEARCHES = 0.5  # share of calls from which a model answers by its tools


def charts(chain: Chain) -> list[Markup]:
    """A chart for each group of questions that were also asked with the page in the context."""
    found = []
    for step, scores in evaluations(chain):
        for task, groups in scores.items():
            for group, by_way in ways(groups).items():
                models = in_recipe_order(set().union(*by_way.values()), chain)
                title = f"{step.name}: {task}, {group}"
                found.append(profile.chart(title, by_way, models, about="right answers in percent"))
    return found


def ways(groups: TaskScores) -> Mapping[str, profile.Profile]:
    """Group -> way -> model -> right, low, high, n, constant; only groups asked with a page."""
    found: dict[str, profile.Profile] = {}
    for group, by_model in groups.items():
        if not any("page_right" in values for values in by_model.values()):
            continue
        memory, page, search = {}, {}, {}
        for model, values in by_model.items():
            own = search if values.get("called", 0.0) >= SEARCHES else memory
            own[model] = _share(values, "right")
            if "page_right" in values:
                page[model] = _share(values, "page_right")
        by_way = {MEMORY: memory, PAGE: page, SEARCH: search}
        found[group] = {way: models for way, models in by_way.items() if models}
    return found


def _share(values: Mapping[str, float], metric: str) -> Mapping[str, float]:
    share = values[metric]
    return {
        "right": share,
        "low": values.get(f"{metric}_low", share),
        "high": values.get(f"{metric}_high", share),
        "n": values.get("n", 0),
        "constant": values.get("commonest", 0.0),
    }
