"""Looks at the format while a model is fine-tuned: does it end its turns, does it say anything, does it say the same again and again?

Greedy answers to a few dialogues, so no random number is drawn and training goes on as if nobody had asked. The shares travel in
the trainer's own history (``format/ended``...), which checkpoints keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.core.stage import Context
from llmstages.data.dialogues import last_question
from llmstages.text import chat_format, generate
from llmstages.text.messages import Message
from llmstages.train import distributed

LENGTH, AGAIN = (
    64,
    4,
)  # tokens of an answer at most; times that three words in a row make an answer a repetition


def looker(ctx: Context, tokenizer: Any, dialogues: Sequence[Sequence[Message]], every: int) -> Any:
    """A TrainerCallback that asks before the first update, every ``every`` updates and after the last one what the dialogues' last answers answer."""
    from transformers import TrainerCallback

    asked = [
        messages[: last_question(messages)] for messages in dialogues if last_question(messages)
    ]

    class Looker(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if distributed.requested_backend() in ("zero3", "fsdp"):
                asked.clear()
                ctx.say(
                    f"{ctx.step}: no looks at the format while training, since {distributed.requested_backend()} spreads the weights over processes"
                )
            if state.global_step == 0:
                self.look(state, kwargs["model"])

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % every == 0 or state.global_step == state.max_steps:
                self.look(state, kwargs["model"])

        def look(self, state: Any, model: Any) -> None:
            if asked and distributed.first_process():
                was = model.training
                found = look(model, tokenizer, asked)
                model.train(was)
                state.log_history.append({"step": state.global_step, **found})
                ctx.say(
                    f"{ctx.step}: after {state.global_step} updates {found['format/ended']:.0%} of {len(asked)} answers end their turn, "
                    f"{found['format/empty']:.0%} are empty, {found['format/repeating']:.0%} repeat themselves"
                )

    return Looker()


def look(model: Any, tokenizer: Any, asked: Sequence[Sequence[Message]]) -> Mapping[str, float]:
    """Shares of answers that end their turn (a call ends one too), are empty, repeat themselves; tokens of an answer."""
    made, _ = generate.generate(
        model, tokenizer, chat_format.prompt_ids(tokenizer, asked), max_new_tokens=LENGTH
    )
    said = [chat_format.parse_reply(tokenizer, ids) for ids in made]
    texts = [str(message["content"]) for message, _ in said]
    count = len(asked)
    return {
        "format/ended": sum(ended for _, ended in said) / count,
        "format/empty": sum(not text.strip() for text in texts) / count,
        "format/repeating": sum(map(repeating, texts)) / count,
        "format/tokens": sum(map(len, made)) / count,
    }


def repeating(text: str) -> bool:
    """Whether some three words stand in a row AGAIN times or more."""
    words = text.split()
    threes = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return any(threes.count(three) >= AGAIN for three in set(threes))
