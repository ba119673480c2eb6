"""What each kind of artifact must contain, so that any stage can read what any other stage wrote.

Every artifact is a folder in a public format beside its ``record.json``. Files are deterministic:
equal config and inputs give equal bytes, so timings are in the record alone. ``data/`` is a
``datasets`` folder (Arrow, see data/tables.py).

documents     data/: id, url (str), body (binary), media ("text/html" | "text/plain").
              Optional: gold.jsonl {url, keep, rule}; pages.warc.gz; dropped/ (as in corpus) for
              records that could not be read.
corpus        data/: id, url, text. dropped/: id, url, rule, value, limit (str), excerpt.
              funnel.json: list of {rule, kind, seen, dropped, edited, seconds?}; gold.json where
              the documents carry gold labels.
tokenizer     a Hugging Face tokenizer folder; view.json: {text, tokens: [{id, text, bytes}]}.
model         a Hugging Face model folder with its tokenizer. Training also writes log.jsonl (one
              object an event: step, loss, ... as the trainer logged it, no times) and checks.json
              (train/checks.py); pretraining writes samples.jsonl {step, prompt, text} and, where
              a depth decided the sizes, derived.json.
reward_model  the same with a sequence-classification head of one label.
dialogues     data/: messages (list of {role, content, tool}), plus any columns. role: system |
              user | assistant | tool. ``tool`` is "" except on a call (role assistant, content =
              the argument of the call, e.g. the query) and on its result (role tool). Calls made
              at once follow each other. Optional keys of a message: ``id`` (of a call and its
              result), ``reasoning_content``. Optional columns: ``tools``, JSON text of the schemas
              of the tools that the assistant had ("" where none); ``split``, "test" for rows that
              are not trained on.
preferences   data/: prompt, chosen, rejected (lists of messages as above), plus any columns.
problems      data/: prompt (messages), answer (str), task, group (str), meta (JSON text), plus
              any columns. Optional: ``aliases`` (list of str, other answers that are right),
              ``grader`` (the grader that decides, by name or as JSON text; text/grading.py).
scores        scores.json: {task: {group: {model: {metric: value}}}}; answers.jsonl: {prompt, model,
              answer, task}; the same prompts for every model. Optional: ``question``, the number of
              the question, which tells equal prompts apart; ``right``, the verdict; ``wanted``.
report        index.html, claims.json: [{name, value, target, met, interval, n}].
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from llmstages.core import registry
from llmstages.core.errors import StageError

# Where training saves in the work folder of its step, and how a checkpoint's name begins. The store
# keeps this folder for the next run.
CHECKPOINTS = "checkpoints"
CHECKPOINT_PREFIX = "update-"


@dataclass(frozen=True)
class ArtifactKind:
    """A kind of artifact. Packages register their own under ``llmstages.artifact_kinds``.

    Attributes:
        required: files and folders that every artifact of the kind has, relative to its folder.
        description: what it is, in a few words.
    """

    required: tuple[str, ...]
    description: str


DOCUMENTS = ArtifactKind(("data",), "pages as they were collected")
CORPUS = ArtifactKind(("data", "dropped", "funnel.json"), "clean text, and what was dropped")
TOKENIZER = ArtifactKind(("tokenizer_config.json", "view.json"), "a tokenizer")
MODEL = ArtifactKind(("config.json", "tokenizer_config.json"), "a causal language model")
REWARD_MODEL = ArtifactKind(("config.json", "tokenizer_config.json"), "a reward model")
DIALOGUES = ArtifactKind(("data",), "dialogues to train on")
PREFERENCES = ArtifactKind(("data",), "pairs of a better and a worse answer")
PROBLEMS = ArtifactKind(("data",), "prompts with an answer that can be checked")
SCORES = ArtifactKind(("scores.json", "answers.jsonl"), "what models were asked and how they did")
REPORT = ArtifactKind(("index.html", "claims.json"), "the page of a run")


class InputSpec(NamedTuple):
    """An input as a stage declares it, taken apart: ``"corpus|documents*?"``.

    Attributes:
        kinds: the kinds it takes; empty for any kind.
        many: it takes several artifacts.
        optional: it may stay open.
    """

    kinds: tuple[str, ...]
    many: bool
    optional: bool


def parse_input(declared: str) -> InputSpec:
    """Take the declaration of an input apart."""
    names = declared.rstrip("?*")
    kinds = tuple(names.split("|")) if names else ()
    return InputSpec(kinds, "*" in declared, "?" in declared)


def kind_of(name: str) -> ArtifactKind:
    """The registered kind of a name.

    Raises:
        StageError: no installed package registers it.
    """
    try:
        return registry.load("artifact_kinds", name)
    except StageError as error:
        raise StageError(
            f"the artifact kind {name!r} is not registered, so a folder cannot be checked for "
            "it. The package that makes it must register it under llmstages.artifact_kinds. "
            f"{error}"
        ) from error


def missing(kind: str, folder: Path) -> list[str]:
    """Names of required files that are not in the folder; empty for a kind nobody registers."""
    if kind not in registry.entries("artifact_kinds"):
        return []
    return [name for name in kind_of(kind).required if not (folder / name).exists()]


def accepts(declared: str, kind: str) -> bool:
    """Whether an input declared as e.g. "problems|dialogues?" takes an artifact of this kind."""
    kinds = parse_input(declared).kinds
    return not kinds or kind in kinds
