"""A model of this run, or of the Hub, as writer or judge: asked in batches, in the chat format it was trained with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llmstages.core.digest import sha256
from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.plugins.dialogues.answers import Said
from llmstages.text.messages import message

TOO_LONG = Said(
    rule="too_long",
    reason="the request is longer than the model's context; show less of a document: characters=",
)
CUT = {"rule": "cut", "reason": "the answer did not end within max_new_tokens"}


class ModelStep:
    """Answers by sampling. Each batch has a seed of its own, so that an interrupted run goes on to the same answers."""

    def __init__(
        self, artifact: Artifact, ctx: Context, settings: dict[str, Any], batch: int
    ) -> None:
        from llmstages.train.trainer import compute_device, load_model, load_tokenizer

        self.name, self.settings, self._batch, self._step = (
            artifact.fingerprint,
            settings,
            batch,
            ctx.step,
        )
        self._model = load_model(artifact, ctx, dtype="auto").eval().to(compute_device())
        self._tokenizer = load_tokenizer(artifact.path)
        if not self._tokenizer.chat_template:
            raise StageError(
                f"{ctx.step}: {artifact.name} is no chat model: its tokenizer has no chat template. "
                "Wire a step that was trained on dialogues (sft, rl), or an instruct model of the Hub"
            )

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
            yield from zip(some, self._answers(chosen), strict=True)

    def _answers(self, requests: Sequence[str]) -> list[Said]:
        from llmstages.text import generate

        replies = generate.reply(
            self._model,
            self._tokenizer,
            [[message("user", request)] for request in requests],
            rounds=1,
            batch=len(requests),
            temperature=self.settings["temperature"],
            max_new_tokens=self.settings["max_tokens"],
        )
        return [
            TOO_LONG if one.cut else Said(one.text, **({} if one.ended else CUT)) for one in replies
        ]
