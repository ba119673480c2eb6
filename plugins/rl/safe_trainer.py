"""The trainers of TRL that sample answers, made safe: what they sample from, and what they pay.

It goes below TRL's public surface: ``prompt_trainer`` replaces how trainers tokenize prompts, so
that RL sees the tokens of training and no prompt can forge control tokens, and ``safe_trainer``
also what GRPOTrainer and RLOOTrainer pay for truncated answers. ppo_trainer.py and rloo_trainer.py
go further. Contract tests guard the methods.
"""

from __future__ import annotations

from typing import Any

from llmstages.plugins.rl import truncation
from llmstages.plugins.rl.engine import trainer_with_engine
from llmstages.plugins.rl.policy import text_of

KEPT_SAMPLINGS = 50  # of a training, from which answers are kept


def stop_at_end_of_turn(model: Any, tokenizer: Any, calls: bool = False) -> None:
    """Make TRL end completions where the chat template ends a turn.

    It stops at the tokenizer's eos token and at those of the generation config. Some templates
    (Llama 3, Gemma) end a turn with another token, which the config of a converted model may lack.

    Args:
        model: whose generation config is changed.
        tokenizer: of the model.
        calls: also stop where a call ends, so that its result can be put in.
    """
    from llmstages.text import chat_format

    end = chat_format.control_tokens(tokenizer).end
    wanted = chat_format.stop_ids(tokenizer) if calls else [] if end is None else [end]
    stops = model.generation_config.eos_token_id
    known = [stop for stop in (stops if isinstance(stops, list) else [stops]) if stop is not None]
    new = [stop for stop in wanted if stop not in (*known, tokenizer.eos_token_id)]
    if new:
        model.generation_config.eos_token_id = [*new, *known]


def prompt_trainer(base: Any) -> type:
    """A trainer with prompts from our renderer, and an order of prompts that can be resumed.

    Args:
        base: a trainer of TRL that samples, as engine.py makes it.
    """
    import torch

    from llmstages.text import chat_format

    class PromptTrainer(base):
        def _tokenize_prompts(
            self, prompts: list[Any]
        ) -> tuple[list[list[int]], None, dict[str, Any]]:
            # Each prompt stands there once for every answer of its group.
            keys = list(map(repr, prompts))
            distinct = dict(zip(keys, prompts, strict=True))
            ids = chat_format.prompt_ids(self.processing_class, list(distinct.values()))
            ids_of = dict(zip(distinct, ids, strict=True))
            return [list(ids_of[key]) for key in keys], None, {}

        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            self.sampler: Any = super()._get_train_sampler(*args, **kwargs)
            return self.sampler

        def skip_epochs(self, count: int) -> None:
            """Bring the order of prompts to where it was after ``count`` epochs.

            TRL's sampler draws the order of each epoch from one generator, seeded once.
            """
            for _ in range(count):
                torch.randperm(self.sampler.num_samples, generator=self.sampler.generator)

    return PromptTrainer


def safe_trainer(base: Any) -> type:
    """A trainer of ``prompt_trainer`` that pays for answers.

    ``truncation_penalty``, set before training, is what truncated answers are paid less; the last
    reward must then be truncation.no_reward.

    Args:
        base: trl.GRPOTrainer or trl.RLOOTrainer.
    """
    import torch

    class SafeTrainer(prompt_trainer(trainer_with_engine(base))):
        truncation_penalty: float | None = None
        rollouts: list[dict[str, Any]] = []  # kept by resume.py with each checkpoint
        sampled_problems: list[int] = []  # numbers of the problems that are being answered

        def detach(self) -> None:
            """Take off the model what was only there for training; a variant overrides this."""

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            # What samples is given prompts alone, which need not tell two environments apart.
            self.sampled_problems = [row["problem"] for row in inputs]
            return super()._generate_and_score_completions(inputs)

        def _calculate_rewards(
            self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
        ) -> Any:
            scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            scores = self._pay_truncated(scores, completion_ids_list)
            scores = truncation.leave_out_abstained(scores, self.reward_weights.to(scores.device))
            self._keep_rollouts(prompts, completion_ids_list, scores)
            return scores

        def _keep_rollouts(self, prompts: Any, completion_ids_list: Any, scores: Any) -> None:
            """Keep the best, the worst and one other answer of this process at some updates."""
            update = self.state.global_step
            stride = max(1, self.args.max_steps // KEPT_SAMPLINGS)
            if update % stride:
                return
            begin = self.accelerator.process_index * len(prompts)
            own = scores[begin : begin + len(prompts)]
            totals = (own * self.reward_weights.to(own.device)).nansum(dim=1).tolist()
            order = sorted(range(len(totals)), key=totals.__getitem__)
            places = {"best": order[-1], "worst": order[0], "other": update % len(order)}
            self.rollouts = [
                *self.rollouts,
                *(
                    {
                        "update": update + 1,
                        "which": which,
                        "reward": totals[place],
                        "prompt": text_of(prompts[place]),
                        "answer": self._tokenizer.decode(completion_ids_list[place]),
                    }
                    for which, place in places.items()
                ),
            ]

        def _pay_truncated(self, scores: Any, completion_ids_list: Any) -> Any:
            if self.truncation_penalty is None:
                return scores
            # The scores are those of all processes.
            own = [ids[-1] in self.eos_token_ids for ids in completion_ids_list]
            ended = self.accelerator.gather(torch.tensor(own, device=scores.device))
            weights = self.reward_weights.to(scores.device)
            return truncation.pay_truncated(scores, ended, weights, self.truncation_penalty)

    return SafeTrainer
