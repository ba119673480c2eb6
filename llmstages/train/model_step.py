"""A model of this run, or of the Hub, that is asked texts: a writer or a judge.

It is asked in batches, in the chat format that it was trained with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llmstages.core.digest import sha256
from llmstages.core.stage import Artifact, Context
from llmstages.data.endpoint import Answer
from llmstages.text.generate import Reply
from llmstages.text.messages import message
from llmstages.train.inference import require_chat_template

TOO_LONG = Answer(
    rule="too_long",
    reason="the request is longer than the model's context; show less of a document: characters=",
)
CUT_REASON = "the answer did not end within max_new_tokens"


class ModelStep:
    """Answers by sampling.

    Each batch has a seed of its own, so that an interrupted run continues with the same answers.

    Attributes:
        name: the fingerprint of the model.
        settings: temperature, max_tokens and seed.
    """

    def __init__(
        self, artifact: Artifact, ctx: Context, settings: dict[str, Any], batch: int
    ) -> None:
        from llmstages.train.distributed import compute_device
        from llmstages.train.trainer import load_model, load_tokenizer

        self.name = artifact.fingerprint
        self.settings = settings
        self._batch = batch
        self._model = load_model(artifact, ctx, dtype="auto").eval().to(compute_device())
        self._tokenizer = load_tokenizer(artifact.path)
        require_chat_template(self._tokenizer, artifact, ctx)

    def ask(self, requests: Sequence[str], missing: Sequence[int]) -> Iterator[tuple[int, Answer]]:
        """Answer batch by batch.

        A batch with a missing answer is sampled again as a whole: in another batch, or with other
        draws before it, an answer would be another one.
        """
        from transformers import set_seed

        wanted = set(missing)
        for start in range(0, len(requests), self._batch):
            numbers = range(start, min(start + self._batch, len(requests)))
            if wanted.isdisjoint(numbers):
                continue
            batch = [requests[number] for number in numbers]
            digest = sha256(f"{self.settings['seed']} {start} {batch[0]}")
            set_seed(int(digest[:8], 16))
            yield from zip(numbers, self._answers(batch), strict=True)

    def _answers(self, requests: Sequence[str]) -> list[Answer]:
        from llmstages.text import generate

        replies = generate.reply(
            self._model,
            self._tokenizer,
            [[message("user", request)] for request in requests],
            max_calls=0,
            batch=len(requests),
            temperature=self.settings["temperature"],
            max_new_tokens=self.settings["max_tokens"],
        )
        return [_answer_of(reply) for reply in replies]


def _answer_of(reply: Reply) -> Answer:
    if reply.cut:
        return TOO_LONG
    if not reply.ended:
        return Answer(reply.text, "cut", CUT_REASON)
    return Answer(reply.text)
