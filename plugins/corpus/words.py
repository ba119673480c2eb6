"""Words of a text, three ways, and their features computed once per distinct word.

A text is cut at blanks, and each distinct piece between blanks is cut into words once and remembered: text repeats itself
so much that this is faster than any expression run over the whole of it. ``fast`` cuts pieces with a few rules written
after spaCy's English ones (contractions, hyphens between letters, punctuation marks as words of their own); ``spacy`` asks
spaCy itself, for decisions equal to datatrove's; ``whitespace`` takes pieces as they are, for technical text. Which one was
used is part of the fingerprint.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

from llmstages.core.errors import StageError

MOST = 2_000_000  # distinct words, and distinct pieces, that a process remembers
LONG = 100  # longer pieces between blanks are cut anew each time

# For pieces without the blanks of European scripts. \w lacks the vowel signs of Indic and Thai script, which would cut words there.
LETTER = r"[\w\u0300-\u036f\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e]"
WORD = re.compile(rf"{LETTER}+(?:['’.]{LETTER}+)*|\.{{2,}}|-+|[^\w\s]")
QUOTES = r"'\"”“`‘´’‚„»«"
MARKS = rf"…,:;!?¿؟¡()\[\]{{}}<>_#*&。？！，、；：～·।،۔؛٪{QUOTES}$£€¥¢₽₹%=—–§"
FRONT = re.compile(rf"\.\.+|---?|\+(?![0-9])|[{MARKS}]")
BACK = re.compile(
    rf"(?:\.\.+|---?|['’][sS]|(?<=[0-9])(?:\+|%|[kKmM]?m|[kmM]?g|[kKMGTmg][bB]|ft|km/h|K|cm|lb|oz)|(?<=[0-9a-zß-ÿ%²+\-)\]'\"”’])\.|(?<=[A-Z][A-Z])\.|[{MARKS}])$"
)
INSIDE = re.compile(
    r"(\.\.+|(?<=[0-9])[+\-*^](?=[0-9\-])|(?<=[a-zß-ÿ])\.(?=[A-ZÀ-Þ])|(?<=[^\W\d_]),(?=[^\W\d_])"
    r"|(?<=[^\W_])(?:---?|[-–—~])(?=[^\W\d_])|(?<=[^\W_])[:<>=/](?=[^\W\d_]))"
)
UNITS = frozenset("sSmMgGKkbBthlz")  # the letters BACK can end with
CONTRACTION = re.compile(r"(.*[a-zA-Z])(n['’]t|['’](?:ve|re|ll|d|m|s))", re.IGNORECASE)
WHOLE = re.compile(  # addresses and abbreviations
    r"(?:https?://|www\.)\S+|[\w.+-]+@[\w-]+\.[\w.]+|[a-z]\.(?:[a-z]\.)*"
    r"|(?:mr|mrs|ms|dr|prof|jr|sr|st|vs|etc|inc|ltd|co|corp|gen|rep|sen|gov|no|pa|va)\.|(?:[ap]\.m|[ei]\.[ge])\.",
    re.IGNORECASE,
)

# Characters that make no word: the punctuation of CCNet's normalisation (Wenzek et al. 2020), control characters, and
# marks that end a sentence in any script (Unicode Sentence_Terminal, as listed by datatrove for FineWeb).
SENTENCE_ENDS = frozenset(
    "!.?։؝؞؟۔܀܁܂߹࠷࠹࠽࠾।॥၊။።፧፨᙮᜵᜶។៕៖៙៚᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᭽᭾᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼⹓⹔。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？｡"
    "𐩖𐩗𐽕𐽖𐽗𐽘𐽙𐾆𐾇𐾈𐾉𑁇𑁈𑂾𑂿𑃀𑃁𑅁𑅂𑅃𑇅𑇆𑇍𑇞𑇟𑈸𑈹𑈻𑈼𑊩𑑋𑑌𑗂𑗃𑗉𑗊𑗋𑗌𑗍𑗎𑗏𑗐𑗑𑗒𑗓𑗔𑗕𑗖𑗗𑙁𑙂𑜼𑜽𑜾𑥄𑥆𑩂𑩃𑪛𑪜𑱁𑱂𑻷𑻸𑽃𑽄𖩮𖩯𖫵𖬷𖬸𖭄𖺘𛲟𝪈"
)
PUNCTUATION = SENTENCE_ENDS.union(
    "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»",
    map(chr, (*range(9), *range(11, 32), *range(127, 160))),
)


class Vocabulary(dict):
    """Word -> number, growing, with features of the words as arrays indexed by that number."""

    def __init__(self) -> None:
        super().__init__()
        self._order: list[str] = []
        self._features: dict[str, Any] = {}

    def __missing__(self, word: str) -> int:
        code = self[word] = len(self._order)
        self._order.append(word)
        return code

    def lengths(self) -> Any:
        """Characters of each word."""
        return self._feature("lengths", "int64", len)

    def alphabetic(self) -> Any:
        """Whether the word has a letter."""
        return self._feature("alphabetic", "bool", _has_letter)

    def symbols(self) -> Any:
        """Whether the word is nothing but punctuation."""
        return self._feature("symbols", "bool", PUNCTUATION.issuperset)

    def hashes(self) -> Any:
        """A number (uint32) of the normalised word, 0 where nothing is left: lower case, no accents, digits as 0, no punctuation."""
        return self._feature("hashes", "uint32", _hash)

    def _feature(self, name: str, kind: str, of: Any) -> Any:
        import numpy as np

        known, filled = self._features.get(name, (np.zeros(1024, kind), 0))
        if filled < len(self):
            if len(known) < len(self):
                known = np.concatenate(
                    [known, np.zeros(max(len(known), len(self) - len(known)), kind)]
                )
            known[filled : len(self)] = [of(word) for word in self._order[filled:]]
            self._features[name] = known, len(self)
        return known

    def forget(self) -> None:
        """Start anew; numbers given out before become invalid."""
        self.clear()
        self._order.clear()
        self._features.clear()


def _has_letter(word: str) -> bool:
    return word.isalpha() or any(map(str.isalpha, word))


def _hash(word: str) -> int:
    word = word.lower()
    if not word.isascii():
        word = "".join(
            c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) != "Mn"
        )
    kept = re.sub(r"\d+", "0", "".join(filter(str.isalnum, word)))
    return (
        int.from_bytes(hashlib.blake2b(kept.encode(), digest_size=4).digest(), "little") or 1
        if kept
        else 0
    )


class Splitter:
    """Cuts texts into words; what it remembers belongs to this process and grows while it works."""

    ends = SENTENCE_ENDS

    def __init__(self) -> None:
        self.vocabulary = Vocabulary()
        self._pieces = _Pieces(self.cut)
        self._coded = _Pieces(lambda piece: map(self.vocabulary.__getitem__, self._pieces[piece]))

    def cut(self, piece: str) -> Sequence[str]:
        """The words of a piece between blanks: marks are peeled off both ends, what is left is cut inside."""
        if piece.isascii():
            if piece.isalnum() and piece[0] > "9":
                return ("can", "not") if piece == "cannot" else (piece,)
        elif any("\u0e00" <= c <= "\u0fff" or "\u3040" <= c <= "\u9fff" for c in piece):
            return WORD.findall(piece)
        front: list[str] = []
        back: list[str] = []
        while (
            piece
            and not piece.isalnum()
            and not (("." in piece or "/" in piece) and WHOLE.fullmatch(piece))
        ):
            first, last = piece[0], piece[-1]
            if not first.isalnum() and (found := FRONT.match(piece)):
                front.append(found.group())
                piece = piece[found.end() :]
            elif (last in UNITS or not last.isalpha()) and (
                found := BACK.search(piece, max(len(piece) - 4, 0))
            ):
                back.append(found.group())
                piece = piece[: found.start()]
            elif ("'" in piece or "’" in piece) and (found := CONTRACTION.fullmatch(piece)):
                back.append(found[2])
                piece = found[1]
            else:
                front += (piece,) if piece.isidentifier() else filter(None, INSIDE.split(piece))
                piece = ""
        return [*front, *([piece] if piece else []), *reversed(back)]

    def words(self, text: str) -> list[str]:
        """Words and punctuation marks, in order, without blanks."""
        return list(chain.from_iterable(map(self._pieces.__getitem__, text.split())))

    def codes(self, text: str) -> Any:
        """The same words as numbers of the vocabulary (int64)."""
        import numpy as np

        return np.fromiter(
            chain.from_iterable(map(self._coded.__getitem__, text.split())), np.int64
        )

    def sentences(self, text: str) -> int:
        """Number of sentences, by the rule of spaCy's sentencizer: one begins at the first word after a mark that ends one."""
        count, ended = 0, True
        for word in self.words(text):
            if ended and word not in self.ends and not _is_punctuation(word):
                count, ended = count + 1, False
            ended = ended and count > 0 or word in self.ends
        return max(count, 1) if text.strip() else 0

    def trim(self) -> None:
        """Forget everything when there is too much of it; codes given out before become invalid. For use between batches."""
        if len(self.vocabulary) > MOST or len(self._pieces) > MOST:
            self.vocabulary.forget()
            self._pieces.clear()
            self._coded.clear()


