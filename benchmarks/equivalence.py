"""Whether settings that are not to change what is trained change it: a table for all stages.

    python benchmarks/equivalence.py                 # all, in some minutes on two cores
    python benchmarks/equivalence.py --only dpo,sft --json

Every stage trains a small random model on numbers of rows that no batch divides: once as it is, and
once with each setting that is only about memory, speed or machines. A deviation is the distance of
the two results, as a share of the distance that training moved the weights. LIMIT is what rounding
in float32 explains (AdamW makes a whole step of the rounding of a gradient near 0); a line above it
is marked, and the command then ends with 1. Answers that are sampled on several processes are other
answers, so GRPO is not compared there.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses as dc
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LIMIT = 1.5e-5  # of the movement, or of the spread of the scores
STOP_AT = 3  # update after which the interrupted run is stopped
WORDS = "the a fox dog river lives runs near far from small old house and with under over".split()
Weights = Mapping[str, Any]  # name -> tensor
Line = tuple[str, str, float]  # stage, what differs, deviation


def stages() -> dict[str, tuple[type, Any]]:
    """Name -> (stage, config): seven updates or so of each."""
    from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig
    from llmstages.plugins.reward.pairwise import Pairwise, PairwiseConfig
    from llmstages.plugins.rl.dpo import DPO, DPOConfig
    from llmstages.plugins.rl.grpo import GRPO, GRPOConfig
    from llmstages.plugins.sft.chat import Chat, ChatConfig

    common = {"batch_size": 8, "warmup_steps": 1, "learning_rate": 1e-3}
    sft = ChatConfig(max_length=64, epochs=2.5, **common)
    dpo = DPOConfig(epochs=1.6, **common)
    grpo = GRPOConfig(
        max_steps=5,
        num_generations=4,
        max_completion_length=8,
        truncated="none",
        rewards={"vowels": {"use": f"{__file__}:vowels"}},
        **common,
    )
    return {
        "pretrain": (CausalLM, CausalLMConfig(max_length=64, epochs=2.2, sample_every=0, **common)),
        "sft packed": (Chat, sft),
        "sft unpacked": (Chat, dc.replace(sft, packing=False, epochs=1.3)),
        "sft lora": (Chat, dc.replace(sft, lora_r=4)),
        "reward": (Pairwise, PairwiseConfig(epochs=1.6, **common)),
        "dpo": (DPO, dpo),
        "dpo lora": (DPO, dc.replace(dpo, lora_r=4)),
        "grpo": (GRPO, grpo),
    }


def vowels(prompts: Any, completions: Any, rows: Any) -> list[float]:
    """A reward that differs between any two answers."""
    return [sum(text.count(vowel) for vowel in "aeiou") + len(text) / 100 for text in completions]


VARIATIONS: dict[str, dict[str, Any]] = {
    "micro_batch_size=4": {"micro_batch_size": 4},
    "micro_batch_size=1": {"micro_batch_size": 1},
    "gradient_checkpointing=true": {"gradient_checkpointing": True},
    "attention=eager": {"attention": "eager"},
}


def main() -> None:
    """Train all pairs, print the table, and end with 1 if a deviation is above LIMIT."""
    args = parse_arguments()
    if args.worker:
        train(args.worker, Path(args.folder), Path(args.out), {})
        return
    chosen = [name for name in stages() if not args.only or name.split()[0] in args.only.split(",")]
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder)
        for stage in chosen:
            lines += compare(stage, folder)
        if "pretrain" in chosen:
            lines += isolation(folder)
    print(f"\n{'stage':<14} {'what differs':<30} deviation")
    for stage, what, deviation in lines:
        mark = "" if deviation <= LIMIT else f"   above {LIMIT:g}"
        print(f"{stage:<14} {what:<30} {deviation:.1e}{mark}")
    if args.json:
        print(json.dumps(lines))
    sys.exit(any(deviation > LIMIT for _, _, deviation in lines))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="pretrain, sft, reward, dpo, grpo; separated by commas")
    parser.add_argument("--json", action="store_true", help="print the lines as JSON too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # one of two processes
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(stage: str, folder: Path) -> Iterator[Line]:
    """The lines of one stage."""
    print(f"{stage} ...", flush=True)
    plain = train(stage, folder, folder / stage / "plain", {})
    start = start_of(folder, plain)
    moved = distance(plain, start)
    known = {field.name for field in dc.fields(stages()[stage][1])}
    for what, changes in VARIATIONS.items():
        if known.issuperset(changes):
            varied = train(stage, folder, folder / stage / what, changes)
            yield stage, what, distance(plain, varied) / moved
    resumed = train_interrupted(stage, folder, folder / stage / "resumed")
    yield stage, f"stopped after update {STOP_AT}", distance(plain, resumed) / moved
    if stage != "grpo":
        spread = train_on_two(stage, folder, folder / stage / "two")
        yield stage, "two processes", distance(plain, spread) / moved
    if stage == "sft lora":
        yield stage, "adapter and merged weights", merge_deviation(folder, folder / stage / "kept")


def train(
    stage: str, folder: Path, out: Path, changes: Mapping[str, Any], stop: int = 0
) -> Weights:
    """Run a stage and return its weights.

    Args:
        stage: a name of ``stages``.
        folder: with the inputs.
        out: where to write.
        changes: of the config.
        stop: the update at which the process gets SIGTERM; 0 for none.
    """
    from safetensors.torch import load_file

    from llmstages.core.stage import Context

    kind, config = stages()[stage]
    for part in ("out", "work"):
        (out / part).mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def progress(name: str, total: float | None) -> Iterator[Any]:
        done = 0.0

        def advance(count: float = 1, note: str = "") -> None:
            nonlocal done
            done += count
            if name == "step" and stop and done == stop:
                os.kill(os.getpid(), signal.SIGTERM)

        yield advance

    context = Context(
        "step",
        out / "out",
        out / "work",
        inputs_of(stage, folder),
        say=lambda line: None,
        progress=progress,
        cache=folder / "cache",
        processes=int(os.environ.get("WORLD_SIZE", "1")),
    )
    kind().run(dc.replace(config, **changes), context)
    weights = out / "out" / "model.safetensors"
    return load_file(str(weights)) if weights.exists() else {}


def train_interrupted(stage: str, folder: Path, out: Path) -> Weights:
    """The same training, stopped once and continued."""
    with contextlib.suppress(SystemExit):
        train(stage, folder, out, {}, stop=STOP_AT)
        raise RuntimeError(f"{stage} was not stopped")
    return train(stage, folder, out, {})


def train_on_two(stage: str, folder: Path, out: Path) -> Weights:
    """The same training by two processes (DDP on the CPU)."""
    from safetensors.torch import load_file

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    words = ["--worker", stage, "--folder", str(folder), "--out", str(out)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, "--standalone", __file__, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{stage} on two processes failed:\n{done.stderr[-2000:]}")
    return load_file(str(out / "out" / "model.safetensors"))


def merge_deviation(folder: Path, out: Path) -> float:
    """Scores of base and adapter against those of the merged weights, by their spread."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    train("sft lora", folder, out, {"keep_adapter": True})
    load: Any = AutoModelForCausalLM.from_pretrained
    adapted = PeftModel.from_pretrained(load(folder / "model"), str(out / "out" / "adapter"))
    ids = torch.arange(3, 60).unsqueeze(0)
    with torch.no_grad():
        one, other = adapted(ids).logits, load(out / "out")(ids).logits
    return float((one - other).abs().max() / one.std())


