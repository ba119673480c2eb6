"""Batched generation for evaluation, probing, rejection sampling and chat, with tools run live.

Prompts are token ids from chat.py, so what a model is asked at inference is what it was trained on, token for token.
A reply that ends in a tool call is run by the tool, the result is injected, and generation goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmstages.text import chat_format
from llmstages.text.messages import message

Tools = Mapping[str, Callable[[str], str]]


@dataclass
class Reply:
    """The assistant's side of one exchange: all messages it added (calls, results, answer) and whether it ended the turn.

    confidence: probability of the least likely token of the last message, under the model itself (1.0 when sampled).
    cut: a prompt of the exchange was too long for the context and lost its middle.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False
    confidence: float = 1.0
    cut: bool = False

    @property
    def text(self) -> str:
        """The answer: the content of the last message, "" when it was a call."""
        return (
            str(self.messages[-1]["content"])
            if self.messages and not self.messages[-1]["tool"]
            else ""
        )

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The tool calls it made."""
        return [m for m in self.messages if m["role"] == "assistant" and m["tool"]]


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    batch: int = 64,
    advance: Callable[[float], None] | None = None,
) -> tuple[list[list[int]], list[float]]:
    """Continue prompts (ids): (new ids up to and with the stop, least token probability of each).

    temperature 0 is greedy. Prompts are sorted by length, so that batches carry little padding; the order is kept.
    """
    import torch

    how = settings(model, tokenizer, temperature)
    stops, pad = how["eos_token_id"], how["pad_token_id"]
    limit = getattr(model.config, "max_position_embeddings", 1 << 30)
    prompts = [fit_prompt(prompt, limit, max_new_tokens) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[list[int]] = [[] for _ in prompts]
    least = [1.0] * len(prompts)
    model.eval()
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        some = [prompts[i] for i in chosen]
        width = max(map(len, some))
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in some], device=model.device)
        mask = torch.tensor(
            [[0] * (width - len(p)) + [1] * len(p) for p in some], device=model.device
        )
        with torch.no_grad():
            made = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                output_logits=not temperature,
                return_dict_in_generate=True,
                **how,
            )
        new = made.sequences[:, width:].tolist()
        if not temperature:
            best = torch.stack(
                [step.float().softmax(-1).max(-1).values for step in made.logits], 1
            ).tolist()
        for row, index in enumerate(chosen):
            tokens = new[row]
            end = next((j + 1 for j, t in enumerate(tokens) if t in stops), len(tokens))
            out[index] = tokens[:end]
            if not temperature and end:
                least[index] = min(best[row][:end])
        if advance:
            advance(len(chosen))
    return out, least


def settings(model: Any, tokenizer: Any, temperature: float) -> dict[str, Any]:
    """Arguments of ``model.generate``: where it stops, what pads, how it chooses (temperature 0 is greedy)."""
    stops = stop_ids(model, tokenizer)
    choice = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature
        else {"do_sample": False}
    )
    return {
        "eos_token_id": stops,
        "pad_token_id": stops[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        **choice,
    }


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end a reply: those of the chat template, of the tokenizer, and those that the model itself names."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    said = chat_format.stop_ids(tokenizer) if tokenizer.chat_template else [tokenizer.eos_token_id]
    return list(
        dict.fromkeys(
            i for i in (*said, *(own if isinstance(own, list) else [own])) if i is not None
        )
    )


def fit_prompt(prompt: Sequence[int], limit: int, room: int) -> list[int]:
    """A prompt that leaves ``room`` tokens of the context for the answer: its BOS and its end, the middle cut out."""
    most = max(2, limit - room)
    return list(prompt) if len(prompt) <= most else [prompt[0], *prompt[-(most - 1) :]]


def reply(
    model: Any,
    tokenizer: Any,
    dialogues: Sequence[Sequence[Mapping[str, Any]]],
    tools: Tools | None = None,
    *,
    rounds: int = 3,
    **how: Any,
) -> list[Reply]:
    """Let the assistant answer each dialogue, running the tools it calls, at most ``rounds`` generations each.

    An unknown tool or one that fails gives its error as the result, so that the model can go on.
    """
    advance = how.pop("advance", None)
    replies = [Reply() for _ in dialogues]
    waiting = list(range(len(dialogues)))
    for turn in range(rounds):
        if not waiting:
            break
        prompts = chat_format.prompt_ids(
            tokenizer, [[*dialogues[i], *replies[i].messages] for i in waiting]
        )
        limit = getattr(
            getattr(model, "config", None), "max_position_embeddings", 1 << 30
        ) - how.get("max_new_tokens", 64)
        made, least = generate(
            model, tokenizer, prompts, advance=None if turn else advance, **how
        )  # each dialogue counts once
        still = []
        for index, prompt, ids, confidence in zip(waiting, prompts, made, least, strict=True):
            said, ended = chat_format.parse_reply(tokenizer, ids)
            one = replies[index]
            one.cut = one.cut or len(prompt) > limit
            one.messages.append(dict(said))
            one.ended, one.confidence = ended and not said["tool"], confidence
            if said["tool"] and ended and tools is not None and turn + 1 < rounds:
                one.messages.append(
                    message("tool", call(tools, said["tool"], said["content"]), said["tool"])
                )
                still.append(index)
        waiting = still
    return replies


def open_tools(folder: Path) -> dict[str, Any]:
    """The tools of a tools artifact (its tools.json), ready to be called: name -> tool."""
    from llmstages.core.registry import load_component

    tools = {
        name: load_component("tools", spec)
        for name, spec in json.loads((folder / "tools.json").read_text()).items()
    }
    for tool in tools.values():
        tool.open(folder)
    return tools


def call(tools: Tools, name: str, argument: str) -> str:
    """Run one tool; an error becomes the text of the result."""
    if name not in tools:
        return f"error: there is no tool {name}"
    try:
        return tools[name](argument)
    except (
        Exception
    ) as error:  # a tool is foreign code: whatever it raises is a result the model must live with
        return f"error: {error}"
