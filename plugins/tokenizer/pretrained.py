"""tokenizer.pretrained: adopt a tokenizer from the hub or a folder, and add control tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llmstages.core.errors import StageError, first_line
from llmstages.core.stage import Context, option
from llmstages.plugins.tokenizer.trained import COMPARE_HELP, COMPARED, SAMPLE, finish
from llmstages.text import templates
from llmstages.train.template_checks import require_template

# Entries before our control tokens are added; those of others are known once they are loaded.
ENTRIES = {"openai-community/gpt2": 50257}
# Control tokens of our templates that such a tokenizer has already.
OWN_CONTROL_TOKENS = {"openai-community/gpt2": ("<|endoftext|>",)}


@dataclass(frozen=True)
class PretrainedConfig:
    name: str = option("openai-community/gpt2", "hub name of a tokenizer")
    folder: str = option("", "folder of a tokenizer, instead of a hub name", file=True)
    revision: str = option("main", "branch, tag or commit of the hub repository")
    compare: tuple[str, ...] = option(COMPARED, COMPARE_HELP, identity=False)
    sample: str = option(SAMPLE, "text shown token by token in the report")
    template: str = option(
        templates.DEFAULT,
        "chat template; own: the one of the tokenizer",
        choices=(*templates.NAMED, templates.OWN),
    )
    template_file: str = option("", "a chat template of your own in Jinja, instead", file=True)
    tools: list[str] = option(
        help="tools whose calls get control tokens of their own",
        factory=lambda: list(templates.DEFAULT_TOOLS),
    )


class Pretrained:
    """A tokenizer that somebody else trained. A corpus, if one is wired in, is only measured on."""

    Config = PretrainedConfig
    inputs: ClassVar[Mapping[str, str]] = {"corpus": "corpus?"}
    output: ClassVar[str] = "tokenizer"
    version: ClassVar[str] = "6"

    def estimate(self, config: PretrainedConfig, known: Mapping[str, Any]) -> Mapping[str, float]:
        """The entries of a well-known tokenizer, control tokens included."""
        if config.name not in ENTRIES or config.folder or config.template == templates.OWN:
            return {}
        control_tokens = templates.tokens(config.template, config.tools)
        added = set(control_tokens) - set(OWN_CONTROL_TOKENS[config.name])
        return {"vocab_size": ENTRIES[config.name] + len(added)}

    def run(self, config: PretrainedConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables
        from llmstages.plugins.tokenizer import measure
        from llmstages.plugins.tokenizer.sample import MAX_MEASURED

        source = config.folder or config.name
        tokenizer = self._load(config, ctx)
        entries_before = len(tokenizer)
        finish(tokenizer, config)
        require_template(tokenizer, ctx.step)
        tokenizer.save_pretrained(ctx.out)
        tables.write_json(ctx.out / "view.json", measure.view_text(tokenizer, config.sample))
        added = len(tokenizer) - entries_before
        ctx.say(f"tokenizer: {added} control tokens added to the {entries_before} of {source}")
        corpus = ctx.maybe("corpus")
        texts = tables.load(corpus.path / "data")["text"] if corpus else []
        measured = list(texts[:: max(1, len(texts) // MAX_MEASURED)])
        metrics = measure.write_report(
            tokenizer,
            measured,
            ctx,
            held_out=True,
            compare=config.compare,
            sample=config.sample,
        )
        return {**metrics, "added": added}

    def _load(self, config: PretrainedConfig, ctx: Context) -> Any:
        """The tokenizer as it is, from the folder or the hub."""
        from transformers import AutoTokenizer

        source: str | Path = config.name
        if config.folder:
            source = Path(config.folder).expanduser()
            if not source.is_dir():
                raise StageError(
                    f"{ctx.step}.folder={config.folder}: there is no such folder. "
                    f"Give one made by a tokenizer step, or a hub name as {ctx.step}.name"
                )
        try:
            return AutoTokenizer.from_pretrained(source, revision=config.revision)
        except (OSError, ValueError) as error:
            raise StageError(
                f"{ctx.step}: {source} cannot be loaded ({first_line(error)}). "
                f"Is the hub reachable? A local folder works too: {ctx.step}.folder=PATH"
            ) from error
