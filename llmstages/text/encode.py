"""Ids of many texts, fast and exact: what ``tokenizer(texts, split_special_tokens=True)`` returns.

A tokenizer splits text into words by a fixed expression before it merges anything, and words
repeat: 100 MB of prose contain a quarter of a million different ones. So the words of a block are
found by array operations (pretokenize.py), each different word is encoded once by the tokenizer's
own model, and the ids are gathered. Merging and the classes of characters come from the tokenizers
library. Before its first use, the fast path is compared with the slow one on the texts at hand and
on difficult samples. If any id differs, the slow path is used and a message is printed.

Left out: normalizers other than NFC, the words of BERT, and other libraries. tiktoken was slower
than this, and its engine knows other letters; gigatoken cannot split digits one by one, and makes
control tokens of text.
"""

from __future__ import annotations

import json
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from llmstages.text.pretokenize import UnsupportedTokenizer, word_splitter
from llmstages.text.special_tokens import special_tokens_of

MIN_CHARACTERS = 300_000  # below this the slow path is fast enough
BLOCK_CHARACTERS = 500_000  # of a block, the work of one thread at a time; about 15 MB of arrays
WORDS_PER_STRING = 200  # words that are encoded together
MAX_WORDS = 500_000  # in the cache, about 100 MB; above this it is emptied
SEPARATOR = "\U0010fffe"  # between words that are encoded together
SEPARATOR_BYTES = SEPARATOR.encode()
PROBED_TEXTS = 50
PROBED_CHARACTERS = 5000
PROBES = (
    "",
    " ",
    "  ",
    "a",
    " a",
    "it's 'S don''t I'LL we'Re 'ſ x' 'tis ''ll",
    "1234567 ⅷ ٣٤٥ ²³½ 12,345.67",
    "a  b   c \n\n\t d \r\n e\u00a0\u2003f",
    "((foo)) !=\n\n\r  == \n x\n  1",
    "naïve ÅÅ e\u0301 東京タワー 🙂👩\u200d👩 \u200b\ufeff\x00\x01\x1c\x7f\x85\u2028",
    "▁ ▁▁x <0x41><unk>##a [UNK]",
    "<|im_start|>user<|endoftext|><SEARCH_START>",
    "\t\tif x:\n\t\t    return y  # …\n",
    "ab" * 40,
    " " * 40 + "x",
    "\n" * 7 + " \n y",
    "．﷽ក្រ\U0001f1e9\U0001f1ea\U00031350\U0010fffd\u088f",
)


