"""The options of evaluate.arena, and what is checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.data.endpoint import EndpointOptions
from llmstages.plugins.evaluate.arena_judges import RUBRIC
from llmstages.plugins.evaluate.results import report_unknown_models
from llmstages.text.generate import DEFAULT_CALLS
from llmstages.train.inference import dtype_option

READERS = ("model", "endpoint")  # judges that read both answers


@dataclass(frozen=True, kw_only=True)
class ArenaConfig(EndpointOptions):
    judge: str = option(
        "grader",
        "who compares answers: grader (of the questions: right beats wrong), reward (the component "
        "of rewards), reward_model (the step wired so), model (the step wired as judge_model), "
        "endpoint (a model behind an address)",
        choices=("grader", "reward", "reward_model", *READERS),
    )
    gold: str = option(
        "none",
        "a second judge, trusted more, that the judge is compared with",
        choices=("none", "grader", "reward"),
    )
    rewards: dict[str, Any] = option(
        help="the reward of judge=reward or gold=reward: one name -> reward and its settings",
        factory=dict,
    )
    tasks: list[str] = option(help="tasks of the questions; empty = all", factory=list)
    limit: int = option(
        0, "questions of each task and group at most, drawn by the seed; 0 = all", ge=0
    )
    pairs_per_prompt: int = option(
        0, "pairs of models compared at each question, drawn by the seed; 0 = all", ge=0
    )
    tie_margin: float = option(
        0.0, "scores no further apart than this tie, for judges that score", ge=0
    )
    with_tools: list[str] = option(
        help="steps whose models may call the tools; empty = all", factory=list
    )
    max_tool_calls: int = option(DEFAULT_CALLS, "calls of one answer at most", ge=0)
    max_new_tokens: int = option(160, "longest answer in tokens", ge=1)
    temperature: float = option(0.0, "temperature of the answers; 0 is greedy", ge=0)
    temperatures: dict[str, float] = option(
        help="step -> temperature of its model, for others than `temperature`", factory=dict
    )
    batch: int = option(
        64, "prompts generated together at most (sampled answers depend on it)", ge=1
    )
    rubric: str = option(RUBRIC, "what a better answer is, in words for a judge that reads")
    verdict: str = option(
        "likelihood",
        "how judge=model says which answer is better: likelihood (the likelier of the replies A "
        "and B), written (a reason, and the verdict on the last line; for models that can argue)",
        choices=("likelihood", "written"),
    )
    endpoint_model: str = option("", "name of the judge at the endpoint")
    judge_max_new_tokens: int = option(
        256, "longest verdict of a judge that reads, in tokens", ge=1
    )
    judge_batch: int = option(16, "comparisons that judge_model reads at once", ge=1)
    reference_tasks: list[str] = option(
        help="tasks of the evaluation `reference` that give the known order; empty = those of the "
        "questions",
        factory=list,
    )
    reference_metric: str = option("right", "metric of `reference` that gives the known order")
    bootstrap: int = option(1000, "draws of the bootstrap over questions", ge=100)
    seed: int = option(0, "seed of samples, draws and the bootstrap", ge=0, lt=2**32)
    dtype: str = dtype_option()


def check_values(config: ArenaConfig, step: str) -> None:
    """Raise StageError for a judge that nothing says how to ask, before any work."""
    if config.judge == config.gold:
        raise StageError(
            f"{step}: judge and gold are both {config.judge}, which would agree with itself; "
            f"set {step}.gold=none or another one"
        )
    if "reward" in (config.judge, config.gold) and len(config.rewards) != 1:
        raise StageError(
            f"{step}: judge=reward and gold=reward take one component of rewards, and there "
            f"are {len(config.rewards)}; add +rewards@{step}.rewards.NAME=NAME"
        )
    if config.judge == "endpoint" and not (config.endpoint and config.endpoint_model):
        raise StageError(
            f"{step}: judge=endpoint needs {step}.endpoint=http://localhost:8000/v1 (the "
            f"address of the service) and {step}.endpoint_model=NAME (the model as it calls it)"
        )
    for model, temperature in config.temperatures.items():
        if temperature < 0:
            raise StageError(f"{step}.temperatures.{model} is {temperature}, which is below 0")


def wiring_problem(
    config: ArenaConfig, wired: Mapping[str, Sequence[Any]], prefix: str = ""
) -> str:
    """What is missing among the inputs, as a sentence; "" if nothing is.

    Args:
        wired: input name -> what feeds it.
        prefix: before the names of inputs, such as ``steps.arena.``.
    """
    if len(wired.get("models") or ()) < 2:
        return f"an arena needs two models at least: {prefix}models=[ONE, OTHER]"
    if config.judge == "reward_model" and not wired.get("reward_model"):
        return f"judge=reward_model needs a reward model: {prefix}reward_model=reward"
    if config.judge == "model" and not wired.get("judge_model"):
        return f"judge=model needs the model that judges: {prefix}judge_model=OTHER"
    return ""


def require_inputs(config: ArenaConfig, ctx: Context) -> None:
    """Refuse an arena that cannot be judged, before a model is loaded.

    Raises:
        StageError: an input is missing, a model stands twice, or a reward needs an artifact.
    """
    from llmstages.core.registry import component_config

    given = {name: ctx.many(name) for name in ctx.inputs}
    problem = wiring_problem(config, given, f"steps.{ctx.step}.")
    if problem:
        raise StageError(f"{ctx.step}: {problem}")
    names = [artifact.name for artifact in ctx.many("models")]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StageError(f"{ctx.step}: the model {twice[0]} is named twice; name each once")
    for name, spec in config.rewards.items():
        cls, _ = component_config("rewards", spec)
        needs = getattr(cls, "needs", "")
        if needs:
            raise StageError(
                f"{ctx.step}: the reward {name!r} opens a {needs}; take judge=reward_model "
                f"with steps.{ctx.step}.reward_model=STEP, or a reward that needs none"
            )
    report_unknown_models(
        "with_tools or temperatures", {*config.with_tools, *config.temperatures}, ctx
    )
