"""Where a tokenizer splits texts into words, by array operations.

Supported are the regular expressions of GPT-2, of GPT-4 and Llama 3, and of Qwen. Each only asks
for the class of a character (letter, number, white space, other) and for a few characters by name.
So its matches follow from runs of classes: a word begins where the class changes, except for the
cases written out in ``gpt2_starts`` and ``gpt4_starts``.

The classes come from the regular expression engine of the tokenizers library; Python's own knows
17,000 letters more. Texts lie one behind the other in one array, each closed by an end mark (the
character U+0000).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
# The expression of ByteLevel, where it has no other.
GPT2 = CONTRACTIONS + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT4 = (
    rf"(?i:{CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = GPT4.replace("{1,3}", "")

# Classes of characters. DIGIT: split off before the expression is used. END: closes a text.
# The order matters: the code compares with < DIGIT to ask whether the expression sees a character.
OTHER, LETTER, NUMBER, SPACE, DIGIT, END, UNSEEN = range(7)
NUM_CHARACTERS = 0x110000
ENDINGS = ("s", "t", "m", "d", "re", "ve", "ll")  # of 's, 're and so on
NEWLINE, RETURN, BLANK, QUOTE = 10, 13, 32, 39

FixStarts = Callable[[Any, Any, Any], None]


class UnsupportedTokenizer(Exception):
    """The fast path cannot handle this tokenizer; the message says why."""


def word_splitter(
    spec: Mapping[str, Any],
) -> tuple[Callable[[Sequence[str]], Any], dict[str, Any]]:
    """(function from texts to words, pre-tokenizer that leaves a word as it is).

    spec: the pre-tokenizer of a tokenizer.json. The function is ``split_words`` with its settings.
    Raises UnsupportedTokenizer where the words do not follow from classes of characters.
    """
    parts = list(spec["pretokenizers"]) if spec.get("type") == "Sequence" else [spec]
    splits_digits = len(parts) > 1 and parts[0] == {"type": "Digits", "individual_digits": True}
    *before, last = parts[1:] if splits_digits else parts
    fix_starts = _expression(before, last)
    if fix_starts is None:
        types = " + ".join(str(part.get("type")) for part in parts)
        raise UnsupportedTokenizer(f"its pre-tokenizer {types} splits words in an unknown way")

    word_spec = dict(last)
    if "use_regex" in word_spec:
        word_spec["use_regex"] = False
    return partial(split_words, digits=splits_digits, fix_starts=fix_starts), word_spec


def _expression(before: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> FixStarts | None:
    """The function for the expression that splits words, or None where it is not a known one."""
    byte_level = last.get("type") == "ByteLevel" and not last["add_prefix_space"]
    metaspace = last.get("type") == "Metaspace" and last["prepend_scheme"] == "never"
    if not byte_level and not metaspace:
        return None
    if last.get("use_regex"):
        return None if before else gpt2_starts
    if len(before) != 1:
        return None
    isolated_split = {"type": "Split", "pattern": 0, "behavior": "Isolated", "invert": False}
    if {**before[0], "pattern": 0} != isolated_split:
        return None
    known = {
        GPT2: gpt2_starts,
        GPT4: partial(gpt4_starts, max_digits=3),
        QWEN: partial(gpt4_starts, max_digits=1),
    }
    return known.get(before[0]["pattern"].get("Regex"))


def split_words(texts: Sequence[str], digits: bool, fix_starts: FixStarts) -> tuple[Any, Any, Any]:
    """(words, first, last): bytes of all words as an Arrow array, and where each text lies in it.

    The words of text i are words[first[i] : last[i]]. digits: each digit is a word of its own.
    fix_starts(characters, classes, starts): corrects ``starts``, which is true where the class
    changes, to what the expression says.
    """
    import numpy as np
    import pyarrow as pa

    joined = "\0".join([*texts, ""])
    data = joined.encode()
    is_ascii = len(data) == len(joined)
    if is_ascii:
        chars = np.frombuffer(data, np.uint8)
    else:
        chars = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    ends = np.cumsum(lengths + 1) - 1

    kinds = character_classes(chars, digits)
    kinds[ends] = END
    starts = np.ones(len(chars), bool)
    np.not_equal(kinds[1:], kinds[:-1], out=starts[1:])
    starts[ends] = True
    if digits:
        starts[kinds == DIGIT] = True
    fix_starts(chars, kinds, starts)

    word_starts = np.flatnonzero(starts)
    byte_starts = word_starts
    if not is_ascii:
        width = 1 + (chars >= 0x80).astype(np.uint8) + (chars >= 0x800) + (chars >= 0x10000)
        byte_starts = (np.cumsum(width, dtype=np.int64) - width)[word_starts]
    offsets = np.append(byte_starts, len(data)).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    words = pa.Array.from_buffers(pa.binary(), len(word_starts), buffers)
    text_starts = np.append(0, ends[:-1] + 1)
    return words, np.searchsorted(word_starts, text_starts), np.searchsorted(word_starts, ends)


def gpt2_starts(chars: Any, kinds: Any, starts: Any) -> None:
    """Correct the starts of words to those of the expression GPT2."""
    import numpy as np

    # The last character of a run of white space starts a word, unless the text ends behind it.
    space = kinds == SPACE
    last = np.flatnonzero(space[:-1] & ~space[1:])
    last = last[kinds[last + 1] < DIGIT]
    starts[last] = True
    # If it is a blank, it belongs to the word behind it.
    starts[last[chars[last] == BLANK] + 1] = False
    contractions(chars, starts, _same_case)


def gpt4_starts(chars: Any, kinds: Any, starts: Any, max_digits: int) -> None:
    """Correct the starts of words to those of the expression GPT4. max_digits: of a number."""
    import numpy as np

    number = np.flatnonzero(kinds == NUMBER)
    number_start = np.maximum.accumulate(np.where(starts[number], number, 0))
    starts[number[(number - number_start) % max_digits == 0]] = True

    _white_space_starts(chars, kinds, starts)

    # One sign before letters belongs to them, unless it begins a contraction.
    sign = np.flatnonzero((kinds[:-1] == OTHER) & (kinds[1:] == LETTER))
    sign = sign[starts[sign]]
    contracted = contractions(chars, starts, case_variants)
    starts[np.setdiff1d(sign, contracted) + 1] = False


def _white_space_starts(chars: Any, kinds: Any, starts: Any) -> None:
    """Split the runs of white space as the expression GPT4 does. first, last: of each run."""
    import numpy as np

    is_newline = (chars == NEWLINE) | (chars == RETURN)
    newlines = np.flatnonzero(is_newline)
    space = kinds == SPACE
    first = np.flatnonzero(space & np.append(True, ~space[:-1]))
    last = np.flatnonzero(space[:-1] & ~space[1:])

    # Signs take the newlines right behind them: the run begins later, or is gone.
    taken = is_newline[first] & (kinds[first - 1] == OTHER)
    starts[first[taken]] = False
    newline_ends = newlines[~is_newline[newlines + 1]]
    first[taken] = newline_ends[np.searchsorted(newline_ends, first[taken])] + 1
    starts[first[first <= last]] = True

    # Everything up to the last newline of a run is one word.
    if len(newlines):
        final = newlines[np.maximum(np.searchsorted(newlines, last, "right") - 1, 0)]
        first = np.where((final >= first) & (final <= last), final + 1, first)
        starts[first[first <= last]] = True

    # The last character of a run starts a word, unless the text ends behind it. Letters behind it
    # belong to the same word, and signs do if it is a blank.
    last = last[(first <= last) & (kinds[last + 1] < DIGIT)]
    starts[last] = True
    behind = kinds[last + 1]
    joins = (behind == LETTER) | ((behind == OTHER) & (chars[last] == BLANK))
    starts[last[joins] + 1] = False


def contractions(chars: Any, starts: Any, variants: Callable[[str], list[int]]) -> Any:
    """Split off the contractions with which words begin; returns the places of their quotes.

    variants: from a letter to the characters that count as this letter.
    """
    import numpy as np

    quotes = np.flatnonzero(chars == QUOTE)
    quotes = quotes[starts[quotes]]
    contracted = []
    for ending in ENDINGS:
        matches = quotes
        for place, letter in enumerate(ending, 1):
            matches = matches[matches + place < len(chars)]
            matches = matches[np.isin(chars[matches + place], variants(letter))]
        starts[matches + 1] = False
        starts[matches + 1 + len(ending)] = True
        contracted.append(matches)
    return np.concatenate(contracted)


def match_mask(expression: str, text: str) -> Any:
    """For each character of a text, whether it is in a match, by the engine of tokenizers."""
    import numpy as np
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(expression), "removed")
    inside = np.ones(len(text), bool)
    for _, (start, end) in split.pre_tokenize_str(text):
        inside[start:end] = False
    return inside


@cache
def _class_table(digits: bool) -> Any:
    """Class of each character; filled by ``character_classes``, one table for each setting."""
    import numpy as np

    return np.full(NUM_CHARACTERS, UNSEEN, np.uint8)


def character_classes(chars: Any, digits: bool) -> Any:
    """Class of each character. digits: what the pre-tokenizer ``Digits`` splits off is DIGIT.

    A character is looked up in the engine when it is first seen: all that exist would take two
    seconds.
    """
    import numpy as np

    table = _class_table(digits)
    kinds = table[chars]
    unseen = kinds == UNSEEN
    if unseen.any():
        new = np.unique(chars[unseen]).astype(np.uint32)
        table[new] = _look_up_classes(new, digits)
        kinds = table[chars]
    return kinds


def _look_up_classes(codes: Any, digits: bool) -> Any:
    """Class of each of some characters, by the engine of the tokenizers library."""
    import numpy as np
    from tokenizers import pre_tokenizers

    text = codes.tobytes().decode("utf-32-le")
    kinds = np.full(len(codes), OTHER, np.uint8)
    kinds[match_mask(r"\p{L}+", text)] = LETTER
    kinds[match_mask(r"\p{N}+", text)] = NUMBER
    kinds[match_mask(r"\s+", text)] = SPACE
    if digits:
        # Runs of digits alternate with runs of other characters. The letter in front makes the
        # first run one of others.
        splitter = pre_tokenizers.Digits(individual_digits=False)
        runs = splitter.pre_tokenize_str("a" + text)
        for _, (start, end) in runs[1::2]:
            kinds[start - 1 : end - 1] = DIGIT
    return kinds


def _same_case(letter: str) -> list[int]:
    return [ord(letter)]


@cache
def case_variants(letter: str) -> list[int]:
    """All characters that the engine takes for a letter when case does not matter.

    The long s (U+017F) is an s. Only characters below U+3000 are asked; a test checks that there
    are no others.
    """
    text = "".join(map(chr, range(0x3000)))
    mask = match_mask(f"(?i:{letter})", text)
    return [code for code, matches in enumerate(mask) if matches]
