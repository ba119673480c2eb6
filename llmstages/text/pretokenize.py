"""Where a tokenizer cuts texts into words, by array operations: the expressions of GPT-2, of GPT-4 and Llama 3, of Qwen.

Each expression only asks for the class of a character (letter, number, white space, other) and for a few characters by
name, so its matches follow from runs of classes: a word begins where the class changes, except for the cases written
out below. The classes are asked from the engine that Hugging Face uses; Python's own knows 17,000 letters more.
Texts lie one behind the other, each closed by an end mark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # what ByteLevel uses by itself
GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = GPT4.replace("{1,3}", "")
OTHER, LETTER, NUMBER, SPACE, DIGIT, END, UNSEEN = range(
    7
)  # DIGIT: cut off before the expression is used; END: behind a text
EVERY = 0x110000  # characters there are
ENDINGS = ("s", "t", "m", "d"), ("re", "ve", "ll")  # of 's, 're and so on


class Unknown(Exception):
    """This tokenizer has no quick way; the message says why."""


def cutting(spec: Mapping[str, Any]) -> tuple[Callable[[Sequence[str]], Any], dict[str, Any]]:
    """(texts -> words, the pre-tokenizer that leaves a word as it is) for the pre-tokenizer of a tokenizer.json.

    Raises Unknown where the words do not follow from classes of characters.
    """
    parts = list(spec["pretokenizers"]) if spec.get("type") == "Sequence" else [spec]
    digits = len(parts) > 1 and parts[0] == {"type": "Digits", "individual_digits": True}
    *before, last = parts[digits:]
    cut = None
    if (
        last.get("type") == "ByteLevel"
        and not last["add_prefix_space"]
        or last.get("type") == "Metaspace"
        and last["prepend_scheme"] == "never"
    ):
        if last.get("use_regex"):
            cut = gpt2 if not before else None
        elif len(before) == 1 and {**before[0], "pattern": 0} == {
            "type": "Split",
            "pattern": 0,
            "behavior": "Isolated",
            "invert": False,
        }:
            cut = {GPT2: gpt2, GPT4: partial(gpt4, group=3), QWEN: partial(gpt4, group=1)}.get(
                before[0]["pattern"].get("Regex")
            )
    if not cut:
        raise Unknown(
            f"words cut by {' + '.join(str(part.get('type')) for part in parts)} in a way that is not known here"
        )
    return partial(words, digits=digits, cut=cut), {
        **last,
        "use_regex": False,
    } if "use_regex" in last else dict(last)


def words(
    texts: Sequence[str], digits: bool, cut: Callable[[Any, Any, Any], None]
) -> tuple[Any, Any, Any]:
    """(bytes of all words as an Arrow array, for each text the index of its first word, and of the one behind its last).

    cut(characters, classes, start): corrects ``start``, which is true where the class changes.
    """
    import numpy as np
    import pyarrow as pa

    joined = "\0".join([*texts, ""])
    data = joined.encode()
    narrow = len(data) == len(joined)
    chars = (
        np.frombuffer(data, np.uint8)
        if narrow
        else np.frombuffer(joined.encode("utf-32-le"), np.uint32)
    )
    behind = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1) - 1
    kinds = classes(chars, digits)
    kinds[behind] = END
    start = np.ones(len(chars), bool)
    np.not_equal(kinds[1:], kinds[:-1], out=start[1:])
    start[behind] = True
    if digits:
        start[kinds == DIGIT] = True
    cut(chars, kinds, start)
    where = np.flatnonzero(start)
    edges = where
    if not narrow:
        width = 1 + (chars >= 0x80).astype(np.uint8) + (chars >= 0x800) + (chars >= 0x10000)
        edges = (np.cumsum(width, dtype=np.int64) - width)[where]
    edges = np.append(edges, len(data)).astype(np.int32)
    array = pa.Array.from_buffers(
        pa.binary(), len(where), [None, pa.py_buffer(edges), pa.py_buffer(data)]
    )
    return (
        array,
        np.searchsorted(where, np.append(0, behind[:-1] + 1)),
        np.searchsorted(where, behind),
    )


def gpt2(chars: Any, kinds: Any, start: Any) -> None:
    """GPT2 above."""
    import numpy as np

    blank = kinds == SPACE
    last = np.flatnonzero(blank[:-1] & ~blank[1:])  # of each run of white space
    last = last[kinds[last + 1] < DIGIT]  # before the end of a text it stays whole
    start[last] = True
    start[last[chars[last] == 32] + 1] = False  # the last blank belongs to the word behind it
    contractions(
        chars, start, [([ord(a)] for a in ending) for length in ENDINGS for ending in length]
    )


def gpt4(chars: Any, kinds: Any, start: Any, group: int) -> None:
    """GPT4 above. group: how many digits make a number."""
    import numpy as np

    number = np.flatnonzero(kinds == NUMBER)
    begun = np.maximum.accumulate(np.where(start[number], number, 0))
    start[number[(number - begun) % group == 0]] = True

    newline = (chars == 10) | (chars == 13)
    lines = np.flatnonzero(newline)
    blank = kinds == SPACE
    first = np.flatnonzero(blank & np.append(True, ~blank[:-1]))
    last = np.flatnonzero(blank[:-1] & ~blank[1:])
    glued = newline[first] & (
        kinds[first - 1] == OTHER
    )  # signs take the newlines right behind them
    start[first[glued]] = False
    breaks = lines[~newline[lines + 1]]
    first[glued] = breaks[np.searchsorted(breaks, first[glued])] + 1
    start[first[first <= last]] = True
    if len(lines):  # all up to the last newline is one word
        final = lines[np.maximum(np.searchsorted(lines, last, "right") - 1, 0)]
        first = np.where((final >= first) & (final <= last), final + 1, first)
        start[first[first <= last]] = True
    last = last[(first <= last) & (kinds[last + 1] < DIGIT)]
    start[last] = True
    behind = kinds[last + 1]
    start[last[(behind == LETTER) | ((behind == OTHER) & (chars[last] == 32))] + 1] = False

    single = np.flatnonzero((kinds[:-1] == OTHER) & (kinds[1:] == LETTER))
    single = single[
        start[single]
    ]  # one sign before letters belongs to them, unless it begins a contraction
    taken = contractions(
        chars, start, [[same(a) for a in ending] for length in ENDINGS for ending in length]
    )
    start[np.setdiff1d(single, taken) + 1] = False


def contractions(chars: Any, start: Any, endings: Sequence[Any]) -> Any:
    """Cut 's, 're and the others off where a word begins with them; returns where. endings: characters allowed, in turn."""
    import numpy as np

    found = []
    quote = np.flatnonzero(chars == 39)
    quote = quote[start[quote]]
    for ending in endings:
        here = quote
        for place, allowed in enumerate(ending, 1):
            here = here[here + place < len(chars)]
            here = here[np.isin(chars[here + place], allowed)]
            length = place + 1
        start[here + 1] = False
        start[here + length] = True
        found.append(here)
    return np.concatenate(found)


def matched(expression: str, text: str) -> Any:
    """For each character of a text, whether it lies in a match of the expression, by Hugging Face's engine."""
    import numpy as np
    from tokenizers import Regex, pre_tokenizers

    inside = np.ones(len(text), bool)
    for _, (a, b) in pre_tokenizers.Split(Regex(expression), "removed").pre_tokenize_str(text):
        inside[a:b] = False
    return inside


