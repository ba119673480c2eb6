"""Batched generation for evaluation, probing, rejection sampling and chat, with tools that are run.

Prompts are token ids from chat_format.py, so what a model gets at inference is what it was trained
on, token for token. When a reply ends in a tool call, the tool is run, its result is added, and
generation continues. So it does after what an environment observes.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmstages.core.malloc import kept_memory
from llmstages.text import chat_format
from llmstages.text.batching import available_memory, batch_for
from llmstages.text.decoding import decode
from llmstages.text.environments import Episode
from llmstages.text.messages import Message, with_tools
from llmstages.text.replies import parse_turn
from llmstages.text.template_input import reads_tool_field
from llmstages.text.templates import template_of
from llmstages.text.tool_runs import ToolRuns, Tools, what_follows

DEFAULT_NEW_TOKENS = 64
DEFAULT_CALLS = 2
UNLIMITED = 1 << 30  # context of a model that names none
# Keys of generation_config.json that decide which token is chosen.
CHOOSING = (
    *("do_sample", "num_beams", "temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("repetition_penalty", "no_repeat_ngram_size", "length_penalty", "epsilon_cutoff"),
    *("eta_cutoff", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens"),
    *("forced_bos_token_id", "forced_eos_token_id", "guidance_scale", "sequence_bias"),
)


@dataclass
class Reply:
    """The assistant's side of one exchange.

    messages: all that it added (calls, results, answer), in an environment also the turns of the
    user; the last one is its own. ended: whether it ended its turn. confidence:
    probability of the least likely token of the last message, under the model itself (1.0 when
    sampled). cut: whether a prompt of the exchange was too long for the context and lost its
    middle.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False
    confidence: float = 1.0
    cut: bool = False

    @property
    def text(self) -> str:
        """The answer: the content of the last message, "" when that is a call."""
        if not self.messages or self.messages[-1]["tool"]:
            return ""
        return str(self.messages[-1]["content"])

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The tool calls, in order."""
        return [turn for turn in self.messages if turn["role"] == "assistant" and turn["tool"]]


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = DEFAULT_NEW_TOKENS,
    temperature: float = 0.0,
    batch: int = 64,
    advance: Callable[[float], None] | None = None,
    is_complete: Callable[[Sequence[int]], bool] | None = None,
) -> tuple[list[list[int]], list[float]]:
    """Continue prompts (ids).

    Returns the new ids of each, including the stop token, and the least probability of these
    tokens. temperature 0 is greedy; above it tokens are sampled and the probabilities are 1.0.
    batch: prompts computed at once at most; fewer where memory holds no more (batching.py).
    advance: called with the number of prompts that are done, also within a batch, where a prompt
    counts as done in proportion to the tokens that it may still get. is_complete: whether new ids
    need no more (decode). The middle of prompts that are too long is removed (``fit_prompt``).
    """
    options = settings(model, tokenizer, temperature)
    context = _context(model)
    fitted = [fit_prompt(prompt, context, max_new_tokens) for prompt in prompts]
    # Batches of similar lengths contain little padding.
    order = sorted(range(len(fitted)), key=lambda i: len(fitted[i]))
    new_ids: list[list[int]] = [[] for _ in fitted]
    confidences = [1.0] * len(fitted)
    model.eval()
    available = available_memory(model.device)
    start = 0
    while start < len(order):
        chosen = order[start : start + batch]
        longest = len(fitted[chosen[-1]])
        chosen = chosen[: batch_for(model, longest, max_new_tokens, batch, available)]
        start += len(chosen)
        with kept_memory():
            rows, probabilities = decode(
                model, [fitted[i] for i in chosen], max_new_tokens, options, advance, is_complete
            )
        for place, i in enumerate(chosen):
            new_ids[i] = rows[place]
            if probabilities:
                confidences[i] = min(probabilities[place], default=1.0)
    return new_ids, confidences


def _context(model: Any) -> int:
    """The longest sequence in tokens that a model can read."""
    config = getattr(model, "config", None)
    return getattr(config, "max_position_embeddings", UNLIMITED)


def settings(model: Any, tokenizer: Any, temperature: float) -> dict[str, Any]:
    """Arguments of ``model.generate``: stop and pad tokens, sampling. temperature: 0 is greedy."""
    options: dict[str, Any] = {
        "eos_token_id": stop_ids(model, tokenizer),
        "pad_token_id": chat_format.padding_id(tokenizer),
        "do_sample": bool(temperature),
    }
    if temperature:
        options.update(temperature=temperature, top_k=0, top_p=1.0)
    return options


def own_settings(model: Any) -> dict[str, Any]:
    """What a model's generation_config.json says about which tokens are chosen."""
    config = getattr(model, "generation_config", None)
    settings = config.to_diff_dict() if config is not None else {}
    return {name: settings[name] for name in CHOOSING if settings.get(name) is not None}


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end a reply: those of the chat template, the tokenizer and the model itself."""
    if tokenizer.chat_template:
        stops = chat_format.stop_ids(tokenizer)
    else:
        stops = [tokenizer.eos_token_id]
    generation_config = getattr(model, "generation_config", None)
    model_stops = getattr(generation_config, "eos_token_id", None)
    if not isinstance(model_stops, list):
        model_stops = [model_stops]
    return list(dict.fromkeys(id for id in (*stops, *model_stops) if id is not None))


def fit_prompt(prompt: Sequence[int], limit: int, room: int) -> list[int]:
    """A prompt that leaves ``room`` tokens of the context for the answer.

    limit: the context in tokens. A prompt that is too long keeps its first token (BOS) and its end.
    """
    longest = max(2, limit - room)
    if len(prompt) <= longest:
        return list(prompt)
    return [prompt[0], *prompt[-(longest - 1) :]]


def reply(
    model: Any,
    tokenizer: Any,
    dialogues: Sequence[Sequence[Message]],
    tools: Tools | None = None,
    *,
    max_calls: int = DEFAULT_CALLS,
    max_tool_seconds: float = 0.0,
    episodes: Sequence[Episode | None] | None = None,
    advance: Callable[[float], None] | None = None,
    **options: Any,
) -> list[Reply]:
    """Let the assistant answer each dialogue, run the tools that it calls, and act in environments.

    max_calls, max_tool_seconds: what the calls of one dialogue may come to (see ToolRuns); a turn
    that calls tools beyond it is the last. episodes: the one of each dialogue, None where its
    answer is the end; they are changed. options: arguments of ``generate``. An unknown tool, or
    one that fails, gives its error as the result, so that the model can continue.
    """
    replies = [Reply() for _ in dialogues]
    most_calls = max_calls if tools is not None else 0
    runs = [ToolRuns(tools or {}, most_calls, max_tool_seconds) for _ in dialogues]
    acting = episodes or [None] * len(dialogues)
    waiting = list(range(len(dialogues)))
    longest_prompt = _context(model) - options.get("max_new_tokens", DEFAULT_NEW_TOKENS)
    while waiting:
        histories = [
            with_schemas(tokenizer, [*dialogues[i], *replies[i].messages], tools) for i in waiting
        ]
        prompts = chat_format.prompt_ids(tokenizer, histories)
        new_ids, confidences = generate(model, tokenizer, prompts, advance=advance, **options)
        advance = None  # each dialogue counts once, when it was first answered
        continued = []
        for i, prompt, ids, confidence in zip(waiting, prompts, new_ids, confidences, strict=True):
            turns, ended = parse_turn(tokenizer, ids)
            result = replies[i]
            before = [*dialogues[i], *result.messages]
            result.messages += [dict(turn) for turn in turns]
            result.ended = ended and not turns[-1]["tool"]
            result.confidence = confidence
            result.cut = result.cut or len(prompt) > longest_prompt
            following = what_follows(turns, before, runs[i], acting[i]) if ended else []
            result.messages += [dict(turn) for turn in following]
            if following:
                continued.append(i)
        waiting = continued
    return replies


def open_tools(folder: Path) -> dict[str, Any]:
    """The tools of a tools artifact (its tools.json), ready to be called: name -> tool."""
    from llmstages.core.registry import load_component

    specs = json.loads((folder / "tools.json").read_text())
    tools = {name: load_component("tools", spec) for name, spec in specs.items()}
    for tool in tools.values():
        tool.open(folder)
    return tools


def with_schemas(
    tokenizer: Any, messages: Sequence[Message], tools: Tools | None
) -> Sequence[Message]:
    """The messages with the schemas of the tools, for models that read them in the prompt.

    Models with our own templates were trained to call their tools by control tokens instead.
    """
    carries = any(turn.get("tools") for turn in messages)
    if not tools or carries or reads_tool_field(template_of(tokenizer)):
        return messages
    schemas = [tool_schema(name, tool) for name, tool in tools.items()]
    return with_tools(messages, json.dumps(schemas, ensure_ascii=False))


def tool_schema(name: str, tool: Any) -> dict[str, Any]:
    """The schema of a tool in the form of OpenAI.

    A tool may bring one along in its attribute ``schema``; others take one text, ``input``.
    """
    schema = getattr(tool, "schema", None)
    if schema:
        return dict(schema)
    description = (inspect.getdoc(type(tool)) or name).splitlines()[0]
    argument = {"type": "string", "description": "what the tool is asked"}
    parameters = {"type": "object", "properties": {"input": argument}, "required": ["input"]}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}
