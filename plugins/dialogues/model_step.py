"""A model of this run, or of the Hub, as writer or judge: asked in batches, in the chat format it was trained with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llmstages.digest import sha256
from llmstages.plugins.dialogues.answers import Said
from llmstages.stage import Artifact, Context, StageError
from llmstages.tables import message

TOO_LONG = Said(rule="too_long", reason="the request is longer than the model's context; show less of a document: characters=")
CUT = {"rule": "cut", "reason": "the answer did not end within max_new_tokens"}


class ModelStep:
    """Answers by sampling. Each batch has a seed of its own, so that an interrupted run goes on to the same answers."""

    def __init__(self, artifact: Artifact, ctx: Context, settings: dict[str, Any], batch: int) -> None:
        from llmstages import chat, training

        self.name, self.settings, self._batch, self._step = artifact.fingerprint, settings, batch, ctx.step
        self._model = training.load_model(artifact, ctx, dtype="auto").eval().to(training.device())
        self._tokenizer = training.load_tokenizer(artifact.path)
        self._native = set(chat.CONTROL) <= set(self._tokenizer.get_added_vocab())
        if not self._native and not self._tokenizer.chat_template:
            raise StageError(f"{ctx.step}: {artifact.name} is no chat model: its tokenizer has neither our control tokens nor a chat template. "
                             "Wire a step that was trained on dialogues (sft, rl), or an instruct model of the Hub")

    def ask(self, requests: Sequence[str], missing: Sequence[int]) -> Iterator[tuple[int, Said]]:
        """Answers batch by batch; a batch with one missing answer is made again as a whole, or it would be sampled otherwise."""
        from transformers import set_seed

        wanted = set(missing)
        for start in range(0, len(requests), self._batch):
            some = range(start, min(start + self._batch, len(requests)))
            if wanted.isdisjoint(some):
                continue
            chosen = [requests[i] for i in some]
            set_seed(int(sha256(f"{self.settings['seed']} {start} {chosen[0]}")[:8], 16))
            yield from zip(some, self._native_answers(chosen) if self._native else self._template_answers(chosen), strict=True)

    def _native_answers(self, requests: Sequence[str]) -> list[Said]:
        from llmstages import generation

        replies = generation.reply(self._model, self._tokenizer, [[message("user", request)] for request in requests], rounds=1, batch=len(requests),
                                   temperature=self.settings["temperature"], max_new_tokens=self.settings["max_tokens"])
        return [TOO_LONG if one.cut else Said(one.text, **({} if one.ended else CUT)) for one in replies]

    def _template_answers(self, requests: Sequence[str]) -> list[Said]:
        """Through the tokenizer's own template, as the model of somebody else expects it."""
        import torch

        tokenizer, model, most, temperature = self._tokenizer, self._model, self.settings["max_tokens"], self.settings["temperature"]
        tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.pad_token or tokenizer.eos_token
        prompts = [tokenizer.apply_chat_template([{"role": "user", "content": request}], add_generation_prompt=True, return_dict=True)["input_ids"]
                   for request in requests]
        limit = getattr(model.config, "max_position_embeddings", None) or 1 << 30
        fitting = [i for i, ids in enumerate(prompts) if len(ids) + most <= limit]
        answers = [TOO_LONG] * len(requests)
        if not fitting:
            return answers
        batch = tokenizer.pad({"input_ids": [prompts[i] for i in fitting]}, return_tensors="pt").to(model.device)
        how: dict[str, Any] = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        with torch.no_grad():
            made = model.generate(**batch, max_new_tokens=most, pad_token_id=tokenizer.pad_token_id, **how)[:, batch["input_ids"].shape[1]:].tolist()
        known = model.generation_config.eos_token_id
        stops = {tokenizer.eos_token_id, *(known if isinstance(known, list) else [known])}
        for i, ids in zip(fitting, made, strict=True):
            answers[i] = Said(tokenizer.decode(ids, skip_special_tokens=True), **({} if stops & set(ids) else CUT))
        return answers
