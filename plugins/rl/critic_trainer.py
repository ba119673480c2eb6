"""A trainer that trains a critic beside its policy, and keeps it in its checkpoints."""

from __future__ import annotations

from typing import Any

from llmstages.plugins.rl import critic as critics


def trainer_with_critic(base: Any) -> type:
    """The trainer class. It takes ``critic`` (critics.new_critic) and ``config`` (a PPOConfig).

    Args:
        base: a trainer of safe_trainer.py.
    """

    class TrainerWithCritic(base):
        def __init__(self, *args: Any, critic: Any, config: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.ppo = config
            self.critic = critic.to(self.accelerator.device)
            critics.attach(self.model, self.critic)

        def use_fast_engine(self) -> None:
            super().use_fast_engine()
            if self.shares:
                self.critic.share_prompts()

        def detach(self) -> None:
            critics.detach(self.model)

        def policy_parameters(self) -> Any:
            """What training is to move; a critic that moves alone is no training of the policy."""
            named = self.model.named_parameters()
            return [weight for name, weight in named if not name.startswith(critics.NAME)]

        def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
            """The critic gets groups of its own with its own learning rate."""
            optimizer = super().create_optimizer(*args, **kwargs)
            give_own_rate(optimizer, self.critic, self.ppo.critic_learning_rate)
            return optimizer

        def _save(self, output_dir: Any = None, state_dict: Any = None) -> None:
            """The policy as ever, and the critic in a folder of its own."""
            folder = output_dir or self.args.output_dir
            if self.args.should_save:
                critics.save_critic(self.critic, folder, state_dict)
            whole = self.model.state_dict() if state_dict is None else state_dict
            super()._save(output_dir, state_dict=critics.without_critic(whole))

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            critics.load_critic(self.critic, resume_from_checkpoint)

        def _issue_warnings_after_load(self, load_result: Any) -> None:
            """Not of the critic, which is loaded next."""
            missing = load_result.missing_keys
            missing[:] = [name for name in missing if not name.startswith(critics.NAME)]
            super()._issue_warnings_after_load(load_result)

    return TrainerWithCritic


def give_own_rate(optimizer: Any, module: Any, rate: float) -> None:
    """Move the weights of a module to groups of the optimizer that have their own rate."""
    own = {id(weight) for weight in module.parameters()}
    for group in list(optimizer.param_groups):
        moved = [weight for weight in group["params"] if id(weight) in own]
        if moved:
            group["params"] = [weight for weight in group["params"] if id(weight) not in own]
            optimizer.add_param_group({**group, "params": moved, "lr": rate})
