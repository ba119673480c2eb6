"""How many tokens the rows of a file will have, for the estimates of a plan.

A sample of the rows is rendered by the chat template of the model and counted with its tokenizer.
This takes jinja2 and tokenizers alone: importing transformers takes longer than a plan may take.
What cannot be read this way (no tokenizer.json, a template that needs more) is None, never a guess.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data.readers import TABLES, find
from llmstages.data.readers.examples import Examples, from_files
from llmstages.data.splits import spread
from llmstages.text.generation_tags import strip_generation

SAMPLE = 100  # rows that are counted
MAX_BYTES = 20_000_000  # of the files that a plan reads
# An average of so few tokens is that of a template that wrote nothing.
FEWEST_TOKENS = 2

Row = Mapping[str, Any]


class Counted(NamedTuple):
    """What counting a sample gave.

    Attributes:
        tokens: of the average row that is short enough, or of one side of the average pair.
        share: of the rows that are.
    """

    tokens: float
    share: float


def facts_of_files(
    path: str,
    read: Callable[[Iterable[Any], Context], Examples],
    prepare: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list,
) -> dict[str, Any]:
    """What a plan knows of a file of examples: ``examples``, ``sample``.

    Empty if the files are large, or cannot be read; the step itself says why.

    Args:
        path: as in the option ``path`` of the stage.
        read: makes examples of the rows, as the stage does.
        prepare: leaves the examples that will be trained on.
    """
    quiet = Context("plan", Path(), Path(), {})
    try:
        files = list(find(path, quiet.step, TABLES))
        if sum(file.stat().st_size for file in files) > MAX_BYTES:
            return {}
        kept = read(from_files(files), quiet).kept
    except (StageError, OSError):
        return {}
    rows = prepare(kept)
    return {"examples": len(rows), "sample": spread(rows, SAMPLE)}


def count_tokens(source: Mapping[str, Any], folder: str | None, max_length: int) -> Counted | None:
    """Count the tokens of a sample of a source; None where that is not possible.

    Args:
        source: facts of a plan about it, with ``sample``, or ``table``, the folder of its table.
        folder: of the tokenizer.
        max_length: longer rows (of pairs: with a longer side) are not trained on.
    """
    if folder is None:
        return None
    rows = source.get("sample")
    if rows is None and source.get("table"):
        rows = _sample_of_table(Path(source["table"]))
    if not rows:
        return None
    try:
        changed = (Path(folder) / "tokenizer.json").stat().st_mtime_ns
        count = _counter(Path(folder), changed)
        sizes = [[count(messages) for messages in _dialogues_of(row)] for row in rows]
    # Files and templates of others may be anything, and a plan is not where they are checked.
    except Exception:
        return None
    short = [sides for sides in sizes if max(sides) <= max_length]
    if not short:
        return None
    tokens = sum(map(sum, short)) / sum(map(len, short))
    return Counted(tokens, len(short) / len(sizes)) if tokens >= FEWEST_TOKENS else None


def count_pairs(
    source: Mapping[str, Any], folder: str | None, max_length: int, test_fraction: float
) -> tuple[float, int, str] | None:
    """(pairs that are trained on, tokens of a side, how this was counted); None as above."""
    counted = count_tokens(source, folder, max_length)
    if counted is None or "examples" not in source:
        return None
    pairs = source["examples"] * counted.share * (1 - test_fraction)
    tokens = max(FEWEST_TOKENS, round(counted.tokens))
    return pairs, tokens, f"{pairs:,.0f} pairs, each side about {tokens} tokens"


def _dialogues_of(row: Row) -> list[list[Row]]:
    """The dialogues of a row: one, or both sides of a pair."""
    if "messages" in row:
        return [list(row["messages"])]
    return [[*row["prompt"], *row[side]] for side in ("chosen", "rejected")]


def _sample_of_table(folder: Path) -> list[Row]:
    """Rows of the first batch of a table."""
    import pyarrow

    files = sorted(folder.glob("*.arrow"))
    if not files:
        return []
    with pyarrow.memory_map(str(files[0])) as stream:
        batch = pyarrow.ipc.open_stream(stream).read_next_batch()
        return batch.take(spread(range(batch.num_rows), SAMPLE)).to_pylist()


@lru_cache(maxsize=2)
def _counter(folder: Path, changed: int) -> Callable[[Sequence[Row]], int]:
    """A function: messages -> tokens of the rendered dialogue.

    A plan counts for several steps with one tokenizer, so it is kept. changed: the time of its
    file.
    """
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {name: _text(config.get(name)) for name in ("bos_token", "eos_token", "pad_token")}
    # The settings of transformers (utils/chat_template_utils.py).
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda _: ""
    template = environment.from_string(strip_generation(_template_of(folder, config)))

    def count(messages: Sequence[Row]) -> int:
        text = template.render(messages=messages, add_generation_prompt=False, **special)
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count


def _template_of(folder: Path, config: Mapping[str, Any]) -> str:
    """The chat template in the folder of a tokenizer."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config["chat_template"]
    if isinstance(template, str):
        return template
    by_name = {named["name"]: named["template"] for named in template}
    return by_name["default"]


def _text(token: Any) -> str:
    """The text of a special token, which tokenizer_config.json may write as an object."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return str(token or "")


def _refuse(message: str) -> None:
    raise ValueError(message)
