"""What fine-tuning will take, as far as it is known before it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.cost.model import Training, text_tokens

Known = Mapping[str, Sequence[Mapping[str, Any]]]  # input name -> facts about each source


def estimate(config: Any, known: Known) -> Mapping[str, Any]:
    """Memory, time and cost of fine-tuning the model that is wired in.

    Tokens are counted with the tokenizer and the template in a sample of the dialogues, or by the
    sizes of their tables. Where these are not known yet, one row per dialogue is the upper limit,
    because longer dialogues are dropped.
    """
    source = known["model"][0]
    model = source.get("model")
    if model is None:
        return {"no_estimate": f"the sizes of the model are known once {source['name']} is made"}
    tokenizer = {**source, "vocab_size": model.vocab}
    tokens, because = _counted_tokens(known["dialogues"], config, source)
    if tokens is None:
        tokens, because = text_tokens(known["dialogues"], config.mixture_weights, tokenizer)
    row_count = None
    if tokens is not None:
        row_count = tokens / config.max_length
    elif all("examples" in facts for facts in known["dialogues"]):
        row_count = sum(
            _trained_examples(facts) * config.mixture_weights.get(facts["name"], 1.0)
            for facts in known["dialogues"]
        )
        because = f"at most one row for each of {row_count:,.0f} dialogues"
    if row_count is not None:
        row_count = (row_count + config.replay) * config.epochs
    length = config.max_length
    if not config.packing:
        length, row_count = _unpacked(known["dialogues"], tokens, config, row_count)
        because = because or f"rows of {length} tokens at most; most dialogues are shorter"
    training = Training(
        model,
        length,
        config.batch_size,
        row_count,
        config.micro_batch_size,
        bf16=config.bf16,
        adapters=model.adapters(config.lora_r) if config.lora_r else 0,
        because=because,
    )
    facts: dict[str, Any] = {"training": training}
    if config.template == "keep" and "tokenizer_folder" in source:
        facts["tokenizer_folder"] = source["tokenizer_folder"]  # that of what it makes
    return facts


def _counted_tokens(
    sources: Sequence[Mapping[str, Any]], config: Any, model: Mapping[str, Any]
) -> tuple[float | None, str]:
    """(tokens of all dialogues, how they were counted), or (None, "") if one cannot be counted."""
    from llmstages.data.planned_tokens import count_tokens

    total = 0.0
    reasons = []
    for facts in sources:
        counted = count_tokens(facts, model.get("tokenizer_folder"), config.max_length)
        if counted is None or "examples" not in facts:
            return None, ""
        weight = config.mixture_weights.get(facts["name"], 1.0)
        count = _trained_examples(facts) * weight * counted.share
        total += count * counted.tokens
        reasons.append(f"{facts['name']}: {count:,.0f} rows of about {counted.tokens:.0f} tokens")
    return total, ", ".join(reasons)


def _trained_examples(facts: Mapping[str, Any]) -> float:
    """The dialogues of a source less those that it keeps out of training."""
    return facts["examples"] - facts.get("test", 0)


def _unpacked(
    sources: Sequence[Mapping[str, Any]],
    tokens: float | None,
    config: Any,
    row_count: float | None,
) -> tuple[int, float | None]:
    """(tokens in a row, rows) where each dialogue is a row: of average length, if that is known."""
    if tokens is None or not all("examples" in facts for facts in sources):
        return config.max_length, row_count
    examples = sum(
        _trained_examples(facts) * config.mixture_weights.get(facts["name"], 1.0)
        for facts in sources
    )
    average = max(2, round(tokens / max(examples, 1)))
    return min(config.max_length, average), (examples + config.replay) * config.epochs
