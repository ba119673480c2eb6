"""PPO (Schulman et al. 2017; for language models Ouyang et al. 2022) inside TRL's GRPOTrainer.

TRL dropped its own PPOTrainer in 1.13. GRPOTrainer samples, scores and takes advantages of single
tokens, so PPO is what it does with them: a critic (critic.py), advantages by GAE (advantages.py)
and the loss of the critic. Everything calls ``super()`` and changes inputs and outputs alone;
tests/plugins/rl/test_ppo.py guards the methods.
"""

from __future__ import annotations

from typing import Any

from llmstages.plugins.rl import advantages as arithmetic
from llmstages.plugins.rl.critic import before_answers, values_before
from llmstages.plugins.rl.critic_trainer import trainer_with_critic
from llmstages.plugins.rl.safe_trainer import safe_trainer


def ppo_trainer() -> type:
    """The trainer class. It takes ``critic`` (critics.new_critic) and ``config`` (a PPOConfig)."""
    import torch
    from trl import GRPOTrainer  # pyright: ignore[reportPrivateImportUsage]

    class PPOTrainer(trainer_with_critic(safe_trainer(GRPOTrainer))):
        def _total(self, numbers: Any) -> Any:
            """The sum over all processes."""
            return self.accelerator.reduce(numbers.float(), reduction="sum")

        def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
            # Of all processes, before any comparison within a group.
            self._scores = super()._calculate_rewards(*args, **kwargs)
            return self._scores

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            begin = self.accelerator.process_index * len(inputs)
            own = self._scores[begin : begin + len(inputs)]
            scores = _sums(own, self.reward_weights.to(own.device))
            is_scored = ~scores.isnan()
            mask = _policy_mask(output) * is_scored.unsqueeze(1)
            values, logps = self._before_update(output)
            kl = torch.zeros_like(values)
            if self.beta:
                kl = logps - output.pop("ref_per_token_logps")
                self._note("kl", _kl_estimate(kl), mask)
            rewards = arithmetic.token_rewards(scores.nan_to_num(), kl, mask, self.beta)
            advantages, returns = arithmetic.generalized_advantages(
                rewards, values, mask, self.ppo.gamma, self.ppo.lam
            )
            explained = arithmetic.explained_variance(values, returns, mask, self._total)
            self._metrics["train"]["explained_variance"].append(explained)
            self._note("value", values, mask)
            if logps is not None:
                output["old_per_token_logps"] = logps
            # The trainer shuffles and splits every further tensor with the others.
            output |= {
                "advantages": arithmetic.whitened(advantages, mask, self._total),
                "returns": returns,
                "old_values": values,
                "value_mask": mask,
            }
            return output

        def _before_update(self, output: Any) -> tuple[Any, Any]:
            """(values, log probabilities or None) of the sampled tokens, before any training."""
            ids, mask, kept = _whole_rows(output)
            logps = output.get("old_per_token_logps")
            needs_policy = self.ppo.critic == "head" or (self.beta and logps is None)
            rows = self.args.per_device_train_batch_size
            with torch.no_grad():
                if not needs_policy:
                    with self.accelerator.autocast():
                        values = values_before(self.critic, ids, mask, kept, rows, self.shares)
                    return values, logps
                self.model.noted_values = []
                logps, _, _ = self._get_per_token_logps_and_entropies(
                    self.model, ids, mask, kept, batch_size=rows
                )
            return before_answers(self._take_values(), kept), logps

        def _take_values(self) -> Any:
            values, self.model.noted_values = torch.cat(self.model.noted_values), None
            return values

        def _compute_loss(self, model: Any, inputs: Any) -> Any:
            self.model.noted_values = []
            # The KL penalty is part of the rewards, so the loss must not have it again.
            beta, self.beta = self.beta, 0.0
            try:
                policy_loss = super()._compute_loss(model, inputs)
            finally:
                self.beta = beta
            values = before_answers(self._take_values(), inputs["returns"].shape[1])
            losses = arithmetic.value_losses(
                values, inputs["old_values"], inputs["returns"], self.ppo.cliprange_value
            )
            mask = inputs["value_mask"]
            self._note("value_loss", losses.detach(), mask)
            value_loss = (losses * mask).sum() / self._tokens_of_update(inputs)
            return policy_loss + self.ppo.vf_coef * value_loss

        def _tokens_of_update(self, inputs: Any) -> Any:
            """What loss_type=dapo divides by, for a mean over the tokens of an update."""
            per_process = (
                inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
            )
            accumulated = self.current_gradient_accumulation_steps
            return per_process * accumulated / self.args.steps_per_generation

        def _note(self, name: str, numbers: Any, mask: Any) -> None:
            """Log a mean over tokens of all processes."""
            _, mean, _ = arithmetic.masked_moments(numbers, mask, self._total)
            self._metrics["train"][name].append(float(mean))

    return PPOTrainer


def _sums(scores: Any, weights: Any) -> Any:
    """The weighted sum of rewards of each answer; NaN where all abstained."""
    import torch

    total = (scores * weights).nansum(dim=1)
    return torch.where(scores.isnan().all(dim=1), torch.nan, total)


def _policy_mask(output: Any) -> Any:
    """1 where the policy wrote a token, 0 at padding and in the text of tools."""
    mask = output["completion_mask"]
    return (mask * output["tool_mask"] if "tool_mask" in output else mask).float()


def _whole_rows(output: Any) -> tuple[Any, Any, int]:
    """(ids, mask, tokens of the answers) of prompts with their answers."""
    import torch

    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
    return ids, mask, output["completion_ids"].shape[1]


def _kl_estimate(log_ratio: Any) -> Any:
    """The KL divergence of each token, never negative: the estimate that GRPO logs (k3)."""
    return (-log_ratio).exp() + log_ratio - 1
