"""Our PPO beside the PPOTrainer of TRL 1.12, the last version that had one.

    python -m venv other && other/bin/pip install "torch==2.13.0" "trl==1.12.0"
    python benchmarks/ppo_against_trl.py --python other/bin/python --plot curves.png

Both start from the same random policy and read the same prompts, each in its own order and with
its own random numbers. The reward is 0.1 for each token of half the vocabulary in prompt and
answer, so it differs by prompt, and a critic has something to learn. What the two have in common:
AdamW, rates, batch, updates on each sampling, KL penalty in the reward, GAE, clipping, a critic of
its own with a new head. Printed are the reward at the beginning and the end of each seed, and
whether the final rewards of ours lie within the spread of the seeds of TRL, or the other way round.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BATCH = 32
ANSWER = 16  # tokens of an answer at most
RATE = 1e-3
PASSES = 2  # updates on each sampling
BETA = 0.05
END = 8  # last samplings whose mean is the final reward
PROMPTS = 64
Curve = list[float]


def main() -> None:
    """Train both sides with every seed and compare their curves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", help="interpreter of an environment with trl 1.12")
    parser.add_argument("--updates", type=int, default=60, help="samplings (default 60)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", help="write the curves as an image")
    parser.add_argument("--side", nargs=2, metavar=("FOLDER", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(train_theirs(Path(args.side[0]), int(args.side[1]), args.updates)))
        return
    if not args.python:
        parser.error("--python is needed")
    curves: dict[str, list[Curve]] = {"ours": [], "trl 1.12": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        for seed in range(args.seeds):
            curves["ours"].append(train_ours(folder, seed, args.updates))
            curves["trl 1.12"].append(ask_theirs(args, folder, seed))
    for side, of_side in curves.items():
        for seed, curve in enumerate(of_side):
            print(f"{side:<9} seed {seed}: {mean(curve[:END]):.3f} -> {mean(curve[-END:]):.3f}")
    if args.plot:
        plot(curves, args.plot)
    sys.exit(not overlap(*([mean(curve[-END:]) for curve in side] for side in curves.values())))


def overlap(ours: Curve, theirs: Curve) -> bool:
    """Whether the ranges of the final rewards meet."""
    meet = min(ours) <= max(theirs) and min(theirs) <= max(ours)
    print(f"final rewards {'overlap' if meet else 'do not overlap'}")
    return meet


def mean(values: Curve) -> float:
    return sum(values) / len(values)


def write_inputs(folder: Path) -> None:
    """A random policy, its tokenizer, and prompts as ids (and as texts)."""
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    from llmstages.plugins.tokenizer.bpe import BPEConfig, build
    from llmstages.text import chat_format
    from llmstages.text.messages import message

    names = ["fox", "river", "mat", "dog", "banana", "tree", "sum", "cat"]
    texts = [f"{'the ' * (number % 5)}{names[number % 8]} {number}" for number in range(PROMPTS)]
    tokenizer = build([*texts * 20, *["user", "assistant", "system", "tool"] * 50], BPEConfig(400))
    prompts = [[message("user", text)] for text in texts]
    set_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    ids = chat_format.prompt_ids(tokenizer, prompts)
    (folder / "prompts.json").write_text(json.dumps({"ids": ids, "prompts": prompts}))


def counts(ids: Any) -> Any:
    """0.1 for each paid token."""
    return 0.1 * (ids % 2 == 0)


def shared_arguments(folder: Path, seed: int) -> dict[str, Any]:
    """Arguments that both trainers have, with the same meaning."""
    return {
        "output_dir": str(folder / "work"),
        "seed": seed,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.95,
        "weight_decay": 0.0,
        "per_device_train_batch_size": BATCH,
        "temperature": 1.0,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
    }


def train_ours(folder: Path, seed: int, updates: int) -> Curve:
    """The reward of each sampling under rl.ppo."""
    import datasets
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, set_seed
    from trl import GRPOConfig  # pyright: ignore[reportPrivateImportUsage]

    from llmstages.plugins.rl.critic import new_critic
    from llmstages.plugins.rl.ppo import PPOConfig
    from llmstages.plugins.rl.ppo_trainer import ppo_trainer

    given = json.loads((folder / "prompts.json").read_text())
    rows = [
        {"prompt": prompt, "ids": ids, "problem": number}
        for number, (prompt, ids) in enumerate(zip(given["prompts"], given["ids"], strict=True))
    ]

    def reward(completion_ids: Any, ids: Any, **_: Any) -> Curve:
        return [
            float(counts(torch.tensor([*before, *after])).sum())
            for before, after in zip(ids, completion_ids, strict=True)
        ]

    set_seed(seed)
    policy: Any = AutoModelForCausalLM.from_pretrained(folder / "policy")
    config = PPOConfig(critic_learning_rate=RATE, num_iterations=PASSES, batch_size=BATCH)
    arguments = GRPOConfig(
        **shared_arguments(folder, seed),
        num_generations=BATCH,  # see PPO.built_arguments
        num_iterations=PASSES,
        max_steps=PASSES * updates,
        max_completion_length=ANSWER,
        beta=BETA,
        max_grad_norm=1e9,  # theirs does not clip
    )
    arguments.num_generations = 1
    trainer = ppo_trainer()(
        model=policy,
        processing_class=AutoTokenizer.from_pretrained(folder / "policy", padding_side="left"),
        train_dataset=datasets.Dataset.from_list(rows),
        reward_funcs=[reward],
        args=arguments,
        critic=new_critic(policy, "model"),
        config=config,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    # Both updates on a sampling are logged; only the first has its reward.
    return [row["reward"] for row in trainer.state.log_history if "reward" in row][:updates]


def ask_theirs(args: argparse.Namespace, folder: Path, seed: int) -> Curve:
    """Run this file with the other interpreter."""
    words = [args.python, __file__, "--updates", args.updates, "--side", folder, seed]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def train_theirs(folder: Path, seed: int, updates: int) -> Curve:
    """The reward of each sampling under TRL's PPOTrainer."""
    import datasets
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        PrinterCallback,
        set_seed,
    )
    from trl.experimental.ppo import (  # pyright: ignore[reportMissingImports]
        PPOConfig,
        PPOTrainer,
    )

    class Backbone(torch.nn.Module):
        """What the reward model is asked for: a last hidden state. Here the reward so far."""

        def forward(self, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
            paid = (counts(input_ids) * attention_mask).cumsum(1).unsqueeze(-1)
            return argparse.Namespace(hidden_states=[paid])

    class Reward(torch.nn.Module):
        base_model_prefix = "backbone"

        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.score = Backbone(), torch.nn.Identity()

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder / "policy") for _ in range(2))
    critic: Any = AutoModelForSequenceClassification.from_pretrained(
        folder / "policy", num_labels=1
    )
    torch.nn.init.zeros_(critic.score.weight)
    prompts = json.loads((folder / "prompts.json").read_text())["ids"]
    trainer = PPOTrainer(
        args=PPOConfig(
            **shared_arguments(folder, seed),
            total_episodes=BATCH * updates,
            num_ppo_epochs=PASSES,
            response_length=ANSWER,
            stop_token="eos",
            kl_coef=BETA,
            num_sample_generations=0,
        ),
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=Reward(),
        value_model=critic,
        train_dataset=datasets.Dataset.from_dict({"input_ids": prompts}),
        eval_dataset=datasets.Dataset.from_dict({"input_ids": prompts}),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return [
        row["objective/scores"] for row in trainer.state.log_history if "objective/scores" in row
    ]


def plot(curves: dict[str, list[Curve]], file: str) -> None:
    """Reward over samplings, one line a seed."""
    from matplotlib import pyplot  # pyright: ignore[reportMissingImports]

    for (side, of_side), color in zip(curves.items(), ("C0", "C1"), strict=True):
        for number, curve in enumerate(of_side):
            pyplot.plot(curve, color=color, label=side if number == 0 else None)
    pyplot.xlabel("samplings")
    pyplot.ylabel("reward")
    pyplot.legend()
    pyplot.savefig(file)


if __name__ == "__main__":
    main()
