"""The losses of our training stages beside those of bare TRL on the same rows.

    python benchmarks/against_trl.py                         # a small random llama
    python benchmarks/against_trl.py --model FOLDER --pairs pairs.jsonl --dialogues chats.json
    python benchmarks/against_trl.py --only sft,dpo --updates 20 --plot curves.png --json

For SFT, the reward model, DPO and GRPO a stage is run, and then a trainer of TRL that is given the
rows of the stage in the same order, the same model and the same options, but none of our code:
tokens are batched by TRL's own collators, DPO pairs and prompts of GRPO are tokenized anew from
text. There is no warm-up, since those of the two differ by one update. FIRST losses must be equal
to LIMIT (relative), else the command ends with 1; later ones drift apart by rounding.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

FIRST = 5  # updates whose losses must be equal
LIMIT = 1e-4  # relative
SMALLEST = 1e-3  # losses below it are compared in absolute terms: the first of GRPO are 0
LENGTH = 256  # tokens of a row at most
Losses = list[float]


def main() -> None:
    """Train both sides of each stage, print their losses, and end with 1 if they differ."""
    args = parse_arguments()
    curves: dict[str, dict[str, Losses]] = {}
    with tempfile.TemporaryDirectory() as name:
        inputs = make_inputs(args, Path(name))
        for stage in args.only.split(","):
            print(f"{stage} ...", flush=True)
            curves |= compare(stage, args, inputs, Path(name) / stage)
    worst = 0.0
    for stage, sides in curves.items():
        difference = max(
            abs(one - other) / max(abs(other), SMALLEST)
            for one, other in zip(sides["stage"][:FIRST], sides["bare"][:FIRST], strict=True)
        )
        worst = max(worst, difference)
        for side, losses in sides.items():
            print(f"{stage:<12} {side:<6} " + " ".join(f"{loss:.5f}" for loss in losses))
        print(f"{stage:<12} first {FIRST} differ by {difference:.1e} (relative) at most")
    if args.plot:
        plot(curves, args.plot)
    if args.json:
        print(json.dumps(curves))
    sys.exit(worst > LIMIT)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder of a chat model; default a small random llama")
    parser.add_argument("--dialogues", help="file of dialogues; default made up")
    parser.add_argument("--pairs", help="file of preference pairs; default made up")
    parser.add_argument("--only", default="sft,reward,dpo,grpo", help="stages, with commas")
    parser.add_argument("--updates", type=int, default=8, help="of each side (default 8)")
    parser.add_argument("--batch-size", type=int, default=4, help="rows in an update (default 4)")
    parser.add_argument("--plot", help="write the curves as an image")
    parser.add_argument("--json", action="store_true", help="print the curves as JSON too")
    args = parser.parse_args()
    if args.updates < FIRST:
        parser.error(f"--updates must be at least {FIRST}")
    return args


def compare(
    stage: str, args: argparse.Namespace, inputs: Any, folder: Path
) -> dict[str, dict[str, Losses]]:
    """What both sides of a stage logged: {"sft": {"stage": losses, "bare": losses}}."""
    from transformers import PrinterCallback

    ours = run_stage(stage, args, inputs, folder)
    bare = BARE[stage](ours, inputs["model"].path, folder / "bare")
    bare.remove_callback(PrinterCallback)
    bare.train()
    curves = {stage: {"stage": logged(ours, "loss"), "bare": logged(bare, "loss")}}
    if stage == "grpo":
        rewards = {"stage": logged(ours, "reward"), "bare": logged(bare, "reward")}
        curves["grpo reward"] = rewards
    return curves


def logged(trainer: Any, key: str) -> Losses:
    """A logged series; each value is of one update alone."""
    return [row[key] for row in trainer.state.log_history if key in row]


def vowels(prompts: Any, completions: Any, rows: Any) -> list[float]:
    """A reward that differs between any two answers."""
    return [sum(text.count(vowel) for vowel in "aeiou") / 9 for text in completions]


def run_stage(stage: str, args: argparse.Namespace, inputs: Any, folder: Path) -> Any:
    """Run a stage of ours; returns its trainer after training."""
    from llmstages.core.stage import Context
    from llmstages.plugins.reward.pairwise import Pairwise, PairwiseConfig
    from llmstages.plugins.rl.dpo import DPO, DPOConfig
    from llmstages.plugins.rl.grpo import GRPO, GRPOConfig
    from llmstages.plugins.sft.chat import Chat, ChatConfig

    common: dict[str, Any] = {
        "batch_size": args.batch_size,
        "learning_rate": 2e-5,
        "warmup_steps": 0,
        "log_every": 1,
        "save_minutes": 0.0,
    }
    many = 20.0  # passes: the rows are more than the updates take
    model = inputs["model"]
    rewards = {"vowels": {"use": f"{__file__}:vowels"}}
    kind, config, wired = {
        "sft": (
            Chat,
            ChatConfig(max_length=LENGTH, packing=False, epochs=many, **common),
            {"model": model, "dialogues": (inputs["dialogues"],), "corpus": None},
        ),
        "reward": (
            Pairwise,
            PairwiseConfig(max_length=LENGTH, epochs=many, **common),
            {"model": model, "preferences": inputs["pairs"]},
        ),
        "dpo": (
            DPO,
            DPOConfig(max_length=LENGTH, epochs=many, **common),
            {"policy": model, "preferences": inputs["pairs"]},
        ),
        "grpo": (
            GRPO,
            GRPOConfig(
                max_steps=args.updates,
                num_generations=getattr(args, "group", args.batch_size),
                max_completion_length=getattr(args, "tokens", 16),
                # Draws the same random numbers as the other side.
                engine=getattr(args, "engine", "trl"),
                truncated="none",
                rewards=rewards,
                **common,
            ),
            {"policy": model, "problems": inputs["problems"], "reward": None},
        ),
    }[stage]
    for part in ("out", "work"):
        (folder / part).mkdir(parents=True)
    context = Context(stage, folder / "out", folder / "work", wired, say=lambda line: None)
    with trainers(args.updates) as made:
        kind().run(config, context)
    return made[0]


@contextlib.contextmanager
def trainers(updates: int) -> Iterator[list[Any]]:
    """Stop every training after so many updates; yields the list of trainers that trained."""
    from llmstages.train import trainer as shared

    made: list[Any] = []
    run_trainer = shared.run_trainer

    def recorded(trainer: Any, *args: Any, **options: Any) -> Any:
        made.append(trainer)
        trainer.args.max_steps = updates
        return run_trainer(trainer, *args, **options)

    shared.run_trainer = recorded
    try:
        yield made
    finally:
        shared.run_trainer = run_trainer


def options_of(trainer: Any, folder: Path) -> dict[str, Any]:
    """The options that both sides have in common."""
    names = (
        *("seed", "data_seed", "learning_rate", "per_device_train_batch_size", "max_steps"),
        *("gradient_accumulation_steps", "warmup_steps", "weight_decay", "max_grad_norm"),
        *("adam_beta2", "lr_scheduler_type", "use_cpu", "bf16", "train_sampling_strategy"),
    )
    options = {name: getattr(trainer.args, name) for name in names}
    return {
        **options,
        "output_dir": str(folder),
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
    }


def load(path: Path, kind: str = "causal") -> Any:
    """A model in float32, as a user of TRL loads it."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if kind == "causal":
        return AutoModelForCausalLM.from_pretrained(path, dtype="float32")
    return AutoModelForSequenceClassification.from_pretrained(path, dtype="float32", num_labels=1)


