"""TRL's DistillationTrainer with prompts of our renderer, and given answers beside sampled ones.

TRL's trainer is on-policy alone: the policy answers, and each token of its answers is compared with
the teacher's distribution. GKD (Agarwal et al. 2024, algorithm 1) takes given answers for a share
of the updates; ``lmbda`` is the share of sampled ones, as in TRL's experimental GKDTrainer.
tests/plugins/rl/test_distill.py guards the methods.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from llmstages.plugins.rl.engine import sampling_trainer
from llmstages.plugins.rl.safe_trainer import prompt_trainer


def distill_trainer() -> type:
    """The trainer class.

    It takes ``lmbda`` and ``answers``, the ids of the given answer to each problem, whose number
    stands in the column ``problem``.
    """
    from trl import DistillationTrainer  # pyright: ignore[reportPrivateImportUsage]

    from llmstages.text.decoding import forward_arguments, inner_model, positions_of

    class DistillTrainer(prompt_trainer(sampling_trainer(DistillationTrainer))):
        given: list[list[int]] | None = None  # what is trained on instead of sampled answers

        def __init__(
            self, *args: Any, lmbda: float, answers: Sequence[Sequence[int]], **kwargs: Any
        ) -> None:
            super().__init__(*args, **kwargs)
            self.lmbda = lmbda
            self.answers = answers

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            # The state of this generator is part of each checkpoint.
            if self.lmbda < 1 and random.random() >= self.lmbda:
                self.given = [list(self.answers[row["problem"]]) for row in inputs]
            try:
                output = super()._generate_and_score_completions(inputs)
            finally:
                is_sampled, self.given = self.given is None, None
            self._metrics["train"]["sampled"].append(float(is_sampled))
            return output

        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            if self.given is not None:
                return self.given
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)

        def _get_last_hidden_state(
            self, unwrapped_model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int
        ) -> Any:
            """The states from which the tokens of answers are predicted.

            TRL gives no positions, so those of learned embeddings would count the padding on the
            left of a prompt.
            """
            backbone = inner_model(unwrapped_model).base_model
            options = {"attention_mask": attention_mask, "use_cache": False}
            if "position_ids" in forward_arguments(type(backbone)):
                options["position_ids"] = positions_of(attention_mask)
            states = backbone(input_ids=input_ids, **options).last_hidden_state
            return states[:, -logits_to_keep - 1 : -1]

    return DistillTrainer
