"""What the models of an arena answer: each model each question once, shared by the runs of a store.

Answers are derived data (core/cache.py): they follow from the model, the questions and the options
of generation. So a second arena over the same models, with another judge, generates nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmstages.core.digest import canonical, sha256
from llmstages.core.stage import Artifact, Context
from llmstages.plugins.evaluate.answers import transcript

FORMAT = 1  # raise it when the code below writes other answers
FILE = "answers.jsonl"


@dataclass(frozen=True)
class GenerationSettings:
    """What answers depend on, beside model, questions and tools."""

    temperature: float
    max_new_tokens: int
    max_tool_calls: int
    batch: int
    seed: int
    dtype: str


@dataclass(frozen=True)
class Answered:
    """A reply: what is judged, and with calls and results what is shown."""

    text: str
    transcript: str


def answer(
    artifact: Artifact,
    questions: Sequence[Mapping[str, Any]],
    tools: Artifact | None,
    settings: GenerationSettings,
    ctx: Context,
) -> list[Answered]:
    """The answer of a model to each question."""
    from llmstages.data import tables

    prompts = [question["prompt"] for question in questions]
    depends_on = {
        "format": FORMAT,
        "model": artifact.fingerprint,
        "tools": tools.fingerprint if tools else "",
        "settings": asdict(settings),
        "prompts": prompts,
    }
    key = f"arena-{sha256(canonical(depends_on))[:32]}"

    def make(folder: Path) -> None:
        rows = _generate(artifact, prompts, tools, settings, ctx)
        tables.write_lines(folder / FILE, map(asdict, rows))

    folder = ctx.cached(key, make)
    return [Answered(**row) for row in tables.read_lines(folder / FILE)]


def _generate(
    artifact: Artifact,
    prompts: Sequence[Any],
    tools_artifact: Artifact | None,
    settings: GenerationSettings,
    ctx: Context,
) -> list[Answered]:
    from transformers import set_seed

    from llmstages.text import generate
    from llmstages.train.inference import load_for_inference
    from llmstages.train.trainer import load_tokenizer

    set_seed(settings.seed)
    model = load_for_inference(artifact, ctx, settings.dtype)
    tokenizer = load_tokenizer(artifact.path)
    tools = generate.open_tools(tools_artifact.path) if tools_artifact else None
    with ctx.progress(f"{ctx.step} {artifact.name}", len(prompts)) as advance:
        replies = generate.reply(
            model,
            tokenizer,
            prompts,
            tools,
            max_calls=settings.max_tool_calls,
            advance=advance,
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            batch=settings.batch,
        )
    return [Answered(reply.text, transcript(reply.messages)) for reply in replies]
