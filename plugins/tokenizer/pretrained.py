"""tokenizer.pretrained: adopt a tokenizer from the hub or a folder and register the control tokens it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.plugins.tokenizer.trained import AT_HAND, SAMPLE, finish, view
from llmstages.text import templates
from llmstages.train.checks import require_template


@dataclass(frozen=True)
class PretrainedConfig:
    name: str = option("openai-community/gpt2", "hub name of a tokenizer")
    folder: str = option("", "folder of a tokenizer, instead of a hub name", file=True)
    revision: str = option("main", "branch, tag or commit of the hub repository")
    compare: tuple[str, ...] = option(
        AT_HAND,
        "tokenizers to compare with where they are at hand: a folder, a hub name in the cache, or tiktoken:NAME; "
        "nothing is downloaded",
        identity=False,
    )
    sample: str = option(SAMPLE, "text shown token by token in the report")
    template: str = option(
        templates.DEFAULT,
        "chat template; own: the one the tokenizer brings along",
        choices=(*templates.NAMED, templates.OWN),
    )
    template_file: str = option("", "a chat template of your own in Jinja, instead", file=True)


ENTRIES = {
    "openai-community/gpt2": 50257
}  # before our control tokens; others are known once they are loaded


class Pretrained:
    """A tokenizer somebody else trained. A corpus, where one is wired in, is only measured on."""

    Config = PretrainedConfig
    inputs: ClassVar[Mapping[str, str]] = {"corpus": "corpus?"}
    output: ClassVar[str] = "tokenizer"
    version: ClassVar[str] = "5"

    def estimate(self, config: PretrainedConfig, known: Mapping[str, Any]) -> Mapping[str, float]:
        """The entries of a tokenizer that is well known, control tokens included."""
        if config.name not in ENTRIES or config.folder or config.template == templates.OWN:
            return {}
        return {
            "vocab_size": ENTRIES[config.name]
            + sum(token != "<|endoftext|>" for token in templates.tokens(config.template))
        }  # that one is GPT-2's own

    def run(self, config: PretrainedConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import AutoTokenizer

        from llmstages.data import tables
        from llmstages.plugins.tokenizer import measure
        from llmstages.plugins.tokenizer.sample import MEASURED

        source = Path(config.folder).expanduser() if config.folder else config.name
        if config.folder and not Path(source).is_dir():
            raise StageError(
                f"{ctx.step}.folder={config.folder}: no such folder. Give one made by a tokenizer step, or a hub name as {ctx.step}.name"
            )
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, revision=config.revision)
        except (OSError, ValueError) as error:
            raise StageError(
                f"{ctx.step}: {source} cannot be loaded ({str(error).splitlines()[0]}). "
                f"Is the hub reachable? A local folder works too: {ctx.step}.folder=PATH"
            ) from error
        known = len(tokenizer)
        finish(tokenizer, config)
        require_template(tokenizer, ctx.step)
        tokenizer.save_pretrained(ctx.out)
        tables.write_json(ctx.out / "view.json", view(tokenizer, config.sample))
        ctx.say(
            f"tokenizer: {len(tokenizer) - known} control tokens added to the {known} of {source}"
        )
        corpus = ctx.maybe("corpus")
        texts = tables.load(corpus.path / "data")["text"] if corpus else []
        some = list(texts[:: max(1, len(texts) // MEASURED)])
        return {
            **measure.write(
                tokenizer, some, ctx, held_out=True, compare=config.compare, sample=config.sample
            ),
            "added": len(tokenizer) - known,
        }
