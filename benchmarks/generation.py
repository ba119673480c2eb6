"""Speed and memory of generation with a real vocabulary, each variant in a process of its own.

    python benchmarks/generation.py                     # a random llama of SmolLM2-135M's sizes
    python benchmarks/generation.py --model FOLDER      # any model folder with a tokenizer
    python benchmarks/generation.py --variants float32 bfloat16 --prompts 16 --json

Variants: ``float32``, ``bfloat16`` and ``int8`` (torch.ao dynamic quantization, CPU only) are
llmstages.text.generate; ``all_scores`` is float32 as it was done before, with the scores of all
steps kept until the end of the batch (output_logits of transformers). A model from a folder is
asked questions, a random one continues random tokens. Every reply has the same length, so all
variants compute the same number of tokens. Memory is the
kernel's own peak of the process (VmHWM) above what it holds once the model is loaded; on a GPU,
the peak of torch's allocator above the weights. same: the share of the tokens of float32, up to the
first one that differs, that a variant gives too. Memory on a CPU needs Linux.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

VARIANTS = ("float32", "all_scores", "bfloat16", "int8")
# The sizes of SmolLM2-135M.
SIZES: dict[str, Any] = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
SHORTEST, LONGEST = 16, 48  # tokens of a prompt of a random model
THINGS = ("rivers", "bread", "the moon", "trains", "music", "bees", "glass", "winter", "maps")


def main() -> None:
    """Measure every variant, print a table."""
    args = parse_arguments()
    if args.one:
        print(json.dumps(measure(args)))
        return
    results = {}
    print(
        f"{'variant':12} {'prompts':>7} {'tokens':>6} {'seconds':>8} {'tok/s':>7} "
        f"{'memory':>9} {'same':>5}",
        flush=True,
    )
    for variant in args.variants:
        results[variant] = result = run_self(variant)
        first = results[args.variants[0]]
        result["same"] = same_share(first["ids"], result["ids"])
        print(
            f"{variant:12} {args.prompts:7} {args.tokens:6} {result['seconds']:8.2f} "
            f"{result['tokens_per_second']:7.1f} {result['memory'] / 1e6:6.0f} MB "
            f"{result['same']:5.2f}",
            flush=True,
        )
    if args.json:
        for result in results.values():
            del result["ids"]
        print(json.dumps(results))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="model folder; default a random llama of 135 M parameters")
    parser.add_argument("--layers", type=int, help="layers of the random model (default 30)")
    parser.add_argument(
        "--variants", nargs="+", default=VARIANTS, choices=VARIANTS, help="default all four"
    )
    parser.add_argument("--prompts", type=int, default=64, help="one batch of them (default 64)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a reply (default 64)")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts (default 3)")
    parser.add_argument("--threads", type=int, default=0, help="of torch (default: its own choice)")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count CPU time of all threads instead of wall time, on a machine that others share",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    # How this program calls itself in another process.
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def run_self(variant: str) -> dict[str, Any]:
    """The result of one variant in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", variant]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds, tokens per second, bytes of memory and the tokens of one variant."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    model, tokenizer = load(args)
    prompts = make_prompts(args.prompts, model, tokenizer)
    continue_prompts(args, model, tokenizer, prompts[:2])  # warm
    baseline = memory_in_use(model.device)
    reset_peak(model.device)
    seconds = []
    ids: list[list[int]] = []
    clock = time.process_time if args.cpu_time else time.perf_counter
    for _ in range(args.rounds):
        start = clock()
        ids = continue_prompts(args, model, tokenizer, prompts)
        seconds.append(clock() - start)
    median = statistics.median(seconds)
    return {
        "seconds": median,
        "tokens_per_second": args.prompts * args.tokens / median,
        "memory": memory_peak(model.device) - baseline,
        "ids": ids,
    }


def load(args: argparse.Namespace) -> tuple[Any, Any]:
    """(model, tokenizer) in the type of the variant, on the device."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    from llmstages.train.distributed import compute_device
    from llmstages.train.trainer import load_tokenizer

    device = compute_device()
    model: Any
    tokenizer = None
    if args.model:
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype="float32")
        tokenizer = load_tokenizer(Path(args.model))
    else:
        torch.manual_seed(0)
        sizes = SIZES | ({"num_hidden_layers": args.layers} if args.layers else {})
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    model.to(device).eval()
    if args.one == "bfloat16":
        model.to(torch.bfloat16)
    if args.one == "int8":
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
    return model, tokenizer


def make_prompts(count: int, model: Any, tokenizer: Any) -> list[list[int]]:
    """Prompts, the same in every process: questions, or random tokens for a random model."""
    draw = random.Random(0)
    if tokenizer is None:
        vocabulary = model.config.vocab_size
        lengths = [draw.randint(SHORTEST, LONGEST) for _ in range(count)]
        return [[draw.randrange(vocabulary) for _ in range(length)] for length in lengths]
    from llmstages.text import chat_format
    from llmstages.text.messages import message

    questions = [
        f"Write {draw.randint(3, 9)} sentences about {' and '.join(draw.sample(THINGS, 2))}."
        for _ in range(count)
    ]
    return chat_format.prompt_ids(tokenizer, [[message("user", text)] for text in questions])


def continue_prompts(
    args: argparse.Namespace, model: Any, tokenizer: Any, prompts: list[list[int]]
) -> list[list[int]]:
    """``args.tokens`` new ids for each prompt; nothing ends a reply before."""
    from llmstages.text import generate

    def never_stop(*_: Any) -> dict[str, Any]:
        return {
            "eos_token_id": [-1],
            "pad_token_id": 0,
            "do_sample": False,
        }

    generate.settings = never_stop
    if args.one == "all_scores":
        generate.decode = keep_all_scores
    ids, _ = generate.generate(
        model, tokenizer, prompts, max_new_tokens=args.tokens, batch=len(prompts)
    )
    return ids


def keep_all_scores(
    model: Any, prompts: list[list[int]], new_tokens: int, options: dict[str, Any], *_: Any
) -> tuple[list[list[int]], list[list[float]]]:
    """What decode() was before: the confidence from the scores of all steps at the end."""
    import torch

    width = max(map(len, prompts))
    ids = [[0] * (width - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    with torch.no_grad():
        output = model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=new_tokens,
            output_logits=True,
            return_dict_in_generate=True,
            **options,
        )
    steps = [logits.float().softmax(-1).max(-1).values for logits in output.logits]
    return output.sequences[:, width:].tolist(), torch.stack(steps, 1).tolist()


def same_share(expected: list[list[int]], found: list[list[int]]) -> float:
    """Share of the expected tokens that are found before the first other one."""
    same = total = 0
    for one, other in zip(expected, found, strict=True):
        total += len(one)
        for token, other_token in zip(one, other, strict=False):
            if token != other_token:
                break
            same += 1
    return same / max(1, total)


def memory_in_use(device: Any) -> int:
    """Bytes that the process, or torch on a GPU, holds now."""
    if device.type == "cuda":
        import torch

        return torch.cuda.memory_allocated(device)
    return process_status("VmRSS")


def memory_peak(device: Any) -> int:
    """The most bytes since ``reset_peak``."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return process_status("VmHWM")


def reset_peak(device: Any) -> None:
    """Begin to look for a peak."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    Path("/proc/self/clear_refs").write_text("5")


def process_status(key: str) -> int:
    """Bytes of an entry of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {key}: this benchmark needs Linux")


if __name__ == "__main__":
    main()