def replace_surrogates(text: str) -> str:
    """The text with lone surrogates, which cannot be encoded, replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def encode_plain(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts by the tokenizer itself, the slow path; no text becomes a control token."""
    return special_tokens_of(tokenizer).encode(texts)


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts; no text becomes a control token. Many texts take the fast path."""
    texts = [replace_surrogates(text) for text in texts]
    fast = _fast_encoder_for(tokenizer, texts)
    return fast.lists(texts) if fast else encode_plain(tokenizer, texts)


def encode_rows(tokenizer: Any, texts: Sequence[str]) -> list[Any]:
    """The same, each row a list or, on the fast path, an int32 array: a fifth of the time less."""
    texts = [replace_surrogates(text) for text in texts]
    fast = _fast_encoder_for(tokenizer, texts)
    return fast.arrays(texts) if fast else encode_plain(tokenizer, texts)


def _fast_encoder_for(tokenizer: Any, texts: Sequence[str]) -> FastEncoder | None:
    """The fast path where it pays and gives no control tokens."""
    if sum(map(len, texts)) < MIN_CHARACTERS or special_tokens_of(tokenizer).leaks:
        return None
    return fast_encoder(tokenizer, texts)


# A dictionary beside the tokenizers: an attribute of a tokenizer would be pickled with it.
_cache: weakref.WeakKeyDictionary[Any, tuple[Any, FastEncoder | None]] = weakref.WeakKeyDictionary()


def fast_encoder(
    tokenizer: Any, texts: Sequence[str] = (), say: Callable[[str], None] | None = None
) -> FastEncoder | None:
    """The fast path of a tokenizer, after a comparison with the slow one on some of ``texts``.

    None where there is none; ``say`` (by default a line on stderr) is told why. Cached as long as
    the tokenizer does not change.
    """
    engine = getattr(tokenizer, "backend_tokenizer", None)
    state = (
        len(tokenizer),
        len(tokenizer.get_added_vocab()),
        str(getattr(engine, "normalizer", "")),
        str(getattr(engine, "pre_tokenizer", "")),
    )
    cached = _cache.get(tokenizer)
    if cached is not None and cached[0] == state:
        return cached[1]

    say = say or _print_to_stderr
    encoder: FastEncoder | None = None
    try:
        encoder = FastEncoder(tokenizer)
        different = encoder.first_difference(texts)
        if different:
            encoder = None
            say(
                "encoding: the fast path gives other ids than the tokenizer itself for "
                f"{different!r}, so the tokenizer itself is used (slower)"
            )
    except UnsupportedTokenizer as reason:
        say(
            f"encoding: no fast path for this tokenizer ({reason}), "
            "so the tokenizer itself is used (slower)"
        )
    _cache[tokenizer] = state, encoder
    return encoder


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Block(NamedTuple):
    """The words of some texts.

    words: the different ones. codes: for each word, its place in ``words``. The words of text i are
    codes[first[i] : last[i]].
    """

    words: list[bytes]
    codes: Any
    first: Any
    last: Any


class FastEncoder:
    """Texts -> ids by a cache of words.

    Threads split texts into words, the caller's thread looks them up. Not safe for two callers at
    once.
    """

    def __init__(self, tokenizer: Any, threads: int | None = None) -> None:
        """Raises UnsupportedTokenizer where words are not fixed before merging."""
        from tokenizers import Tokenizer

        engine = getattr(tokenizer, "backend_tokenizer", None)
        if engine is None:
            raise UnsupportedTokenizer("it does not use the tokenizers library")
        normalizer = _spec_of(engine.normalizer)
        if normalizer and normalizer["type"] != "NFC":
            raise UnsupportedTokenizer(f"its normalizer is {normalizer['type']}")
        self._split_words, word_spec = word_splitter(_spec_of(engine.pre_tokenizer))
        self._tokenizer = weakref.ref(tokenizer)
        self._threads = threads or min(os.cpu_count() or 1, 8)
        self._normalizer = engine.normalizer

        # The slow path finds added tokens that are not special in any text. So a text that contains
        # one of them takes the slow path, and so does a text with the separator.
        added = engine.get_added_tokens_decoder().values()
        self._slow_marks = [SEPARATOR, *(token.content for token in added if not token.special)]

        # The same model without added tokens: whatever a text spells, it only merges.
        self._engine = Tokenizer(engine.model)
        self._engine.pre_tokenizer = _pre_tokenizer(word_spec)
        self._engine.add_special_tokens([SEPARATOR])
        self._separator_id = self._engine.token_to_id(SEPARATOR)
        self._cache = WordCache()

    def first_difference(self, texts: Sequence[str]) -> str:
        """The first sample whose ids differ from the tokenizer's own, shortened, or ""."""
        every = max(1, len(texts) // PROBED_TEXTS)
        samples = [*PROBES, "\n".join(PROBES)]
        samples += [text[:PROBED_CHARACTERS] for text in texts[::every]]
        expected = encode_plain(self._tokenizer(), samples)
        for text, fast_ids, ids in zip(samples, self.lists(samples), expected, strict=True):
            if fast_ids != ids:
                return text[:80] or " "
        return ""

    def lists(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts as lists."""
        return [row.tolist() for row in self.arrays(texts)]

    def arrays(self, texts: Sequence[str]) -> list[Any]:
        """Ids of texts as int32 arrays, each a view into the array of its block."""
        import numpy as np

        texts = list(texts)
        slow = {i: text for i, text in enumerate(texts) if self._needs_slow_path(text)}
        if self._normalizer is not None:
            texts = [self._normalize(text) for text in texts]
            # Normalizing may have put together an added token.
            slow.update((i, text) for i, text in enumerate(texts) if self._needs_slow_path(text))

        # ASCII texts need a quarter of the memory, so they share blocks.
        order = sorted(range(len(texts)), key=lambda i: not texts[i].isascii())
        fast_texts = ("" if i in slow else texts[i] for i in order)
        rows: list[Any] = [None] * len(texts)
        for i, ids in zip(order, self._encode_blocks(blocks(fast_texts)), strict=True):
            rows[i] = ids
        slow_rows = encode_plain(self._tokenizer(), list(slow.values()))
        for i, ids in zip(slow, slow_rows, strict=True):
            rows[i] = np.array(ids, np.int32)
        return rows

    def _needs_slow_path(self, text: str) -> bool:
        return any(mark in text for mark in self._slow_marks)

    def _normalize(self, text: str) -> str:
        return text if text.isascii() else self._normalizer.normalize_str(text)

    def _encode_blocks(self, text_blocks: Iterable[list[str]]) -> Iterator[Any]:
        """Ids of each text, in order. Threads split the next blocks meanwhile."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(self._threads) as pool:
            pending: deque[Any] = deque()
            for texts in text_blocks:
                pending.append(pool.submit(self._split, texts))
                if len(pending) > self._threads:
                    yield from self._gather(pending.popleft().result())
            while pending:
                yield from self._gather(pending.popleft().result())

    def _split(self, texts: list[str]) -> _Block:
        words, first, last = self._split_words(texts)
        encoded = words.dictionary_encode()
        different = encoded.dictionary.to_numpy(zero_copy_only=False).tolist()
        return _Block(different, encoded.indices.to_numpy(), first, last)

    def _gather(self, block: _Block) -> list[Any]:
        """Ids of each text of a block."""
        import numpy as np

        rows = self._cache_rows(block.words)
        cache = self._cache
        begins = cache.begins[rows][block.codes]
        counts = cache.counts[rows][block.codes]
        ends = np.zeros(len(block.codes) + 1, np.int64)
        np.cumsum(counts, out=ends[1:])
        # The ids of word k begin at begins[k] in the cache and at ends[k] in the result. Therefore
        # position p in the result is position p + begins[k] - ends[k] in the cache.
        sources = np.repeat(begins - ends[:-1], counts)
        sources += np.arange(len(sources))
        ids = cache.ids[sources]
        text_starts = ends[block.first].tolist()
        text_ends = ends[block.last].tolist()
        return [ids[start:end] for start, end in zip(text_starts, text_ends, strict=True)]

    def _cache_rows(self, words: list[bytes]) -> Any:
        """The row of each word in the cache; new words are encoded first."""
        import numpy as np

        if len(self._cache.rows) > MAX_WORDS:
            self._cache = WordCache()
        rows = list(map(self._cache.rows.get, words))
        new = [i for i, row in enumerate(rows) if row is None]
        if new:
            new_words = [words[i] for i in new]
            first = self._cache.add(new_words, *self.encode_words(new_words))
            for row, i in enumerate(new, first):
                rows[i] = row
        return np.array(rows, np.int64)

    def encode_words(self, words: list[bytes]) -> tuple[Any, Any]:
        """(ids of all words, each closed by the separator; places of the separators).

        Thousands of words are encoded in one call, as strings of WORDS_PER_STRING.
        """
        import numpy as np

        groups = [words[i : i + WORDS_PER_STRING] for i in range(0, len(words), WORDS_PER_STRING)]
        strings = [(SEPARATOR_BYTES.join(group) + SEPARATOR_BYTES).decode() for group in groups]
        encodings = self._engine.encode_batch_fast(strings, add_special_tokens=False)
        ids = np.concatenate([np.array(encoding.ids, np.int32) for encoding in encodings])
        return ids, np.flatnonzero(ids == self._separator_id)


def _spec_of(component: Any) -> dict[str, Any]:
    """The part of a tokenizer.json that describes a normalizer or pre-tokenizer; empty for None."""
    return json.loads(component.__getstate__()) if component else {}


def _pre_tokenizer(spec: dict[str, Any]) -> Any:
    """The pre-tokenizer that a tokenizer.json describes."""
    from tokenizers import Tokenizer, models

    tokenizer = json.loads(Tokenizer(models.BPE()).to_str())
    tokenizer["pre_tokenizer"] = spec
    return Tokenizer.from_str(json.dumps(tokenizer)).pre_tokenizer


class WordCache:
    """Words and their ids, in arrays that grow by doubling.

    rows: word -> its row. The ids of row r are ids[begins[r] : begins[r] + counts[r]].
    """

    def __init__(self) -> None:
        import numpy as np

        self.rows: dict[bytes, int] = {}
        self.begins = np.empty(1 << 16, np.int64)
        self.counts = np.empty(1 << 16, np.int32)
        self.ids = np.empty(1 << 18, np.int32)
        self._num_rows = 0
        self._num_ids = 0

    def add(self, words: list[bytes], ids: Any, separators: Any) -> int:
        """Add words; returns the row of the first. ids, separators: as from ``encode_words``."""
        import numpy as np

        first = self._num_rows
        begins = np.append(0, separators[:-1] + 1)
        self.begins = _put(self.begins, first, begins + self._num_ids)
        self.counts = _put(self.counts, first, separators - begins)
        self.ids = _put(self.ids, self._num_ids, ids)
        self._num_rows += len(words)
        self._num_ids += len(ids)
        self.rows.update(zip(words, range(first, self._num_rows), strict=True))
        return first


def _put(array: Any, used: int, values: Any) -> Any:
    """The array with values behind its first ``used`` ones; a larger copy where they do not fit."""
    import numpy as np

    needed = used + len(values)
    if needed > len(array):
        larger = np.empty(max(2 * len(array), needed), array.dtype)
        larger[:used] = array[:used]
        array = larger
    array[used:needed] = values
    return array


def blocks(texts: Iterable[str], max_characters: int = 0) -> Iterator[list[str]]:
    """Group texts into lists of about ``max_characters`` characters (0: BLOCK_CHARACTERS)."""
    block = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size >= (max_characters or BLOCK_CHARACTERS):
            yield block
            block = []
            size = 0
    if block:
        yield block