class _Pieces(dict):
    """Piece between blanks -> its words, or their numbers."""

    def __init__(self, cut: Any) -> None:
        super().__init__()
        self._cut = cut

    def __missing__(self, piece: str) -> Sequence[str]:
        words = tuple(self._cut(piece))
        if len(piece) <= LONG:
            self[piece] = words
        return words


@cache
def _is_punctuation(word: str) -> bool:
    return all(unicodedata.category(character).startswith("P") for character in word)


class Whitespace(Splitter):
    """Cuts at blanks alone."""

    def cut(self, piece: str) -> Sequence[str]:
        return (piece,)

    def words(self, text: str) -> list[str]:
        return text.split()


class SpaCy(Splitter):
    """spaCy's rules for one language, without any model: ``spacy.blank(language)``. It, too, cuts pieces between blanks one by one."""

    def __init__(self, language: str) -> None:
        super().__init__()
        try:
            import spacy

            self._nlp = spacy.blank(language)
            self.ends = frozenset(spacy.pipeline.Sentencizer.default_punct_chars)
        except ImportError as error:
            raise StageError(
                f"corpus.words=spacy needs spaCy for {language!r} ({error}): pip install 'llmstages[spacy]', "
                "or take corpus.words=fast"
            ) from error

    def cut(self, piece: str) -> Sequence[str]:
        with self._nlp.memory_zone():
            return [
                word
                for word in (token.text.strip() for token in self._nlp.tokenizer(piece))
                if word
            ]


@cache
def splitter(name: str, language: str = "en") -> Splitter:
    """The splitter of a name (fast, spacy or whitespace), one a process. language: ISO code, for spaCy alone."""
    return (
        {"fast": Splitter, "whitespace": Whitespace}[name]() if name != "spacy" else SpaCy(language)
    )
