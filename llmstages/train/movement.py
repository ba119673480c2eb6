"""Whether training changed the weights at all.

A rate that is too small for the dtype of the weights, or adapters that reach no layer, would
otherwise end as a training that was done.
"""

from __future__ import annotations

from typing import Any

from llmstages.core.errors import StageError
from llmstages.train import distributed

SAMPLED = 256  # weights of each tensor that are compared
# Of the size of the weights. Weights that are exactly 0 take any update, however small.
LEAST = 1e-12


class Movement:
    """Remembers some weights of a Trainer's model, and compares them after training."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        is_sharded = distributed.sharding_of(trainer) in ("zero3", "fsdp")
        # Spread over processes there is nothing to look at before they are gathered.
        self._before = [] if is_sharded else self._sample()

    def _sample(self) -> list[Any]:
        # A critic that is trained beside the model is not what training is for.
        of_policy = getattr(self.trainer, "policy_parameters", self.trainer.model.parameters)
        return [
            parameter.detach().reshape(-1)[:SAMPLED].clone()
            for parameter in of_policy()
            if parameter.requires_grad
        ]

    def require(self, step: str, has_gradient: bool) -> None:
        """Raise StageError if the remembered weights did not change.

        Args:
            step: its name, for the message.
            has_gradient: whether the gradient of any update was not 0.
        """
        if not self._before:
            return
        size = moved = 0.0
        for before, after in zip(self._before, self._sample(), strict=True):
            old, new = before.double().cpu(), after.double().cpu()
            size += float(old.square().sum())
            moved += float((new - old).square().sum())
        if moved > LEAST**2 * size:
            return
        if has_gradient:
            reason = f"raise {step}.learning_rate; its updates are lost when weights are rounded"
        else:
            reason = "the gradient was 0 in every update: no row has a loss that could be lowered"
        raise StageError(f"step {step!r}: training changed no weight of the model. {reason}")