@cache
def _table(digits: bool) -> Any:
    import numpy as np

    return np.full(EVERY, UNSEEN, np.uint8)


def classes(chars: Any, digits: bool) -> Any:
    """Class of each character. digits: what the pre-tokenizer ``Digits`` takes is a class of its own.

    A character is asked for when it is first seen: all there are would take two seconds.
    """
    import numpy as np
    from tokenizers import pre_tokenizers

    table = _table(digits)
    kinds = table[chars]
    if (kinds == UNSEEN).any():
        new = np.unique(chars[kinds == UNSEEN]).astype(np.uint32)
        text, fresh = new.tobytes().decode("utf-32-le"), np.full(len(new), OTHER, np.uint8)
        for kind, expression in ((LETTER, r"\p{L}+"), (NUMBER, r"\p{N}+"), (SPACE, r"\s+")):
            fresh[matched(expression, text)] = kind
        if digits:  # runs of others and of digits take turns
            for _, (a, b) in pre_tokenizers.Digits(individual_digits=False).pre_tokenize_str(
                "a" + text
            )[1::2]:
                fresh[a - 1 : b - 1] = DIGIT
        table[new] = fresh
        kinds = table[chars]
    return kinds


@cache
def same(letter: str) -> list[int]:
    """All characters that the engine takes for a letter when case does not matter (the long s is an s)."""
    text = "".join(map(chr, range(0x3000)))  # a test holds that there are none behind
    return [code for code, hit in enumerate(matched(f"(?i:{letter})", text)) if hit]
