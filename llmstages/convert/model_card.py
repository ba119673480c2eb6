"""The README.md of a model, from the records of the steps that made it.

Everything in it was recorded while the model was made: nothing is copied from intentions. What no
record holds, such as the license, is left as a visible TODO. The metadata at the top are those of
https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from llmstages.core.console import format_number, format_seconds
from llmstages.core.secrets import mask

DATA_KINDS = ("documents", "corpus", "dialogues", "preferences", "problems")
# Config keys of data stages that say where their rows come from.
HUB_KEYS = ("data_set", "subset", "split", "revision")
FILE_KEYS = ("path", "files")
MODEL_INPUTS = ("model", "policy")  # inputs of a training stage that it trains further
BEGINNING = "model"  # the slot in which a chain begins with a model from elsewhere
TASK_TAGS = {"sft": "sft", "rl": "rlhf", "pretrain": "pretraining"}
SHOWN_COUNTS = 4  # numbers of a data step
MAX_SCORES = 60  # rows of the table of evaluations
LICENSE_TODO = "**TODO: choose a license.** It has to fit the base model and the data above."


@dataclass(frozen=True)
class Score:
    """One number that an evaluation step measured for this model."""

    task: str
    group: str
    metric: str
    value: float


@dataclass(frozen=True)
class CardFacts:
    """What a card is made from.

    Attributes:
        name: of the model.
        record: the record of the step that made it; empty for a folder from elsewhere.
        lineage: records of everything that it was made from, nearest first.
        checks: of checks.json.
        scores: of evaluation steps of the same store.
        parameters: number of weights; 0 if it is not known.
        dtype: of the weights.
        chat: whether there is a chat template.
        license: an identifier of the Hub such as apache-2.0; "" leaves a TODO.
        files: file names beside the card, for the examples of use.
        adapter_of: for an adapter alone, the model that it needs.
    """

    name: str
    record: Mapping[str, Any] = field(default_factory=dict)
    lineage: Sequence[Mapping[str, Any]] = ()
    checks: Sequence[Mapping[str, Any]] = ()
    scores: Sequence[Score] = ()
    parameters: int = 0
    dtype: str = ""
    chat: bool = False
    license: str = ""
    files: Sequence[str] = ()
    adapter_of: str = ""


def model_card(facts: CardFacts) -> str:
    """The text of README.md, metadata included; secrets are masked."""
    sections = [
        _summary(facts),
        _use(facts),
        _data(facts),
        _training(facts),
        _checks(facts),
        _scores(facts),
        _lineage(facts),
        ["## License", "", facts.license or LICENSE_TODO],
    ]
    lines = [_front_matter(facts), "", f"# {facts.name}"]
    for section in sections:
        if section:
            lines += ["", *section]
    return str(mask("\n".join(lines) + "\n"))


# --- metadata ---


def _front_matter(facts: CardFacts) -> str:
    from huggingface_hub import ModelCardData

    slots = {str(record.get("stage", "")).partition(".")[0] for record in _steps(facts)}
    tags = ["llmstages", *sorted({TASK_TAGS[slot] for slot in slots if slot in TASK_TAGS})]
    data = ModelCardData(
        base_model=base_model(facts) or None,
        datasets=_hub_data_sets(facts) or None,
        library_name="peft" if facts.adapter_of else "transformers",
        license=facts.license or None,
        pipeline_tag="text-generation",
        tags=tags,
    )
    todo = "" if facts.license else "# license: TODO, for example apache-2.0\n"
    return f"---\n{data.to_yaml()}\n{todo}---".replace("\n\n", "\n")


def base_model(facts: CardFacts) -> str:
    """The model of the Hub that the chain began with, as ORG/NAME; "" for none."""
    if facts.adapter_of.count("/") == 1 and not facts.adapter_of.startswith((".", "/", "~")):
        return facts.adapter_of
    for name in _model_sources(facts):
        if name.startswith("hub:"):
            return name.removeprefix("hub:").partition("@")[0]
    return ""


def _model_sources(facts: CardFacts) -> list[str]:
    """The models from elsewhere that the chain began with: hub addresses and paths."""
    made_here = {record.get("step") for record in facts.lineage}
    names = []
    for record in _steps(facts):
        if record.get("kind") != "model":
            continue
        for input_name in MODEL_INPUTS:
            given = (record.get("inputs") or {}).get(input_name, [])
            names += [name for name in given if name not in made_here]
        if str(record["stage"]).partition(".")[0] == BEGINNING:
            names.append(_beginning(record.get("config") or {}))
    return list(dict.fromkeys(name for name in names if name))


def _beginning(config: Mapping[str, Any]) -> str:
    """The model that a stage of the slot ``model`` took over."""
    if config.get("name"):
        revision = config.get("revision")
        return f"hub:{config['name']}" + (f"@{revision}" if revision else "")
    return str(config.get("path") or "")


def _hub_data_sets(facts: CardFacts) -> list[str]:
    names = []
    for record in _data_records(facts):
        name = str((record.get("config") or {}).get("data_set") or "")
        if name.count("/") == 1 and not name.startswith((".", "/", "~")):
            names.append(name)
    return list(dict.fromkeys(names))


def _steps(facts: CardFacts) -> list[Mapping[str, Any]]:
    return [record for record in (facts.record, *facts.lineage) if record]


def _data_records(facts: CardFacts) -> list[Mapping[str, Any]]:
    return [record for record in _steps(facts) if record.get("kind") in DATA_KINDS]


# --- sections ---


def _summary(facts: CardFacts) -> list[str]:
    size = f"{facts.parameters / 1e6:,.1f} M parameters" if facts.parameters else "a language model"
    parts = [size]
    if facts.dtype:
        parts.append(facts.dtype)
    parts.append("with a chat template" if facts.chat else "a base model without a chat template")
    lines = [", ".join(parts) + "."]
    if facts.record:
        lines += [
            f"Made by the step `{facts.record['step']}` (`{facts.record['stage']}`) of llmstages."
        ]
    source = _base_sentence(facts)
    if source:
        lines += ["", "## Base model", "", source]
    return lines


def _base_sentence(facts: CardFacts) -> str:
    if facts.adapter_of:
        return f"An adapter (peft); it needs the model `{_public(facts.adapter_of)}`."
    trained_here = [record for record in _steps(facts) if record.get("kind") == "model"]
    names = _model_sources(facts)
    if names:
        listed = ", ".join(f"`{_public(name)}`" for name in names)
        return f"It was trained further from {listed}."
    if trained_here:
        first = trained_here[-1]
        return f"None: it was trained from scratch by the step `{first['step']}`."
    return ""


def _public(name: str) -> str:
    """A source without the folders of somebody's machine."""
    return name if name.startswith("hub:") or name.count("/") == 1 else PurePath(name).name


