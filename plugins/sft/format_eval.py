"""Checks of the answer format during fine-tuning: are turns ended, empty, or repetitive?

The model answers a few dialogues. Answers are greedy, so no random number is drawn and training
continues as if nothing had been asked. The shares are kept in the trainer's own history
(``format/ended``, ...), which checkpoints save.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.core.stage import Context
from llmstages.data.dialogues import last_question
from llmstages.text import chat_format, generate
from llmstages.text.messages import Message
from llmstages.train import distributed

MAX_NEW_TOKENS = 64
REPETITIONS = 4  # so many occurrences of the same three words make an answer a repetition


def format_callback(
    ctx: Context, tokenizer: Any, dialogues: Sequence[Sequence[Message]], every: int
) -> Any:
    """A TrainerCallback that lets the model answer the last question of each dialogue.

    It runs before the first update, every ``every`` updates, and after the last update.
    """
    from transformers import TrainerCallback

    # A dialogue without a question has nothing to answer.
    prompts = []
    for messages in dialogues:
        end = last_question(messages)
        if end:
            prompts.append(messages[:end])

    class FormatCallback(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            backend = distributed.requested_backend()
            if backend in ("zero3", "fsdp"):
                # Generating would need all processes at once, and their weights at every token.
                prompts.clear()
                ctx.say(
                    f"{ctx.step}: the format is not checked while training, because {backend} "
                    "spreads the weights over the processes"
                )
            # A resumed run was measured at its beginning already.
            if state.global_step == 0:
                self.evaluate(state, kwargs["model"])

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % every == 0 or state.global_step == state.max_steps:
                self.evaluate(state, kwargs["model"])

        def evaluate(self, state: Any, model: Any) -> None:
            if not prompts or not distributed.first_process():
                return
            was_training = model.training
            # generate() puts the model into evaluation mode.
            shares = evaluate_format(model, tokenizer, prompts)
            model.train(was_training)
            state.log_history.append({"step": state.global_step, **shares})
            ctx.say(
                f"{ctx.step}: after {state.global_step} updates {shares['format/ended']:.0%} "
                f"of {len(prompts)} answers end their turn, {shares['format/empty']:.0%} "
                f"are empty, {shares['format/repeating']:.0%} repeat themselves"
            )

    return FormatCallback()


def evaluate_format(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[Message]]
) -> Mapping[str, float]:
    """Let a model answer and measure the answers.

    Returns:
        Shares of answers that end their turn (a tool call ends it too), are empty, and repeat
        themselves; and the mean length of an answer in tokens.
    """
    answers, _ = generate.generate(
        model,
        tokenizer,
        chat_format.prompt_ids(tokenizer, prompts),
        max_new_tokens=MAX_NEW_TOKENS,
    )
    replies = [chat_format.parse_reply(tokenizer, ids) for ids in answers]
    texts = [str(message["content"]) for message, _ in replies]
    count = len(prompts)
    return {
        "format/ended": sum(ended for _, ended in replies) / count,
        "format/empty": sum(not text.strip() for text in texts) / count,
        "format/repeating": sum(map(is_repetitive, texts)) / count,
        "format/tokens": sum(map(len, answers)) / count,
    }


def is_repetitive(text: str) -> bool:
    """Whether the same three words in a row occur REPETITIONS times or more."""
    words = text.split()
    triples = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return any(triples.count(triple) >= REPETITIONS for triple in set(triples))
