"""model.files: a chain begins with a model on this machine: a folder, an adapter or a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.cost.model import tokenizer_facts
from llmstages.plugins.model import facts as model_facts


@dataclass(frozen=True)
class FilesConfig:
    path: str = option(
        help="folder of a model in the format of transformers, folder of a PEFT adapter, or a "
        ".gguf file",
        file=True,
    )
    tokenizer: str = option("", "folder of the tokenizer, if it is another one", file=True)
    base: str = option(
        "", "folder of the model that an adapter belongs to; default: the one it names", file=True
    )
    link: bool = option(
        False,
        "hard links instead of copies; the model's own files must not be changed afterwards",
        identity=False,
    )


class Files:
    """A model in a folder, in the dtype in which it was saved.

    An adapter is merged into its base model, the weights of a GGUF file are written out, once.
    """

    Config = FilesConfig
    inputs: ClassVar[Mapping[str, str]] = {}
    output: ClassVar[str] = "model"
    version: ClassVar[str] = "1"

    def validate(self, config: FilesConfig, step: str) -> None:
        """Find out whether the path is a model, from its small files alone."""
        self._facts(config, step)

    def estimate(self, config: FilesConfig, known: Mapping[str, Any]) -> Mapping[str, Any]:
        """The sizes of the model, for the estimates of the steps that train it."""
        facts = self._facts(config, "model")
        if facts is None:
            return {}
        folder = Path(config.tokenizer or config.path).expanduser()
        return {**facts.estimate(), **tokenizer_facts(folder)}

    def run(self, config: FilesConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.plugins.model import adopt

        where = f"{ctx.step}.path"
        path = Path(config.path).expanduser().resolve()
        if is_gguf(path):
            from llmstages.convert.gguf_reader import read_gguf

            read_gguf(path, ctx.out, ctx.say)
        elif is_adapter(path):
            adopt.merge_adapter(path, config.base, ctx, where)
        else:
            tokenizer = Path(config.tokenizer).expanduser() if config.tokenizer else None
            adopt.adopt(path, ctx, where, tokenizer, config.link)
        return adopt.measure(ctx, where)

    def _facts(self, config: FilesConfig, step: str) -> model_facts.ModelFacts | None:
        """The facts of the model; None for an adapter. Raises StageError if it is not a model."""
        where = f"{step}.path"
        path = Path(config.path).expanduser()
        if not path.exists():
            return None  # the fingerprint of the files says so, with near names
        if is_gguf(path):
            return gguf_facts(path)
        if is_adapter(path):
            from llmstages.plugins.model import adopt

            adopt.base_of(path, config.base, where)
            return None
        if path.is_file():
            raise StageError(
                f"{where}={config.path} is a file; give the folder that holds config.json and the "
                "weights, or a .gguf file"
            )
        tokenizer = Path(config.tokenizer).expanduser() if config.tokenizer else None
        return model_facts.read_facts(path, where, tokenizer)


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file."""
    return path.is_file() and path.suffix.lower() == ".gguf"


def is_adapter(path: Path) -> bool:
    """Whether a folder holds a PEFT adapter and no model."""
    return (path / "adapter_config.json").is_file() and not (path / "config.json").is_file()


def gguf_facts(path: Path) -> model_facts.ModelFacts:
    """The facts in the header of a GGUF file."""
    from llmstages.convert.gguf_reader import gguf_facts as read_header

    header = read_header(path)
    return model_facts.ModelFacts(
        architecture=header["architecture"],
        parameters=header["parameters"],
        context=header["context"],
        vocab_size=header["vocab_size"],
        dtype="GGUF",
        has_template=header["chat_template"],
        sizes=None,
    )
