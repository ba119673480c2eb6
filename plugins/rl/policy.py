"""What the RL variants share: problems and rewards.

**What a reward sees.** ``score(prompts, completions, rows)`` gets one prompt (messages), one
completion (text without control tokens, "" for a tool call) and one row per completion. ``rows``
maps every column of the problems to a list: ``prompt``, ``answer``, ``group``, ``task``, ``meta``
(JSON text) and all columns of their own; with tools also ``calls``, in environments ``earned``. Of
dialogues, the last answer is ``answer`` and what comes before it is ``prompt``. Every variant
passes the same columns (``score_completions``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.data.dialogues import Dialogue, Prepared
from llmstages.data.splits import MEASURING_ROLES
from llmstages.plugins.rl import signals

SHOWN = 60  # characters of a value in a message
MOST_ABSTAINED = 0.5  # share of the answers of a call that a reward may leave without a score
Problem = dict[str, Any]  # a row with at least prompt, answer, group, task and meta


def problems(ctx: Context, name: str, limit: int, seed: int = 0) -> list[Problem]:
    """The problems of an input, without those of the roles ``test`` and ``threshold``.

    Args:
        ctx: where the step runs.
        name: an input that holds problems or dialogues.
        limit: draw so many at random; 0 = all.
        seed: of the draw.

    Raises:
        StageError: there are none.
    """
    from llmstages.data import tables

    rows: list[Problem] = []
    for row in tables.load(ctx.one(name).path / "data"):
        if row.get("role") in MEASURING_ROLES:
            continue
        problem = _problem_of(row)
        if problem:
            rows.append(problem)
    if limit and len(rows) > limit:
        chosen = random.Random(seed).sample(range(len(rows)), limit)
        rows = [rows[place] for place in sorted(chosen)]
    if not rows:
        raise StageError(f"{ctx.step}: {ctx.one(name).name} holds no problems to practice on")
    return rows


def _problem_of(row: Mapping[str, Any]) -> Problem | None:
    """A row of problems or dialogues as a problem; None for a dialogue without a last answer."""
    problem = {key: value for key, value in row.items() if key != "messages"}
    if "prompt" not in row:
        messages = row["messages"]
        if not messages or messages[-1]["role"] != "assistant":
            return None
        problem["prompt"] = messages[:-1]
        problem["answer"] = messages[-1]["content"]
    problem["answer"] = str(problem["answer"])
    problem["group"] = str(row.get("group") or "all")
    problem["task"] = str(row.get("task") or "")
    problem["meta"] = row.get("meta") or "{}"
    return problem


@dataclass
class Prompts(Prepared):
    """Prepared prompts.

    Attributes:
        problems: the problems whose prompt leaves room for an answer.
        room: tokens that the model's context leaves to a prompt; infinite if it has no limit.
    """

    problems: list[Problem] = field(default_factory=list)
    room: float = math.inf


def prepare(ctx: Context, limit: int, max_completion_length: int, seed: int = 0) -> Prompts:
    """Render and check the prompts.

    No token of them is supervised: the loss is on answers, which are not there yet.

    Args:
        ctx: with the inputs ``policy`` and ``problems``.
        limit: problems used at most; 0 = all.
        max_completion_length: longest answer in tokens.
        seed: of the draw of ``limit`` problems.
    """
    from llmstages.text import chat_format
    from llmstages.text.render import Rendered
    from llmstages.train import dialogue_checks, template_checks
    from llmstages.train.trainer import context_length, load_tokenizer

    source = ctx.one("problems")
    tokenizer = load_tokenizer(ctx.one("policy").path)
    rows = problems(ctx, "problems", limit, seed)
    context = context_length(ctx.one("policy"))
    room = context - max_completion_length if context else math.inf
    dialogues = [
        Dialogue(f"{source.name}:{number}", row["prompt"]) for number, row in enumerate(rows)
    ]
    ids = chat_format.prompt_ids(tokenizer, [dialogue.messages for dialogue in dialogues])
    fits = [len(prompt) <= room for prompt in ids]
    names = [dialogue.name for dialogue in dialogues]
    too_long = [name for name, fit in zip(names, fits, strict=True) if not fit]
    fix = "lower max_completion_length, or pretrain with a larger context"
    return Prompts(
        tokenizer=tokenizer,
        rows=[Rendered(prompt, [False] * len(prompt)) for prompt in ids],
        names=names,
        checks=[
            dialogue_checks.check_left_out(too_long, len(rows), fix),
            *template_checks.check_dialogue_template(dialogues, tokenizer),
        ],
        facts={"prompts": len(rows), "too long": len(too_long)},
        problems=[row for row, fit in zip(rows, fits, strict=True) if fit],
        room=room,
    )


def fitting_problems(prompts: Prompts, ctx: Context) -> list[Problem]:
    """The problems that leave room for an answer; the others are counted in a message."""
    if dropped := prompts.facts["too long"]:
        ctx.say(
            f"{ctx.step}: {dropped} of {len(prompts.rows)} problems dropped, prompts longer than "
            f"{prompts.room} tokens"
        )
    if not prompts.problems:
        raise StageError(
            f"{ctx.step}: every prompt is longer than the {prompts.room} tokens that the model's "
            "context leaves; pretrain with a larger context"
        )
    return prompts.problems


def open_rewards(specs: Mapping[str, Any], model: Artifact | None, ctx: Context) -> dict[str, Any]:
    """Load the rewards of a step: name -> reward, ready to score. Their sum is said in a line.

    Args:
        specs: name -> the reward to use and its config.
        model: the reward model of the recipe, for rewards that need one.
        ctx: where the step runs.
    """
    from llmstages.core.registry import load_component

    if not specs:
        raise StageError(
            f"{ctx.step}.rewards is empty: there is nothing to optimize. Add one, for example "
            f"+rewards@{ctx.step}.rewards.right=exact_answer"
        )
    rewards = {}
    for name, spec in specs.items():
        reward = load_component("rewards", spec)
        if getattr(reward, "needs", "") == "reward_model":
            if model is None:
                raise StageError(
                    f"{ctx.step}: the reward {name!r} needs a reward model; wire "
                    f"steps.{ctx.step}.reward=reward"
                )
            reward.open(model)
        rewards[name] = reward
    terms = [f"{reward.config.weight:g} x {name}" for name, reward in rewards.items()]
    if len(terms) > 1:
        ctx.say(
            f"{ctx.step}: an answer is paid {' + '.join(terms)}; "
            f"~{ctx.step}.rewards.NAME leaves one out"
        )
    return rewards


def score_completions(
    name: str, reward: Any, problems: Sequence[Problem], completions: Sequence[str]
) -> list[float | None]:
    """The scores of completions, one per problem: the only place that calls a reward.

    None is the score of a reward that abstains, as where a judge gave no verdict; it is not 0.

    Raises:
        StageError: the reward fails, abstains from more than MOST_ABSTAINED of the completions, or
            returns anything but None or a finite number for each. A value that is neither would
            silently count as 0, or end all training.
    """
    names = problems[0] if problems else ()  # all rows of a table have the same columns
    columns = {name: [problem[name] for problem in problems] for name in names}
    prompts = [problem["prompt"] for problem in problems]
    try:
        scores = reward.score(prompts, completions, columns)
    except StageError:
        raise
    # A reward is foreign code, so it may raise anything.
    except Exception as error:
        raise StageError(
            f"the reward {name!r} failed with {type(error).__name__}: {error}"
        ) from error
    return checked_scores(name, scores, completions)


def weighted_sums(
    rewards: Mapping[str, Any], scores: Mapping[str, Sequence[float | None]]
) -> list[float]:
    """What each completion is paid: the weighted sum of its scores, NaN if all paid ones abstained.

    Args:
        rewards: name -> reward; those of weight 0 pay nothing.
        scores: name -> one score a completion.
    """
    paid = {name: reward.config.weight for name, reward in rewards.items() if reward.config.weight}
    sums = []
    for of_completion in zip(*(scores[name] for name in paid), strict=True):
        pairs = zip(paid.values(), of_completion, strict=True)
        terms = [weight * score for weight, score in pairs if score is not None]
        sums.append(sum(terms) if terms else math.nan)
    return sums


def checked_scores(name: str, scores: Any, completions: Sequence[str]) -> list[float | None]:
    """What a reward returned, as numbers or None. Raises StageError as score_completions."""
    wanted = f"a list of {len(completions)} numbers, one per answer"
    if hasattr(scores, "tolist"):  # an array or a tensor
        scores = scores.tolist()
    if isinstance(scores, (str, Mapping)) or not isinstance(scores, Iterable):
        raise StageError(f"the reward {name!r} returned {_shown(scores)}, not {wanted}")
    scores = list(scores)
    if len(scores) != len(completions):
        raise StageError(f"the reward {name!r} returned {len(scores)} values, not {wanted}")
    numbers = []
    for score, completion in zip(scores, completions, strict=True):
        number = _as_number(score)
        if number is None and score is not None:
            raise StageError(
                f"the reward {name!r} returned {_shown(score)} for the answer "
                f"{_shown(completion)}; a reward is a finite number, or None where it abstains"
            )
        numbers.append(number)
    abstained = numbers.count(None)
    if abstained > MOST_ABSTAINED * len(numbers):
        raise StageError(
            f"the reward {name!r} abstained from {abstained} of {len(numbers)} answers (it "
            "returned None); what is left says too little about the policy"
        )
    return numbers


def _as_number(score: Any) -> float | None:
    """A finite number, or None. Texts are none, even where they could be read as one."""
    if hasattr(score, "item"):  # a number of NumPy or torch
        score = score.item()
    is_number = isinstance(score, (bool, int, float))
    return float(score) if is_number and math.isfinite(score) else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def prompts_dataset(problems: Sequence[Problem]) -> Any:
    """A datasets.Dataset for GRPOTrainer: each prompt, and the number of its problem.

    TRL gives some columns a meaning of its own (``image``, ``completion``, ...), so the others stay
    outside; ``reward_functions`` looks them up by the number.
    """
    import datasets

    return datasets.Dataset.from_list(
        [
            {"prompt": problem["prompt"], "problem": number}
            for number, problem in enumerate(problems)
        ]
    )


def reward_functions(
    rewards: Mapping[str, Any], tokenizer: Any, problems: Sequence[Problem]
) -> list[Callable[..., Sequence[float | None]]]:
    """Rewards as functions for GRPOTrainer, for a dataset of ``prompts_dataset``.

    The first of them also logs the signals of each sampling (signals.py).

    Completions are parsed from their ids: a text whose control tokens were dropped would not show
    where an answer ends, or that it is a call.
    """
    from llmstages.text import chat_format

    def completion_text(ids: Sequence[int]) -> str:
        reply, _ = chat_format.parse_reply(tokenizer, ids)
        return "" if reply["tool"] else str(reply["content"])

    first = next(iter(rewards), None)

    def wrap(name: str, reward: Any) -> Callable[..., Sequence[float | None]]:
        def function(
            completion_ids: Sequence[Sequence[int]],
            problem: Sequence[int],
            said: Sequence[str] | None = None,
            calls: Sequence[int] | None = None,
            earned: Sequence[float | None] | None = None,
            log_metric: Callable[[str, float], None] | None = None,
            **_: Any,
        ) -> Sequence[float | None]:
            # With tools and in environments the answer is what was said last.
            texts = said if said is not None else map(completion_text, completion_ids)
            completions = list(texts)
            asked = [problems[number] for number in problem]
            if calls is not None:
                asked = with_column(asked, "calls", calls)
            if earned is not None:
                asked = with_column(asked, "earned", earned)
            scores = score_completions(name, reward, asked, completions)
            if not log_metric:
                return scores
            if None in scores:
                log_metric(f"rewards/{name}/abstained", scores.count(None) / len(scores))
            if name == first:  # once for each sampling
                measured = signals.measure([text_of(row["prompt"]) for row in asked], completions)
                for signal, value in measured.items():
                    log_metric(f"{signals.PREFIX}{signal}", value)
            return scores

        function.__name__ = name  # TRL logs the reward under this name
        return function

    return [wrap(name, reward) for name, reward in rewards.items()]


def with_column(problems: Sequence[Problem], name: str, values: Sequence[Any]) -> list[Problem]:
    """The problems with one more column, about what happened in the dialogue of each.

    ``calls`` is the number of calls that were run, ``earned`` what the environment paid.
    """
    return [{**row, name: value} for row, value in zip(problems, values, strict=True)]


def with_outcomes(
    problems: Sequence[Problem],
    replies: Sequence[Any],
    episodes: Sequence[Any],
    has_tools: bool,
) -> list[Problem]:
    """The problems with the columns about their dialogues that rewards may ask for.

    Args:
        problems: one for each reply.
        replies: of generate.reply.
        episodes: what the replies acted in, None for each problem without an environment.
        has_tools: whether calls were run.

    Raises:
        StageError: too many environments failed.
    """
    from llmstages.text.environments import require_working

    asked = list(problems)
    if has_tools:
        asked = with_column(asked, "calls", [len(reply.calls) for reply in replies])
    if any(episodes):
        require_working(episodes)
        earned = [episode.score if episode else None for episode in episodes]
        asked = with_column(asked, "earned", earned)
    return asked


def text_of(prompt: Sequence[Mapping[str, Any]]) -> str:
    """The contents of the messages of a prompt."""
    return "\n".join(str(turn["content"]) for turn in prompt)
