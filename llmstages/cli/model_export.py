"""A model on its way out: written aside, compared with its source, then put in its place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmstages.cli.model_facts import card_facts
from llmstages.convert import export_check
from llmstages.convert.export_check import Agreement
from llmstages.convert.gguf_writer import known_dtype, write_gguf
from llmstages.convert.hf_folder import (
    CARD,
    export_adapter,
    export_folder,
    require_adapter,
    stored_dtype,
)
from llmstages.convert.model_card import model_card
from llmstages.convert.weight_files import WeightFiles
from llmstages.core.atomic import follow_umask
from llmstages.core.console import Console
from llmstages.core.errors import StageError
from llmstages.pipeline.history import StoredArtifact, read_artifact

# A folder is replaced by --force only if it has one of these, so that it was a model before.
MARKS = ("config.json", "adapter_config.json", "tokenizer_config.json")
GGUF_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "q8_0": 34 / 32}  # of a weight


@dataclass(frozen=True)
class Target:
    """Where the result goes.

    Attributes:
        force: what is there already may be replaced.
    """

    path: Path
    force: bool

    def require_free(self) -> None:
        """Refuse to overwrite what is there.

        Raises:
            StageError: there is something and --force was not given, or it is a folder with
                something else than a model.
        """
        if not self.path.exists():
            return
        if not self.force:
            raise StageError(f"{self.path} exists already; choose another name, or --force")
        if self.path.is_dir() and not _was_a_model(self.path):
            raise StageError(
                f"{self.path} is a folder with something else than a model; --force does not "
                "replace it"
            )

    @contextmanager
    def aside(self) -> Iterator[Path]:
        """A path beside the target to write to; it is put in place if nothing went wrong."""
        part = self.path.with_name(f".{self.path.name}.part")
        _remove(part)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            old = self.path.with_name(f".{self.path.name}.old")
            if self.path.is_dir():
                self.path.rename(old)
            part.rename(self.path)
            _remove(old)
        finally:
            _remove(part)

    def require_space(self, needed: float) -> None:
        """Raise StageError if the disk has less room than ``needed`` bytes."""
        folder = self.path.absolute().parent
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise StageError(
                f"{self.path} needs {needed / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB free"
            )


def _was_a_model(folder: Path) -> bool:
    """Whether a folder may be replaced: it is empty, or an earlier export."""
    names = {path.name for path in folder.iterdir()}
    return not names or bool(names & set(MARKS))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def to_folder(
    artifact: StoredArtifact,
    kind: str,
    target: Target,
    dtype: str,
    license: str,
    check: bool | None,
    console: Console,
) -> None:
    """Write a Hugging Face folder with a model card.

    Args:
        kind: model, reward_model or tokenizer.
        dtype: of the weights; "" keeps them as they are.
        check: compare the result with its source; None: for a model that writes text.
    """
    target.require_space(_stored_bytes(artifact.path))
    with target.aside() as part:
        with console.progress("export", 100) as advance:
            written = export_folder(
                artifact.path,
                part,
                dtype,
                say=console.say,
                advance=lambda share: advance(share * 100),
            )
        if kind == "model":
            facts = card_facts(artifact, target.path.name, license, dtype=written["dtype"])
            (part / CARD).write_text(model_card(facts), encoding="utf-8")
            follow_umask(part)
            if check is not False:
                exact = written["dtype"] == stored_dtype(artifact.path)
                _check_folder(artifact, part, exact, console)
    size = written["bytes"] / 1e6
    weights = f" of {written['dtype']}" if written["dtype"] else ""
    console.say(
        f"{artifact.name}: {written['files']} files{weights}, {size:,.1f} MB, in {target.path}/"
    )
    if written["dtype"] == "float32" and kind == "model":
        console.say("        --dtype bfloat16 takes half of the space")


def to_adapter_folder(
    artifact: StoredArtifact, target: Target, license: str, console: Console
) -> str:
    """Write the adapter alone and return the model that it needs."""
    require_adapter(artifact.path)
    base = _base_of_adapter(artifact)
    with target.aside() as part:
        written = export_adapter(artifact.path, part, base)
        facts = card_facts(artifact, target.path.name, license, adapter_of=base)
        (part / CARD).write_text(model_card(facts), encoding="utf-8")
        follow_umask(part)
    size = written["bytes"] / 1e6
    console.say(f"{artifact.name}: the adapter alone, {size:,.1f} MB, in {target.path}/")
    console.say(f"        it needs the model {base}")
    return base


def _base_of_adapter(artifact: StoredArtifact) -> str:
    """The model that an adapter was trained on: of the hub, or a path that exists here."""
    record = artifact.record
    sources = (record.get("inputs") or {}).get("model") or []
    fingerprints = (record.get("identity") or {}).get("inputs") or {}
    if not sources:
        raise StageError(
            f"{artifact.name} does not say which model its adapter was trained on: its folder has "
            "no record.json"
        )
    name = str(sources[0])
    if name.startswith("hub:"):
        return name.removeprefix("hub:").partition("@")[0]
    stored = artifact.path.parent / f"{name}-{fingerprints.get('model')}"
    if stored.is_dir():
        adopted = read_artifact(stored).record
        if adopted.get("stage") == "model.hub":
            return adopted["config"]["name"]
        return str(stored.resolve())
    return str(Path(name).expanduser().resolve())


def to_gguf(
    artifact: StoredArtifact, target: Target, dtype: str, check: bool | None, console: Console
) -> None:
    """Write a GGUF file.

    Args:
        dtype: of the matrices; "" is bfloat16 for a model in bfloat16, otherwise float16.
        check: compare the result with its source; None: where llama-cpp-python is installed.
    """
    source_dtype = stored_dtype(artifact.path)
    if not dtype:
        dtype = "bfloat16" if source_dtype == "bfloat16" else "float16"
    dtype = known_dtype(dtype)
    target.require_space(WeightFiles(artifact.path).parameters() * GGUF_BYTES[dtype])
    with target.aside() as part:
        with console.progress("export", 100) as advance:
            written = write_gguf(
                artifact.path,
                part,
                dtype,
                name=target.path.stem,
                say=console.say,
                advance=lambda share: advance(share * 100),
            )
        if check or (check is None and export_check.has_llama_cpp()):
            _check_gguf(artifact, part, dtype == source_dtype, console)
        elif check is None:
            console.say(
                "        not checked: llama-cpp-python is not installed; --check reads the file "
                "back with transformers"
            )
    console.say(
        f"{artifact.name}: {written['tensors']} tensors of {dtype}, "
        f"{written['bytes'] / 1e6:,.1f} MB, in {target.path}"
    )


def _check_folder(artifact: StoredArtifact, part: Path, exact: bool, console: Console) -> None:
    """Compare a folder with its source; ``exact``: the weights have the same type."""
    agreement = export_check.check_folder(_continue(artifact, console), part)
    _report(agreement, exact, console)


def _check_gguf(artifact: StoredArtifact, part: Path, exact: bool, console: Console) -> None:
    agreement = export_check.check_gguf(_continue(artifact, console), part, artifact.path)
    # llama.cpp adds numbers in another order, so that near ties may fall to the other side.
    _report(agreement, exact and not export_check.has_llama_cpp(), console)


def _report(agreement: Agreement, exact: bool, console: Console) -> None:
    console.say(f"check   {agreement}")
    export_check.require(agreement, exact)
    if agreement.same_replies < agreement.total:
        console.say("        rounded weights decide otherwise where two tokens are about as likely")


def _continue(artifact: StoredArtifact, console: Console) -> export_check.Continuations:
    with console.progress("check", len(export_check.PROMPTS)) as advance:
        return export_check.continue_prompts(artifact.path, advance)


def _stored_bytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
