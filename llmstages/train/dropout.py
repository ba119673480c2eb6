"""Switching dropout off, and on again for adapters."""

from __future__ import annotations

import re
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.train.adapters import LoraOptions

# Attributes that attention of transformers reads; it has no module of its own for dropout there.
SHARES = re.compile("dropout|pdrop")


def disable_dropout(model: Any) -> None:
    """Switch off all dropout of a model while it is trained; its config stays as it is.

    TRL's own switch reaches modules of dropout alone, not the shares that Llama's attention and
    others hand to a function.
    """
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
            continue
        for name, value in vars(module).items():
            if isinstance(value, float) and SHARES.search(name):
                setattr(module, name, 0.0)


def refuse_dropout(config: LoraOptions, ctx: Context, method: str) -> None:
    """Raise StageError if adapters have dropout that the method would switch off.

    A method that compares the policy with a reference needs both without noise.
    """
    if config.lora_dropout:
        raise StageError(
            f"{ctx.step}.lora_dropout={config.lora_dropout:g}: {method} compares the policy with "
            "its reference without dropout, so it would have no effect; leave it out"
        )


def keep_dropout(model: Any, config: LoraOptions) -> None:
    """Give the adapters their dropout again where a trainer has switched off all dropout.

    TRL's RewardTrainer does so for the base model, and reaches the adapters as well.
    """
    if not config.lora_r:
        return
    for name, module in model.named_modules():
        if "lora_dropout" in name and hasattr(module, "p"):
            module.p = config.lora_dropout