def isolation(folder: Path) -> Iterator[Line]:
    """Scores of a document alone against those behind another one in its row, by their spread."""
    import torch
    from transformers import AutoModelForCausalLM

    ids = torch.arange(3, 51).reshape(1, -1)
    positions = torch.cat([torch.arange(30), torch.arange(18)]).unsqueeze(0)
    for attention in ("sdpa", "eager"):
        load: Any = AutoModelForCausalLM.from_pretrained
        model = load(folder / "model", attn_implementation=attention).eval()
        with torch.no_grad():
            packed = model(ids.repeat(2, 1), position_ids=positions.repeat(2, 1), use_cache=False)
            alone = model(ids[:, 30:], use_cache=False).logits
        deviation = (packed.logits[:, 30:] - alone).abs().max() / alone.std()
        yield "isolation", f"packed, attention={attention}", float(deviation)


def distance(one: Weights, other: Weights) -> float:
    """The Euclidean distance of two sets of weights."""
    total = 0.0
    for name, tensor in one.items():
        total += float((tensor.double() - other[name].double()).square().sum())
    return total**0.5


def start_of(folder: Path, trained: Weights) -> Weights:
    """The weights that training started from; 0 for a head that is new."""
    from safetensors.torch import load_file

    weights = load_file(str(folder / "model" / "model.safetensors"))
    return {name: weights.get(name, 0 * tensor) for name, tensor in trained.items()}


def make_inputs(folder: Path) -> None:
    """A random model with its tokenizer, and a table for each stage."""
    from transformers import set_seed

    from llmstages.data import tables
    from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build
    from llmstages.text.messages import message

    rng = random.Random(0)

    def text(words: int) -> str:
        return " ".join(rng.choices(WORDS, k=words))

    tokenizer = build([text(40) for _ in range(200)] + ["0123456789"], BPEConfig(vocab_size=400))
    set_seed(0)
    # Without biases of attention: the gradient of those of the keys is 0 but for rounding, which
    # AdamW turns into whole steps.
    config = CausalLMConfig(
        init="plain",
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
    )
    CausalLM().fresh(config, tokenizer).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")

    def question(number: int) -> list[dict[str, Any]]:
        return [message("user", f"{number}+1? {text(rng.randrange(1, 9))}")]

    def answer() -> list[dict[str, Any]]:
        return [message("assistant", text(rng.randrange(1, 15)))]

    rows: dict[str, list[dict[str, Any]]] = {
        "corpus": [
            {"id": str(n), "url": "u", "text": text(rng.randrange(5, 60))} for n in range(67)
        ],
        "dialogues": [{"messages": [*question(n), *answer()]} for n in range(83)],
        "preferences": [
            {"prompt": question(n), "chosen": answer(), "rejected": answer()} for n in range(37)
        ],
        "problems": [
            {"prompt": question(n), "answer": str(n + 1), "meta": "{}"} for n in range(11)
        ],
    }
    for name, table in rows.items():
        (folder / name).mkdir()
        tables.save(table, folder / name / "data")


def inputs_of(stage: str, folder: Path) -> dict[str, Any]:
    """The inputs of a stage, as the runner would wire them."""
    from llmstages.core.stage import Artifact

    def artifact(kind: str) -> Artifact:
        return Artifact(kind, kind, folder / kind, kind)

    model = artifact("model")
    return {
        "pretrain": {
            "corpus": (artifact("corpus"),),
            "dialogues": (),
            "tokenizer": None,
            "model": model,
        },
        "sft": {"model": model, "dialogues": (artifact("dialogues"),), "corpus": None},
        "reward": {"model": model, "preferences": artifact("preferences")},
        "dpo": {"policy": model, "preferences": artifact("preferences")},
        "grpo": {"policy": model, "problems": artifact("problems"), "reward": None},
    }[stage.split()[0]]


if __name__ == "__main__":
    main()
