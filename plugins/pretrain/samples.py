"""What a model writes while it is trained: ``samples.jsonl``, one {step, prompt, text} a line.

Greedy, so no random number is drawn and training goes on as if nobody had asked. The texts travel in the trainer's own
history, which checkpoints keep: a resumed run has the samples of before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmstages.core.stage import Context
from llmstages.data import packing, tables
from llmstages.text import chat_format, generate
from llmstages.train import distributed

LENGTH, BEGIN, DOCUMENTS = (
    48,
    8,
    2,
)  # tokens written; tokens of a held-out document that are the prompt; documents
SAMPLES = "samples"  # key in the trainer's history


def prompts(wanted: Sequence[str], held: packing.Segments, tokenizer: Any) -> list[list[int]]:
    """Ids of the prompts; without any, the first tokens of held-out documents."""
    if wanted:
        return chat_format.document_ids(tokenizer, wanted)
    return [held.read(index)[0][: BEGIN + 1].tolist() for index in range(min(DOCUMENTS, len(held)))]


def sampler(
    ctx: Context,
    tokenizer: Any,
    asked: Sequence[Sequence[int]],
    share: float,
    pause: Callable[[], None],
) -> Any:
    """A TrainerCallback that continues the prompts after every ``share`` of the updates. pause: called before it takes time."""
    import torch
    from transformers import TrainerCallback

    class Sampler(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.due = {
                max(1, round(state.max_steps * share * turn))
                for turn in range(1, int(1 / share + 1e-9) + 1)
            }
            if distributed.requested_backend() in ("zero3", "fsdp"):
                self.due = set()
                ctx.say(
                    f"{ctx.step}: no samples while training, since {distributed.requested_backend()} spreads the weights over processes"
                )

        def on_step_end(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            if state.global_step not in self.due or not distributed.first_process():
                return
            pause()
            was = model.training
            with torch.random.fork_rng():
                made, _ = generate.generate(model, tokenizer, asked, max_new_tokens=LENGTH)
            model.train(was)
            found = [
                [
                    chat_format.decode(tokenizer, prompt),
                    tokenizer.decode(ids, skip_special_tokens=True),
                ]
                for prompt, ids in zip(asked, made, strict=True)
            ]
            state.log_history.append({"step": state.global_step, SAMPLES: found})

    return Sampler()


def write(trainer: Any, ctx: Context) -> None:
    """samples.jsonl from the trainer's history."""
    rows = [
        {"step": entry["step"], "prompt": prompt, "text": text}
        for entry in trainer.state.log_history
        for prompt, text in entry.get(SAMPLES, ())
    ]
    if rows and distributed.first_process():
        tables.write_lines(ctx.out / "samples.jsonl", rows)
