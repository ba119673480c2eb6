"""Speed of sft=chat against a bare SFTTrainer of TRL, in one process, in turns.

    python benchmarks/finetune.py                            # a random llama of 135 M parameters
    python benchmarks/finetune.py --model FOLDER --lora-r 16
    python benchmarks/finetune.py --layers 2 --updates 20 --rounds 3 --json

Both sides train the same model on the same packed rows, with the same batch, optimizer and
adapters. The bare side gets them as ready token ids and TRL's own collator; it checks, guards and
saves nothing, and does not keep the dialogues of a row apart. The clock runs from the end of the
first update to the end of the last. ratio is the median over pairs of stage / bare, with its
smallest and largest value.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

# The sizes of SmolLM2-135M.
SIZES: dict[str, Any] = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
WORDS = "the a fox dog river lives runs near far from small old house and with under over".split()


def main() -> None:
    """Measure pairs of runs, print them and their ratio."""
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, Path(folder))
    print(
        f"\n{result['parameters'] / 1e6:.1f} M parameters, "
        f"{result['trained'] / 1e6:.2f} M trained, rows of {args.max_length} x {args.batch_size}, "
        f"{args.updates} updates, {result['device']}"
    )
    print(
        f"stage {statistics.median(result['stage']):,.1f} tokens/s, "
        f"bare TRL {statistics.median(result['bare']):,.1f} tokens/s, "
        f"ratio {statistics.median(result['ratios']):.3f}, "
        f"spread {min(result['ratios']):.3f}-{max(result['ratios']):.3f}"
    )
    if args.json:
        print(json.dumps(result))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="model folder; default a random llama of 135 M parameters")
    parser.add_argument("--layers", type=int, default=30, help="of the random model (default 30)")
    parser.add_argument("--lora-r", type=int, default=0, help="rank of adapters; 0 trains all")
    parser.add_argument("--max-length", type=int, default=128, help="tokens in a row (default 128)")
    parser.add_argument("--batch-size", type=int, default=4, help="rows in an update (default 4)")
    parser.add_argument(
        "--updates",
        type=int,
        default=8,
        help="of each side in each round; the first one does not count (default 8)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs (default 5)")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast on both sides")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count CPU time of this process instead of wall time, on a machine that others share",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    if args.updates < 2:
        parser.error("--updates must be at least 2, since the first one does not count")
    return args


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Tokens per second of both sides in every round."""
    import torch

    from llmstages.train.distributed import compute_device

    inputs = make_inputs(args, folder)
    clock = time.process_time if args.cpu_time else time.perf_counter
    result: dict[str, Any] = {"stage": [], "bare": [], "ratios": [], "device": compute_device()}
    for number in range(args.rounds):
        speeds = {}
        # Who goes first changes, so that neither side always finds warm caches.
        for side in sorted(("bare", "stage"), reverse=number % 2 == 0):
            run = run_stage if side == "stage" else run_bare
            timer = Timer(clock)
            facts = run(args, inputs, folder / f"{number}-{side}", timer)
            result |= facts
            tokens = (args.updates - 1) * args.batch_size * args.max_length
            speeds[side] = tokens / timer.seconds()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        for side, speed in speeds.items():
            result[side].append(speed)
        result["ratios"].append(speeds["stage"] / speeds["bare"])
        print(
            f"round {number + 1}: stage {speeds['stage']:,.1f} tokens/s, "
            f"bare TRL {speeds['bare']:,.1f}, ratio {result['ratios'][-1]:.3f}",
            flush=True,
        )
    return result


class Timer:
    """The time at the end of each update."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.times: list[float] = []

    def callback(self) -> Any:
        """A callback of transformers that notes the times."""
        import torch
        from transformers import TrainerCallback

        timer = self

        class NoteTimes(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                timer.times.append(timer.clock())

        return NoteTimes()

    def seconds(self) -> float:
        """From the end of the first update to the end of the last."""
        return self.times[-1] - self.times[0]


def make_inputs(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A model and dialogues that fill the rows of all updates."""
    from llmstages.core.stage import Artifact
    from llmstages.data import tables

    sizes = SIZES | {"num_hidden_layers": args.layers}
    path = Path(args.model) if args.model else random_model(folder / "model", sizes)
    rows = random_dialogues(args.updates * args.batch_size * args.max_length)
    tables.save(rows, folder / "dialogues" / "data")
    dialogues = Artifact("dialogues", "dialogues", folder / "dialogues", "d")
    return {
        "model": Artifact("model", "model", path, "m"),
        "dialogues": (dialogues,),
        "corpus": None,
    }


