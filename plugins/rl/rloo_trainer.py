"""TRL's RLOOTrainer with tools in its rollouts.

GRPOTrainer takes a ``rollout_func`` and a mask of the tokens that the policy did not write;
RLOOTrainer takes neither. It weighs a whole answer by the sum of its log probabilities, and its KL
penalty is a sum of differences of them. So where the log probabilities of foreign tokens are 0,
they add nothing to the weight, the penalty or the gradient. Without tools nothing is changed.

Everything calls ``super()``; tests/plugins/rl/test_rloo.py guards the methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmstages.plugins.rl.safe_trainer import safe_trainer

# What TRL names in the answer of a rollout_func; all else is for the rewards.
OF_TRL = ("prompt_ids", "completion_ids", "logprobs", "env_mask")


def rloo_trainer() -> type:
    """The trainer class. It takes ``rollout_func``, as GRPOTrainer does."""
    import torch
    from trl import RLOOTrainer  # pyright: ignore[reportPrivateImportUsage]
    from trl.trainer.utils import pad

    class ToolRLOOTrainer(safe_trainer(RLOOTrainer)):
        def __init__(
            self,
            *args: Any,
            rollout_func: Callable[..., dict[str, Any]] | None = None,
            **kwargs: Any,
        ) -> None:
            super().__init__(*args, **kwargs)
            self.rollout_func = rollout_func
            self._rolled: dict[str, Any] | None = None  # what the rollouts of a sampling returned
            self._own: Any = None  # [answers, tokens] of the rows in hand: 1 for the policy's

        def _generate(self, prompts: Any) -> Any:
            if self.rollout_func is None:
                return super()._generate(prompts)
            rolled = self.rollout_func(prompts, self)
            self._rolled = rolled
            generated = super()._generate(prompts)
            masks = [torch.tensor(mask) for mask in rolled["env_mask"]]
            own = pad(masks, padding_value=1, pad_to_multiple_of=self.pad_to_multiple_of)
            self._own = own.to(self.accelerator.device)
            self._log_own_lengths(rolled["env_mask"])
            return generated

        def _tokenize_prompts(self, prompts: Any) -> Any:
            if self._rolled is None:
                return super()._tokenize_prompts(prompts)
            return self._rolled["prompt_ids"], None, {}

        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            if self._rolled is None:
                return super()._generate_single_turn(prompt_ids, *args, **kwargs)
            return self._rolled["completion_ids"]

        def _log_own_lengths(self, masks: Any) -> None:
            """Log lengths without results, as GRPOTrainer does."""
            own = torch.tensor([sum(mask) for mask in masks], device=self.accelerator.device)
            lengths = self.accelerator.gather(own).float()
            logged = {"mean": lengths.mean(), "min": lengths.min(), "max": lengths.max()}
            for name, length in logged.items():
                self._metrics["train"][f"completions/{name}_length"][-1] = length.item()

        def _calculate_rewards(
            self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
        ) -> Any:
            if self._rolled is not None:
                columns = {key: rows for key, rows in self._rolled.items() if key not in OF_TRL}
                inputs = [
                    {**row, **{key: rows[place] for key, rows in columns.items()}}
                    for place, row in enumerate(inputs)
                ]
            return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            try:
                output = super()._generate_and_score_completions(inputs)
                if self._own is None:
                    return output
                # The trainer shuffles and splits every further tensor with the others.
                output["tool_mask"] = self._own
                if self.beta:
                    self._divide_by_own_tokens("kl", output)
                return output
            finally:
                self._rolled = self._own = None

        def _compute_loss(self, model: Any, inputs: Any) -> Any:
            self._own = inputs.get("tool_mask")
            try:
                loss = super()._compute_loss(model, inputs)
                if self._own is not None:
                    self._divide_by_own_tokens("entropy", inputs)
                return loss
            finally:
                self._own = None

        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
            scored = super()._get_per_token_logps_and_entropies(*args, **kwargs)
            if self._own is None:
                return scored
            logps, entropies, aux_loss = scored
            foreign = self._own == 0
            if entropies is not None:
                entropies = entropies.masked_fill(foreign, 0.0)
            return logps.masked_fill(foreign, 0.0), entropies, aux_loss

        def _divide_by_own_tokens(self, name: str, batch: Any) -> None:
            """Make a logged sum over all tokens a mean over those of the policy."""
            mask = batch["completion_mask"]
            counts = torch.stack([mask.sum(), (mask * batch["tool_mask"]).sum()]).float()
            every, own = self.accelerator.reduce(counts, reduction="sum").tolist()
            self._metrics["train"][name][-1] *= every / max(own, 1.0)

    return ToolRLOOTrainer
