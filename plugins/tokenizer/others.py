"""The tokenizers people know, on the same texts, where they are at hand. The network is never asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.stage import Context
from llmstages.plugins.tokenizer.languages import SAMPLES

Encode = Callable[[Sequence[str]], list[list[int]]]


def compared(
    names: Sequence[str], tokenizer: Any, documents: Sequence[str], ctx: Context
) -> list[dict[str, Any]]:
    """Figures of each named tokenizer beside those of this one: {name, vocab_size, documents, languages}, or {name, missing}."""
    from llmstages.text import chat_format

    rows = [
        _figures(
            "this one",
            len(tokenizer),
            lambda texts: chat_format.encode_texts(tokenizer, texts),
            documents,
        )
    ]
    for name in names:
        try:
            rows.append(_figures(name, *at_hand(name), documents))
        except LookupError as error:
            rows.append({"name": name, "missing": str(error)})
            ctx.say(f"tokenizer: no comparison with {name}, {error}")
    return rows


def _figures(name: str, size: int, encoder: Encode, documents: Sequence[str]) -> dict[str, Any]:
    from llmstages.plugins.tokenizer.measure import cost

    texts = list(documents) or list(SAMPLES.values())
    return {
        "name": name,
        "vocab_size": size,
        "documents": cost(texts, encoder(texts)),
        "languages": {k: cost([v], encoder([v])) for k, v in SAMPLES.items()},
    }


def at_hand(name: str) -> tuple[int, Encode]:
    """(size, encoder) of a tokenizer that is on this machine: a folder, a hub name in the cache, or tiktoken:NAME; LookupError where it is not."""
    if name.startswith("tiktoken:"):
        return _tiktoken(name.removeprefix("tiktoken:"))
    from transformers import AutoTokenizer

    from llmstages.text import encode

    folder = Path(name).expanduser()
    try:
        found = AutoTokenizer.from_pretrained(
            folder if folder.is_dir() else name, local_files_only=True
        )
    except (
        Exception
    ) as error:  # transformers raises OSError, ValueError, TypeError and more for what is absent
        raise LookupError(f"not at hand ({type(error).__name__})") from error
    return len(found), lambda texts: encode.encode(found, texts)


def _tiktoken(name: str) -> tuple[int, Encode]:
    try:
        import tiktoken
        from tiktoken import load
    except ImportError as error:
        raise LookupError("not at hand (tiktoken is not installed)") from error

    def refuse(path: str) -> bytes:
        raise LookupError("not at hand (not in tiktoken's cache)")

    ask, load.read_file = (
        load.read_file,
        refuse,
    )  # the only way it reaches the network; what is cached is read without it
    try:
        found = tiktoken.get_encoding(name)
    except ValueError as error:
        raise LookupError(f"not at hand ({str(error).splitlines()[0]})") from error
    finally:
        load.read_file = ask
    return found.n_vocab, lambda texts: found.encode_ordinary_batch(list(texts), num_threads=1)
