"""What a model writes while it is trained: ``samples.jsonl``, one {step, prompt, text} per line.

Texts are greedy, so no random number is drawn and training continues as if nothing had been asked.
They are kept in the trainer's own history, which checkpoints save, so a resumed run has those of
before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.data.segments import Segments
from llmstages.text import chat_format, generate
from llmstages.train import distributed

MAX_NEW_TOKENS = 48
PROMPT_TOKENS = 8  # tokens after BOS, where a held-out document is the prompt
PROMPT_DOCUMENTS = 2
HISTORY_KEY = "samples"


def make_prompts(texts: Sequence[str], held_out: Segments, tokenizer: Any) -> list[list[int]]:
    """Ids of the prompts; without texts, the first tokens of held-out documents."""
    if texts:
        return chat_format.document_ids(tokenizer, texts)
    prompts = []
    for index in range(min(PROMPT_DOCUMENTS, len(held_out))):
        ids, _ = held_out.read(index)
        prompts.append(ids[: PROMPT_TOKENS + 1].tolist())
    return prompts


def sampler(
    ctx: Context,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    share: float,
    pause: Callable[[], None],
) -> Any:
    """A TrainerCallback that continues the prompts after every ``share`` of the updates.

    Args:
        pause: called before a sample takes time, so that it does not count as training.
    """
    import torch
    from transformers import TrainerCallback

    class Sampler(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # A little more than the quotient: 1 / 0.1 must not be 9.999.
            count = int(1 / share + 1e-9)
            self.due = {
                max(1, round(state.max_steps * share * number)) for number in range(1, count + 1)
            }
            backend = distributed.requested_backend()
            if backend in ("zero3", "fsdp"):
                # Generating would need all processes at once, and their weights at every token.
                self.due = set()
                ctx.say(
                    f"{ctx.step}: no samples while training, because {backend} spreads the weights "
                    "over the processes"
                )

        def on_step_end(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            if state.global_step not in self.due or not distributed.first_process():
                return
            pause()
            was_training = model.training
            with torch.random.fork_rng():
                answers, _ = generate.generate(
                    model, tokenizer, prompts, max_new_tokens=MAX_NEW_TOKENS
                )
            # generate() puts the model into evaluation mode.
            model.train(was_training)
            samples = []
            for prompt, ids in zip(prompts, answers, strict=True):
                text = tokenizer.decode(ids, skip_special_tokens=True)
                samples.append([chat_format.decode(tokenizer, prompt), text])
            state.log_history.append({"step": state.global_step, HISTORY_KEY: samples})

    return Sampler()


def write(trainer: Any, ctx: Context) -> None:
    """Write samples.jsonl from the trainer's history; no file where there are no samples."""
    rows = []
    for entry in trainer.state.log_history:
        for prompt, text in entry.get(HISTORY_KEY, ()):
            rows.append({"step": entry["step"], "prompt": prompt, "text": text})
    if rows and distributed.first_process():
        tables.write_lines(ctx.out / "samples.jsonl", rows)
