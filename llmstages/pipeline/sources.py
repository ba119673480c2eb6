"""Inputs from outside a run, made ready when they are needed: ``hub:org/name@revision`` or a folder."""

from __future__ import annotations

from pathlib import Path

from llmstages.core import artifacts
from llmstages.core.digest import sha256
from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact
from llmstages.pipeline.plan import Source

MODELS = ("model", "reward_model", "tokenizer")


def fetch(source: Source) -> Artifact:
    """The artifact of a source; a hub repository is downloaded into the Hugging Face cache once."""
    if not source.name.startswith("hub:"):
        path = Path(source.name).expanduser().resolve()
        return Artifact(source.name, source.kind, path, sha256(source.name)[:10])
    name, _, revision = source.name.removeprefix("hub:").partition("@")
    from huggingface_hub import snapshot_download

    try:
        path = Path(
            snapshot_download(
                name, revision=revision, repo_type="model" if source.kind in MODELS else "dataset"
            )
        )
    except Exception as error:  # network, name, access: the library has a dozen exceptions for them
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StageError(
            f"{source.name} cannot be fetched: {first}. Check the name and revision; for a private repository run "
            "`hf auth login`; offline, point the step at a folder instead (./PATH)"
        ) from error
    if absent := [
        name for name in artifacts.missing(source.kind, path) if name != "view.json"
    ]:  # ours, and only for the report
        raise StageError(
            f"{source.name} is no {source.kind}: it lacks {', '.join(absent)}. A data set of another layout is read by the "
            "`hub` or `files` variant of its slot (llmstages list)"
        )
    return Artifact(source.name, source.kind, path, sha256(source.name)[:10])
