"""Everything that needs a GPU to be believed, in one command for one card, under 8 minutes.

    python benchmarks/gpu.py                     # random models
    python benchmarks/gpu.py --model FOLDER      # fine-tuning and GRPO of a real chat model
    python benchmarks/gpu.py --small             # the same on a CPU, about 2 minutes
    python benchmarks/gpu.py --parts resume fsdp

Parts, each in a process of its own, so that a failure ends that part alone:

pretrain   124 M parameters in bfloat16 with torch.compile: tokens per second, MFU against the data
           sheet of the card, and the peak of memory beside what ``llmstages plan`` expects (on a
           CPU the peak holds the libraries too, see benchmarks/memory.py)
sft_full   all weights of a chat model; sft_lora the same with adapters of rank 16
grpo       four updates with generation
ddp, fsdp  pretraining under torchrun with one process; loss is to be compared with ``alone``, the
           same training in this process (FSDP needs a GPU)
resume     pretraining that is stopped and continued; difference is the largest one of any weight
           from a training that was not stopped

The last line is one JSON object; --output writes it to a file. The exit code is 1 if a part failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from gpu_parts import PARTS, prepare

PART_SECONDS = 240  # after which a part is ended


def main() -> None:
    """Run all parts, print a table and one JSON object."""
    args = parse_arguments()
    if args.part:
        print(json.dumps(PARTS[args.part](args, Path(args.folder))))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(args, Path(folder))
        print(f"{device_name()}\n{'part':9} {'seconds':>7}  result", flush=True)
        for part in args.parts:
            start = time.perf_counter()
            results[part] = result = run_part(part, Path(folder))
            result["wall_seconds"] = round(time.perf_counter() - start, 1)
            print(f"{part:9} {result['wall_seconds']:7.1f}  {describe(result)}", flush=True)
    report = {"device": device_name(), "small": args.small, "parts": results}
    if args.output:
        Path(args.output).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))
    sys.exit(any("error" in result for result in results.values()))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder of a chat model; default a random one of 135 M")
    parser.add_argument("--small", action="store_true", help="tiny sizes, for a CPU")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--output", metavar="FILE", help="also write the JSON object to a file")
    # How this program calls itself in another process.
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_part(part: str, folder: Path) -> dict[str, Any]:
    """The result of a part in a process of its own; the end of its output if it failed."""
    command = [sys.executable, __file__, *sys.argv[1:], "--part", part, "--folder", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PART_SECONDS)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {PART_SECONDS} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"error": lines[-1], "output": lines[-30:]}
    return json.loads(done.stdout.splitlines()[-1])


def describe(result: dict[str, Any]) -> str:
    """A result on one line."""
    if "error" in result:
        return f"FAILED: {result['error']}"
    shown = []
    for name, value in result.items():
        if name.startswith("memory"):
            shown.append(f"{name} {value / 1e9:.2f} GB")
        elif name != "wall_seconds":
            shown.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(shown)


def device_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


if __name__ == "__main__":
    main()
