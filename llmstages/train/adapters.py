"""LoRA adapters (Hu et al. 2021): the options of stages that train them, and their peft config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.stage import option


@dataclass(frozen=True)
class LoraOptions:
    """Fields of a stage that can train LoRA adapters (Hu et al. 2021) instead of all weights."""

    lora_r: int = option(
        0, "rank of the adapters; 0 = all weights are trained", ge=0, renamed_from="lora"
    )
    lora_alpha: float = option(0.0, "scale of the adapters; 0 = twice the rank", ge=0)
    lora_dropout: float = option(0.0, "dropout before the adapters while training", ge=0, lt=1)
    target_modules: str | list[str] = option(
        "all-linear",
        "layers with an adapter, as in peft.LoraConfig: all-linear is every linear layer but the "
        "head, [q_proj,v_proj] the layers of these names",
    )

    def __post_init__(self) -> None:
        has_settings = self.lora_alpha or self.lora_dropout or self.target_modules != "all-linear"
        if has_settings and not self.lora_r:
            raise ValueError(
                "lora_alpha, lora_dropout and target_modules mean nothing without adapters: "
                "set their rank too, for example lora_r=16"
            )


def lora_adapter(config: LoraOptions, model: Any = None, tokens: Sequence[int] = ()) -> Any:
    """The adapters that a config asks for, as a peft.LoraConfig; None where lora_r is 0.

    Args:
        config: rank, scale, dropout and layers of the adapters.
        model: the model to adapt; needed with ``tokens``.
        tokens: ids whose embeddings are trained beside the adapters, such as new control tokens.
    """
    if not config.lora_r:
        return None
    from peft import LoraConfig

    # peft declares an int, but a fraction is as good: it is only divided by the rank.
    alpha: Any = config.lora_alpha or 2 * config.lora_r
    return LoraConfig(
        r=config.lora_r,
        lora_alpha=alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.target_modules,
        task_type="CAUSAL_LM",
        trainable_token_indices=_trainable_tokens(model, tokens),
    )


def merged(model: Any, adapter: Any) -> Any:
    """A trained model with its adapters merged into its weights.

    Args:
        model: what a trainer holds.
        adapter: what lora_adapter() gave; with None the model is returned as it is.
    """
    return model.merge_and_unload() if adapter else model


def _trainable_tokens(model: Any, tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """Name of each embedding layer -> the rows of it that are trained, as peft takes them."""
    if not tokens:
        return None
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = [
        name.rpartition(".")[2]
        for name, layer in model.named_modules()
        if layer is embeddings or layer is head
    ]
    if embeddings.weight is head.weight:
        names = names[:1]  # peft serves tied weights by the first of the two layers
    return {name: list(tokens) for name in names}