def random_dialogues(tokens: int) -> list[dict[str, Any]]:
    """Rows of dialogues of made-up sentences that fill more than so many tokens."""
    from llmstages.text.messages import message

    draw = random.Random(0)
    rows = []
    for _ in range(tokens // 16):
        question = " ".join(draw.choices(WORDS, k=10)) + "?"
        answer = " ".join(draw.choices(WORDS, k=20)) + "."
        rows.append({"messages": [message("user", question), message("assistant", answer)]})
    return rows


def random_model(path: Path, sizes: dict[str, Any]) -> Path:
    """The folder of a llama with random weights and a small tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from llmstages.plugins.tokenizer.bpe import BPEConfig, build

    tokenizer = build([" ".join(WORDS) for _ in range(50)], BPEConfig(vocab_size=400))
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(**sizes))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def stage_config(args: argparse.Namespace) -> Any:
    from llmstages.plugins.sft.chat import ChatConfig

    return ChatConfig(
        max_length=args.max_length,
        batch_size=args.batch_size,
        lora_r=args.lora_r,
        bf16=args.bf16,
        learning_rate=1e-5,
        epochs=1.0,
        warmup_steps=0,
        replay=0,
        save_minutes=0.0,
    )


def timed_stage(args: argparse.Namespace, timer: Timer, seen: dict[str, Any]) -> type:
    """The stage with a clock and exactly as many updates as the other side; notes its rows."""
    from llmstages.plugins.sft.chat import Chat

    class TimedChat(Chat):
        def _make_trainer(
            self, config: Any, ctx: Any, model: Any, prepared: Any, train_rows: Any, steps: int
        ) -> Any:
            trainer = super()._make_trainer(
                config, ctx, model, prepared, train_rows, min(steps, args.updates)
            )
            trainer.add_callback(timer.callback())
            seen["rows"] = train_rows
            seen["parameters"] = trainer.model.num_parameters()
            seen["trained"] = trainer.model.num_parameters(only_trainable=True)
            return trainer

    return TimedChat


def run_stage(
    args: argparse.Namespace, inputs: dict[str, Any], folder: Path, timer: Timer
) -> dict[str, Any]:
    """Train by the stage; returns the sizes of the model."""
    seen: dict[str, Any] = {}
    stage = timed_stage(args, timer, seen)
    stage().run(stage_config(args), make_context(folder, inputs))
    return {name: seen[name] for name in ("parameters", "trained")}


def run_bare(
    args: argparse.Namespace, inputs: dict[str, Any], folder: Path, timer: Timer
) -> dict[str, Any]:
    """Train the same rows by TRL alone."""
    from transformers import PrinterCallback, set_seed
    from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

    from llmstages.train.adapters import lora_adapter
    from llmstages.train.arguments import training_arguments
    from llmstages.train.trainer import load_model, load_tokenizer

    config = stage_config(args)
    ctx = make_context(folder, inputs)
    set_seed(config.seed)
    arguments = training_arguments(config, ctx, max_steps=args.updates, lr_scheduler_type="linear")
    trainer: Any = SFTTrainer(
        model=load_model(inputs["model"], ctx),
        processing_class=load_tokenizer(inputs["model"].path),
        train_dataset=bare_rows(config, inputs, ctx),
        peft_config=lora_adapter(config),
        args=SFTConfig(
            **arguments,
            packing=False,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        callbacks=[timer.callback()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return {}


def bare_rows(config: Any, inputs: dict[str, Any], ctx: Any) -> Any:
    """The packed rows of the stage as token ids and labels."""
    import datasets

    from llmstages.data.packing import pack
    from llmstages.plugins.sft.chat import Chat

    prepared = Chat().prepare(config, ctx)
    rows, _ = pack(prepared.rows, config.max_length, prepared.tokenizer.pad_token_id, config.seed)
    columns = ("input_ids", "labels")
    return datasets.Dataset.from_list([{name: row[name] for name in columns} for row in rows])


def make_context(folder: Path, inputs: dict[str, Any]) -> Any:
    """Where one run works."""
    from llmstages.core.stage import Context

    for name in ("out", "work"):
        (folder / name).mkdir(parents=True)
    return Context("sft", folder / "out", folder / "work", inputs, cache=folder.parent / "cache")


if __name__ == "__main__":
    main()
