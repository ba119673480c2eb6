"""Well-known tokenizers on the same texts, as far as they are on this machine.

Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import first_line
from llmstages.core.stage import Context
from llmstages.plugins.tokenizer.languages import SAMPLES
from llmstages.plugins.tokenizer.sizes import text_sizes

Encode = Callable[[Sequence[str]], list[list[int]]]


def compare_tokenizers(
    names: Sequence[str], tokenizer: Any, documents: Sequence[str], ctx: Context
) -> list[dict[str, Any]]:
    """Sizes of the same texts in this tokenizer and in each named one.

    Returns:
        {name, vocab_size, documents, languages} for each tokenizer, this one first; {name, missing}
        for one that is not on this machine.
    """
    from llmstages.text import chat_format

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return chat_format.encode_texts(tokenizer, texts)

    rows = [_figures("this one", len(tokenizer), encode, documents)]
    for name in names:
        try:
            vocab_size, encode_other = load_tokenizer(name)
        except LookupError as error:
            rows.append({"name": name, "missing": str(error)})
            ctx.say(f"tokenizer: no comparison with {name}, {error}")
        else:
            rows.append(_figures(name, vocab_size, encode_other, documents))
    return rows


def _figures(
    name: str, vocab_size: int, encode: Encode, documents: Sequence[str]
) -> dict[str, Any]:
    texts = list(documents) or list(SAMPLES.values())
    languages = {}
    for language, sample in SAMPLES.items():
        languages[language] = text_sizes([sample], encode([sample]))
    return {
        "name": name,
        "vocab_size": vocab_size,
        "documents": text_sizes(texts, encode(texts)),
        "languages": languages,
    }


def load_tokenizer(name: str) -> tuple[int, Encode]:
    """(entries, function from texts to ids) of a tokenizer that is on this machine.

    Args:
        name: a folder, a hub name in the cache, or tiktoken:NAME.

    Raises:
        LookupError: it is not on this machine.
    """
    if name.startswith("tiktoken:"):
        return _load_tiktoken(name.removeprefix("tiktoken:"))
    from transformers import AutoTokenizer

    from llmstages.text import encode

    folder = Path(name).expanduser()
    source = folder if folder.is_dir() else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    except Exception as error:
        # transformers raises OSError, ValueError, TypeError and others for what is absent.
        raise LookupError(f"not at hand ({type(error).__name__})") from error
    return len(tokenizer), lambda texts: encode.encode(tokenizer, texts)


def _load_tiktoken(name: str) -> tuple[int, Encode]:
    try:
        import tiktoken  # type: ignore[import-not-found]
        from tiktoken import load  # type: ignore[import-not-found]
    except ImportError as error:
        raise LookupError("not at hand (tiktoken is not installed)") from error

    def refuse(path: str) -> bytes:
        raise LookupError("not at hand (not in tiktoken's cache)")

    # tiktoken reaches the network only by this function, and reads its cache without it.
    read_file = load.read_file
    load.read_file = refuse
    try:
        encoding = tiktoken.get_encoding(name)
    except ValueError as error:
        raise LookupError(f"not at hand ({first_line(error)})") from error
    finally:
        load.read_file = read_file
    # One thread: several would not give other ids, but disturb what runs beside it.
    return encoding.n_vocab, lambda texts: encoding.encode_ordinary_batch(
        list(texts), num_threads=1
    )
