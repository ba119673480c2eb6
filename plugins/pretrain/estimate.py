"""What pretraining will take, as far as it is known before it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.cost.model import LAYERS, Training, text_tokens
from llmstages.plugins.pretrain import depth_scaling, model, requirements

EVAL_BATCH_SIZE = 16  # rows evaluated at once on each device


def estimate(config: Any, known: Mapping[str, Sequence[Mapping[str, Any]]]) -> Mapping[str, Any]:
    """The model and its rows, as far as the sources give their sizes.

    Padding is not counted, nor the control tokens of dialogues.
    """
    sources = [*known["tokenizer"], *known["model"]]
    tokenizer = sources[0] if sources else {}
    net = known["model"][0].get("model") if known["model"] else None
    vocab_size = tokenizer.get("vocab_size")
    if not vocab_size and net:
        vocab_size = net.vocab
    if not vocab_size:
        name = tokenizer.get("name", "a tokenizer")
        return {"no_estimate": f"the size of the vocabulary is known once {name} is made"}
    if config.architecture not in LAYERS and not net:
        return {
            "no_estimate": f"the layers of {config.architecture} are not known to "
            f"llmstages/cost/model.py, only those of {', '.join(LAYERS)}"
        }
    config, _ = depth_scaling.resolve(config, vocab_size)
    if not known["model"] and config.max_length > config.max_position_embeddings:
        return {"no_estimate": requirements.too_long(config, config.max_position_embeddings)}
    tokens, because = text_tokens(
        [*known["corpus"], *known["dialogues"]],
        config.mixture_weights,
        {**tokenizer, "vocab_size": vocab_size},
    )
    if tokens is not None:
        tokens = tokens * (1 - 1 / config.validation_stride) * config.epochs
    if config.max_tokens and (tokens is None or tokens > config.max_tokens):
        tokens = config.max_tokens
        because = f"max_tokens={config.max_tokens:,}"
    training = Training(
        net or model.model_sizes(config, vocab_size),
        config.max_length,
        config.batch_size,
        None if tokens is None else tokens / config.max_length,
        config.micro_batch_size,
        EVAL_BATCH_SIZE,
        config.bf16,
        because=because,
    )
    return {"training": training}
