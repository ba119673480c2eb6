"""Ids of many texts, quickly and exactly: what ``tokenizer(texts, split_special_tokens=True)`` gives, many times faster.

Text is cut into words by a fixed expression before anything is merged, and words repeat: 100 MB of prose hold a quarter of
a million. So the words of a block are found by array operations (``cutting.py``), each different one is encoded once, by
the tokenizer's own model, and the ids are gathered. Nothing is guessed: the merging is Hugging Face's, and so are the
classes of characters that the cutting rests on. A probe on the very texts and on a nasty sample still compares with the
plain way before the first use; if anything differs, the plain way is taken and a line says so.
Left out: normalizers other than NFC, Bert's words, and libraries that split in Rust on their own. tiktoken was slower than
this, and its engine knows other letters; gigatoken cannot read digits split one by one, and makes control tokens of text.
"""

from __future__ import annotations

import json
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from llmstages.text.pretokenize import Unknown, cutting
from llmstages.text.special_tokens import special_tokens_of

WORTH = 300_000  # characters; below this the plain way is quick enough
BLOCK = 500_000  # characters worked on at once by a thread, some 15 MB of arrays
GROUP = 200  # words encoded in one string
KEPT = 500_000  # words remembered, some 100 MB; above this the memory is emptied
MARK = "\U0010fffe"  # stands between words that are encoded together; a text that holds it goes the plain way
NASTY = (
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
    """The text with lone surrogates, which nothing can write, replaced by U+FFFD."""
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def encode_plain(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids by Hugging Face's own call; no text becomes a control token."""
    return special_tokens_of(tokenizer).plain(texts)


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts: the plain way for few, for many the quick one where there is one."""
    return [row if isinstance(row, list) else row.tolist() for row in encode_rows(tokenizer, texts)]


def encode_rows(tokenizer: Any, texts: Sequence[str]) -> list[Any]:
    """The same, each row a list or, the quick way, an int32 array, which saves a fifth of the time."""
    texts = [replace_surrogates(text) for text in texts]
    quick = (
        encoder(tokenizer, texts)
        if sum(map(len, texts)) >= WORTH and not special_tokens_of(tokenizer).leaks
        else None
    )
    return quick.arrays(texts) if quick else encode_plain(tokenizer, texts)


def encoder(
    tokenizer: Any, texts: Sequence[str] = (), say: Callable[[str], None] | None = None
) -> Encoder | None:
    """The quick encoder, probed; None and a line that says why where there is none. Remembered while the tokenizer stays as it is."""
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    engine = getattr(tokenizer, "backend_tokenizer", None)
    state = (
        len(tokenizer),
        len(tokenizer.get_added_vocab()),
        *(str(getattr(engine, part, "")) for part in ("normalizer", "pre_tokenizer")),
    )
    known = _made.get(tokenizer)
    if known and known[0] == state:
        return known[1]
    made: Encoder | None = None
    try:
        made = Encoder(tokenizer)
        if wrong := made.differs(texts):
            made = None
            say(
                f"encoding: the quick way gives other ids than the tokenizer itself for {wrong!r}, so the tokenizer's own way is taken (slower)"
            )
    except Unknown as reason:
        say(f"encoding: no quick way for this tokenizer ({reason}), so its own is taken (slower)")
    _made[tokenizer] = state, made
    return made


_made: weakref.WeakKeyDictionary[Any, tuple[tuple[Any, ...], Encoder | None]] = (
    weakref.WeakKeyDictionary()
)  # an attribute would be pickled


class Encoder:
    """Texts -> ids by a memory of words. Threads cut, the caller's thread looks up; not for two callers at once."""

    def __init__(self, tokenizer: Any, threads: int | None = None) -> None:
        """Raises Unknown where words are not fixed before merging."""
        from tokenizers import Tokenizer

        engine = getattr(tokenizer, "backend_tokenizer", None)
        if engine is None:
            raise Unknown("it is not of the tokenizers library")
        normalizer = engine.normalizer and json.loads(engine.normalizer.__getstate__())
        if normalizer and normalizer["type"] != "NFC":
            raise Unknown(f"its normalizer is {normalizer['type']}")
        self.cut, inner = cutting(
            json.loads(engine.pre_tokenizer.__getstate__()) if engine.pre_tokenizer else {}
        )
        self.tokenizer, self.threads = (
            weakref.ref(tokenizer),
            threads or min(os.cpu_count() or 1, 8),
        )
        self.normalizer = engine.normalizer
        # Tokens added without being special are looked for in every text, whatever is asked: a text that holds one goes the plain way.
        self.apart = [
            MARK,
            *(
                token.content
                for token in engine.get_added_tokens_decoder().values()
                if not token.special
            ),
        ]
        # The same model without added tokens: from text it can make only what merging makes.
        self.engine = Tokenizer(engine.model)
        self.engine.pre_tokenizer = _pre_tokenizer(inner)
        self.engine.add_special_tokens([MARK])
        self.mark = self.engine.token_to_id(MARK)
        self.memory = Memory()

    def differs(self, texts: Sequence[str]) -> str:
        """The first of some texts, shortened, whose ids are not those of the tokenizer; empty when all agree."""
        some = [
            *NASTY,
            "\n".join(NASTY),
            *(text[:5000] for text in texts[:: max(1, len(texts) // 50)]),
        ]
        return next(
            (
                text[:80] or " "
                for text, a, b in zip(
                    some, self.lists(some), encode_plain(self.tokenizer(), some), strict=True
                )
                if a != b
            ),
            "",
        )

    def lists(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids as lists."""
        return [row.tolist() for row in self.arrays(texts)]

    def arrays(self, texts: Sequence[str]) -> list[Any]:
        """Ids as int32 arrays, each a view into the array of its block."""
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np

        texts = list(texts)
        aside = {
            i: text for i, text in enumerate(texts) if any(token in text for token in self.apart)
        }
        if self.normalizer is not None:
            texts = [
                text if text.isascii() else self.normalizer.normalize_str(text) for text in texts
            ]
            aside |= {
                i: text
                for i, text in enumerate(texts)
                if any(token in text for token in self.apart)
            }
        # Texts of ASCII alone take a quarter of the memory, so they share blocks.
        order = sorted(range(len(texts)), key=lambda i: not texts[i].isascii())
        out: list[Any] = [None] * len(texts)
        place = iter(order)
        with ThreadPoolExecutor(self.threads) as pool:
            ahead: deque[Any] = deque()
            for block in [
                *blocks("" if i in aside else texts[i] for i in order),
                *[None] * self.threads,
            ]:
                ahead.append(block and pool.submit(self.coded, block))
                if len(ahead) > self.threads and (done := ahead.popleft()):
                    for ids in self.gather(*done.result()):
                        out[next(place)] = ids
        for i, ids in zip(aside, encode_plain(self.tokenizer(), [*aside.values()]), strict=True):
            out[i] = np.array(ids, np.int32)
        return out

    def coded(self, texts: list[str]) -> tuple[Any, Any, Any, Any]:
        """(the different words of some texts, which one stands where, index of each text's first word, and of the one behind its last)."""
        words, first, last = self.cut(texts)
        found = words.dictionary_encode()
        return (
            found.dictionary.to_numpy(zero_copy_only=False).tolist(),
            found.indices.to_numpy(),
            first,
            last,
        )

    def gather(self, words: list[bytes], codes: Any, first: Any, last: Any) -> list[Any]:
        """Ids of each text from what ``coded`` gave."""
        import numpy as np

        rows, memory = self.look_up(words), self.memory
        begins, count = memory.begins[rows][codes], memory.counts[rows][codes]
        ends = np.zeros(len(codes) + 1, np.int64)
        np.cumsum(count, out=ends[1:])
        where = np.repeat(begins - ends[:-1], count)
        where += np.arange(len(where))
        ids = memory.ids[where]
        return [ids[a:b] for a, b in zip(ends[first].tolist(), ends[last].tolist(), strict=True)]

    def look_up(self, words: list[bytes]) -> Any:
        """Where the memory has each word; new ones are encoded first."""
        import numpy as np

        if len(self.memory.rows) > KEPT:
            self.memory = Memory()
        rows = list(map(self.memory.rows.get, words))
        if new := [i for i, row in enumerate(rows) if row is None]:
            first = self.memory.add(
                [words[i] for i in new], *self.encode_words([words[i] for i in new])
            )
            for row, i in enumerate(new, first):
                rows[i] = row
        return np.array(rows, np.int64)

    def encode_words(self, words: list[bytes]) -> tuple[Any, Any]:
        """(ids of the words, one after the other, each closed by the mark; where the marks are). Thousands in a call."""
        import numpy as np

        groups = [words[i : i + GROUP] for i in range(0, len(words), GROUP)]
        done = self.engine.encode_batch_fast(
            [(MARK.encode().join(group) + MARK.encode()).decode() for group in groups],
            add_special_tokens=False,
        )
        ids = np.concatenate([np.array(one.ids, np.int32) for one in done])
        return ids, np.flatnonzero(ids == self.mark)


def _pre_tokenizer(spec: dict[str, Any]) -> Any:
    """The pre-tokenizer of a tokenizer.json."""
    from tokenizers import Tokenizer, models

    empty = json.loads(Tokenizer(models.BPE()).to_str())
    return Tokenizer.from_str(json.dumps({**empty, "pre_tokenizer": spec})).pre_tokenizer


class Memory:
    """Words and their ids, in arrays that grow by doubling."""

    def __init__(self) -> None:
        import numpy as np

        self.rows: dict[bytes, int] = {}  # word -> where its entries lie in begins and counts
        self.words, self.tokens = 0, 0  # how much of the arrays below is filled
        self.begins, self.counts, self.ids = (
            np.empty(1 << 16, np.int64),
            np.empty(1 << 16, np.int32),
            np.empty(1 << 18, np.int32),
        )

    def add(self, words: list[bytes], ids: Any, marks: Any) -> int:
        """Remember words; returns the row of the first. ids: those of all the words, a mark behind each; marks: where the marks are."""
        import numpy as np

        first, begins = self.words, np.append(0, marks[:-1] + 1)
        self.begins = _filled(self.begins, first, begins + self.tokens)
        self.counts = _filled(self.counts, first, marks - begins)
        self.ids = _filled(self.ids, self.tokens, ids)
        self.words, self.tokens = first + len(words), self.tokens + len(ids)
        self.rows.update(zip(words, range(first, self.words), strict=True))
        return first


def _filled(array: Any, used: int, values: Any) -> Any:
    import numpy as np

    if used + len(values) > len(array):
        bigger = np.empty(max(2 * len(array), used + len(values)), array.dtype)
        bigger[:used] = array[:used]
        array = bigger
    array[used : used + len(values)] = values
    return array


def blocks(texts: Iterable[str], most: int = 0) -> Iterator[list[str]]:
    """Runs of texts of about so many characters (0: BLOCK)."""
    some, size = [], 0
    for text in texts:
        some.append(text)
        size += len(text)
        if size >= (most or BLOCK):
            yield some
            some, size = [], 0
    if some:
        yield some
