"""Questions about a corpus of any text that a base model answers by going on: they need no labels, only the text.

recitation  the first tokens of a passage; the answer is how it goes on, by how often the passage occurs
names       the words before a name (a word with a capital inside a sentence), by how often the corpus mentions it
examples    "word : thing ;" lists in which only the examples show what belongs behind the colon
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from llmstages.plugins.evaluate import ngram_index
from llmstages.text import chat_format
from llmstages.text.messages import message

COPIES = ((1, "1 copy"), (2, "2 to 3 copies"), (4, "4 to 15 copies"), (16, "16 or more copies"))
MENTIONS = ((2, "2 to 9 mentions"), (10, "10 to 99 mentions"), (100, "100 or more mentions"))
NAME = re.compile(r"(?:(?<=[^\W_] )|(?<=[^\W_], ))[^\W\d_]{3,}(?=[\s.,;:!?'’)])")
WORD = re.compile(r"(?<![^\s])[^\W\d_]{4,12}(?=[\s.,;])")
KEPT = 200_000  # runs or names remembered at once
BEFORE, LEAST = 200, 40  # characters before a name: at most, at least
SHOTS = (0, 1, 2, 4)


def question(task: str, group: str, prompt: str, answer: str, between: str = " ") -> dict[str, Any]:
    """One row, as in a problems artifact. between: what stands between prompt and answer."""
    return {
        "task": task,
        "group": group,
        "prompt": [message("user", prompt)],
        "answer": answer,
        "style": "plain",
        "role": "test",
        "meta": json.dumps({"between": between}),
    }


def group_of(groups: Sequence[tuple[int, str]], count: int) -> str | None:
    """The last group whose least number the count reaches."""
    return next((name for least, name in reversed(groups) if count >= least), None)


def recitations(
    shard: Any, tokenizer: Any, begin: int, end: int, per_group: int, most: int, rng: random.Random
) -> list[dict[str, Any]]:
    """``begin`` tokens of a passage and the whole words of the next ``end``; passages do not overlap.

    Beginnings of documents are taken first: a base model has read them just so, behind BOS, and a passage from the middle never.
    """
    import numpy as np

    length, rows = begin + end, []
    first, often = ngram_index.counted(shard, length, most, KEPT)
    order = list(range(len(first)))
    rng.shuffle(order)
    opens = np.isin(first, shard.starts)
    order.sort(key=lambda index: not opens[index])
    have: Counter[str] = Counter()
    taken: set[int] = set()
    for index in order:
        place, group = int(first[index]), group_of(COPIES, int(often[index])) or ""
        if (
            have[group] >= per_group
            or {place // length - 1, place // length, place // length + 1} & taken
        ):
            continue
        ids = shard.ids[place : place + length].tolist()
        prompt, whole = (
            chat_format.decode(tokenizer, ids[:begin]),
            chat_format.decode(tokenizer, ids),
        )
        rest = whole[len(prompt) :] if whole.startswith(prompt) else ""
        answer = (
            rest.strip().rsplit(maxsplit=1)[0] if rest.strip() else ""
        )  # without the last word, which may be cut
        if (
            len(answer.split()) < 2
            or chat_format.encode_texts(tokenizer, [prompt])[0] != ids[:begin]
        ):  # the model would be asked something else
            continue
        taken.add(place // length)
        have[group] += 1
        rows.append(
            question(
                "recitation by copies",
                group,
                prompt,
                answer,
                rest[: len(rest) - len(rest.lstrip())],
            )
        )
    return rows


def names(texts: Iterable[str], per_group: int, rng: random.Random) -> list[dict[str, Any]]:
    """For each name one of its places, drawn at random, where the words before do not give it away."""
    found: dict[
        str, list[Any]
    ] = {}  # name -> [mentions, places to choose from, words before the one chosen]
    for text in texts:
        for match in NAME.finditer(text):
            name = match[0]
            if not (name[0].isupper() and name[1:].islower()):
                continue
            entry = found.setdefault(name, [0, 0, ""])
            entry[0] += 1
            before = text[max(0, match.start() - BEFORE) : match.start() - 1]
            before = before if match.start() <= BEFORE else before.partition(" ")[2]
            if len(before) >= LEAST and name not in before:
                entry[1] += 1
                entry[2] = before if rng.randrange(entry[1]) == 0 else entry[2]
        if len(found) > 2 * KEPT:  # the rare ones are the many; those met often come back
            found = dict(sorted(found.items(), key=lambda item: -item[1][0])[:KEPT])
    rows, order = [], sorted(found)
    rng.shuffle(order)
    have: Counter[str] = Counter()
    for name in order:
        often, places, before = found[name]
        group = group_of(MENTIONS, often)
        if group and places and have[group] < per_group:
            have[group] += 1
            rows.append(question("names by mentions", group, before, name))
    return rows


def examples(texts: Iterable[str], each: int, rng: random.Random) -> list[dict[str, Any]]:
    """Lists of common words of the corpus, ``each`` for every number of examples. What belongs behind the colon: the same word,
    the word with a capital, or the second of two."""
    common = Counter(word for text in texts for word in WORD.findall(text) if word.islower())
    words = [word for word, _ in common.most_common(300)]
    rows: list[dict[str, Any]] = []
    if len(words) < 20:
        return rows
    for shots in SHOTS:
        for index in range(each):
            kind, chosen = index % 3, rng.sample(words, 2 * (shots + 1))
            pairs = [
                (a, a) if kind == 0 else (a, a.capitalize()) if kind == 1 else (f"{a} {b}", b)
                for a, b in zip(chosen[::2], chosen[1::2], strict=True)
            ]
            shown = "".join(f"{left} : {right} ; " for left, right in pairs[:-1])
            rows.append(
                question(
                    "pattern from examples",
                    f"{shots} example{'s' * (shots != 1)}",
                    f"{shown}{pairs[-1][0]} :",
                    pairs[-1][1],
                )
            )
    return rows