def tokenizer_of(path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


def bare_sft(ours: Any, path: Path, folder: Path) -> Any:
    """SFTTrainer on the rows with their labels."""
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    set_seed(ours.args.seed)
    rows = ours.train_dataset.select_columns(["input_ids", "labels"])
    config = SFTConfig(**options_of(ours, folder), max_length=LENGTH, packing=False)
    return SFTTrainer(load(path), config, train_dataset=rows, processing_class=tokenizer_of(path))


def bare_reward(ours: Any, path: Path, folder: Path) -> Any:
    """RewardTrainer on the token ids of both sides."""
    from transformers import set_seed
    from trl import RewardConfig, RewardTrainer

    set_seed(ours.args.seed)
    model, tokenizer = load(path, "reward"), tokenizer_of(path)
    # Both pad with a token that ends no answer.
    tokenizer.pad_token = ours.processing_class.pad_token
    model.config.pad_token_id = tokenizer.pad_token_id
    rows = ours.train_dataset.select_columns(["chosen_ids", "rejected_ids"])
    config = RewardConfig(
        **options_of(ours, folder), max_length=LENGTH, pad_token=tokenizer.pad_token
    )
    return RewardTrainer(model, config, train_dataset=rows, processing_class=tokenizer)


def bare_dpo(ours: Any, path: Path, folder: Path) -> Any:
    """DPOTrainer on texts, which it tokenizes by itself."""
    from datasets import Dataset
    from transformers import set_seed
    from trl import DPOConfig, DPOTrainer

    set_seed(ours.args.seed)
    tokenizer = tokenizer_of(path)
    texts = [
        {side: tokenizer.decode(row[f"{side}_ids"]) for side in ("prompt", "chosen", "rejected")}
        for row in ours.train_dataset
    ]
    config = DPOConfig(**options_of(ours, folder), beta=ours.args.beta, max_length=None)
    return DPOTrainer(
        load(path),
        load(path),
        config,
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
    )


def bare_grpo(ours: Any, path: Path, folder: Path) -> Any:
    """GRPOTrainer on messages, with the same function that rewards."""
    from transformers import set_seed
    from trl import GRPOConfig, GRPOTrainer

    set_seed(ours.args.seed)
    names = ("num_generations", "max_completion_length", "temperature", "beta")
    options = {name: getattr(ours.args, name) for name in names}
    config = GRPOConfig(
        **options_of(ours, folder), **options, loss_type="dapo", disable_dropout=True
    )
    return GRPOTrainer(
        load(path),
        ours.reward_funcs[0],
        config,
        train_dataset=ours.train_dataset,
        processing_class=tokenizer_of(path),
    )


BARE: dict[str, Callable[[Any, Path, Path], Any]] = {
    "sft": bare_sft,
    "reward": bare_reward,
    "dpo": bare_dpo,
    "grpo": bare_grpo,
}


def make_inputs(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A model, dialogues, pairs and problems: those of the files, or made up."""
    from finetune import SIZES, WORDS, random_dialogues, random_model

    from llmstages.core.stage import Artifact
    from llmstages.text.messages import message

    small = SIZES | {
        "vocab_size": 512,
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    path = Path(args.model) if args.model else random_model(folder / "model", small)
    dialogues = random_dialogues(4000)
    pairs = [
        {
            "prompt": row["messages"][:1],
            "chosen": row["messages"][1:],
            "rejected": [message("assistant", " ".join(WORDS[: 3 + number % 9]))],
        }
        for number, row in enumerate(dialogues)
    ]
    problems = [
        {"prompt": [message("user", f"{n}+1=?")], "answer": str(n + 1), "meta": "{}"}
        for n in range(40)
    ]
    return {
        "model": Artifact("model", "model", path, "m"),
        "dialogues": read(args.dialogues, "dialogues", folder) or saved(dialogues, "d", folder),
        "pairs": read(args.pairs, "preferences", folder) or saved(pairs, "p", folder),
        "problems": saved(problems, "q", folder),
    }


def saved(rows: Sequence[Any], name: str, folder: Path) -> Any:
    from llmstages.core.stage import Artifact
    from llmstages.data import tables

    (folder / name).mkdir()
    tables.save(rows, folder / name / "data")
    return Artifact(name, name, folder / name, name)


def read(file: str | None, kind: str, folder: Path) -> Any:
    """A file of somebody, read as the slot of its kind reads it; None without a file."""
    if not file:
        return None
    from llmstages.core.stage import Artifact, Context
    from llmstages.plugins.dialogues.files import Files as DialogueFiles
    from llmstages.plugins.preferences.files import Files as PairFiles

    stage: Any = DialogueFiles if kind == "dialogues" else PairFiles
    out = folder / f"read-{kind}"
    out.mkdir()
    context = Context(kind, out, folder, {}, say=lambda line: None)
    stage().run(stage.Config(path=str(Path(file).resolve()), limit=200), context)
    return Artifact(kind, kind, out, kind)


def plot(curves: dict[str, dict[str, Losses]], file: str) -> None:
    """One chart for each stage, both curves in it."""
    import matplotlib.pyplot as plt

    figure, charts = plt.subplots(1, len(curves), figsize=(4 * len(curves), 3), squeeze=False)
    for chart, (stage, sides) in zip(charts[0], curves.items(), strict=True):
        chart.plot(sides["bare"], label="bare TRL", linewidth=4, alpha=0.4)
        chart.plot(sides["stage"], label="stage", linewidth=1)
        chart.set_title(stage)
        chart.set_xlabel("update")
        chart.set_ylabel("loss")
        chart.legend()
    figure.tight_layout()
    figure.savefig(file)


if __name__ == "__main__":
    main()
