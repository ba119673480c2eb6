"""What a trainer of TRL samples and scores with: a prompt is computed once for its group.

TRL samples by ``generate()``, which reads a prompt for each of its answers, and its log
probabilities come from a pass that reads it for each answer again; on a CPU its head also runs over
the prompts. ``use_fast_engine`` replaces both (text/decoding.py, train/shared_prompts.py) where a
model allows it. Contract tests guard the two methods of TRL that are overridden.
"""

from __future__ import annotations

from typing import Any

NO_LABEL = -100  # where TRL computes no log probability
WHOLE_WEIGHTS = ("NO", "MULTI_CPU", "MULTI_GPU")  # ways to distribute: each process has them all


def sampling_trainer(base: Any) -> type:
    """A trainer that samples by our decode loop, off until ``use_fast_engine`` is called.

    Args:
        base: trl.GRPOTrainer, trl.RLOOTrainer or trl.DistillationTrainer.
    """
    from trl import GRPOTrainer  # pyright: ignore[reportPrivateImportUsage]

    from llmstages.text.decoding import can_decode, decode, plain_settings

    # GRPOTrainer takes probabilities, too, from engines that round differently.
    gives_probabilities = issubclass(base, GRPOTrainer)

    class SamplingTrainer(base):
        decodes = False  # samples by our decode loop

        def use_fast_engine(self) -> None:
            """Use what is faster than TRL's own way, where the model allows it."""
            # With weights in pieces all processes must call the model equally often.
            if self.accelerator.distributed_type in WHOLE_WEIGHTS:
                self.decodes = can_decode(self.accelerator.unwrap_model(self.model))

        def sample(self, prompt_ids: Any) -> Any:
            """One answer to each prompt, for rollouts: ids, without probabilities of the engine."""
            if not gives_probabilities:
                return self._generate_single_turn(prompt_ids, None, {})
            answers, _ = self._generate_single_turn(prompt_ids, None, {}, 1)
            return answers

        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            model = self.accelerator.unwrap_model(self.model)
            # Sampled as in evaluation, whatever the model's generation_config.json says.
            if not self.decodes:
                with plain_settings(model):
                    return super()._generate_single_turn(prompt_ids, *args, **kwargs)
            options = {
                "eos_token_id": self.eos_token_ids,
                "pad_token_id": self._tokenizer.pad_token_id,
                "do_sample": True,
                "temperature": self.temperature,
            }
            model.eval()
            answers, _ = decode(model, prompt_ids, self.max_completion_length, options)
            model.train()
            return (answers, None) if gives_probabilities else answers

    return SamplingTrainer


def trainer_with_engine(base: Any) -> type:
    """A trainer that has the engine, off until ``use_fast_engine`` is called.

    Args:
        base: trl.GRPOTrainer or trl.RLOOTrainer.
    """
    import torch

    from llmstages.train.shared_prompts import share_prompts

    class TrainerWithEngine(sampling_trainer(base)):
        shares = False  # computes a prompt once for all its answers

        def use_fast_engine(self) -> None:
            """Sample by our decode loop and share prompts, where the models allow it."""
            super().use_fast_engine()
            if self.accelerator.distributed_type not in WHOLE_WEIGHTS:
                return
            model = self.accelerator.unwrap_model(self.model)
            models = [model] if self.ref_model is None else [model, self.ref_model]
            self.shares = all(share_prompts(model) for model in models)

        def _get_per_token_logps_and_entropies(
            self,
            model: Any,
            input_ids: Any,
            attention_mask: Any,
            logits_to_keep: int,
            batch_size: int | None = None,
            compute_entropy: bool = False,
            compute_aux_loss: bool = False,
            **images: Any,
        ) -> Any:
            if not self.shares or compute_aux_loss:
                return super()._get_per_token_logps_and_entropies(
                    model,
                    input_ids,
                    attention_mask,
                    logits_to_keep,
                    batch_size,
                    compute_entropy,
                    compute_aux_loss,
                    **images,
                )
            rows = batch_size or len(input_ids)
            parts = []
            for ids, mask in zip(input_ids.split(rows), attention_mask.split(rows), strict=True):
                answers = ids[:, -logits_to_keep:]
                padding = mask[:, -logits_to_keep:] == 0
                with self.accelerator.autocast():
                    part = model(
                        input_ids=ids,
                        attention_mask=mask,
                        shift_labels=answers.masked_fill(padding, NO_LABEL),
                        fused_lm_head=True,
                        answer_tokens=logits_to_keep,
                    )
                parts.append(part)
            logps = torch.cat([part.log_probs for part in parts])
            entropies = torch.cat([part.entropy for part in parts]) if compute_entropy else None
            return logps, entropies, None

    return TrainerWithEngine
