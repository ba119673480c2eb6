"""What moves the weights: AdamW or Muon, the schedule of the rate, and the z-loss.

With adamw and no z-loss the plain Trainer is used as it is. Muon (Jordan 2024; torch.optim.Muon) orthogonalises the
update of every hidden matrix; embeddings, head, norms and biases stay with AdamW. Its updates are scaled to the size of
AdamW's (Liu et al. 2025, "Muon is scalable"), so that one learning rate and one weight decay serve both.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.train import distributed
from llmstages.train.trainer import Optimization

LEAST = 0.05  # of the peak rate, where wsd and cosine end


def schedule(config: Any, steps: int) -> dict[str, Any]:
    """Arguments of TrainingArguments for the schedule."""
    if config.schedule == "constant":
        return {"lr_scheduler_type": "constant_with_warmup"}
    if config.schedule == "cosine":
        return {
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": LEAST},
        }
    return {
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {
            "num_decay_steps": int(steps * config.decay),
            "min_lr_ratio": LEAST,
            "decay_type": "linear",
        },
    }


def trainer_class(config: Any, ctx: Context) -> type:
    """Trainer, or a child of it that uses Muon and the z-loss."""
    from transformers import Trainer

    if config.optimizer == "adamw" and not config.z_loss:
        return Trainer
    if config.optimizer == "muon" and distributed.requested_backend().startswith("zero"):
        raise StageError(
            f"step {ctx.step!r}: DeepSpeed flattens the matrices that Muon has to see whole; use {ctx.step}.optimizer=adamw or launch=ddp"
        )

    class Pretrainer(Trainer):
        def create_optimizer(self, model: Any = None) -> Any:
            if config.optimizer == "muon" and self.optimizer is None:
                owner = self.model if model is None else model
                self.optimizer = muon(owner, config, self.get_decay_parameter_names(owner))
            return super().create_optimizer(model)

        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            if config.z_loss and model.training:
                scale = (
                    self.accelerator.num_processes
                    if self.args.average_tokens_across_devices and num_items_in_batch is not None
                    else 1
                )
                loss = loss + scale * config.z_loss * z_term(
                    outputs.logits, inputs["labels"], num_items_in_batch
                )
            return (loss, outputs) if return_outputs else loss

    return Pretrainer


def z_term(logits: Any, labels: Any, count: Any = None) -> Any:
    """Mean squared logarithm of the softmax's normaliser over the supervised tokens (PaLM, Chowdhery et al. 2022, section 5).

    logits: [rows, tokens, vocabulary]; labels: [rows, tokens], -100 where the loss does not look; count: divide by this
    instead of their number (the whole batch's, where gradients accumulate).
    """
    kept = labels[:, 1:] != -100
    log_z = logits[:, :-1].float().logsumexp(-1)[kept]
    return log_z.square().sum() / (kept.sum().clamp(min=1) if count is None else count)


def muon(model: Any, config: Optimization, decayed: Collection[str]) -> Any:
    """One optimizer for all weights of a model. decayed: names of those with weight decay.

    Its state_dict is that of any torch optimizer: one list of groups, one state by parameter; the two that do the work
    share both, so checkpoints, schedules and accelerate see a single optimizer.
    """
    import torch

    class MuonAdamW(torch.optim.Optimizer):
        def __init__(self, matrices: list[Any], others: list[dict[str, Any]]) -> None:
            self.workers = (
                torch.optim.Muon(
                    [{"params": matrices, "by": "Muon"}],
                    lr=config.learning_rate,
                    weight_decay=config.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                ),
                torch.optim.AdamW(
                    [{**group, "by": "AdamW"} for group in others],
                    lr=config.learning_rate,
                    betas=(0.9, 0.95),
                ),
            )
            super().__init__(
                [group for worker in self.workers for group in worker.param_groups], {}
            )
            self._share()

        def _share(self) -> None:
            for worker in self.workers:
                worker.state = self.state
                worker.param_groups = [
                    group for group in self.param_groups if group["by"] == type(worker).__name__
                ]

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            super().load_state_dict(state_dict)  # puts new groups and a new state in place
            self._share()

        def step(self, closure: Any = None) -> Any:
            loss = closure() if closure else None
            for worker in self.workers:
                worker.step()
            return loss

    apart = {
        id(p)
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding)
        for p in module.parameters()
    }
    head = model.get_output_embeddings()
    apart |= {id(p) for p in head.parameters()} if head is not None else set()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for _, p in trained if p.ndim == 2 and id(p) not in apart]
    rest = [(name in decayed, p) for name, p in trained if p.ndim != 2 or id(p) in apart]
    groups = [
        {
            "params": [p for with_decay, p in rest if with_decay is on],
            "weight_decay": config.weight_decay if on else 0.0,
        }
        for on in (True, False)
    ]
    return MuonAdamW(matrices, [group for group in groups if group["params"]])
