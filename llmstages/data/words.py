"""Words of a text, three ways, and their features computed once per distinct word.

A text is cut at blanks, and each distinct piece between blanks is cut into words once and
remembered. Text repeats itself so much that this is faster than any expression run over the whole
of it. There are three ways to cut a piece:

- ``fast`` uses a few rules written after spaCy's English ones (word_rules.py).
- ``spacy`` asks spaCy itself, for decisions equal to datatrove's. Its time is quadratic in a run
  of marks without blanks, where that of ``fast`` is linear.
- ``whitespace`` takes the piece as one word, for technical text.

Which one was used is part of the fingerprint.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import Any

from llmstages.core.errors import StageError
from llmstages.data.word_rules import cut_piece

MAX_REMEMBERED = 2_000_000  # distinct words, and distinct pieces, that a process remembers
MAX_REMEMBERED_LENGTH = 100  # longer pieces between blanks are cut anew each time

# Marks that end a sentence in any script (Unicode Sentence_Terminal, as datatrove lists them).
SENTENCE_ENDS = frozenset(
    "!.?։؝؞؟۔܀܁܂߹࠷࠹࠽࠾।॥၊။።፧፨᙮᜵᜶។៕៖៙៚᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᭽᭾᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼⹓⹔。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？｡"
    "𐩖𐩗𐽕𐽖𐽗𐽘𐽙𐾆𐾇𐾈𐾉𑁇𑁈𑂾𑂿𑃀𑃁𑅁𑅂𑅃𑇅𑇆𑇍𑇞𑇟𑈸𑈹𑈻𑈼𑊩𑑋𑑌𑗂𑗃𑗉𑗊𑗋𑗌𑗍𑗎𑗏𑗐𑗑𑗒𑗓𑗔𑗕𑗖𑗗𑙁𑙂𑜼𑜽𑜾𑥄𑥆𑩂𑩃𑪛𑪜𑱁𑱂𑻷𑻸𑽃𑽄𖩮𖩯𖫵𖬷𖬸𖭄𖺘𛲟𝪈"
)
# Characters that are not a word: the punctuation of CCNet's normalization (Wenzek et al. 2020),
# control characters, and the ends of sentences.
PUNCTUATION = SENTENCE_ENDS.union(
    "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»",
    map(chr, (*range(9), *range(11, 32), *range(127, 160))),
)


class Vocabulary(dict):
    """Word -> number, growing, with features of the words as arrays indexed by that number.

    An array may be longer than the vocabulary.
    """

    def __init__(self) -> None:
        super().__init__()
        self._order: list[str] = []
        self._features: dict[str, Any] = {}

    def __missing__(self, word: str) -> int:
        code = self[word] = len(self._order)
        self._order.append(word)
        return code

    def lengths(self) -> Any:
        """Characters of each word (int64)."""
        return self._feature("lengths", "int64", len)

    def alphabetic(self) -> Any:
        """Whether each word has a letter (bool)."""
        return self._feature("alphabetic", "bool", _has_letter)

    def symbols(self) -> Any:
        """Whether each word is nothing but punctuation (bool)."""
        return self._feature("symbols", "bool", PUNCTUATION.issuperset)

    def hashes(self) -> Any:
        """A hash of each normalized word (uint32), 0 for words without a letter or digit.

        Normalized: lower case, no accents and no punctuation, every number as 0.
        """
        return self._feature("hashes", "uint32", _hash)

    def _feature(self, name: str, dtype: str, compute: Callable[[str], Any]) -> Any:
        import numpy as np

        values, filled = self._features.get(name, (np.zeros(1024, dtype), 0))
        if filled < len(self):
            missing = len(self) - len(values)
            if missing > 0:
                # At least twice the length, so that growing takes linear time in all.
                values = np.concatenate([values, np.zeros(max(len(values), missing), dtype)])
            values[filled : len(self)] = [compute(word) for word in self._order[filled:]]
            self._features[name] = values, len(self)
        return values

    def forget(self) -> None:
        """Start anew; numbers given out before become invalid."""
        self.clear()
        self._order.clear()
        self._features.clear()


def _has_letter(word: str) -> bool:
    return word.isalpha() or any(map(str.isalpha, word))


def _hash(word: str) -> int:
    letters = "".join(filter(str.isalnum, word.lower()))
    if not letters.isascii():
        # Marks are already gone: normalize() sorts long runs of them in quadratic time.
        letters = "".join(filter(str.isalnum, unicodedata.normalize("NFD", letters)))
    if not letters:
        return 0
    letters = re.sub(r"\d+", "0", letters)
    digest = hashlib.blake2b(letters.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") or 1


class Splitter:
    """Cuts texts into words; what it remembers belongs to this process and grows while it works.

    Subclasses replace ``cut``, which returns the words of a piece between blanks, and may replace
    ``ends``, the marks that end a sentence.
    """

    ends = SENTENCE_ENDS
    # A static method saves a call for each distinct piece.
    cut: Callable[..., Sequence[str]] = staticmethod(cut_piece)

    def __init__(self) -> None:
        self.vocabulary = Vocabulary()
        self._words_of = _Memory(self.cut)
        self._codes_of = _Memory(self._codes_of_piece)

    def _codes_of_piece(self, piece: str) -> Iterable[int]:
        return map(self.vocabulary.__getitem__, self._words_of[piece])

    def words(self, text: str) -> list[str]:
        """Words and punctuation marks, in order, without blanks."""
        return list(chain.from_iterable(map(self._words_of.__getitem__, text.split())))

    def codes(self, text: str) -> Any:
        """The same words as numbers of the vocabulary (int64)."""
        import numpy as np

        codes = chain.from_iterable(map(self._codes_of.__getitem__, text.split()))
        return np.fromiter(codes, np.int64)

    def sentences(self, text: str) -> int:
        """Number of sentences, after the rule of spaCy's sentencizer.

        A sentence begins at the first word after a mark that ends one.
        """
        if not text.strip():
            return 0
        count = 0
        ended = True
        for word in self.words(text):
            if word in self.ends:
                ended = True
            elif ended and not _is_punctuation(word):
                count += 1
                ended = False
            elif count == 0:
                ended = False
        return max(count, 1)

    def trim(self) -> None:
        """Forget everything if it has become too much. For use between batches.

        Codes given out before become invalid then.
        """
        if max(len(self.vocabulary), len(self._words_of)) > MAX_REMEMBERED:
            self.vocabulary.forget()
            self._words_of.clear()
            self._codes_of.clear()


class _Memory(dict):
    """Piece between blanks -> its words, or their numbers; long pieces are not remembered."""

    def __init__(self, compute: Callable[[str], Iterable[Any]]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, piece: str) -> Sequence[Any]:
        values = tuple(self._compute(piece))
        if len(piece) <= MAX_REMEMBERED_LENGTH:
            self[piece] = values
        return values


@lru_cache(maxsize=100_000)
def _is_punctuation(word: str) -> bool:
    return all(unicodedata.category(character).startswith("P") for character in word)


class Whitespace(Splitter):
    """Cuts at blanks alone."""

    def cut(self, piece: str) -> Sequence[str]:
        return (piece,)

    def words(self, text: str) -> list[str]:
        return text.split()


class SpaCy(Splitter):
    """spaCy's rules for one language, without a model: ``spacy.blank(language)``.

    It, too, cuts pieces between blanks one by one.
    """

    def __init__(self, language: str) -> None:
        super().__init__()
        try:
            import spacy

            self._nlp = spacy.blank(language)
            self.ends = frozenset(spacy.pipeline.Sentencizer.default_punct_chars)
        except ImportError as error:
            raise StageError(
                f"corpus.words=spacy needs spaCy for {language!r} ({error}). "
                "Run: pip install 'llmstages[spacy]', or set corpus.words=fast"
            ) from error

    def cut(self, piece: str) -> Sequence[str]:
        with self._nlp.memory_zone():
            words = [token.text.strip() for token in self._nlp.tokenizer(piece)]
        return [word for word in words if word]


@cache
def splitter(name: str, language: str = "en") -> Splitter:
    """The splitter with this name; each is made once per process.

    Args:
        name: fast, spacy or whitespace.
        language: ISO code of the language, for spacy alone.
    """
    if name == "spacy":
        return SpaCy(language)
    return {"fast": Splitter, "whitespace": Whitespace}[name]()
