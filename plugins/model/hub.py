"""model.hub: a chain begins with a model of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llmstages.core.errors import StageError, first_line
from llmstages.core.stage import Context, option


@dataclass(frozen=True)
class HubConfig:
    name: str = option(help="hub name of a model, such as HuggingFaceTB/SmolLM2-135M-Instruct")
    revision: str = option(
        help="branch, tag or commit of the repository; only a commit never changes: main is what "
        "it is on the day of the download",
    )


class Hub:
    """A model of the hub, in the dtype in which it was saved. Code of a repository is never run."""

    Config = HubConfig
    inputs: ClassVar[Mapping[str, str]] = {}
    output: ClassVar[str] = "model"
    version: ClassVar[str] = "1"

    def validate(self, config: HubConfig, step: str) -> None:
        """Refuse a name that cannot be one of the hub."""
        if config.name.count("/") != 1 or config.name.startswith((".", "/", "~")):
            raise StageError(
                f"{step}.name={config.name} is not a name of the hub (ORG/NAME). For a folder on "
                f"this machine: model=files {step}.path={config.name}"
            )

    def estimate(self, config: HubConfig, known: Mapping[str, Any]) -> Mapping[str, Any]:
        """The sizes of the model, if its config has been downloaded before."""
        from huggingface_hub import try_to_load_from_cache

        from llmstages.plugins.model.facts import read_facts

        cached = try_to_load_from_cache(config.name, "config.json", revision=config.revision)
        if not isinstance(cached, str):
            return {}
        try:
            return read_facts(Path(cached).parent, "model.name").estimate()
        except StageError:
            return {}  # a part of the repository was downloaded

    def run(self, config: HubConfig, ctx: Context) -> Mapping[str, float]:
        from huggingface_hub import snapshot_download

        from llmstages.plugins.model import adopt

        where = f"{ctx.step}.name"
        patterns = [*adopt.MODEL_FILES, *adopt.TOKENIZER_PATTERNS, "*.bin", "*.bin.index.json"]
        try:
            folder = snapshot_download(
                config.name, revision=config.revision, allow_patterns=patterns
            )
        # Network, name, access: the library has a dozen exceptions for them.
        except Exception as error:
            raise StageError(
                f"{where}={config.name} at {config.revision!r} cannot be fetched: "
                f"{first_line(error)}. Check the name and revision; for a private or gated "
                "repository run `hf auth login`; offline, use a folder: "
                "model=files model.path=FOLDER"
            ) from error
        adopt.adopt(Path(folder), ctx, where)
        return adopt.measure(ctx, where)
