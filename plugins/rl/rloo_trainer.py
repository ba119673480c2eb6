"""TRL's RLOOTrainer with tools in its rollouts.

GRPOTrainer takes a ``rollout_func`` and a mask of the tokens that the policy did not write;
RLOOTrainer takes neither. It weighs a whole answer by the sum of its log probabilities, and its KL
penalty is a sum of differences of them. So where the log probabilities of foreign tokens are 0,
they add nothing to the weight, the penalty or the gradient. Without tools nothing is changed.

Everything calls ``super()``; tests/plugins/rl/test_rloo.py guards the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmstages.plugins.rl.safe_trainer import safe_trainer

# What TRL names in the answer of a rollout_func; all else is for the rewards.
OF_TRL = ("prompt_ids", "completion_ids", "logprobs", "env_mask")


def rloo_trainer() -> type:
    """The trainer class. It takes ``rollout_func``, as GRPOTrainer does."""
    import torch
    from trl import RLOOTrainer  # pyright: ignore[reportPrivateImportUsage]

    class ToolRLOOTrainer(trainer_with_rollouts(safe_trainer(RLOOTrainer))):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            try:
                output = super()._generate_and_score_completions(inputs)
                if self.own is None:
                    return output
                # The trainer shuffles and splits every further tensor with the others.
                output["tool_mask"] = self.own
                if self.beta:
                    self._divide_by_own_tokens("kl", output)
                return output
            finally:
                self.rolled = self.own = None

        def _compute_loss(self, model: Any, inputs: Any) -> Any:
            self.own = inputs.get("tool_mask")
            try:
                loss = super()._compute_loss(model, inputs)
                if self.own is not None:
                    self._divide_by_own_tokens("entropy", inputs)
                return loss
            finally:
                self.own = None

        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
            scored = super()._get_per_token_logps_and_entropies(*args, **kwargs)
            if self.own is None:
                return scored
            logps, entropies, aux_loss = scored
            foreign = self.own == 0
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


def trainer_with_rollouts(base: Any) -> type:
    """A trainer that takes its answers from ``rollout_func``, if it is given one.

    ``rolled`` is what the function returned, and ``own`` is 1 where the policy wrote the token
    ([answers, tokens]); both are None but while their answers are in hand.

    Args:
        base: a trainer of safe_trainer.py made of trl.RLOOTrainer.
    """
    import torch
    from trl.trainer.utils import pad

    class TrainerWithRollouts(base):
        rolled: Mapping[str, Any] | None = None
        own: Any = None

        def __init__(
            self, *args: Any, rollout_func: Callable[..., Any] | None = None, **kwargs: Any
        ) -> None:
            super().__init__(*args, **kwargs)
            self.rollout_func = rollout_func

        def _generate(self, prompts: Any) -> Any:
            if self.rollout_func is None:
                return super()._generate(prompts)
            rolled = self.rollout_func(prompts, self)
            self.rolled = rolled
            generated = super()._generate(prompts)
            masks = [torch.tensor(mask) for mask in rolled["env_mask"]]
            own = pad(masks, padding_value=1, pad_to_multiple_of=self.pad_to_multiple_of)
            self.own = own.to(self.accelerator.device)
            self._log_own_lengths(masks)
            return generated

        def _tokenize_prompts(self, prompts: Any) -> Any:
            if self.rolled is None:
                return super()._tokenize_prompts(prompts)
            return self.rolled["prompt_ids"], None, {}

        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            if self.rolled is None:
                return super()._generate_single_turn(prompt_ids, *args, **kwargs)
            return self.rolled["completion_ids"]

        def _log_own_lengths(self, masks: Any) -> None:
            """Log lengths without results, as GRPOTrainer does."""
            own = torch.stack([mask.sum() for mask in masks]).to(self.accelerator.device)
            lengths = self.accelerator.gather(own).float()
            logged = {"mean": lengths.mean(), "min": lengths.min(), "max": lengths.max()}
            for name, length in logged.items():
                self._metrics["train"][f"completions/{name}_length"][-1] = length.item()

        def _calculate_rewards(self, inputs: Any, *args: Any) -> Any:
            if self.rolled is not None:
                inputs = with_columns(inputs, self.rolled)
            return super()._calculate_rewards(inputs, *args)

    return TrainerWithRollouts


def with_columns(
    rows: Sequence[Mapping[str, Any]], rolled: Mapping[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    """The rows with what a rollout_func returned for the rewards, one value per row."""
    columns = {name: values for name, values in rolled.items() if name not in OF_TRL}
    added = [{name: columns[name][place] for name in columns} for place in range(len(rows))]
    return [{**row, **more} for row, more in zip(rows, added, strict=True)]
