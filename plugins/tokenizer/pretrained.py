"""tokenizer.pretrained: adopt a tokenizer from the hub or a folder and register the control tokens it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from llmstages.plugins.tokenizer.bpe import SAMPLE, finish, view
from llmstages.stage import Context, StageError, option


@dataclass(frozen=True)
class PretrainedConfig:
    name: str = option("openai-community/gpt2", "hub name or folder of a tokenizer")
    revision: str = option("main", "branch, tag or commit of the hub repository")
    sample: str = option(SAMPLE, "text shown token by token in the report")


class Pretrained:
    """A tokenizer somebody else trained."""

    Config = PretrainedConfig
    inputs: ClassVar[Mapping[str, str]] = {}
    output: ClassVar[str] = "tokenizer"
    version: ClassVar[str] = "1"

    def run(self, config: PretrainedConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import AutoTokenizer

        from llmstages import tables

        looks_local = config.name.startswith((".", "/", "~"))
        if looks_local and not Path(config.name).expanduser().is_dir():
            raise StageError(f"tokenizer.name={config.name}: no such folder. Give a folder made by a tokenizer step, or a hub name.")
        try:
            tokenizer = AutoTokenizer.from_pretrained(config.name, revision=config.revision)
        except (OSError, ValueError) as error:
            raise StageError(f"tokenizer.name={config.name}: cannot be loaded ({str(error).splitlines()[0]}). "
                             "Is the hub reachable? A local folder works too.") from error
        known = len(tokenizer)
        finish(tokenizer)
        tokenizer.save_pretrained(ctx.out)
        tables.write_json(ctx.out / "view.json", view(tokenizer, config.sample))
        ctx.say(f"tokenizer: {len(tokenizer) - known} control tokens added to the {known} of {config.name}")
        return {"vocab_size": len(tokenizer), "added": len(tokenizer) - known}
