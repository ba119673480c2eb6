"""Answers per second of GRPO: our stage beside a bare GRPOTrainer with the same model and prompts.

    python benchmarks/rl.py                     # a small random llama, like the story's
    python benchmarks/rl.py --model FOLDER --updates 4 --batch-size 32 --tokens 24

The two take turns, PAIRS times, so that what else the machine does hits both. Timed is the training
alone, from its first update to its last, not loading and saving. Printed are the medians, the
median of the ratios of the pairs (above 1 ours is faster), and what our time goes to.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from against_trl import BARE, make_inputs, run_stage

PAIRS = 5


def main() -> None:
    """Time both sides in turns and print answers per second."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder of a chat model; default a small random llama")
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64, help="answers in an update")
    parser.add_argument("--group", type=int, default=8, help="answers to the same prompt")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer at most")
    parser.add_argument("--engine", default="hf", help="as in rl.engine")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    args = parser.parse_args()
    args.dialogues = None
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    shares: dict[str, list[float]] = {}
    answers = args.updates * args.batch_size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs, args.pairs = args.pairs, None
        inputs = make_inputs(args, folder)
        for number in range(pairs):
            trainer, seconds, parts = time_ours(args, inputs, folder / f"ours-{number}")
            rates["ours"].append(answers / seconds)
            for part, of_part in parts.items():
                shares.setdefault(part, []).append(of_part / seconds)
            bare = time_bare(trainer, inputs["model"].path, folder / f"bare-{number}")
            rates["bare"].append(answers / bare)
    for side, of_side in rates.items():
        print(f"{side}: {statistics.median(of_side):.1f} answers/s")
    ratios = [one / other for one, other in zip(*rates.values(), strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"ours / bare: {statistics.median(ratios):.2f} ({spread} in {pairs} pairs)")
    for part, of_part in shares.items():
        print(f"  {part}: {statistics.median(of_part):.0%} of our time")


def time_ours(
    args: argparse.Namespace, inputs: Any, folder: Path
) -> tuple[Any, float, dict[str, float]]:
    """(the trainer, seconds of training, seconds by part) of our stage."""
    from llmstages.plugins.rl.grpo import GRPO

    parts = {"sampling": 0.0, "scoring": 0.0}
    seconds = [0.0]
    trainer_class = GRPO.trainer_class

    def timed_class(self: Any) -> type:
        class Timed(trainer_class(self)):
            def train(self, *args: Any, **options: Any) -> Any:
                begin = time.perf_counter()
                result = super().train(*args, **options)
                seconds[0] = time.perf_counter() - begin
                return result

            def _generate_single_turn(self, *args: Any, **options: Any) -> Any:
                begin = time.perf_counter()
                result = super()._generate_single_turn(*args, **options)
                parts["sampling"] += time.perf_counter() - begin
                return result

            def _calculate_rewards(self, *args: Any, **options: Any) -> Any:
                begin = time.perf_counter()
                result = super()._calculate_rewards(*args, **options)
                parts["scoring"] += time.perf_counter() - begin
                return result

        return Timed

    GRPO.trainer_class = timed_class
    try:
        trainer = run_stage("grpo", args, inputs, folder)
    finally:
        GRPO.trainer_class = trainer_class
    parts["training and the rest"] = seconds[0] - sum(parts.values())
    return trainer, seconds[0], parts


def time_bare(ours: Any, model: Path, folder: Path) -> float:
    """Seconds of training of a bare GRPOTrainer."""
    from transformers import PrinterCallback

    bare = BARE["grpo"](ours, model, folder)
    bare.remove_callback(PrinterCallback)
    begin = time.perf_counter()
    bare.train()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
