"""``llmstages serve`` beside a bare ``model.generate``: first token, and tokens a second.

    python benchmarks/serve.py MODEL [--prompt TEXT] [--pairs 9] [--tokens 64]

MODEL is a folder. Both sides answer the same prompt greedily in turns: the bare side in this
process, the served side by HTTP, streamed, in a process of its own with as many threads. The first
token counts from the request to the first text of the answer, so it includes the prompt's
rendering on both sides. Printed are medians, and the median of the ratios of the pairs. The prompt
must be one that the model answers in text, without a call, since only the served side runs tools.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

KEY = "benchmark-key"
Timing = tuple[float, float]  # seconds to the first token, tokens a second after it


def main() -> None:
    """Measure both sides in turns and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a folder with a chat model")
    parser.add_argument("--prompt", default="Tell me a long story about a fox and a river.")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=64, help="longest answer")
    args = parser.parse_args()
    command = [sys.executable, "-m", "llmstages", "serve", args.model, "--port", "0", "--key", KEY]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        base = server.stdout.readline().split(" at ")[1].split("/v1")[0]  # type: ignore[union-attr]
        ask = served(base, args)
        bare = bare_side(args)
        for side in (bare, ask):
            side()  # warm
        pairs = [(bare(), ask()) for _ in range(args.pairs)]
    finally:
        server.terminate()
    report(pairs)


def report(pairs: list[tuple[Timing, Timing]]) -> None:
    """Print medians and ratios."""
    for name, side in (("bare", 0), ("served", 1)):
        first = statistics.median(pair[side][0] for pair in pairs)
        speed = statistics.median(pair[side][1] for pair in pairs)
        print(f"{name:7} first token {1000 * first:7.1f} ms, {speed:8.1f} tokens/s")
    first = statistics.median(served[0] / bare[0] for bare, served in pairs)
    speed = statistics.median(served[1] / bare[1] for bare, served in pairs)
    print(f"ratio   first token {first:.2f} x, tokens/s {speed:.2f} x ({len(pairs)} pairs)")


def bare_side(args: argparse.Namespace) -> Callable[[], Timing]:
    """model.generate with a streamer that only looks at the clock."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llmstages.text import chat_format, generate
    from llmstages.text.messages import message

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype="auto").eval()

    class Clock:
        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: Any) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            pass

    def measure() -> Timing:
        clock = Clock()
        began = time.perf_counter()
        (ids,) = chat_format.prompt_ids(tokenizer, [[message("user", args.prompt)]])
        prompt = torch.tensor([ids])
        with torch.no_grad():
            model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=args.tokens,
                streamer=clock,
                **generate.settings(model, tokenizer, 0.0),
            )
        _, first, *_, last = clock.times  # the prompt comes first
        return first - began, (len(clock.times) - 2) / (last - first)

    return measure


def served(base: str, args: argparse.Namespace) -> Callable[[], Timing]:
    """One streamed request over a connection that stays open."""
    import httpx

    client = httpx.Client(base_url=base, headers={"authorization": f"Bearer {KEY}"}, timeout=300)
    model = client.get("/v1/models").json()["data"][0]["id"]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": args.prompt}],
        "max_tokens": args.tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }

    def measure() -> Timing:
        first = last = 0.0
        made = 0
        began = time.perf_counter()
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            for line in response.iter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                if event.get("usage"):
                    made = event["usage"]["completion_tokens"]
                    last = time.perf_counter()
                elif event["choices"][0]["delta"].get("content"):
                    first = first or time.perf_counter()
        if not first or made < 2:
            sys.exit("the answer has less than two tokens of text: choose another --prompt")
        return first - began, (made - 1) / (last - first)

    return measure


if __name__ == "__main__":
    main()
