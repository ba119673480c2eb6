"""Inputs from outside a run, fetched when needed: ``hub:org/name@revision`` or a folder."""

from __future__ import annotations

from pathlib import Path

from llmstages.core import artifacts
from llmstages.core.digest import sha256
from llmstages.core.errors import StageError, first_line
from llmstages.core.stage import Artifact
from llmstages.pipeline.plan import Source

MODELS = ("model", "reward_model", "tokenizer")


def fetch(source: Source) -> Artifact:
    """The artifact of a source; a hub repository is downloaded once, into the HF cache."""
    fingerprint = sha256(source.name)[:10]
    if not source.name.startswith("hub:"):
        path = Path(source.name).expanduser().resolve()
        return Artifact(source.name, source.kind, path, fingerprint)
    path = _download(source)
    # view.json is our own addition to a tokenizer, and only the report reads it.
    absent = [name for name in artifacts.missing(source.kind, path) if name != "view.json"]
    if absent:
        raise StageError(
            f"{source.name} is not a {source.kind}: it lacks {', '.join(absent)}. A data set of "
            "another layout is read by the `hub` or `files` variant of its slot (llmstages list)"
        )
    return Artifact(source.name, source.kind, path, fingerprint)


def _download(source: Source) -> Path:
    name, _, revision = source.name.removeprefix("hub:").partition("@")
    from huggingface_hub import snapshot_download

    repo_type = "model" if source.kind in MODELS else "dataset"
    try:
        return Path(snapshot_download(name, revision=revision, repo_type=repo_type))
    except Exception as error:  # network, name, access: the library has a dozen exceptions for them
        raise StageError(
            f"{source.name} cannot be fetched: {first_line(error)}. Check the name and revision; "
            "for a private repository run `hf auth login`; offline, point the step at a folder "
            "instead (./PATH)"
        ) from error
