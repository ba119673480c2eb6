"""The known order of models, from an evaluation that was made without the arena."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context


@dataclass(frozen=True)
class Reference:
    """The mean of a metric for each model.

    Attributes:
        values: model -> mean over the cells.
        cells: ``TASK/GROUP`` of what was averaged.
    """

    values: Mapping[str, float]
    cells: Sequence[str]


def read_reference(
    artifact: Artifact, models: Sequence[str], tasks: Sequence[str], metric: str, ctx: Context
) -> Reference:
    """The mean of ``metric`` over groups of the tasks, each weighted by its questions.

    Only groups count that all models have which the evaluation asked any of these tasks, so that
    no model is measured on easier questions. Models that it did not ask are named in a line.

    Raises:
        StageError: fewer than two of the models have the metric in a common group.
    """
    text = (artifact.path / "scores.json").read_text(encoding="utf-8")
    scores: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]] = json.loads(text)
    by_cell = {
        f"{task}/{group}": {model: values for model, values in by_model.items() if metric in values}
        for task, groups in scores.items()
        if task in tasks
        for group, by_model in groups.items()
    }
    asked = [model for model in models if any(model in cell for cell in by_cell.values())]
    common = {name: cell for name, cell in by_cell.items() if asked and set(asked) <= set(cell)}
    if len(asked) < 2 or not common:
        raise StageError(
            f"{ctx.step}: {artifact.name} gives no order: no group of the tasks "
            f"{', '.join(tasks)} has {metric!r} of two or more of the models "
            f"{', '.join(models)}. Its tasks: {', '.join(scores) or 'none'}; name some in "
            f"{ctx.step}.reference_tasks, and the metric in {ctx.step}.reference_metric"
        )
    absent = [model for model in models if model not in asked]
    if absent:
        ctx.say(
            f"{ctx.step}: {artifact.name} did not ask {', '.join(absent)}, so the known order is "
            f"that of the other {len(asked)} models"
        )
    values = {}
    for model in asked:
        weights = [cell[model].get("n", 1) for cell in common.values()]
        total = sum(
            weight * cell[model][metric]
            for weight, cell in zip(weights, common.values(), strict=True)
        )
        values[model] = total / sum(weights)
    return Reference(values, list(common))
