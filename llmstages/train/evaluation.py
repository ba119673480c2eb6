"""Losses of a Trainer's evaluation that do not depend on how rows fall into batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IGNORED_LABEL = -100  # a label that carries no loss


def token_mean(trainer_class: type) -> type:
    """A Trainer class whose ``eval_loss`` is the mean over all tokens that carry loss.

    Trainer takes the mean of each batch and averages these over rows, so a row with three tokens
    would count as much as one with a thousand, and the loss would depend on the batch size.

    Args:
        trainer_class: of transformers or TRL, whose loss of a batch is the mean over its tokens.
    """

    class TokenMeanTrainer(trainer_class):
        def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
            import torch

            self._loss_and_tokens = torch.zeros(2, dtype=torch.float64)
            output = super().evaluation_loop(*args, **kwargs)
            total = self.accelerator.reduce(self._loss_and_tokens.to(self.args.device).float())
            loss, tokens = total.tolist()
            for name in output.metrics:
                if name.endswith("_loss") and tokens:
                    output.metrics[name] = loss / tokens
            return output

        def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            import torch

            step = super().prediction_step(model, inputs, *args, **kwargs)
            tokens = _tokens_with_loss(inputs)
            if step[0] is not None and tokens:
                loss = step[0].detach().double().cpu()
                self._loss_and_tokens += torch.stack([loss * tokens, loss.new_tensor(tokens)])
            return step

    TokenMeanTrainer.__name__ = trainer_class.__name__
    return TokenMeanTrainer


def _tokens_with_loss(inputs: Mapping[str, Any]) -> int:
    """Tokens of a batch that carry loss; the first of a row is predicted by nothing."""
    labels = inputs["labels"]
    return int((labels[:, 1:] != IGNORED_LABEL).sum())