def _use(facts: CardFacts) -> list[str]:
    gguf = [name for name in facts.files if name.endswith(".gguf")]
    lines = ["## How to use it", ""]
    if facts.adapter_of:
        return [*lines, *_code("python", _adapter_example(facts))]
    lines += _code("python", _transformers_example(facts))
    lines += ["", "As a server with the interface of OpenAI:", ""]
    lines += _code("bash", ["vllm serve FOLDER_OR_NAME", "transformers serve"])
    if gguf:
        conversation = "-cnv" if facts.chat else "-no-cnv"
        lines += ["", "In llama.cpp:", ""]
        lines += _code("bash", [f"llama-cli -m {gguf[0]} {conversation}"])
    else:
        lines += [
            "",
            "For llama.cpp, export it as GGUF: `llmstages export FOLDER --to MODEL.gguf`.",
        ]
    return lines


def _transformers_example(facts: CardFacts) -> list[str]:
    lines = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'name = "FOLDER_OR_NAME"',
        "tokenizer = AutoTokenizer.from_pretrained(name)",
        "model = AutoModelForCausalLM.from_pretrained(name)",
    ]
    if facts.chat:
        lines += [
            'messages = [{"role": "user", "content": "What is the capital of France?"}]',
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
            ")",
        ]
    else:
        lines += ['inputs = tokenizer("Once upon a time", return_tensors="pt")']
    return [
        *lines,
        "output = model.generate(**inputs, max_new_tokens=64)",
        "print(tokenizer.decode(output[0]))",
    ]


