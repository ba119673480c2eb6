"""What moves the weights: AdamW or Muon, the schedule of the learning rate, and the z-loss.

With AdamW and no z-loss the plain Trainer is used as it is. Muon (Jordan 2024; torch.optim.Muon)
orthogonalizes the update of every hidden matrix; embeddings, head, norms and biases stay with
AdamW. Its updates are scaled to the size of AdamW's (Liu et al. 2025, "Muon is scalable"), so that
one learning rate and one weight decay serve both.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.train import distributed
from llmstages.train.arguments import Optimization
from llmstages.train.evaluation import token_mean

FINAL_RATE = 0.05  # share of the peak rate at the end of wsd and cosine


def schedule(config: Any, steps: int, warmup_steps: int) -> dict[str, Any]:
    """Arguments of TrainingArguments for the schedule of the learning rate.

    Args:
        config: a resolved CausalLMConfig.
        steps: updates of the run.
        warmup_steps: the first of them, in which the rate rises.
    """
    if config.schedule == "constant":
        return {"lr_scheduler_type": "constant_with_warmup"}
    if config.schedule == "cosine":
        return {
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": FINAL_RATE},
        }
    return {
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {
            # Where all of the run decays, it does so from the peak on.
            "num_decay_steps": min(int(steps * config.decay), steps - warmup_steps),
            "min_lr_ratio": FINAL_RATE,
            "decay_type": "linear",
        },
    }


def trainer_class(config: Any, ctx: Context) -> type:
    """Trainer, or a child of it that uses Muon and the z-loss.

    Raises:
        StageError: Muon under DeepSpeed.
    """
    from transformers import Trainer

    if config.optimizer == "adamw" and not config.z_loss:
        return token_mean(Trainer)
    if config.optimizer == "muon" and distributed.requested_backend().startswith("zero"):
        raise StageError(
            f"step {ctx.step!r}: DeepSpeed flattens the matrices that Muon has to see whole; "
            f"use {ctx.step}.optimizer=adamw or launch=ddp"
        )

    class Pretrainer(Trainer):
        def create_optimizer(self, model: Any = None) -> Any:
            if config.optimizer == "muon" and self.optimizer is None:
                owner: Any = self.model if model is None else model
                self.optimizer = muon(owner, config, self.get_decay_parameter_names(owner))
            return super().create_optimizer(model)

        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            outputs: Any
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            if config.z_loss and model.training:
                # The gradients of the processes are averaged, so a loss that is divided by the
                # tokens of all processes has to be multiplied by their number, as Trainer does.
                scale = 1
                if self.args.average_tokens_across_devices and num_items_in_batch is not None:
                    scale = self.accelerator.num_processes
                z_loss = z_term(outputs.logits, inputs["labels"], num_items_in_batch)
                loss = loss + scale * config.z_loss * z_loss
            return (loss, outputs) if return_outputs else loss

    return token_mean(Pretrainer)


def z_term(logits: Any, labels: Any, count: Any = None) -> Any:
    """Mean squared logarithm of the softmax's normalizer over the supervised tokens.

    After PaLM (Chowdhery et al. 2022, section 5).

    Args:
        logits: [rows, tokens, vocabulary].
        labels: [rows, tokens], -100 where the loss does not look.
        count: divide by this instead of the number of supervised tokens: that of the whole batch,
            where gradients accumulate.
    """
    supervised = labels[:, 1:] != -100
    log_z = logits[:, :-1].float().logsumexp(-1)[supervised]
    if count is None:
        count = supervised.sum().clamp(min=1)
    return log_z.square().sum() / count


def muon(model: Any, config: Optimization, decayed: Collection[str]) -> Any:
    """One optimizer for all weights of a model: Muon for hidden matrices, AdamW for the others.

    Its state_dict is that of any torch optimizer: one list of groups, one state per parameter. The
    two optimizers that do the work share both, so checkpoints, schedules and accelerate see a
    single optimizer.

    Args:
        decayed: names of the parameters with weight decay.
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
            groups = [group for worker in self.workers for group in worker.param_groups]
            super().__init__(groups, {})
            self._share()

        def _share(self) -> None:
            """Let both workers use the groups and the state of this optimizer."""
            for worker in self.workers:
                own = type(worker).__name__
                worker.state = self.state
                worker.param_groups = [group for group in self.param_groups if group["by"] == own]

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            super().load_state_dict(state_dict)
            # Loading puts new objects in the place of those that were shared.
            self._share()

        def step(self, closure: Any = None) -> Any:
            loss = closure() if closure else None
            for worker in self.workers:
                worker.step()
            return loss

    matrices, others = _split_parameters(model)
    with_decay = [parameter for name, parameter in others if name in decayed]
    without_decay = [parameter for name, parameter in others if name not in decayed]
    groups = []
    if with_decay:
        groups.append({"params": with_decay, "weight_decay": config.weight_decay})
    if without_decay:
        groups.append({"params": without_decay, "weight_decay": 0.0})
    return MuonAdamW(matrices, groups)


def _split_parameters(model: Any) -> tuple[list[Any], list[tuple[str, Any]]]:
    """(hidden matrices, all other trained parameters with their names)."""
    import torch

    # Embeddings and head are matrices too, but their rows are tokens: Muon is not made for them.
    token_matrices: set[int] = set()
    head = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) or module is head:
            token_matrices.update(id(parameter) for parameter in module.parameters())
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim == 2 and id(parameter) not in token_matrices:
            matrices.append(parameter)
        else:
            others.append((name, parameter))
    return matrices, others