def _adapter_example(facts: CardFacts) -> list[str]:
    return [
        "from peft import AutoPeftModelForCausalLM",
        "from transformers import AutoTokenizer",
        "",
        'name = "FOLDER_OR_NAME"',
        "tokenizer = AutoTokenizer.from_pretrained(name)",
        f"model = AutoPeftModelForCausalLM.from_pretrained(name)  # on {_public(facts.adapter_of)}",
    ]


def _code(language: str, lines: Sequence[str]) -> list[str]:
    return [f"```{language}", *lines, "```"]


def _data(facts: CardFacts) -> list[str]:
    rows = []
    for record in _data_records(facts):
        counts = []
        for name, value in list((record.get("metrics") or {}).items())[:SHOWN_COUNTS]:
            counts.append(f"{name} {format_number(value)}")
        rows.append((record["step"], record["stage"], _source_of(record), ", ".join(counts) or "-"))
    if not rows:
        return []
    return ["## Data", "", *_table(("step", "stage", "source", "counts"), rows)]


def _source_of(record: Mapping[str, Any]) -> str:
    config = record.get("config") or {}
    parts = []
    for key in HUB_KEYS if config.get("data_set") else FILE_KEYS:
        value = config.get(key)
        if value:
            parts.append(f"{key}={_public(str(value))}")
    made_from = [name for names in (record.get("inputs") or {}).values() for name in names]
    if made_from:
        parts.append("from " + ", ".join(_public(name) for name in made_from))
    return " ".join(parts) or "made by the stage itself"


def _training(facts: CardFacts) -> list[str]:
    record = facts.record
    if not record:
        return []
    config = (record.get("identity") or {}).get("config") or record.get("config") or {}
    rows = []
    for key, value in config.items():
        if value not in (None, "", [], {}, ()):
            rows.append((key, _public(str(value)) if isinstance(value, str) else value))
    lines = ["## Training", ""]
    lines += [
        f"`{record['stage']}` version {record['version']}, {format_seconds(record['seconds'])} on "
        f"{record['processes']} process{'es' * (record['processes'] > 1)}."
    ]
    lines += ["", *_table(("setting", "value"), rows)]
    metrics = [(name, format_number(value)) for name, value in record["metrics"].items()]
    if metrics:
        lines += ["", "Measured in training:", "", *_table(("metric", "value"), metrics)]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return [*lines, "", f"Versions: {versions}."]


def _checks(facts: CardFacts) -> list[str]:
    if not facts.checks:
        return []
    rows = []
    for check in facts.checks:
        if check["passed"]:
            result = "passed"
        elif check.get("allowed"):
            result = "**failed, allowed**"
        else:
            result = "**failed**"
        value, limit = format_number(check["value"]), format_number(check["limit"])
        rows.append((check["id"], check["title"], value, limit, result))
    return [
        "## Checks before training",
        "",
        *_table(("check", "what", "value", "limit", "result"), rows),
    ]


def _scores(facts: CardFacts) -> list[str]:
    if not facts.scores:
        return ["## Evaluation", "", "No evaluation step of the run measured this model."]
    rows = []
    for score in facts.scores[:MAX_SCORES]:
        rows.append((score.task, score.group, score.metric, format_number(score.value)))
    lines = ["## Evaluation", "", *_table(("task", "group", "metric", "value"), rows)]
    if len(facts.scores) > MAX_SCORES:
        lines += ["", f"The first {MAX_SCORES} of {len(facts.scores)} numbers."]
    return lines


def _lineage(facts: CardFacts) -> list[str]:
    rows = []
    for record in _steps(facts):
        sources = [name for names in (record.get("inputs") or {}).values() for name in names]
        rows.append(
            (
                record["step"],
                f"{record['stage']} {record['version']}",
                record["fingerprint"],
                ", ".join(_public(name) for name in dict.fromkeys(sources)) or "-",
            )
        )
    if not rows:
        return []
    return ["## Lineage", "", *_table(("step", "stage", "fingerprint", "made from"), rows)]


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in rows:
        cells = [_cell(value) for value in row]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(value: Any) -> str:
    """A text that stays inside its cell."""
    text = " ".join(str(value).split())
    return text.replace("|", "\\|").replace("<", "&lt;")
